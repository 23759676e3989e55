//! The file `var/status`: the state of the node as one word, for monitoring.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use mfserv_core::node_state::NodeState;
use mfserv_platform::disk::Disk;

/// The state of the node, in memory and in `var/status`.
pub struct StateFile {
    disk: Arc<dyn Disk>,
    file: PathBuf,
    state: Mutex<NodeState>,
}

impl StateFile {
    /// Starts from the state that the previous daemon wrote.
    pub fn load(disk: Arc<dyn Disk>, file: PathBuf) -> Self {
        let text = disk.read(&file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        Self { disk, file, state: Mutex::new(NodeState::parse(&text)) }
    }

    /// The state.
    pub fn get(&self) -> NodeState {
        self.state.lock().map(|state| *state).unwrap_or_default()
    }

    /// Writes the file again if it was removed. True if it was.
    pub fn restore(&self) -> bool {
        let is_gone = self.disk.read(&self.file).is_err_and(|e| e.kind() == ErrorKind::NotFound);
        is_gone
            && self.disk.replace(&self.file, 0o644, format!("{}\n", self.get()).as_bytes()).is_ok()
    }

    /// Changes the state; returns false if it was the same.
    pub fn set(&self, new: NodeState) -> bool {
        let Ok(mut state) = self.state.lock() else { return false };
        let changed = *state != new;
        *state = new;
        // A full disk must not stop the node: the state in memory is what counts.
        let _ = self.disk.replace(&self.file, 0o644, format!("{new}\n").as_bytes());
        changed
    }
}
