//! What has been received, by who sent it, and its sums.
//!
//! A front or daemon that has ended has counted what it has counted: its last counters stay in
//! the sums. Only what is true *now* (requests in flight, phases) is taken from those that are
//! connected.

use std::collections::BTreeMap;

use mfserv_core::names::WatcherName;
use mfserv_core::wire::front::TroubleCause;
use mfserv_core::wire::metrics::{
    Answerer, FrontCounters, Histogram, Load, NodeCounters, REST, Requests, Source, ToTelemetry,
};

use mfserv_platform::clock::now_ms;

use super::changes::{Changes, Reading};
use super::statsd::Timing;

/// The most processes whose counters are kept apart. Beyond it those of the oldest one that has
/// ended are added up.
const SOURCES_MAX: usize = 32;
/// The most rows of a table of sums.
const ROWS_MAX: usize = 10_000;

/// Of whom a row of requests is.
pub type Subject = (String, String, Answerer);

/// The durations of requests since they were last taken, by subject and status.
pub type Timings = BTreeMap<(String, String, Answerer, u16), Timing>;

/// What has been received.
pub struct Registry {
    sources: BTreeMap<Source, Entry>,
    /// What has been counted by processes that are not in `sources` any more.
    past: Sums,
    /// Orders the entries by their last message.
    clock: u64,
    /// `None` where nobody takes them.
    timings: Option<Timings>,
    changes: Changes,
    /// Since when counters are received, milliseconds since the Unix epoch.
    since_ms: u64,
    /// What was dropped on the way to others, by what; empty where nothing is sent.
    pub dropped: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
struct Entry {
    connections: u32,
    last: u64,
    /// The last message of a front, without its requests.
    front: Option<FrontCounters>,
    requests: BTreeMap<Subject, Requests>,
    node: Option<NodeCounters>,
}

/// Counters of several processes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sums {
    /// By plugin, app and what answers.
    pub requests: BTreeMap<Subject, Requests>,
    /// By upstream: only `queued` and `retried` of those that have ended.
    pub load: BTreeMap<String, Load>,
    /// Client connections open now.
    pub connections: u64,
    /// Client connections accepted.
    pub accepted: u64,
    /// Requests in work now.
    pub busy: u64,
    /// Ends of workers by reason.
    pub ends: BTreeMap<(WatcherName, String), u64>,
    /// Times of starts.
    pub boots: BTreeMap<WatcherName, Histogram>,
    /// What workers did wrong.
    pub troubles: BTreeMap<(WatcherName, &'static str), u64>,
    /// By kind and outcome: how many, and milliseconds.
    pub operations: BTreeMap<(String, String), (u64, u64)>,
}

/// The registry at one instant.
pub struct Snapshot {
    /// The sums over all processes.
    pub sums: Sums,
    /// What the connected daemon said last, with who it is.
    pub node: Option<(Source, NodeCounters)>,
    /// How many fronts are connected.
    pub fronts: u64,
    /// What was dropped on the way to others, by what.
    pub dropped: BTreeMap<&'static str, u64>,
}

impl Registry {
    /// Nothing has been received. `times`: the durations of requests will be taken.
    pub fn new(times: bool) -> Self {
        let timings = times.then(Timings::new);
        Self {
            sources: BTreeMap::new(),
            past: Sums::default(),
            clock: 0,
            timings,
            changes: Changes::default(),
            since_ms: now_ms(),
            dropped: BTreeMap::new(),
        }
    }

    /// What was counted since the last time, and what is true now.
    pub fn read_changes(&mut self) -> Reading {
        let Changes { requests, ends, accepted } = std::mem::take(&mut self.changes);
        let mut reading = Reading { requests, ends, accepted, ..Reading::default() };
        let connected = || self.sources.values().filter(|entry| entry.connections > 0);
        for front in connected().filter_map(|entry| entry.front.as_ref()) {
            reading.connections += front.connections;
            reading.in_work += front.busy;
            let load = front.load.iter().filter(|load| load.in_flight + load.waiting > 0);
            let load = load.map(|load| (load.upstream.clone(), load.in_flight, load.waiting));
            reading.load.extend(load);
        }
        let daemon =
            connected().filter(|entry| entry.node.is_some()).max_by_key(|entry| entry.last);
        let node = daemon.and_then(|entry| entry.node.as_ref());
        reading.watchers = node.map(|node| node.watchers.clone());
        reading
    }

