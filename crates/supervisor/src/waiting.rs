//! Those who wait until watchers are where they should be.

use std::collections::BTreeMap;

use mfserv_core::names::WatcherName;
use mfserv_core::{Diagnostic, Kind};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::watcher::Watcher;

/// After this many failed starts of a watcher, waiting for it is pointless.
const FAILED_STARTS: u64 = 2;

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Every slot is served by a worker of the present plan.
    Settled,
    /// Settled, or known to be failing (a start need not wait for a broken app).
    Tried,
    /// The prepared workers are ready; one of them that fails is the end of it.
    Prepared,
    /// Nothing lives any more.
    Gone,
}

pub(crate) struct Waiting {
    pub until: Until,
    pub watchers: Vec<WatcherName>,
    /// Failed starts of each when the waiting began, of the kind that matters.
    pub failed_before: BTreeMap<WatcherName, u64>,
    pub deadline: Instant,
    pub reply: oneshot::Sender<Result<(), Diagnostic>>,
}

impl Waiting {
    /// The outcome, once there is one.
    pub fn outcome(&self, all: &BTreeMap<WatcherName, Watcher>) -> Option<Result<(), Diagnostic>> {
        let mut there = true;
        for name in &self.watchers {
            let Some(watcher) = all.get(name) else { continue };
            let before = self.failed_before.get(name).copied().unwrap_or(0);
            let failing = watcher.failed_starts >= before + FAILED_STARTS;
            match self.until {
                Until::Prepared if watcher.failed_prepared > before => {
                    return Some(Err(failed(watcher)));
                }
                Until::Settled if failing => return Some(Err(failed(watcher))),
                Until::Tried => there &= failing || self.is_reached(watcher),
                _ => there &= self.is_reached(watcher),
            }
        }
        if there {
            return Some(Ok(()));
        }
        (Instant::now() >= self.deadline).then(|| Err(self.too_late(all)))
    }

    fn too_late(&self, all: &BTreeMap<WatcherName, Watcher>) -> Diagnostic {
        let late = self.watchers.iter().filter_map(|name| all.get(name));
        let late = late.filter(|watcher| !self.is_reached(watcher));
        let problem = Diagnostic::error("it takes longer than it was given").kind(Kind::Timeout);
        let problem = late.fold(problem, |problem, w| problem.because(self.state_of(w)));
        problem.help(match self.until {
            Until::Prepared => {
                "what served before goes on serving; `mfserv logs` shows what the new workers say"
            }
            _ => "`mfserv status` shows where it is; `mfserv logs` shows what it says",
        })
    }

    /// It is where it should be.
    fn is_reached(&self, watcher: &Watcher) -> bool {
        match self.until {
            Until::Prepared => watcher.is_prepared(),
            Until::Gone => watcher.workers.is_empty(),
            Until::Tried | Until::Settled => watcher.settled(),
        }
    }

    fn state_of(&self, watcher: &Watcher) -> String {
        let name = &watcher.name;
        match self.until {
            Until::Prepared => {
                let (ready, all) = watcher.prepared();
                format!("{name}: {ready} of {all} new workers are ready")
            }
            Until::Gone => format!("{name}: {} workers still live", watcher.workers.len()),
            _ => format!(
                "{name}: {} of {} ready, {}",
                watcher.ready(),
                watcher.count,
                watcher.state()
            ),
        }
    }
}

fn failed(watcher: &Watcher) -> Diagnostic {
    let mut problem = Diagnostic::error(format!("{} does not start", watcher.name));
    if let Some(end) = &watcher.last_end {
        problem = problem.because(format!("{}: {}", end.worker, end.why));
        if !end.last_output.is_empty() {
            problem = problem.because(format!("its last lines:\n{}", end.last_output.trim_end()));
        }
    }
    problem.help(format!(
        "`mfserv logs {}` shows the rest; what served before goes on serving",
        watcher.name.plugin().unwrap_or(watcher.name.as_str())
    ))
}
