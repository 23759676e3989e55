//! What is published: events of the node as Circus called them, `watcher.NAME.EVENT`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::event::{EndReason, Event, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::plan::Plan;
use mfserv_core::status::WatcherStatus;
use mfserv_core::wire::keeper::Ended;
use mfserv_supervisor::Until;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::super::node::Node;
use super::watchers::shown;

/// The most events that wait for a subscriber, as the high-water mark of ZeroMQ.
const WAITING: usize = 1000;
/// How long a replacement of all workers is followed.
const FOLLOWED: Duration = Duration::from_secs(600);

/// An event as it is sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// `watcher.NAME.EVENT`.
    pub topic: String,
    /// A JSON object.
    pub text: String,
}

impl Published {
    fn new(watcher: &WatcherName, event: &str, at_ms: u64, mut fields: Value) -> Published {
        fields["time"] = json!(at_ms as f64 / 1000.0);
        let name = shown(watcher).to_lowercase();
        Published { topic: format!("watcher.{name}.{event}"), text: fields.to_string() }
    }
}

/// Turns facts and plans into what is published.
pub struct Publisher {
    node: Node,
    facts: broadcast::Receiver<Event>,
    feed: broadcast::Sender<Arc<Published>>,
    plan: Option<Arc<Plan>>,
    seen: Seen,
    /// Facts were missed: which workers live is to be read again.
    missed: bool,
    /// The watchers whose workers are all being replaced.
    renewed: Arc<Mutex<BTreeSet<WatcherName>>>,
}

impl Publisher {
    /// Publishes what happens on this node from now on.
    pub async fn new(node: &Node) -> Publisher {
        let facts = node.parts.events.follow();
        let seen = Seen::new(&node.watchers().await);
        let (feed, _) = broadcast::channel(WAITING);
        let renewed = Arc::default();
        Publisher { node: node.clone(), facts, feed, plan: None, seen, missed: false, renewed }
    }

    /// Where subscribers listen.
    pub fn feed(&self) -> broadcast::Sender<Arc<Published>> {
        self.feed.clone()
    }

    /// This plan is in force.
    pub fn planned(&mut self, plan: &Arc<Plan>) {
        if self.plan.as_ref().is_some_and(|known| Arc::ptr_eq(known, plan)) {
            return;
        }
        if let Some(before) = self.plan.replace(plan.clone()) {
            self.send(self.seen.planned(&before, plan, self.node.parts.world.clock.now_ms()));
        }
    }

    /// Publishes the next fact. Nothing is lost when the future is dropped.
    pub async fn relay(&mut self) {
        if self.missed {
            self.seen = Seen::new(&self.node.watchers().await);
            self.missed = false;
        }
        match self.facts.recv().await {
            Ok(event) => {
                if let Some(watcher) = begins_a_renewal(&event.fact) {
                    self.follow(watcher);
                }
                let wanted = |name: &WatcherName| {
                    let spec = self.plan.as_ref().and_then(|plan| plan.watchers.get(name));
                    spec.is_some_and(|spec| spec.count > 0)
                };
                let published = self.seen.happened(&event, wanted);
                self.send(published);
            }
            // Facts came faster than they could be read: subscribers miss some.
            Err(broadcast::error::RecvError::Lagged(_)) => self.missed = true,
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }

    fn send(&self, published: Vec<Published>) {
        for one in published {
            // Without a subscriber it is for nobody.
            let _ = self.feed.send(Arc::new(one));
        }
    }

    /// Publishes `reload` of a watcher once all of its workers are replaced.
    fn follow(&self, watcher: WatcherName) {
        let begun = |renewed: &Mutex<BTreeSet<WatcherName>>| {
            renewed.lock().is_ok_and(|mut renewed| renewed.insert(watcher.clone()))
        };
        if self.feed.receiver_count() == 0 || !begun(&self.renewed) {
            return;
        }
        let (node, feed, renewed) = (self.node.clone(), self.feed.clone(), self.renewed.clone());
        tokio::spawn(async move {
            let wait = node.parts.supervisor.wait(Until::Settled, vec![watcher.clone()], FOLLOWED);
            if wait.await.is_ok() {
                let now_ms = node.parts.world.clock.now_ms();
                let _ = feed.send(Arc::new(Published::new(&watcher, "reload", now_ms, json!({}))));
            }
            if let Ok(mut renewed) = renewed.lock() {
                renewed.remove(&watcher);
            }
        });
    }
}

/// The watcher whose workers are all being replaced, if this says so of one of them.
fn begins_a_renewal(fact: &Fact) -> Option<WatcherName> {
    let Fact::WorkerRetiring { worker, why } = fact else { return None };
    let is_of_all = match why {
        EndReason::Asked { what } => what == "restart" || what == "configuration changed",
        why => *why == EndReason::FilesChanged,
    };
    (is_of_all && worker.watcher != WatcherName::telemetry()).then(|| worker.watcher.clone())
}

/// What has been seen of workers.
#[derive(Debug, Default)]
struct Seen {
    /// The processes that live.
    pids: BTreeMap<WorkerId, u32>,
}

impl Seen {
    fn new(watchers: &[WatcherStatus]) -> Seen {
        let workers = watchers.iter().flat_map(|watcher| &watcher.workers);
        Seen { pids: workers.filter_map(|one| Some((one.id.clone(), one.pid?))).collect() }
    }

    fn lives(&self, watcher: &WatcherName) -> bool {
        self.pids.keys().any(|worker| worker.watcher == *watcher)
    }

