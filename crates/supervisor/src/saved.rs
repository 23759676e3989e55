//! What a daemon that comes back must know and nobody else remembers: incarnation
//! numbers, crash counters, last ends. Versioned, written beside and renamed.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use mfserv_core::names::WatcherName;
use mfserv_core::status::LastEnd;
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

    /// Writes what the watchers know, beside the old file and then over it.
    pub fn store(
        path: &Path,
        watchers: &BTreeMap<WatcherName, Watcher>,
        before: &BTreeMap<WatcherName, SavedWatcher>,
    ) -> std::io::Result<()> {
        let mut all = before.clone();
        for (name, watcher) in watchers {
            all.insert(name.clone(), watcher.to_remember());
        }
        let beside = path.with_extension("new");
        let mut file = std::fs::File::create(&beside)?;
        serde_json::to_writer(&mut file, &Saved { version: VERSION, watchers: all })?;
        file.flush()?;
        std::fs::rename(&beside, path)
    }
}
