//! What a watcher is to keep running: fully resolved, nothing left to choose.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::names::WatcherName;
use crate::output::Output;

/// Resource limits of a process; 0 = not set (as in the plugin format).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rlimits {
    /// RLIMIT_AS, bytes.
    pub address_space: u64,
    /// RLIMIT_NOFILE.
    pub open_files: u64,
    /// RLIMIT_STACK, bytes.
    pub stack: u64,
    /// RLIMIT_FSIZE, bytes.
    pub file_size: u64,
}

/// How it is observed that a worker is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub enum Probe {
    /// Any HTTP answer to `HEAD path` on the worker's socket.
    Http {
        /// The path asked for, beginning with `/`.
        path: String,
    },
    /// A connection to the worker's socket is accepted.
    Connect,
    /// The worker says `READY=1` (sd_notify(3)) on `NOTIFY_SOCKET`.
    Notify,
    /// Somebody else says so (the front is ready when it has taken its route table).
    Told,
    /// Nothing can be asked: ready once it has lived this long, milliseconds.
    Alive {
        /// The time to live.
        for_ms: u64,
    },
}

/// "Keep `count` of this command running, with these limits."
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatcherSpec {
    /// Its name.
    pub name: WatcherName,
    /// How many workers are wanted.
    pub count: u32,
    /// The command. The texts `{unix_socket_path}` and `$(circus.wid)` in it (and
    /// in the values of `env`) are replaced for each worker when it is spawned.
    pub argv: Vec<String>,
    /// The whole environment; nothing else is inherited.
    pub env: BTreeMap<String, String>,
    /// The working directory.
    pub cwd: PathBuf,
    /// Resource limits.
    pub rlimits: Rlimits,
    /// Where its output goes. When `output_per_worker` is set, `_workerN` is added
    /// to the file stems.
    pub output: Output,
    /// One log file per worker slot.
    pub output_per_worker: bool,
    /// Where its socket is: the path without its end; the worker N.K listens on
    /// `{socket_stem}_N.K.socket`. `None` when it serves nothing.
    pub socket_stem: Option<PathBuf>,
    /// The link that people know, to the admitted worker's socket:
    /// `{socket_link_stem}_N.socket`.
    pub socket_link_stem: Option<PathBuf>,
    /// The upstream whose requests it serves, if any.
    pub upstream: Option<String>,
    /// How readiness is observed.
    pub probe: Probe,
    /// Longest wait for readiness, milliseconds.
    pub start_timeout_ms: u64,
    /// Longest wait for the requests it holds, milliseconds.
    pub drain_timeout_ms: u64,
    /// The signal that asks it to stop.
    pub stop_signal: i32,
    /// From that signal to SIGKILL, milliseconds; 0 = wait for ever.
    pub stop_timeout_ms: u64,
    /// A replacement may run beside the old worker. When false, the old one is
    /// stopped first and its requests wait in the front.
    pub overlap: bool,
    /// Replace each worker after a life between once and twice this, seconds; 0 = never.
    pub max_age_s: u64,
    /// Names of the listening sockets it inherits (the front only).
    pub listeners: Vec<String>,
}

impl WatcherSpec {
    /// What a worker runs, as a number: equal for specs that differ in their count only.
    pub fn fingerprint(&self) -> u64 {
        let text = serde_json::to_vec(&Self { count: 0, ..self.clone() });
        crate::fingerprint::of(&text.unwrap_or_default())
    }
}
