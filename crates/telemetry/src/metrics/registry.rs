//! What has been received, by who sent it, and its sums.
//!
//! A front or daemon that has ended has counted what it has counted: its last counters stay in
//! the sums. Only what is true *now* (requests in flight, phases) is taken from those that are
//! there. What was received is [saved] for the next process of this role, so that the sums go on
//! where they were.

mod saved;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mfserv_core::names::WatcherName;
use mfserv_core::wire::front::TroubleCause;
use mfserv_core::wire::metrics::{
    Answerer, FrontCounters, Histogram, Load, NodeCounters, REST, Requests, Source, ToTelemetry,
};

use mfserv_platform::clock::now_ms;
use serde::{Deserialize, Serialize};

use super::changes::{Changes, OfFronts, Reading};
use super::statsd::Timing;
use super::table::{ROWS_MAX, add_timed, row};
use crate::ship::Progress;
pub use saved::Store;
use saved::{Unsaved, pairs};

/// The most processes whose counters are kept apart. Beyond it those of the oldest one that has
/// ended are added up.
const SOURCES_MAX: usize = 32;
/// A process that is connected and says nothing for so long is not there: it hangs, or was stopped.
/// (Each sends a message a second.)
const SILENT: Duration = Duration::from_secs(5);
/// Daemon and front of a node that starts begin so long before this process at most, milliseconds.
const TOGETHER_MS: u64 = 10_000;
/// How long processes that an earlier one heard may take to connect. (They try once a second.)
const SETTLING: Duration = Duration::from_secs(5);

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
    began: Instant,
    unsaved: Unsaved,
    /// What was dropped on the way to others, by what; empty where nothing is sent.
    pub dropped: BTreeMap<&'static str, u64>,
    /// How far each log is on its way to each kind of receiver.
    pub shipped: BTreeMap<(String, &'static str), Progress>,
}

#[derive(Default, Serialize, Deserialize)]
struct Entry {
    connections: u32,
    /// A process before this one knew it.
    #[serde(skip)]
    is_restored: bool,
    /// It was connected to that one: it may have counted more since that has
    /// saved its counters.
    #[serde(skip)]
    is_awaited: bool,
    /// When this process heard it last; `None`: what is known of it is from an earlier one.
    #[serde(skip)]
    heard: Option<Instant>,
    last: u64,
    /// The last message of a front, without its requests.
    front: Option<FrontCounters>,
    #[serde(with = "pairs")]
    requests: BTreeMap<Subject, Requests>,
    node: Option<NodeCounters>,
}

impl Entry {
    fn is_there(&self) -> bool {
        self.connections > 0 && self.heard.is_some_and(|heard| heard.elapsed() < SILENT)
    }
}

/// Counters of several processes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums {
    /// By plugin, app and what answers.
    #[serde(with = "pairs")]
    pub requests: BTreeMap<Subject, Requests>,
    /// By upstream: only `queued` and `retried` of those that have ended.
    pub load: BTreeMap<String, Load>,
    /// Client connections open now.
    pub connections: u64,
    /// Client connections accepted.
    pub accepted: u64,
    /// Requests in work now.
    pub busy: u64,
    /// TLS handshakes by outcome.
    #[serde(default)]
    pub handshakes: BTreeMap<String, u64>,
    /// Ends of workers by reason.
    #[serde(with = "pairs")]
    pub ends: BTreeMap<(WatcherName, String), u64>,
    /// Times of starts.
    pub boots: BTreeMap<WatcherName, Histogram>,
    /// What workers did wrong.
    #[serde(with = "pairs")]
    pub troubles: BTreeMap<(WatcherName, TroubleCause), u64>,
    /// By kind and outcome: how many, and milliseconds.
    #[serde(with = "pairs")]
    pub operations: BTreeMap<(String, String), (u64, u64)>,
    /// By job (`PLUGIN.NAME`) and result: how many runs, and milliseconds.
    #[serde(default, with = "pairs")]
    pub runs: BTreeMap<(String, String), (u64, u64)>,
}

