//! Those who wait until watchers are where they should be.

use std::collections::BTreeMap;
use std::time::Instant;

use mfserv_core::names::WatcherName;
use mfserv_core::{Diagnostic, Kind};
use tokio::sync::oneshot;

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
                Until::Prepared => there &= watcher.is_prepared(),
                Until::Gone => there &= watcher.workers.is_empty(),
                Until::Tried => there &= failing || watcher.settled(),
                Until::Settled if failing => return Some(Err(failed(watcher))),
                Until::Settled => there &= watcher.settled(),
            }
        }
        if there {
            return Some(Ok(()));
        }
        (Instant::now() >= self.deadline).then(|| Err(self.too_late(all)))
    }

    fn too_late(&self, all: &BTreeMap<WatcherName, Watcher>) -> Diagnostic {
        let late: Vec<String> = self
            .watchers
            .iter()
            .filter_map(|name| all.get(name))
            .filter(
                |w| if self.until == Until::Gone { !w.workers.is_empty() } else { !w.settled() },
            )
            .map(|w| format!("{}: {} of {} ready, {}", w.name, w.ready(), w.count, w.state()))
            .collect();
        Diagnostic::error("it takes longer than it was given")
            .kind(Kind::Timeout)
            .because(late.join("; "))
            .help("`mfserv status` shows where it is; `mfserv logs` shows what it says")
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
