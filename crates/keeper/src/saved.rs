//! `keeper.json`: what a new keeper must know to go on with what lives.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::{Path, PathBuf};

use mfserv_core::output::Rotation;
use mfserv_core::wire::keeper::{Exit, Process};
use mfserv_platform::disk;
use serde::{Deserialize, Serialize};

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
    pub door: RawFd,
    pub streams: Vec<(u64, RawFd)>,
    pub listeners: Vec<(String, RawFd)>,
    pub last_outputs: Vec<(String, String)>,
    /// Who asked, to be answered by the new program: descriptor, number of the request,
    /// and whether it watches.
    pub asker: Option<(RawFd, u64, bool)>,
    /// The soft RLIMIT_NOFILE that the first image was given.
    pub open_files: Option<u64>,
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
