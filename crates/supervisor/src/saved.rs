//! What a daemon that comes back must know and nobody else remembers: incarnation
//! numbers, crash counters, last ends. Versioned.

use std::collections::BTreeMap;
use std::path::Path;

use mfserv_core::names::WatcherName;
use mfserv_core::status::LastEnd;
use mfserv_platform::disk;
use serde::{Deserialize, Serialize};

use crate::watcher::Watcher;

const VERSION: u32 = 1;

#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    version: u32,
    pub watchers: BTreeMap<WatcherName, SavedWatcher>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct SavedWatcher {
    pub next_incarnation: u64,
    pub crashes: u64,
    /// Incarnations that were ready: one that has said so once does not say it again.
    #[serde(default)]
    pub ready: std::collections::BTreeSet<u64>,
    #[serde(default)]
    pub last_end: Option<LastEnd>,
}

impl Saved {
    /// Reads the file; a missing, broken or future one is an empty memory.
    pub fn load(path: &Path) -> Saved {
        let text = std::fs::read(path).unwrap_or_default();
        let saved: Saved = serde_json::from_slice(&text).unwrap_or_default();
        if saved.version == VERSION { saved } else { Saved::default() }
    }

    /// Replaces the file in one step. It is not synced: the loop does not wait for a disk,
    /// and after a power cut every count begins again.
    pub fn store(
        path: &Path,
        watchers: &BTreeMap<WatcherName, Watcher>,
        before: &BTreeMap<WatcherName, SavedWatcher>,
    ) -> std::io::Result<()> {
        let mut all = before.clone();
        for (name, watcher) in watchers {
            all.insert(name.clone(), watcher.to_remember());
        }
        let text = serde_json::to_vec(&Saved { version: VERSION, watchers: all })?;
        disk::replace(path, 0o600, &text)
    }
}