    /// What is said of another plan.
    fn planned(&self, before: &Plan, plan: &Plan, now_ms: u64) -> Vec<Published> {
        let mut all = Vec::new();
        let mut say = |watcher: &WatcherName, event: &str| {
            all.push(Published::new(watcher, event, now_ms, json!({})));
        };
        for (name, spec) in plan.watchers.iter().filter(|(name, _)| is_shown(name)) {
            let was = before.watchers.get(name);
            if was.is_none() {
                say(name, "add");
            }
            if was.is_some_and(|was| was != spec) {
                say(name, "updated");
            }
            if spec.count > 0 && was.is_none_or(|was| was.count == 0) {
                say(name, "start");
            }
        }
        for name in before.watchers.keys().filter(|name| is_shown(name)) {
            if !plan.watchers.contains_key(name) {
                say(name, "remove");
            }
            let is_wanted = |plan: &Plan| plan.watchers.get(name).is_some_and(|it| it.count > 0);
            if is_wanted(before) && !is_wanted(plan) && !self.lives(name) {
                say(name, "stop");
            }
        }
        all
    }

    /// What is said of a fact. `is_wanted`: a watcher shall have workers.
    fn happened(
        &mut self,
        event: &Event,
        is_wanted: impl Fn(&WatcherName) -> bool,
    ) -> Vec<Published> {
        let of = |worker: &WorkerId, name: &str, fields: Value| {
            let published = Published::new(&worker.watcher, name, event.at_ms, fields);
            is_shown(&worker.watcher).then_some(published)
        };
        match &event.fact {
            Fact::WorkerStarted { worker, pid } => {
                self.pids.insert(worker.clone(), *pid);
                of(worker, "spawn", json!({"process_pid": pid})).into_iter().collect()
            }
            Fact::WorkerAdopted { worker, pid } => {
                self.pids.insert(worker.clone(), *pid);
                Vec::new()
            }
            Fact::WorkerRetiring { worker, .. } => {
                let pid = self.pids.get(worker);
                let killed = pid.and_then(|pid| of(worker, "kill", json!({"process_pid": pid})));
                killed.into_iter().collect()
            }
            Fact::WorkerEnded { worker, ended, .. } => {
                let Some(pid) = self.pids.remove(worker) else { return Vec::new() };
                let exit_code = match ended {
                    Some(Ended::Exited { code }) => Some(*code),
                    Some(Ended::Signalled { signal }) => Some(-signal),
                    Some(Ended::Unknown) | None => None,
                };
                let fields = json!({"process_pid": pid, "exit_code": exit_code});
                let is_last = !is_wanted(&worker.watcher) && !self.lives(&worker.watcher);
                let stopped = is_last.then(|| of(worker, "stop", json!({}))).flatten();
                of(worker, "reap", fields).into_iter().chain(stopped).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn is_shown(watcher: &WatcherName) -> bool {
    *watcher != WatcherName::telemetry()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(slot: u32, incarnation: u64) -> WorkerId {
        WorkerId::new(WatcherName::app("Shop", "main"), slot, incarnation)
    }

    fn said(seen: &mut Seen, fact: Fact, wanted: bool) -> Vec<(String, Value)> {
        let published = seen.happened(&Event { at_ms: 1500, fact }, |_| wanted);
        let read = |one: Published| (one.topic, serde_json::from_str(&one.text).unwrap());
        published.into_iter().map(read).collect()
    }

    fn ended(worker: WorkerId, ended: Option<Ended>) -> Fact {
        Fact::WorkerEnded {
            worker,
            why: EndReason::Asked { what: "stop".into() },
            ended,
            last_output: String::new(),
            left_behind: 0,
            restart_in_ms: None,
        }
    }

    #[test]
    fn a_worker_is_spawned_killed_and_reaped_and_the_last_one_stops_its_watcher() {
        let mut seen = Seen::default();
        let name = "watcher.app.shop.main";
        for (slot, pid) in [(1, 11), (2, 12)] {
            let fact = Fact::WorkerStarted { worker: worker(slot, 1), pid };
            let fields = json!({"process_pid": pid, "time": 1.5});
            assert_eq!(said(&mut seen, fact, true), [(format!("{name}.spawn"), fields)]);
        }
        let why = EndReason::Asked { what: "stop".into() };
        let retiring = Fact::WorkerRetiring { worker: worker(1, 1), why };
        let fields = json!({"process_pid": 11, "time": 1.5});
        assert_eq!(said(&mut seen, retiring, false), [(format!("{name}.kill"), fields)]);
        let reap = |pid: u32, exit_code: Option<i32>| {
            let fields = json!({"process_pid": pid, "exit_code": exit_code, "time": 1.5});
            (format!("{name}.reap"), fields)
        };
        let first = ended(worker(1, 1), Some(Ended::Signalled { signal: 15 }));
        assert_eq!(said(&mut seen, first, false), [reap(11, Some(-15))]);
        let second = ended(worker(2, 1), Some(Ended::Exited { code: 3 }));
        let stop = (format!("{name}.stop"), json!({"time": 1.5}));
        assert_eq!(said(&mut seen, second.clone(), false), [reap(12, Some(3)), stop]);
        assert_eq!(said(&mut seen, second, false), [], "it is gone already");
        assert!(seen.pids.is_empty());
    }

    #[test]
    fn the_telemetry_role_is_nobodys_and_an_adopted_process_is_known() {
        let mut seen = Seen::default();
        let role = WorkerId::new(WatcherName::telemetry(), 1, 1);
        let fact = Fact::WorkerStarted { worker: role, pid: 5 };
        assert_eq!(said(&mut seen, fact, true), []);
        let fact = Fact::WorkerAdopted { worker: worker(1, 4), pid: 6 };
        assert_eq!(said(&mut seen, fact, true), []);
        let reaped = said(&mut seen, ended(worker(1, 4), None), true);
        assert_eq!((reaped.len(), &reaped[0].1["exit_code"]), (1, &Value::Null));
    }
}
