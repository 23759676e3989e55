//! The node's state in one word: `var/status`, for the health endpoint and for probes.

use std::path::PathBuf;
use std::sync::Mutex;

/// `STARTING`, `RUNNING`, `ERROR`, `STOPPING` or `STOPPED`, on disk and in memory.
pub struct NodeState {
    file: PathBuf,
    word: Mutex<String>,
}

impl NodeState {
    /// The state that an earlier daemon left.
    pub fn load(file: PathBuf) -> Self {
        let word = std::fs::read_to_string(&file).unwrap_or_default().trim().to_string();
        Self { file, word: Mutex::new(word) }
    }

    /// The word.
    pub fn word(&self) -> String {
        self.word.lock().map(|word| word.clone()).unwrap_or_default()
    }

    /// Changes the word; false if it was the same.
    pub fn set(&self, new: &str) -> bool {
        let Ok(mut word) = self.word.lock() else { return false };
        let changed = *word != new;
        *word = new.to_string();
        let beside = self.file.with_extension("new");
        let written = std::fs::write(&beside, format!("{new}\n"));
        if written.and_then(|()| std::fs::rename(&beside, &self.file)).is_err() {
            // A full disk must not stop the node; the word in memory is what counts.
            let _ = std::fs::remove_file(&beside);
        }
        changed
    }
}
