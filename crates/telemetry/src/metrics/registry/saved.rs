//! What the registry has received, kept in a file for the next process of this role.
//!
//! Fronts and daemons that live send all that they have counted to the next process: of them, the
//! file only says how much of that was in the sums before. Those that have ended send nothing any
//! more, so the file is written soon after one has ended or come, else every few seconds. Without
//! it, the sums of the next process would be smaller than those before, and Prometheus would take
//! the counters of all living fronts for new requests. For the same reason, nothing is shown before
//! the processes that live have connected again.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mfserv_core::node_state::NodeState;
use mfserv_core::wire::metrics::{NodeCounters, Source, ToTelemetry};
use mfserv_platform::disk;
use mfserv_platform::sync::lock;
use serde::{Deserialize, Serialize};

use super::{Entry, Registry, Sums};
use crate::metrics::report_once;

/// How often the file is written while something is counted: of 500 busy apps it has 1 MB.
const EVERY: Duration = Duration::from_secs(5);

/// What the file does not have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unsaved {
    /// Nothing of importance.
    #[default]
    Nothing,
    /// Counters of processes that live.
    Counters,
    /// A process that has come, or the last counters of one that has ended.
    Sources,
}

impl Unsaved {
    /// A message was received; `before`: the last one of this daemon.
    pub fn notice(&mut self, message: &ToTelemetry, before: Option<&NodeCounters>) {
        let has_counted = match message {
            ToTelemetry::Hello(_) => false,
            ToTelemetry::Front(front) => !front.requests.is_empty(),
            ToTelemetry::Node(now) => before.is_none_or(|before| {
                (&before.ends, &before.boots, &before.troubles, &before.operations, &before.runs)
                    != (&now.ends, &now.boots, &now.troubles, &now.operations, &now.runs)
            }),
        };
        if has_counted && *self == Unsaved::Nothing {
            *self = Unsaved::Counters;
        }
    }
}

#[derive(Serialize)]
struct Stored<'a> {
    past: &'a Sums,
    #[serde(with = "pairs")]
    sources: &'a BTreeMap<Source, Entry>,
}

#[derive(Deserialize)]
struct Found {
    past: Sums,
    #[serde(with = "pairs")]
    sources: BTreeMap<Source, Entry>,
}

/// The file.
pub struct Store {
    path: PathBuf,
    /// The file with the state of the node.
    status: PathBuf,
    saved: Instant,
    problem: String,
}

impl Store {
    /// Nothing is read or written yet. `status`: the file with the state of the node.
    pub fn new(path: PathBuf, status: PathBuf) -> Self {
        Self { path, status, saved: Instant::now(), problem: String::new() }
    }

    /// Writes the file if that is due; `is_end`: this process ends.
    pub fn look(&mut self, registry: &Mutex<Registry>, is_end: bool) {
        if is_end && self.node_stops() {
            // A node that starts counts from 0, as it starts with other processes.
            let _ = fs::remove_file(&self.path);
            return;
        }
        let is_due = |unsaved| match unsaved {
            Unsaved::Nothing => false,
            Unsaved::Counters => is_end || self.saved.elapsed() >= EVERY,
            Unsaved::Sources => true,
        };
        let text = {
            let mut registry = lock(registry);
            if !is_due(registry.unsaved) {
                return;
            }
            registry.unsaved = Unsaved::Nothing;
            registry.to_json()
        };
        self.saved = Instant::now();
        let written = text.map_err(|why| why.to_string()).and_then(|text| self.write(&text));
        if let Err(why) = written {
            // Tried again after a while, as counters are.
            let mut registry = lock(registry);
            registry.unsaved = registry.unsaved.max(Unsaved::Counters);
            drop(registry);
            let path = self.path.display();
            report_once(&mut self.problem, format!("counters are not kept: {path}: {why}"));
        }
    }

    fn write(&self, text: &[u8]) -> Result<(), String> {
        if let Some(dir) = self.path.parent() {
            disk::create_dir(dir).map_err(|problem| problem.to_string())?;
        }
        disk::replace(&self.path, 0o600, text).map_err(|why| why.to_string())
    }

    fn node_stops(&self) -> bool {
        let status = fs::read_to_string(&self.status).unwrap_or_default();
        NodeState::parse(&status) == NodeState::Stopping
    }
}

impl Registry {
    /// A registry that goes on with what an earlier process has saved. A file that cannot be
    /// read is as good as none.
    pub fn restored(times: bool, path: &Path) -> Self {
        let mut registry = Self::new(times);
        let text = fs::read(path).unwrap_or_default();
        if let Ok(Found { past, sources }) = serde_json::from_slice(&text) {
            registry.clock = sources.values().map(|entry: &Entry| entry.last).max().unwrap_or(0);
            (registry.past, registry.sources) = (past, sources);
            for entry in registry.sources.values_mut() {
                entry.is_restored = true;
                entry.is_awaited = std::mem::take(&mut entry.connections) > 0;
            }
        }
        registry
    }

    fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec(&Stored { past: &self.past, sources: &self.sources })
    }
}

/// A map whose keys are no texts, as a list.
pub mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the pairs.
    pub fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    /// Reads them.
    pub fn deserialize<'de, K, V, D>(from: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(from)?.into_iter().collect())
    }
}
