//! What is remembered of an interval: a [`Sample`] for each app, and one for the node.

use std::collections::BTreeMap;
use std::sync::Arc;

use mfserv_core::names::WatcherName;
use mfserv_core::wire::metrics::{Answerer, BOUNDS_US, BUCKETS, REST};

/// Classes of status codes: 2xx, 3xx, 4xx, 5xx, and all others.
pub const CLASSES: usize = 5;

/// The class of a status code.
pub fn class(status: u16) -> usize {
    match status {
        200..600 => usize::from(status / 100 - 2),
        _ => CLASSES - 1,
    }
}

/// Whose samples these are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subject {
    /// The plugin; empty for a role, `#unknown#` and such for requests that go to none.
    pub plugin: String,
    /// The app, extra daemon or role; empty for requests that go to none.
    pub app: String,
    /// `app`, `extra`, `role`, or `front` for requests that go to no app; `static` for those of an
    /// app that no worker answers, which alerts leave out.
    pub kind: String,
}

const STATIC: &str = "static";

impl Subject {
    /// A subject.
    pub fn new(kind: &str, plugin: &str, app: &str) -> Self {
        Self { plugin: plugin.into(), app: app.into(), kind: kind.into() }
    }

    /// That of a watcher.
    pub fn of_watcher(watcher: &WatcherName) -> Self {
        let kind = match watcher.as_str() {
            REST => return Self::rest(),
            name if name.starts_with("app.") => "app",
            name if name.starts_with("extra.") => "extra",
            _ => "role",
        };
        Self::new(kind, watcher.plugin().unwrap_or_default(), watcher.short())
    }

    /// That of requests.
    pub fn of_requests(plugin: &str, app: &str, by: Answerer) -> Self {
        let is_of_app = !app.is_empty() || !plugin.starts_with('#');
        let kind = match by {
            _ if !is_of_app => "front",
            Answerer::Dynamic => "app",
            Answerer::Static | Answerer::Front => STATIC,
        };
        Self::new(kind, plugin, app)
    }

    /// The subject among whose samples people look for these.
    pub fn shown(self: &Arc<Self>) -> Arc<Self> {
        match self.kind.as_str() {
            STATIC => Arc::new(Self::new("app", &self.plugin, &self.app)),
            _ => self.clone(),
        }
    }

    /// That of whatever has no samples of its own.
    pub fn rest() -> Self {
        Self::new("front", REST, "")
    }

    /// How people and other programs call it: `PLUGIN.APP`.
    pub fn name(&self) -> String {
        match (self.plugin.as_str(), self.app.as_str()) {
            ("", app) => app.into(),
            (plugin, "") => plugin.into(),
            (plugin, app) => format!("{plugin}.{app}"),
        }
    }
}

/// An app in an interval. What is counted is added up; of the rest, the value that an operator has
/// to know of is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sample {
    /// Requests by class of their status code.
    pub classes: [u64; CLASSES],
    /// Requests by duration; the bounds are [`BOUNDS_US`].
    pub buckets: [u64; BUCKETS],
    /// Ends of workers, whatever the reason.
    pub ends: u64,
    /// Ends of workers that nobody wanted.
    pub crashes: u64,
    /// CPU time of its workers, milliseconds.
    pub cpu_ms: u64,
    /// What is true at an instant.
    pub gauges: Gauges,
}

/// What is true at an instant; of an interval, the worst. `None`: nobody was there to say it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// The most requests that workers had.
    pub in_flight: Option<u64>,
    /// The most requests that waited for a slot.
    pub waiting: Option<u64>,
    /// The fewest workers that were ready.
    pub ready: Option<u64>,
    /// Workers that were wanted at the end.
    pub wanted: Option<u64>,
    /// The most memory of its workers, bytes.
    pub memory: Option<u64>,
}

/// What both say, put together; what one of them says, if the other one is silent.
fn either(one: Option<u64>, other: Option<u64>, both: fn(u64, u64) -> u64) -> Option<u64> {
    match (one, other) {
        (Some(one), Some(other)) => Some(both(one, other)),
        (one, other) => one.or(other),
    }
}

impl Sample {
    /// Adds a later interval.
    pub fn add(&mut self, later: &Sample) {
        self.count(later);
        let (own, later) = (self.gauges, later.gauges);
        self.gauges = Gauges {
            in_flight: own.in_flight.max(later.in_flight),
            waiting: own.waiting.max(later.waiting),
            ready: either(own.ready, later.ready, u64::min),
            wanted: later.wanted.or(own.wanted),
            memory: own.memory.max(later.memory),
        };
    }

    /// Adds what is known from elsewhere of the same interval.
    pub fn join(&mut self, more: &Sample) {
        self.count(more);
        let (own, more) = (self.gauges, more.gauges);
        let sum = |one, other| either(one, other, u64::saturating_add);
        self.gauges = Gauges {
            in_flight: sum(own.in_flight, more.in_flight),
            waiting: sum(own.waiting, more.waiting),
            ready: sum(own.ready, more.ready),
            wanted: sum(own.wanted, more.wanted),
            memory: sum(own.memory, more.memory),
        };
    }

    /// Adds what was counted.
    pub fn count(&mut self, later: &Sample) {
        let counters = self.classes.iter_mut().zip(later.classes);
        for (own, later) in counters.chain(self.buckets.iter_mut().zip(later.buckets)) {
            *own = own.saturating_add(later);
        }
        for (own, later) in [
            (&mut self.ends, later.ends),
            (&mut self.crashes, later.crashes),
            (&mut self.cpu_ms, later.cpu_ms),
        ] {
            *own = own.saturating_add(later);
        }
    }

