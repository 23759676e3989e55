//! Breakages: plugins under development whose newest code does not start, found from the facts.
//! The front shows them to their developers on a page.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Mutex;

use mfserv_core::event::Fact;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::plan::{Plan, PluginState};
use mfserv_core::wire::front::Breakage;

use super::world::Front;

/// The breakages of the node.
#[derive(Default)]
pub struct Breakages {
    /// The plugins whose workers run from a developer's directory.
    developed: BTreeSet<String>,
    /// Workers that have been ready: their end is no failure to start.
    ready: BTreeSet<WorkerId>,
    /// The newest worker that did not start, by watcher.
    workers: BTreeMap<WatcherName, (u64, Breakage)>,
    /// Configurations that are refused, by plugin.
    configurations: BTreeMap<String, Breakage>,
}

impl Breakages {
    /// Learns from a plan that came into force; `plugins` is the directory of links. True if the
    /// breakages have changed.
    fn follow(&mut self, plan: &Plan, plugins: &Path, now_ms: u64) -> bool {
        let before = self.by_plugin();
        let developed = plan.plugins.iter().filter(|p| p.dir.parent() == Some(plugins));
        self.developed = developed.clone().map(|plugin| plugin.name.clone()).collect();
        self.workers.retain(|watcher, _| plan.watchers.contains_key(watcher));
        let refused = developed.filter(|plugin| plugin.state != PluginState::Active);
        let broken = refused.map(|plugin| {
            let problems = plan.problems.iter().filter(|problem| problem.is_error());
            let own = problems.filter(|problem| problem.is_about(&plugin.name));
            let texts: Vec<String> = own.map(ToString::to_string).collect();
            let since = self.configurations.get(&plugin.name).map_or(now_ms, |known| known.at_ms);
            let what = format!("the configuration of {} is refused", plugin.name);
            let output = texts.join("\n").chars().take(4096).collect();
            (plugin.name.clone(), Breakage { what, output, at_ms: since })
        });
        self.configurations = broken.collect();
        before != self.by_plugin()
    }

    /// Learns from a fact. True if the breakages have changed.
    fn notice(&mut self, fact: &Fact, now_ms: u64) -> bool {
        match fact {
            Fact::WorkerReady { worker, .. } | Fact::WorkerAdopted { worker, .. } => {
                self.ready.insert(worker.clone());
                let older = |(broken, _): &(u64, Breakage)| *broken < worker.incarnation;
                let mended = self.workers.get(&worker.watcher).is_some_and(older);
                mended && self.workers.remove(&worker.watcher).is_some()
            }
            Fact::WorkerEnded { worker, why, last_output, .. } => {
                let was_ready = self.ready.remove(worker);
                let developed = worker.watcher.plugin().is_some_and(|p| self.developed.contains(p));
                if was_ready || !why.is_crash() || !developed {
                    return false;
                }
                let breakage = Breakage {
                    what: format!("{} does not start: {why}", worker.watcher),
                    output: last_output.clone(),
                    at_ms: now_ms,
                };
                self.workers.insert(worker.watcher.clone(), (worker.incarnation, breakage));
                true
            }
            _ => false,
        }
    }

    /// The breakages, by plugin.
    fn by_plugin(&self) -> BTreeMap<String, Breakage> {
        let workers = self.workers.iter().rev().filter_map(|(watcher, (_, breakage))| {
            Some((watcher.plugin()?.to_string(), breakage.clone()))
        });
        let configurations = self.configurations.iter().map(|(name, b)| (name.clone(), b.clone()));
        workers.chain(configurations).collect()
    }
}

/// A fact is recorded at this time; the fronts learn of it if it changes what is broken.
pub fn noticed(breakages: &Mutex<Breakages>, (fact, at_ms): (&Fact, u64), fronts: &dyn Front) {
    let Ok(mut breakages) = breakages.lock() else { return };
    if breakages.notice(fact, at_ms) {
        fronts.broken(breakages.by_plugin());
    }
}

/// A plan is in force since this time; `plugins` is where the links of plugins are.
pub fn followed(
    breakages: &Mutex<Breakages>,
    (plan, at_ms): (&Plan, u64),
    plugins: &Path,
    fronts: &dyn Front,
) {
    let Ok(mut breakages) = breakages.lock() else { return };
    if breakages.follow(plan, plugins, at_ms) {
        fronts.broken(breakages.by_plugin());
    }
}

#[cfg(test)]
mod tests {
    use mfserv_core::event::EndReason;

    use super::*;

    fn worker(incarnation: u64) -> WorkerId {
        format!("app.hello.main.1.{incarnation}").parse().unwrap()
    }

    fn ended(incarnation: u64, why: EndReason) -> Fact {
        Fact::WorkerEnded {
            worker: worker(incarnation),
            why,
            ended: None,
            last_output: "NameError".into(),
            left_behind: 0,
            restart_in_ms: None,
        }
    }

    fn ready(incarnation: u64) -> Fact {
        Fact::WorkerReady { worker: worker(incarnation), after_ms: 1 }
    }

    #[test]
    fn code_is_broken_from_a_start_that_fails_to_a_younger_worker_that_is_ready() {
        let mut breakages =
            Breakages { developed: BTreeSet::from(["hello".into()]), ..Default::default() };
        let failed = || EndReason::Exited { code: 1 };
        assert!(!breakages.notice(&ready(1), 0));
        assert!(breakages.notice(&ended(3, failed()), 5));
        let broken = breakages.by_plugin();
        assert_eq!(broken["hello"].what, "app.hello.main does not start: exited with code 1");
        assert_eq!((broken["hello"].output.as_str(), broken["hello"].at_ms), ("NameError", 5));
        assert!(!breakages.notice(&ready(2), 6), "an older worker says nothing of it");
        assert!(breakages.notice(&ready(4), 7));
        assert!(breakages.by_plugin().is_empty());
        assert!(!breakages.notice(&ended(4, failed()), 8), "it had started");
        let asked = EndReason::Asked { what: "not needed".into() };
        assert!(!breakages.notice(&ended(5, asked), 9), "it was given up");
    }

    #[test]
    fn only_what_runs_from_a_developers_directory_counts() {
        let mut breakages = Breakages::default();
        assert!(!breakages.notice(&ended(3, EndReason::Exited { code: 1 }), 5));
    }
}
