//! Which workers of each app live, and when others start.

use std::collections::{BTreeMap, BTreeSet};

use mfserv_core::names::{WatcherName, WorkerId};

/// The workers that live and those that will start, of all apps.
#[derive(Default)]
pub struct Lives(BTreeMap<WatcherName, OfApp>);

#[derive(Default)]
struct OfApp {
    workers: BTreeSet<WorkerId>,
    /// The next start of each slot whose worker has ended, milliseconds since the Unix epoch.
    starts: BTreeMap<u32, u64>,
}

impl Lives {
    /// A worker was started.
    pub fn started(&mut self, worker: WorkerId) {
        let app = self.0.entry(worker.watcher.clone()).or_default();
        app.starts.remove(&worker.slot);
        app.workers.insert(worker);
    }

    /// A worker has ended; the next one of its slot starts at this time, if any does.
    pub fn ended(&mut self, worker: &WorkerId, next_start_ms: Option<u64>) {
        let app = self.0.entry(worker.watcher.clone()).or_default();
        app.workers.remove(worker);
        match next_start_ms {
            Some(at) => drop(app.starts.insert(worker.slot, at)),
            None => drop(app.starts.remove(&worker.slot)),
        }
        if app.workers.is_empty() && app.starts.is_empty() {
            self.0.remove(&worker.watcher);
        }
    }

    /// The apps of which no worker lives, with the next start of one.
    pub fn backing_off(&self) -> BTreeMap<String, u64> {
        let all = self.0.iter().filter(|(_, app)| app.workers.is_empty());
        all.filter_map(|(name, app)| Some((name.upstream()?, *app.starts.values().min()?)))
            .collect()
    }
}