    /// The durations of requests since the last time.
    pub fn take_timings(&mut self) -> Timings {
        self.timings.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn time(&mut self, front: &mut FrontCounters) {
        for requests in &mut front.requests {
            let timers = std::mem::take(&mut requests.timers);
            let Some(timings) = &mut self.timings else { continue };
            for timer in timers {
                let key =
                    (requests.plugin.clone(), requests.app.clone(), requests.by, timer.status);
                let rest = || (REST.into(), String::new(), Answerer::Front, 0);
                row(timings, key, rest, Timing::default).add_timer(&timer);
            }
        }
    }

    /// A process has connected.
    pub fn connected(&mut self, source: &Source) {
        self.touch(source).connections += 1;
        while self.sources.len() > SOURCES_MAX {
            let ended = self.sources.iter().filter(|(_, entry)| entry.connections == 0);
            let Some((oldest, _)) = ended.min_by_key(|(_, entry)| entry.last) else { return };
            let oldest = oldest.clone();
            if let Some(entry) = self.sources.remove(&oldest) {
                self.past.add(&entry);
            }
        }
    }

    /// A connection of a process has ended.
    pub fn disconnected(&mut self, source: &Source) {
        if let Some(entry) = self.sources.get_mut(source) {
            entry.connections = entry.connections.saturating_sub(1);
        }
    }

    /// A process has sent this.
    pub fn receive(&mut self, source: &Source, mut message: ToTelemetry) {
        if let ToTelemetry::Front(front) = &mut message {
            self.time(front);
        }
        self.touch(source);
        let Some(entry) = self.sources.get_mut(source) else { return };
        // What a process had counted before this one began was counted at an unknown time.
        let is_new = source.since_ms >= self.since_ms;
        match message {
            ToTelemetry::Hello(_) => {}
            ToTelemetry::Node(node) => {
                if is_new || entry.node.is_some() {
                    self.changes.add_node(&node, entry.node.as_ref());
                }
                entry.node = Some(*node);
            }
            ToTelemetry::Front(mut front) => {
                let counts = is_new || entry.front.is_some();
                if counts {
                    self.changes.add_front(&front, entry.front.as_ref());
                }
                for requests in std::mem::take(&mut front.requests) {
                    let subject = (requests.plugin.clone(), requests.app.clone(), requests.by);
                    let before = entry.requests.get(&subject);
                    if counts && (before.is_some() || entry.requests.len() < ROWS_MAX) {
                        self.changes.add_requests(&requests, before);
                    }
                    // The counters of a process replace what it said before.
                    let empty = empty_like(&requests);
                    *row(&mut entry.requests, subject, rest, || empty) = requests;
                }
                entry.front = Some(*front);
            }
        }
    }

    fn touch(&mut self, source: &Source) -> &mut Entry {
        self.clock += 1;
        let entry = self.sources.entry(source.clone()).or_default();
        entry.last = self.clock;
        entry
    }

    /// The sums now.
    pub fn snapshot(&self) -> Snapshot {
        let mut sums = self.past.clone();
        self.sources.values().for_each(|entry| sums.add(entry));
        let connected = || self.sources.iter().filter(|(_, entry)| entry.connections > 0);
        let nodes = connected()
            .filter_map(|(source, entry)| Some((entry.last, source.clone(), entry.node.clone()?)));
        Snapshot {
            sums,
            node: nodes.max_by_key(|(last, ..)| *last).map(|(_, source, node)| (source, node)),
            dropped: self.dropped.clone(),
            fronts: connected().filter(|(_, entry)| entry.front.is_some()).count() as u64,
        }
    }
}

impl Sums {
    fn add(&mut self, entry: &Entry) {
        let lives = entry.connections > 0;
        for (subject, requests) in &entry.requests {
            let empty = || empty_like(requests);
            row(&mut self.requests, subject.clone(), rest, empty).add(requests);
        }
        if let Some(front) = &entry.front {
            self.accepted += front.accepted;
            if lives {
                self.connections += front.connections;
                self.busy += front.busy;
            }
            for load in &front.load {
                let named = || Load { upstream: load.upstream.clone(), ..Load::default() };
                let sum = row(&mut self.load, load.upstream.clone(), || REST.into(), named);
                sum.queued += load.queued;
                sum.retried += load.retried;
                if lives {
                    sum.in_flight += load.in_flight;
                    sum.waiting += load.waiting;
                }
            }
        }
        if let Some(node) = &entry.node {
            self.add_node(node);
        }
    }

