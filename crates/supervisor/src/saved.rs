//! What the next daemon must know and no living process can tell it: incarnation numbers,
//! crash counts, last ends. A versioned JSON file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::names::WatcherName;
use mfserv_core::status::LastEnd;
use mfserv_platform::disk;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

const VERSION: u32 = 1;

/// The time between a change and the writing of the file. Changes in between cost nothing.
const SAVE_AFTER: Duration = Duration::from_millis(200);

#[derive(Debug, Default, Serialize, Deserialize)]
struct File {
    version: u32,
    watchers: BTreeMap<WatcherName, SavedWatcher>,
}

/// What is saved of a watcher.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct SavedWatcher {
    pub next_incarnation: u64,
    pub crashes: u64,
    /// Incarnations that have been ready. A worker says `READY=1` only once, so the next daemon
    /// cannot ask it again.
    #[serde(default)]
    pub ready: BTreeSet<u64>,
    #[serde(default)]
    pub last_end: Option<LastEnd>,
}

/// The file and what it says of watchers that do not exist now.
pub(crate) struct Saved {
    path: PathBuf,
    absent: BTreeMap<WatcherName, SavedWatcher>,
    unsaved_since: Option<Instant>,
    was_stored: bool,
}

impl Saved {
    /// Reads the file. A missing or broken file, or one of a future version, counts as empty.
    pub fn load(path: PathBuf) -> Saved {
        Saved { absent: read(&path), path, unsaved_since: None, was_stored: false }
    }

    /// What is known of a watcher that comes into being.
    pub fn recall(&self, name: &WatcherName) -> SavedWatcher {
        self.absent.get(name).cloned().unwrap_or_default()
    }

    /// A watcher has gone. One that gets its name later is another one: only the numbers of its
    /// workers go on, since logs name them.
    pub fn keep(&mut self, name: WatcherName, next_incarnation: u64) {
        let saved = SavedWatcher { next_incarnation, ..SavedWatcher::default() };
        self.absent.insert(name, saved);
    }

    /// Something that is saved has changed.
    pub fn changed(&mut self) {
        self.unsaved_since.get_or_insert_with(Instant::now);
    }

    /// The file was written, and something has removed it.
    pub fn is_missing(&self) -> bool {
        self.was_stored && disk::is_gone(&self.path)
    }

    /// When the file is to be written.
    pub fn due(&self) -> Option<Instant> {
        self.unsaved_since.map(|since| since + SAVE_AFTER)
    }

    /// Replaces the file in one step. It is not synced: the loop does not wait for a disk,
    /// and after a power cut every count begins again.
    ///
    /// # Errors
    /// A sentence, if the file cannot be written.
    pub fn store(
        &mut self,
        present: impl Iterator<Item = (WatcherName, SavedWatcher)>,
    ) -> Result<(), String> {
        self.unsaved_since = None;
        self.was_stored = true;
        let mut watchers = self.absent.clone();
        watchers.extend(present);
        serde_json::to_vec(&File { version: VERSION, watchers })
            .map_err(std::io::Error::from)
            .and_then(|text| disk::replace(&self.path, 0o600, &text))
            .map_err(|error| format!("cannot write {}: {error}", self.path.display()))
    }
}

fn read(path: &Path) -> BTreeMap<WatcherName, SavedWatcher> {
    let text = std::fs::read(path).unwrap_or_default();
    let file: File = serde_json::from_slice(&text).unwrap_or_default();
    if file.version == VERSION { file.watchers } else { BTreeMap::new() }
}