/// The registry at one instant.
pub struct Snapshot {
    /// The sums over all processes.
    pub sums: Sums,
    /// What the daemon that is there said last, with who it is.
    pub node: Option<(Source, NodeCounters)>,
    /// How many fronts are there.
    pub fronts: u64,
    /// See [`Registry::is_settled`].
    pub is_settled: bool,
    /// What was dropped on the way to others, by what.
    pub dropped: BTreeMap<&'static str, u64>,
    /// How far each log is on its way to each kind of receiver.
    pub shipped: BTreeMap<(String, &'static str), Progress>,
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
            began: Instant::now(),
            unsaved: Unsaved::default(),
            dropped: BTreeMap::new(),
            shipped: BTreeMap::new(),
        }
    }

    /// What was counted since the last time, and what is true now.
    pub fn read_changes(&mut self) -> Reading {
        let Changes { requests, ends, accepted } = std::mem::take(&mut self.changes);
        let mut reading = Reading { requests, ends, accepted, ..Reading::default() };
        for (_, entry) in self.there() {
            let Some(front) = &entry.front else { continue };
            let fronts = reading.fronts.get_or_insert_with(OfFronts::default);
            fronts.connections += front.connections;
            fronts.in_work += front.busy;
            let load = front.load.iter().filter(|load| load.in_flight + load.waiting > 0);
            let load = load.map(|load| (load.upstream.clone(), load.in_flight, load.waiting));
            fronts.load.extend(load);
        }
        reading.watchers = self.node().map(|(_, node)| node.watchers.clone());
        reading
    }

    /// The processes that send their counters now.
    fn there(&self) -> impl Iterator<Item = (&Source, &Entry)> {
        self.sources.iter().filter(|(_, entry)| entry.is_there())
    }

    /// False while the sums may be smaller than those that an earlier process has shown.
    pub fn is_settled(&self) -> bool {
        let is_awaited = |entry: &Entry| entry.is_awaited && entry.heard.is_none();
        self.began.elapsed() >= SETTLING || !self.sources.values().any(is_awaited)
    }

    /// What the daemon that is there said last, with who it is.
    pub fn node(&self) -> Option<(&Source, &NodeCounters)> {
        let daemons = self.there().filter(|(_, entry)| entry.node.is_some());
        let (source, entry) = daemons.max_by_key(|(_, entry)| entry.last)?;
        Some((source, entry.node.as_ref()?))
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
        if !self.sources.contains_key(source) {
            // The next process shall know that this one had heard it.
            self.unsaved = Unsaved::Sources;
        }
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
            // It may have sent its last counters.
            self.unsaved = Unsaved::Sources;
        }
    }

    /// A process has sent this.
    pub fn receive(&mut self, source: &Source, mut message: ToTelemetry) {
        if let ToTelemetry::Front(front) = &mut message {
            self.time(front);
        }
        self.touch(source);
        let Some(entry) = self.sources.get_mut(source) else { return };
        // What a process had counted before this one heard it was counted at an unknown time,
        // unless it is new: this one has not begun much later, and no earlier one knew it.
        let is_new = !entry.is_restored && source.since_ms + TOGETHER_MS >= self.since_ms;
        let counts = is_new || entry.heard.is_some();
        if !matches!(message, ToTelemetry::Hello(_)) {
            entry.heard = Some(Instant::now());
        }
        self.unsaved.notice(&message, entry.node.as_ref());
        match message {
            ToTelemetry::Hello(_) => {}
            ToTelemetry::Node(node) => {
                if counts {
                    self.changes.add_node(&node, entry.node.as_ref());
                }
                entry.node = Some(*node);
            }
            ToTelemetry::Front(mut front) => {
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
        Snapshot {
            sums,
            node: self.node().map(|(source, node)| (source.clone(), node.clone())),
            dropped: self.dropped.clone(),
            shipped: self.shipped.clone(),
            is_settled: self.is_settled(),
            fronts: self.there().filter(|(_, entry)| entry.front.is_some()).count() as u64,
        }
    }
}

impl Sums {
    fn add(&mut self, entry: &Entry) {
        let lives = entry.is_there();
        for (subject, requests) in &entry.requests {
            let empty = || empty_like(requests);
            row(&mut self.requests, subject.clone(), rest, empty).add(requests);
        }
        if let Some(front) = &entry.front {
            self.accepted += front.accepted;
            for (outcome, count) in front.handshakes.iter().filter(|(_, count)| *count > 0) {
                *row(&mut self.handshakes, outcome.clone(), || REST.into(), || 0) += count;
            }
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
            let key = (trouble.watcher.clone(), trouble.what);
            let other = || (other(), TroubleCause::Other);
            *row(&mut self.troubles, key, other, || 0) += trouble.count;
        }
        for done in &node.operations {
            let (key, outcome) = (done.operation.clone(), &done.outcome);
            add_timed(&mut self.operations, (key, outcome), (done.count, done.sum_ms));
        }
        for done in &node.runs {
            let (key, result) = (done.job.clone(), &done.result);
            add_timed(&mut self.runs, (key, result), (done.count, done.sum_ms));
        }
    }
}

fn rest() -> Subject {
    (REST.into(), String::new(), Answerer::Front)
}

fn empty_like(of: &Requests) -> Requests {
    Requests::new(&of.plugin, &of.app, of.by)
}

#[cfg(test)]
mod tests;
