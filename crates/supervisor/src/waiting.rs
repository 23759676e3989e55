//! Callers that wait until watchers have reached a state, and callers that follow how far
//! watchers have come.

use std::collections::BTreeMap;
use std::time::Duration;

use mfserv_core::event::EndReason;
use mfserv_core::names::WatcherName;
use mfserv_core::status::{LastEnd, WatcherState};
use mfserv_core::{Diagnostic, Kind, missing_variable, python_modules};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::watcher::Watcher;

/// What a probe says of a worker that listens elsewhere or nowhere.
const NO_PORT: &str = "not listening on its port";
/// What it says then of one that listens somewhere.
const ELSEWHERE: &str = "; it listens on";
const LISTEN: &str = "have the app listen on the port that the variable PORT names (or write {port} \
                      into its command); ";
/// A wait ends when a worker has listened elsewhere than on its port for so long: it will hardly listen
/// there. Some programs open another port first, so a caller with more time waits a quarter of it.
const ELSEWHERE_FOR: Duration = Duration::from_secs(30);
/// A wait for [`Until::Settled`] ends after this many failed starts of a watcher.
const FAILED_STARTS: u64 = 2;

/// The state that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// A ready worker of the present plan serves every slot.
    Settled,
    /// Settled, or known to be failing. (The boot of a node does not wait for a broken app.)
    Tried,
    /// All prepared workers are ready. The wait fails as soon as one of them fails.
    Prepared,
    /// No worker lives any more.
    Gone,
}

/// How far watchers are on the way to an [`Until`], as counts of workers.
///
/// For example, in the middle of a restart of 21 workers `Progress { done: 3, wanted: 21 }` says
/// "3 of 21 workers replaced". What is counted depends on the [`Until`]: replaced or started
/// workers (`Settled`, `Tried`), prepared workers that are ready (`Prepared`), workers that have
/// ended (`Gone`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Workers that are where they should be.
    pub done: u32,
    /// Workers that are to get there, `done` included.
    pub wanted: u32,
}

/// What a caller is shown who waits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// How far the watchers are.
    pub progress: Progress,
    /// Where a worker listens in place of its port: it will hardly become ready. Empty if none does.
    pub elsewhere: String,
}

/// Why a wait ended without its state being reached. As a [`Diagnostic`] it is a text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unmet {
    /// The workers of a watcher do not start.
    Failed {
        /// The watcher.
        watcher: WatcherName,
        /// How its last worker ended.
        end: Option<Box<LastEnd>>,
    },
    /// The time is over.
    TimedOut {
        /// What was waited for.
        until: Until,
        /// The time that was given.
        after: Duration,
        /// The watchers that have not reached it.
        late: Vec<Late>,
    },
    /// The supervisor has ended, and the daemon with it.
    Ended,
}

/// A watcher that has not reached the awaited state in time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Late {
    /// The watcher.
    pub watcher: WatcherName,
    /// How far it has come.
    pub progress: Progress,
    /// Its state.
    pub state: WatcherState,
    /// What was seen last of a worker that has not come so far; empty if nothing was.
    pub saw: String,
}

/// A caller that waits.
pub(crate) struct Waiting {
    pub until: Until,
    pub watchers: Vec<WatcherName>,
    pub at_most: Duration,
    pub reply: oneshot::Sender<Result<(), Unmet>>,
}

/// A wait that the supervisor has taken up.
pub(crate) struct Wait {
    asked: Waiting,
    pub deadline: Instant,
    /// Failed starts of each watcher when the wait began, of the kind that matters to it.
    failed_before: BTreeMap<WatcherName, u64>,
    /// Since when a worker listens elsewhere than on its port.
    elsewhere_since: Option<Instant>,
}

impl Wait {
    pub fn new(asked: Waiting, all: &BTreeMap<WatcherName, Watcher>) -> Wait {
        let failed = |watcher: &Watcher| match asked.until {
            // What fails between the preparation and the wait has failed, too.
            Until::Prepared => 0,
            // A watcher that failed before the wait began has been tried.
            Until::Tried => 0,
            Until::Settled | Until::Gone => watcher.failed_starts(),
        };
        let failed_before = all.iter().map(|(name, w)| (name.clone(), failed(w))).collect();
        let deadline = Instant::now() + asked.at_most;
        Wait { deadline, asked, failed_before, elsewhere_since: None }
    }

