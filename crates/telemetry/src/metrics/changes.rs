//! What was counted since it was last taken, by whichever process.
//!
//! The counters of a process begin with it, and the sums of the registry with the telemetry role:
//! differences of sums would jump when either is another one. Here the difference is taken between two
//! messages of the same process.

use std::collections::BTreeMap;

use mfserv_core::names::WatcherName;
use mfserv_core::wire::metrics::{
    FrontCounters, NodeCounters, Requests, WatcherCount, WatcherSample,
};

use super::history::{Sample, class};
use super::registry::Subject;

/// Why workers end that have not crashed.
const WANTED: [&str; 5] = ["asked", "too_old", "over_memory_high", "part_killed", "files_changed"];
/// The most rows of a table.
const ROWS_MAX: usize = 10_000;

/// The ends of workers, and those that nobody wanted.
pub type Ends = (u64, u64);

/// What was counted since it was last taken.
#[derive(Debug, Default)]
pub struct Changes {
    /// By plugin, app and what answers.
    pub requests: BTreeMap<Subject, Sample>,
    /// By watcher.
    pub ends: BTreeMap<WatcherName, Ends>,
    /// Client connections accepted.
    pub accepted: u64,
}

/// The changes, and what is true now.
#[derive(Debug, Default)]
pub struct Reading {
    /// By plugin, app and what answers.
    pub requests: BTreeMap<Subject, Sample>,
    /// By watcher.
    pub ends: BTreeMap<WatcherName, Ends>,
    /// Client connections accepted.
    pub accepted: u64,
    /// What the fronts say, if one is there.
    pub fronts: Option<OfFronts>,
    /// The watchers, if a daemon is there.
    pub watchers: Option<Vec<WatcherSample>>,
}

/// What is true of the fronts now.
#[derive(Debug, Default)]
pub struct OfFronts {
    /// By upstream: requests that workers have, and requests that wait. Without those that have
    /// neither.
    pub load: Vec<(String, u64, u64)>,
    /// Client connections open.
    pub connections: u64,
    /// Requests in work.
    pub in_work: u64,
}

impl Changes {
    /// A row of a front, and what the front said of it before.
    pub fn add_requests(&mut self, now: &Requests, before: Option<&Requests>) {
        let key = (now.plugin.clone(), now.app.clone(), now.by);
        if self.requests.len() >= ROWS_MAX && !self.requests.contains_key(&key) {
            return;
        }
        let sample = self.requests.entry(key).or_default();
        for (status, count) in &now.statuses {
            let known = before.and_then(|row| row.statuses.iter().find(|(it, _)| it == status));
            let new = count.saturating_sub(known.map_or(0, |(_, count)| *count));
            sample.classes[class(*status)] += new;
        }
        for (at, count) in now.duration.buckets.iter().enumerate() {
            let known = before.map_or(0, |row| row.duration.buckets[at]);
            sample.buckets[at] += count.saturating_sub(known);
        }
    }

    /// The other counters of a front, and those that it sent before.
    pub fn add_front(&mut self, now: &FrontCounters, before: Option<&FrontCounters>) {
        let known = before.map_or(0, |front| front.accepted);
        self.accepted += now.accepted.saturating_sub(known);
    }

    /// The counters of a daemon, and those that it sent before.
    pub fn add_node(&mut self, now: &NodeCounters, before: Option<&NodeCounters>) {
        let empty = Vec::new();
        let before = before.map_or(&empty, |node| &node.ends);
        if now.ends == *before {
            return;
        }
        let key = |end: &WatcherCount<String>| (end.watcher.clone(), end.what.clone());
        let known: BTreeMap<_, u64> = before.iter().map(|end| (key(end), end.count)).collect();
        for end in &now.ends {
            let new = end.count.saturating_sub(known.get(&key(end)).copied().unwrap_or(0));
            if new == 0 || self.ends.len() >= ROWS_MAX {
                continue;
            }
            let (ends, crashes) = self.ends.entry(end.watcher.clone()).or_default();
            *ends += new;
            *crashes += if WANTED.contains(&end.what.as_str()) { 0 } else { new };
        }
    }
}

#[cfg(test)]
mod tests {
    use mfserv_core::event::EndReason;

    use super::*;

    #[test]
    fn ends_that_are_no_crash_are_known_by_their_words() {
        let text = || "x".to_string();
        for why in [
            EndReason::Exited { code: 1 },
            EndReason::Signalled { signal: 9 },
            EndReason::TooOld,
            EndReason::OutOfMemory { limit_bytes: None },
            EndReason::OverMemoryLimit { used_bytes: 2, limit_bytes: 1 },
            EndReason::OverMemoryHigh { used_bytes: 2, high_bytes: 1 },
            EndReason::PartKilled,
            EndReason::Asked { what: text() },
            EndReason::FilesChanged,
            EndReason::FailedProbe { saw: text() },
            EndReason::Stuck { saw: text() },
            EndReason::NotStarted { why: text() },
            EndReason::UnknownAdopted,
        ] {
            assert_eq!(WANTED.contains(&why.as_str()), !why.is_crash(), "{why:?}");
        }
    }
}
