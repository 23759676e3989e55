//! The messages to the telemetry role: counters of fronts and of the daemon.
//!
//! The role listens on `var/run/metrics.sock`. Fronts and the daemon send it a message a second;
//! nothing is sent back. Counters count since the process that sends them was started, so a message
//! that is lost is made up for by the next one.

use std::borrow::Borrow;

use serde::{Deserialize, Serialize};

use crate::job::{JobCount, JobSample};
use crate::names::WatcherName;
use crate::node_state::NodeState;
use crate::wire::front::TroubleCause;
use crate::worker::Phase;

/// The upper bounds of the buckets of every [`Histogram`], microseconds; the last has no bound.
pub const BOUNDS_US: [u64; 15] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];
/// The number of buckets of a histogram.
pub const BUCKETS: usize = BOUNDS_US.len() + 1;

/// The methods that are counted by name (RFC 9110, and PATCH); every other one is `other`.
pub const METHODS: [&str; 9] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
/// The number of counters by method.
pub const METHOD_COUNTERS: usize = METHODS.len() + 1;

/// How long a sender waits for its next message, milliseconds: until the middle of a second. Whoever
/// looks at the end of each second then sees one message of each sender.
pub fn until_next_message_ms(now_ms: u64) -> u64 {
    1_000 - (now_ms + 500) % 1_000
}

/// The name of whatever is beyond the maximum of a table.
pub const REST: &str = "#rest#";

/// Durations, counted by size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// How many durations are in each bucket (not in those below).
    pub buckets: [u64; BUCKETS],
    /// The sum of all durations, microseconds.
    pub sum_us: u64,
}

impl Histogram {
    /// Counts a duration, and returns the number of its bucket.
    pub fn observe(&mut self, us: u64) -> usize {
        let bucket = BOUNDS_US.iter().position(|bound| us <= *bound).unwrap_or(BOUNDS_US.len());
        self.buckets[bucket] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
        bucket
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds what another one has counted.
    pub fn add(&mut self, other: &Histogram) {
        for (own, other) in self.buckets.iter_mut().zip(other.buckets) {
            *own += other;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }
}

/// What answers a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answerer {
    /// A worker of the app.
    Dynamic,
    /// Static files.
    Static,
    /// The front itself: its own pages, and requests that no route matches.
    Front,
}

impl Answerer {
    /// The word, as the label `type` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Answerer::Dynamic => "dynamic",
            Answerer::Static => "static",
            Answerer::Front => "front",
        }
    }
}

/// A request that stands for those of its bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exemplar {
    /// The bucket of the duration.
    pub bucket: u8,
    /// Its request id: visible ASCII, at most 64 bytes.
    pub id: String,
    /// Its duration, microseconds.
    pub us: u64,
}

/// The durations of requests with the same status, since the last message.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Timer {
    /// The status.
    pub status: u16,
    /// How many.
    pub count: u64,
    /// Their sum, milliseconds.
    pub sum_ms: u64,
    /// The sum of their squares.
    pub squares: f64,
    /// The shortest, milliseconds.
    pub lower_ms: u64,
    /// The longest, milliseconds.
    pub upper_ms: u64,
    /// Some of them, milliseconds.
    pub values: Vec<u32>,
}

impl Timer {
    /// The most values that are kept of them.
    pub const VALUES_MAX: usize = 100;

    /// Adds a duration.
    pub fn observe(&mut self, ms: u64) {
        self.lower_ms = if self.count == 0 { ms } else { self.lower_ms.min(ms) };
        self.upper_ms = self.upper_ms.max(ms);
        self.count += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
        self.squares += ms as f64 * ms as f64;
        if self.values.len() < Self::VALUES_MAX {
            self.values.push(ms.min(u64::from(u32::MAX)) as u32);
        } else {
            // A value replaces one that is as good as any.
            let at = self.count.wrapping_mul(7919) % Self::VALUES_MAX as u64;
            self.values[at as usize] = ms.min(u64::from(u32::MAX)) as u32;
        }
    }
}

/// The requests of an app.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requests {
    /// The plugin; `#core#`, `#monitoring#` or `#unknown#` for those that go to none.
    pub plugin: String,
    /// The app; empty for those that go to none.
    pub app: String,
    /// What answers them.
    pub by: Answerer,
    /// Requests answered, by status code; 0 = a status that is beyond the maximum of the table.
    pub statuses: Vec<(u16, u64)>,
    /// Requests by method: [`METHODS`], then all others.
    pub methods: [u64; METHOD_COUNTERS],
    /// Time from the head of the request to the end of the answer.
    pub duration: Histogram,
    /// Time that requests waited for a slot; those that waited for none are counted as 0.
    pub wait: Histogram,
    /// Bytes received of the requests.
    pub received: u64,
    /// Bytes sent of the answers.
    pub sent: u64,
    /// Answers that the front gave in place of the app, by cause.
    pub faults: Vec<(String, u64)>,
    /// The last request of each bucket.
    #[serde(default)]
    pub exemplars: Vec<Exemplar>,
    /// What was measured since the last message, by status; of all lanes.
    #[serde(default)]
    pub timers: Vec<Timer>,
}

impl Requests {
    /// No requests of this app yet.
    pub fn new(plugin: &str, app: &str, by: Answerer) -> Self {
        Self {
            plugin: plugin.into(),
            app: app.into(),
            by,
            statuses: Vec::new(),
            methods: [0; METHOD_COUNTERS],
            duration: Histogram::default(),
            wait: Histogram::default(),
            received: 0,
            sent: 0,
            faults: Vec::new(),
            exemplars: Vec::new(),
            timers: Vec::new(),
        }
    }