    /// The outcome, once there is one.
    pub fn outcome(&mut self, all: &BTreeMap<WatcherName, Watcher>) -> Option<Result<(), Unmet>> {
        let until = self.asked.until;
        let mut reached = true;
        for name in &self.asked.watchers {
            let Some(watcher) = all.get(name) else { continue };
            let before = self.failed_before.get(name).copied().unwrap_or(0);
            let failing = watcher.failed_starts() >= before + FAILED_STARTS;
            match until {
                Until::Prepared if watcher.failed_preparations() > before => {
                    return Some(Err(failed(watcher)));
                }
                Until::Settled if failing => return Some(Err(failed(watcher))),
                Until::Tried => reached &= failing || watcher.has_reached(until),
                _ => reached &= watcher.has_reached(until),
            }
        }
        if reached {
            return Some(Ok(()));
        }
        let now = Instant::now();
        // A boot waits for nobody in particular.
        let ends = matches!(until, Until::Prepared | Until::Settled);
        let since = elsewhere(&self.asked.watchers, all).filter(|_| ends).map(|_| now);
        self.elsewhere_since = since.map(|now| self.elsewhere_since.unwrap_or(now));
        let patience = ELSEWHERE_FOR.max(self.asked.at_most / 4);
        let is_elsewhere = self.elsewhere_since.is_some_and(|since| now - since >= patience);
        (now >= self.deadline || is_elsewhere).then(|| Err(self.timed_out(all)))
    }

    /// Tells the caller.
    pub fn end(self, outcome: Result<(), Unmet>) {
        let _ = self.asked.reply.send(outcome);
    }

    fn timed_out(&self, all: &BTreeMap<WatcherName, Watcher>) -> Unmet {
        let until = self.asked.until;
        let watchers = self.asked.watchers.iter().filter_map(|name| all.get(name));
        let late = watchers.filter(|watcher| !watcher.has_reached(until)).map(|watcher| Late {
            watcher: watcher.name().clone(),
            progress: watcher.progress(until),
            state: watcher.state(),
            saw: watcher.seen_of_starting(),
        });
        let left = self.deadline.saturating_duration_since(Instant::now());
        let after = match left.is_zero() {
            true => self.asked.at_most,
            false => Duration::from_secs((self.asked.at_most - left).as_secs()),
        };
        Unmet::TimedOut { until, after, late: late.collect() }
    }
}

/// Where a worker that starts listens in place of its port, behind the name of its watcher.
fn elsewhere(watchers: &[WatcherName], all: &BTreeMap<WatcherName, Watcher>) -> Option<String> {
    let watchers = watchers.iter().filter_map(|name| all.get(name));
    let mut seen = watchers.map(|watcher| (watcher.name(), watcher.seen_of_starting()));
    let (name, saw) = seen.find(|(_, saw)| saw.contains(NO_PORT) && saw.contains(ELSEWHERE))?;
    Some(format!("{name}: {saw}"))
}

fn failed(watcher: &Watcher) -> Unmet {
    Unmet::Failed {
        watcher: watcher.name().clone(),
        end: watcher.last_end().cloned().map(Box::new),
    }
}

/// A caller that follows how far watchers have come.
pub(crate) struct Follower {
    until: Until,
    watchers: Vec<WatcherName>,
    /// The most workers that were to get there: of those that are to end, the ended ones are
    /// not known any more.
    most: u32,
    view: watch::Sender<View>,
}

impl Follower {
    pub fn new(until: Until, watchers: Vec<WatcherName>, view: watch::Sender<View>) -> Follower {
        Follower { until, watchers, most: 0, view }
    }

