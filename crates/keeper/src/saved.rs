//! `keeper.json`: what a new keeper must know to go on with the processes that live.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_core::output::Rotation;
use mfserv_core::wire::keeper::{Exit, Process};
use mfserv_platform::disk;
use serde::{Deserialize, Serialize};

use crate::log::log;

/// The state is written again so long after it could not be.
const RETRY: Duration = Duration::from_secs(1);

/// The version of the file. Fields are only added; unknown ones are ignored.
pub(crate) const VERSION: u32 = 1;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Saved {
    pub version: u32,
    pub boot_id: String,
    pub next_key: u64,
    pub processes: Vec<SavedProcess>,
    pub streams: Vec<SavedStream>,
    pub listeners: Vec<SavedListener>,
    pub exits: Vec<Exit>,
    /// Set only while the keeper replaces itself by execve(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handover: Option<Handover>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SavedProcess {
    pub process: Process,
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// It is dead, and what it left is being killed.
    #[serde(default)]
    pub ended: Option<(mfserv_core::wire::keeper::Ended, u64)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SavedStream {
    pub key: u64,
    pub owner: String,
    pub fifo: PathBuf,
    pub log: PathBuf,
    pub rotation: Rotation,
    /// `stdout`, `stderr` or `both`.
    #[serde(default)]
    pub stream: String,
    #[serde(default)]
    pub release: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SavedListener {
    pub name: String,
    pub address: String,
}

/// Descriptors that are open across the execve(2).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Handover {
    pub lock: RawFd,
    /// The listening socket; its key is that of earlier versions.
    #[serde(rename = "door")]
    pub listener: RawFd,
    pub streams: Vec<(u64, RawFd)>,
    pub listeners: Vec<(String, RawFd)>,
    pub last_outputs: Vec<(String, String)>,
    /// Who asked, to be answered by the new program: descriptor, number of the request,
    /// and whether it watches.
    pub asker: Option<(RawFd, u64, bool)>,
    /// The soft RLIMIT_NOFILE that the first image was given.
    pub open_files: Option<u64>,
    /// SIGHUP was ignored when the first image was started.
    #[serde(default)]
    pub ignored_hangup: bool,
}

impl Saved {
    /// Reads the file; `None` if there is none.
    pub fn read(path: &Path) -> io::Result<Option<Self>> {
        let bytes = match fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    /// Replaces the file in one step. It is not synced: after a power cut no process lives
    /// that a keeper could go on with.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        disk::replace(path, 0o600, &serde_json::to_vec(self)?)
    }
}

/// The file, and whether it is up to date.
pub(crate) struct StateFile {
    path: PathBuf,
    /// Something has changed since it was written.
    is_due: bool,
    /// It could not be written: not before this.
    retry_at: Option<Instant>,
}

impl StateFile {
    /// A file that is not written yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, is_due: true, retry_at: None }
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is saved has changed.
    pub fn changed(&mut self) {
        self.is_due = true;
    }

    /// Returns true if it is to be written now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.is_due && self.retry_at.is_none_or(|at| at <= now)
    }

    /// Writes it; a failure is logged once, and tried again after [`RETRY`].
    pub fn write(&mut self, saved: &Saved, now: Instant) {
        match saved.write(&self.path) {
            Ok(()) => {
                self.is_due = false;
                self.retry_at = None;
            }
            Err(e) => {
                if self.retry_at.is_none() {
                    log(format_args!("{} cannot be written: {e}", self.path.display()));
                }
                self.retry_at = Some(now + RETRY);
            }
        }
    }

    /// When it is to be tried again.
    pub fn next_moment(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Removes it.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_cannot_be_written_is_tried_again_until_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("not yet there/keeper.json");
        let (mut file, start) = (StateFile::new(path.clone()), Instant::now());
        file.write(&Saved::default(), start);
        assert!(!file.is_due(start) && file.next_moment() == Some(start + RETRY));
        fs::create_dir(folder.path().join("not yet there")).unwrap();
        assert!(file.is_due(start + RETRY));
        file.write(&Saved { next_key: 7, ..Saved::default() }, start + RETRY);
        assert!(!file.is_due(start + RETRY) && file.next_moment().is_none());
        assert_eq!(Saved::read(&path).unwrap().map(|saved| saved.next_key), Some(7));
        file.changed();
        assert!(file.is_due(start));
    }

    #[test]
    fn a_handover_of_an_earlier_version_is_read() {
        let text = r#"{"version":1,"handover":{"lock":70,"door":71,"a later field":1}}"#;
        let saved: Saved = serde_json::from_str(text).unwrap();
        let handover = saved.handover.unwrap();
        assert_eq!((handover.lock, handover.listener), (70, 71));
    }
}