    /// The requests of all classes.
    pub fn requests(&self) -> u64 {
        self.classes.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The duration that this part of the requests did not exceed, milliseconds; `None` without
    /// requests.
    pub fn percentile(&self, part: f64) -> Option<f64> {
        Some(percentile_us(&self.buckets, part)? / 1e3)
    }
}

/// The duration that this part of the requests did not exceed, microseconds: within a bucket,
/// durations are taken to be spread evenly (as Prometheus's `histogram_quantile` does). Those
/// in the last bucket count as its lower bound. `None` if nothing was counted.
pub fn percentile_us(buckets: &[u64; BUCKETS], part: f64) -> Option<f64> {
    let all: f64 = buckets.iter().map(|count| *count as f64).sum();
    let (mut below, mut lower) = (0.0, 0.0);
    for (bucket, count) in buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
        if bucket > 0 {
            lower = BOUNDS_US[bucket - 1] as f64;
        }
        let upper = BOUNDS_US.get(bucket).map_or(lower, |bound| *bound as f64);
        let count = *count as f64;
        if below + count >= all * part {
            return Some(lower + (upper - lower) * (all * part - below) / count);
        }
        below += count;
    }
    None
}

/// The node in an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeSample {
    /// Time that the processors of the host worked, milliseconds of one processor.
    pub busy_ms: u64,
    /// Time that they had: the interval times the number of processors.
    pub cpu_ms: u64,
    /// The most memory of the host that was in use, bytes.
    pub memory: u64,
    /// The memory of the host, bytes.
    pub memory_total: u64,
    /// The most client connections; `None`: no front said it.
    pub connections: Option<u64>,
    /// The most requests that the fronts read or answered; `None`: no front said it.
    pub in_work: Option<u64>,
    /// Client connections accepted.
    pub accepted: u64,
}

impl NodeSample {
    /// Adds a later interval.
    pub fn add(&mut self, later: &NodeSample) {
        *self = Self {
            busy_ms: self.busy_ms.saturating_add(later.busy_ms),
            cpu_ms: self.cpu_ms.saturating_add(later.cpu_ms),
            memory: self.memory.max(later.memory),
            memory_total: later.memory_total,
            connections: self.connections.max(later.connections),
            in_work: self.in_work.max(later.in_work),
            accepted: self.accepted.saturating_add(later.accepted),
        };
    }
}

/// All samples of an interval.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tick {
    /// When the interval ended, seconds since the Unix epoch.
    pub at: u64,
    /// How much time it has samples of, milliseconds.
    pub covered_ms: u64,
    /// The node.
    pub node: NodeSample,
    /// The apps. One that did not change takes a few bytes of a file.
    pub apps: BTreeMap<Arc<Subject>, Sample>,
}

impl Tick {
    /// Adds a later interval.
    pub fn add(&mut self, later: &Tick) {
        self.at = later.at;
        self.covered_ms = self.covered_ms.saturating_add(later.covered_ms);
        self.node.add(&later.node);
        for (subject, sample) in &later.apps {
            match self.apps.get_mut(subject) {
                Some(own) => own.add(sample),
                None => {
                    self.apps.insert(subject.clone(), sample.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(buckets: &[(usize, u64)]) -> Sample {
        let mut sample = Sample::default();
        buckets.iter().for_each(|(bucket, count)| sample.buckets[*bucket] = *count);
        sample
    }

    #[test]
    fn percentiles_are_within_the_bucket_that_has_them() {
        assert_eq!(Sample::default().percentile(0.5), None);
        assert_eq!(with(&[(0, 10)]).percentile(0.5), Some(0.5));
        let sample = with(&[(3, 90), (6, 10)]);
        assert_eq!(sample.percentile(0.9), Some(10.0));
        assert_eq!(sample.percentile(0.95), Some(75.0));
        assert_eq!(with(&[(15, 1)]).percentile(0.99), Some(60_000.0));
    }

    #[test]
    fn of_an_interval_the_worst_is_kept_and_what_is_counted_is_added_up() {
        let gauges = |waiting, ready| {
            let (waiting, ready) = (Some(waiting), Some(ready));
            Gauges { waiting, ready, wanted: Some(3), ..Gauges::default() }
        };
        let mut sample = Sample { ends: 1, gauges: gauges(7, 1), ..Sample::default() };
        sample.add(&Sample { ends: u64::MAX, gauges: gauges(2, 3), ..Sample::default() });
        assert_eq!((sample.ends, sample.gauges), (u64::MAX, gauges(7, 1)));
    }

    #[test]
    fn what_nobody_says_is_no_zero_beside_what_somebody_says() {
        let known = Gauges { ready: Some(2), waiting: Some(0), ..Gauges::default() };
        let sample = |gauges| Sample { gauges, ..Sample::default() };
        for (one, other) in [(known, Gauges::default()), (Gauges::default(), known)] {
            let (mut later, mut beside) = (sample(one), sample(one));
            later.add(&sample(other));
            beside.join(&sample(other));
            assert_eq!((later.gauges, beside.gauges), (known, known));
        }
        let mut both = sample(known);
        both.join(&sample(known));
        assert_eq!((both.gauges.ready, both.gauges.in_flight), (Some(4), None));
    }

    #[test]
    fn each_status_code_has_a_class() {
        let classes = [0, 100, 200, 299, 301, 404, 599, 600].map(class);
        assert_eq!(classes, [4, 4, 0, 0, 1, 2, 3, 4]);
    }
}