    fn add_node(&mut self, node: &NodeCounters) {
        let other = || WatcherName::from(REST);
        for end in &node.ends {
            let key = (end.watcher.clone(), end.what.clone());
            *row(&mut self.ends, key, || (other(), String::new()), || 0) += end.count;
        }
        for (watcher, boots) in &node.boots {
            row(&mut self.boots, watcher.clone(), other, Histogram::default).add(boots);
        }
        for trouble in &node.troubles {
            let key = (trouble.watcher.clone(), trouble.what.as_str());
            let other = || (other(), TroubleCause::Other.as_str());
            *row(&mut self.troubles, key, other, || 0) += trouble.count;
        }
        for done in &node.operations {
            let key = (done.operation.clone(), done.outcome.clone());
            let other = || (REST.into(), done.outcome.clone());
            let sum = row(&mut self.operations, key, other, || (0, 0));
            *sum = (sum.0 + done.count, sum.1.saturating_add(done.sum_ms));
        }
    }
}

/// The row of a key; that of the rest if the table is full.
fn row<K: Ord, T>(
    table: &mut BTreeMap<K, T>,
    key: K,
    rest: impl FnOnce() -> K,
    new: impl FnOnce() -> T,
) -> &mut T {
    let is_full = table.len() >= ROWS_MAX && !table.contains_key(&key);
    table.entry(if is_full { rest() } else { key }).or_insert_with(new)
}

fn rest() -> Subject {
    (REST.into(), String::new(), Answerer::Front)
}

fn empty_like(of: &Requests) -> Requests {
    Requests::new(&of.plugin, &of.app, of.by)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(pid: u32) -> Source {
        Source { pid, since_ms: u64::from(pid), version: "1".into() }
    }

    fn front(app: &str, requests: u64, in_flight: u64) -> ToTelemetry {
        let mut row = Requests::new("shop", app, Answerer::Dynamic);
        row.statuses.push((200, requests));
        row.duration.buckets[0] = requests;
        let load = Load { upstream: format!("shop/{app}"), in_flight, ..Load::default() };
        let counters =
            FrontCounters { requests: vec![row], load: vec![load], ..FrontCounters::default() };
        ToTelemetry::Front(Box::new(counters))
    }

    fn requests(registry: &Registry) -> u64 {
        let sums = registry.snapshot().sums;
        sums.requests.values().map(|row| row.duration.count()).sum()
    }

    #[test]
    fn counters_of_a_process_replace_its_former_ones_and_stay_when_it_has_ended() {
        let mut registry = Registry::new(false);
        for (pid, counts) in [(1, [5, 9]), (2, [1, 2])] {
            registry.connected(&source(pid));
            for count in counts {
                registry.receive(&source(pid), front("web", count, 3));
            }
        }
        let sums = registry.snapshot().sums;
        assert_eq!((requests(&registry), sums.load["shop/web"].in_flight), (11, 6));
        registry.disconnected(&source(1));
        let sums = registry.snapshot().sums;
        assert_eq!((requests(&registry), sums.load["shop/web"].in_flight), (11, 3));
        // The same process connects again: it is not counted twice.
        registry.connected(&source(1));
        registry.receive(&source(1), front("web", 10, 0));
        assert_eq!(requests(&registry), 12);
    }

    #[test]
    fn changes_are_those_between_messages_of_one_process_whoever_comes_and_goes() {
        let mut registry = Registry::new(false);
        let requests = |registry: &mut Registry| {
            let reading = registry.read_changes();
            let changed =
                reading.requests.values().map(|sample| (sample.classes[0], sample.buckets[0]));
            changed.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1))
        };
        let (old, new) = (source(1), Source { since_ms: now_ms(), ..source(2) });
        // A front that lives since long before connects to a role that has just begun.
        registry.connected(&old);
        registry.receive(&old, front("web", 1_000_000, 0));
        assert_eq!(requests(&mut registry), (0, 0));
        registry.receive(&old, front("web", 1_000_007, 0));
        // Its first requests of another app.
        registry.receive(&old, front("api", 2, 0));
        assert_eq!(requests(&mut registry), (9, 9));
        registry.connected(&new);
        registry.receive(&new, front("web", 3, 0));
        registry.disconnected(&old);
        assert_eq!(requests(&mut registry), (3, 3), "a new front begins at 0");
        registry.receive(&new, front("web", 1, 0));
        assert_eq!(requests(&mut registry), (0, 0), "counters that shrink");
    }

    #[test]
    fn processes_that_come_and_go_for_ever_are_summed_in_bounded_memory() {
        let mut registry = Registry::new(false);
        for pid in 0..100 {
            registry.connected(&source(pid));
            registry.receive(&source(pid), front("web", 2, 1));
            registry.disconnected(&source(pid));
        }
        assert!(registry.sources.len() <= SOURCES_MAX, "{}", registry.sources.len());
        assert_eq!(requests(&registry), 200);
        assert_eq!(registry.snapshot().sums.load["shop/web"].in_flight, 0);
    }

    #[test]
    fn invented_apps_end_in_the_row_of_the_rest() {
        let mut registry = Registry::new(false);
        for number in 0..ROWS_MAX + 7 {
            // Each process invents another name.
            let sender = source(number as u32);
            registry.connected(&sender);
            registry.receive(&sender, front(&number.to_string(), 1, 0));
            registry.disconnected(&sender);
        }
        let sums = registry.snapshot().sums;
        assert_eq!(sums.requests.len(), ROWS_MAX + 1);
        assert_eq!(sums.requests[&rest()].duration.count(), 7);
        assert_eq!(sums.load.len(), ROWS_MAX + 1);
    }
}