    /// Tells the caller what has changed; false if the caller has gone.
    pub fn update(&mut self, all: &BTreeMap<WatcherName, Watcher>) -> bool {
        let watchers = self.watchers.iter().filter_map(|name| all.get(name));
        let each = watchers.map(|watcher| watcher.progress(self.until));
        let mut now = each.fold(Progress::default(), |sum, one| Progress {
            done: sum.done + one.done,
            wanted: sum.wanted + one.wanted,
        });
        if self.until == Until::Gone {
            self.most = self.most.max(now.wanted);
            now = Progress { done: self.most - now.wanted, wanted: self.most };
        }
        let elsewhere = elsewhere(&self.watchers, all).unwrap_or_default();
        let now = View { progress: now, elsewhere };
        self.view.send_if_modified(|before| {
            let is_new = *before != now;
            *before = now;
            is_new
        });
        !self.view.is_closed()
    }
}

impl From<Unmet> for Diagnostic {
    fn from(unmet: Unmet) -> Diagnostic {
        match unmet {
            Unmet::Failed { watcher, end } => does_not_start(&watcher, end.as_deref()),
            Unmet::TimedOut { until, after, late } => {
                let what = format!("timed out after {} s", after.as_secs_f64());
                let problem = Diagnostic::error(what).kind(Kind::Timeout);
                let reasons = late.iter().map(|late| late.describe(until));
                let problem = reasons.fold(problem, Diagnostic::because);
                let port = late.iter().any(|late| late.saw.contains(NO_PORT));
                let listen = if port { LISTEN } else { "" };
                let look = match until {
                    Until::Prepared => {
                        "what served before goes on serving; `mfserv logs` shows the output of \
                         the new workers"
                    }
                    _ => "`mfserv status` shows the present state; `mfserv logs` shows the output",
                };
                problem.help(format!("{listen}{look}"))
            }
            Unmet::Ended => Diagnostic::error("the supervisor has ended"),
        }
    }
}

impl Late {
    fn describe(&self, until: Until) -> String {
        let (name, Progress { done, wanted }) = (&self.watcher, self.progress);
        let saw = if self.saw.is_empty() { String::new() } else { format!(": {}", self.saw) };
        match until {
            Until::Prepared => format!("{name}: {done} of {wanted} new workers are ready{saw}"),
            Until::Gone => format!("{name}: {} workers still live", wanted - done),
            _ => format!("{name}: {done} of {wanted} ready, {}{saw}", self.state),
        }
    }
}

/// What the last lines of a program say that it lacks: a library of the system, a variable.
fn lacks(output: &str, plugin: &str) -> Option<String> {
    let lines = || output.lines().rev().map(str::trim);
    let library = lines().find_map(|line| {
        let (before, _) = line.split_once(": cannot open shared object file")?;
        before.rsplit([' ', ':']).find(|word| !word.is_empty())
    });
    if let Some(library) = library {
        return Some(format!(
            "install the system's package that has {library} (`apt-file search {library}` names it); "
        ));
    }
    let variable = missing_variable::in_output(output)?;
    Some(format!("{}; ", missing_variable::help(plugin, &variable)))
}

fn does_not_start(watcher: &WatcherName, end: Option<&LastEnd>) -> Diagnostic {
    let mut problem = Diagnostic::error(format!("{watcher} does not start"));
    if let Some(end) = end {
        problem = problem.because(format!("{}: {}", end.worker, end.why));
        if !end.last_output.is_empty() {
            problem = problem.because(format!("its last lines:\n{}", end.last_output.trim_end()));
        }
    }
    let missing = end.and_then(|end| python_modules::missing_in(&end.last_output));
    let declare = missing.map_or(String::new(), |module| {
        let line = python_modules::requirement(module);
        format!(
            "add `{line}` to its list of packages (an app without one: write requirements.txt), and \
             build it again; "
        )
    });
    let plugin = watcher.plugin().unwrap_or(watcher.as_str());
    let lacks = end.and_then(|end| lacks(&end.last_output, plugin)).unwrap_or_default();
    let mend = end.map_or("", |end| match end.why {
        EndReason::Exited { code: 0 } => {
            "a server goes on running: its command has ended by itself, without an error; "
        }
        EndReason::Exited { code: 127 } => {
            "127 is a program that is not there: install it, or mend the command; "
        }
        EndReason::Exited { code: 126 } => "126 is a program that may not be run (chmod +x); ",
        _ => "",
    });
    problem.help(format!(
        "{declare}{lacks}{mend}`mfserv logs {plugin}` shows the rest; what served before goes on serving"
    ))
}