    /// Adds what another process has counted of the same app; exemplars only where this has none.
    pub fn add(&mut self, other: &Requests) {
        for (status, count) in &other.statuses {
            add(&mut self.statuses, status, *count);
        }
        for (own, other) in self.methods.iter_mut().zip(other.methods) {
            *own += other;
        }
        self.duration.add(&other.duration);
        self.wait.add(&other.wait);
        self.received += other.received;
        self.sent += other.sent;
        for (cause, count) in &other.faults {
            add(&mut self.faults, cause.as_str(), *count);
        }
        for exemplar in &other.exemplars {
            if self.exemplars.iter().all(|known| known.bucket != exemplar.bucket) {
                self.exemplars.push(exemplar.clone());
            }
        }
    }
}

/// Adds to the counter of a key, which is made if there is none.
pub fn add<K, Q>(counters: &mut Vec<(K, u64)>, key: &Q, by: u64)
where
    K: Borrow<Q>,
    Q: PartialEq + ToOwned<Owned = K> + ?Sized,
{
    match counters.iter_mut().find(|(known, _)| known.borrow() == key) {
        Some((_, count)) => *count += by,
        None => counters.push((key.to_owned(), by)),
    }
}

/// What happens to the requests of an upstream now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Load {
    /// The upstream, `PLUGIN/APP`.
    pub upstream: String,
    /// Requests that a worker has.
    pub in_flight: u64,
    /// Requests that wait for a slot.
    pub waiting: u64,
    /// Requests that had to wait for a slot, so far.
    pub queued: u64,
    /// Requests tried again on another worker, so far.
    pub retried: u64,
}

/// The counters of a front.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FrontCounters {
    /// Client connections open now.
    pub connections: u64,
    /// Client connections accepted.
    pub accepted: u64,
    /// Requests in work now.
    pub busy: u64,
    /// TLS handshakes by outcome (`Counts` of the front).
    pub handshakes: Vec<(String, u64)>,
    /// The requests of the apps that had any since the last message on this connection.
    pub requests: Vec<Requests>,
    /// Each upstream.
    pub load: Vec<Load>,
}

/// A plugin, as the daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginSample {
    /// Its name.
    pub name: String,
    /// `VERSION-RELEASE`.
    pub version: String,
    /// How it takes part: `active`, `refused`, `last good`.
    pub state: String,
}

/// A worker, as the daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerSample {
    /// Its slot.
    pub slot: u32,
    /// Its process.
    pub pid: Option<u32>,
    /// Where it is.
    pub phase: Phase,
}

/// A watcher, as the daemon sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherSample {
    /// Its name.
    pub name: WatcherName,
    /// How many workers are wanted.
    pub wanted: u32,
    /// `memory_limit` of each worker, bytes; 0 = none.
    #[serde(default)]
    pub memory_limit: u64,
    /// Its workers.
    pub workers: Vec<WorkerSample>,
}

/// How often something happened to a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherCount<T> {
    /// The watcher.
    pub watcher: WatcherName,
    /// What happened.
    pub what: T,
    /// How often.
    pub count: u64,
}

/// Operations of a kind that had the same outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OperationCount {
    /// The kind: the first word of what it does, such as `deploy`.
    pub operation: String,
    /// `ok` or `failed`.
    pub outcome: String,
    /// How many.
    pub count: u64,
    /// How long they took together, milliseconds.
    pub sum_ms: u64,
}

/// What the daemon knows and has counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCounters {
    /// The node's state.
    pub state: NodeState,
    /// The generation of the plan in force; 0 = none.
    pub generation: u64,
    /// The keeper, if it lives.
    pub keeper: Option<u32>,
    /// Problems of the present configuration.
    pub problems: u64,
    /// The plugins.
    pub plugins: Vec<PluginSample>,
    /// The watchers.
    pub watchers: Vec<WatcherSample>,
    /// Ends of workers, by reason ([`crate::event::EndReason::as_str`]).
    pub ends: Vec<WatcherCount<String>>,
    /// Time from the start of a worker until it was ready.
    pub boots: Vec<(WatcherName, Histogram)>,
    /// What workers did wrong.
    pub troubles: Vec<WatcherCount<TroubleCause>>,
    /// Operations that have ended.
    pub operations: Vec<OperationCount>,
    /// Runs of jobs that have ended, or were due and not started.
    #[serde(default)]
    pub runs: Vec<JobCount>,
    /// The jobs.
    #[serde(default)]
    pub jobs: Vec<JobSample>,
}

/// Who sends counters. Two processes never have the same: counters of one that has ended stay in
/// the sums.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Source {
    /// Its process id.
    pub pid: u32,
    /// When its counters began, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Its version of mfserv.
    pub version: String,
}

/// A message to the telemetry role. `Hello` is the first one on a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "snake_case")]
pub enum ToTelemetry {
    /// Who sends.
    Hello(Source),
    /// The counters of a front.
    Front(Box<FrontCounters>),
    /// The counters of the daemon.
    Node(Box<NodeCounters>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_sent_in_the_middle_of_each_second() {
        for (now_ms, wait_ms) in [(7_000, 500), (7_499, 1), (7_500, 1_000), (7_999, 501)] {
            assert_eq!(until_next_message_ms(now_ms), wait_ms, "{now_ms}");
        }
    }

    #[test]
    fn a_duration_is_counted_in_the_first_bucket_whose_bound_it_does_not_exceed() {
        let mut histogram = Histogram::default();
        for (us, bucket) in [(0, 0), (1_000, 0), (1_001, 1), (60_000_000, 14), (u64::MAX, 15)] {
            assert_eq!(histogram.observe(us), bucket, "{us}");
        }
        assert_eq!(histogram.count(), 5);
        assert_eq!(histogram.sum_us, u64::MAX);
    }
}
