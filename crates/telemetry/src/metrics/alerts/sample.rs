//! What conditions are computed from: the counters of one time, and those of some time ago.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

use mfserv_core::node_state::NodeState;
use mfserv_core::wire::metrics::{Answerer, Histogram, Source};

use crate::metrics::history::percentile_us;
use crate::metrics::registry::Snapshot;

/// A window is divided into so many steps at most.
const STEPS: u64 = 60;

/// What is counted of an app, or of an extra daemon.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AppSample {
    /// Requests that were answered.
    pub requests: u64,
    /// Those with a status from 500 on.
    pub errors: u64,
    /// Their durations.
    pub duration: Histogram,
    /// Requests that wait for a slot now.
    pub waiting: u64,
    /// Crashes of its workers.
    pub crashes: u64,
}

/// The counters of one time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sample {
    /// By plugin and app.
    pub apps: BTreeMap<(String, String), AppSample>,
    /// Free space of the file system, percent.
    pub disk_free: Option<f64>,
    /// The state of the node; `None` while no daemon says it.
    pub state: Option<NodeState>,
    /// Fronts that send counters.
    pub fronts: u64,
    /// The daemon that sends counters.
    pub daemon: Option<Source>,
}

impl Sample {
    /// What is counted now. `dir`: a directory on the file system that is looked at.
    pub fn of(snapshot: Snapshot, dir: Option<&Path>) -> Self {
        let mut apps: BTreeMap<(String, String), AppSample> = BTreeMap::new();
        for ((plugin, app, by), row) in snapshot.sums.requests {
            if by == Answerer::Dynamic {
                let sample = apps.entry((plugin, app)).or_default();
                sample.requests += row.duration.count();
                let errors = row.statuses.iter().filter(|(status, _)| *status >= 500);
                sample.errors += errors.map(|(_, count)| count).sum::<u64>();
                sample.duration.add(&row.duration);
            }
        }
        for (upstream, load) in snapshot.sums.load {
            let Some((plugin, app)) = upstream.split_once('/') else { continue };
            apps.entry((plugin.into(), app.into())).or_default().waiting += load.waiting;
        }
        for ((watcher, reason), count) in snapshot.sums.ends {
            let is_crash = !["asked", "too_old", "files_changed"].contains(&reason.as_str());
            if let Some(plugin) = watcher.plugin().filter(|_| is_crash) {
                let key = (plugin.to_string(), watcher.short().to_string());
                apps.entry(key).or_default().crashes += count;
            }
        }
        let (daemon, state) = match snapshot.node {
            Some((source, node)) => (Some(source), Some(node.state)),
            None => (None, None),
        };
        let disk_free = dir.and_then(free_percent);
        Self { apps, disk_free, state, fronts: snapshot.fronts, daemon }
    }
}

/// The duration that 95 % do not exceed, seconds; `None` if nothing was counted.
pub fn p95(duration: &Histogram) -> Option<f64> {
    Some(percentile_us(&duration.buckets, 0.95)? / 1e6)
}

/// The space that users may still use, percent. The directory, or one above it, exists.
fn free_percent(dir: &Path) -> Option<f64> {
    let found = dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok())?;
    (found.f_blocks > 0).then(|| found.f_bavail as f64 / found.f_blocks as f64 * 100.0)
}

/// The samples of a window of time.
pub struct History {
    window_ms: u64,
    samples: VecDeque<(u64, Arc<Sample>)>,
}

impl History {
    /// None yet.
    pub fn new(window_s: u64) -> Self {
        Self { window_ms: window_s * 1000, samples: VecDeque::new() }
    }

    /// Adds the sample of now; those before the window are left out, except for the newest.
    pub fn push(&mut self, now_ms: u64, sample: &Arc<Sample>) {
        let step = self.window_ms / STEPS;
        if self.samples.back().is_none_or(|(at, _)| at + step <= now_ms) {
            self.samples.push_back((now_ms, sample.clone()));
        }
        while self.samples.get(1).is_some_and(|(at, _)| at + self.window_ms <= now_ms) {
            self.samples.pop_front();
        }
    }

    /// Forgets everything: what comes next cannot be compared with it.
    pub fn clear(&mut self) {
        self.samples.clear();
    }

    /// What an app has counted in the window, until `now`.
    pub fn counted(&self, app: &(String, String), now: &AppSample) -> AppSample {
        let nothing = AppSample::default();
        let Some((_, first)) = self.samples.front() else { return nothing };
        let before = first.apps.get(app).unwrap_or(&nothing);
        let mut duration = now.duration.clone();
        for (count, before) in duration.buckets.iter_mut().zip(before.duration.buckets) {
            *count = count.saturating_sub(before);
        }
        AppSample {
            requests: now.requests.saturating_sub(before.requests),
            errors: now.errors.saturating_sub(before.errors),
            duration,
            waiting: now.waiting,
            crashes: now.crashes.saturating_sub(before.crashes),
        }
    }
}
