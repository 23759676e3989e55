//! The keeper: the only parent.
//!
//! It starts what it is told to start, reaps and records every exit, holds the listening
//! sockets, copies output to log files, and restarts the daemon. It decides nothing else.
//! Its words are in [`mfserv_core::wire::keeper`].
//!
//! - `keeper` is the loop; `asks` what is answered; `ends` how processes end;
//!   `takeover` adoption and replacement by execve(2); `stopping` the end of the node.
//! - `spawn` starts one process; `containment` finds all that it started.
//! - `copying` brings output from FIFOs to files, in two threads of its own.
//! - `client` is the other side of the socket.
//!
//! Stopping (`Ask::Shutdown`, or SIGTERM after its grace): the daemon is killed at once,
//! so that it starts nothing; everything else gets SIGTERM and [`KeeperOptions::stop_ms`],
//! then SIGKILL, until no descendant and no process with the marker of this home is left.
//!
//! A keeper killed with -9 loses nothing but the exit codes of what ends before the next
//! one starts (and, before Linux 6.15, of what that one adopts). Output is in the FIFOs or
//! the log files, except for what a slow disk had left in memory.

mod asks;
mod client;
mod connection;
mod containment;
mod copying;
mod descriptors;
mod ends;
mod exit_status;
mod keeper;
mod listening;
mod procfs;
mod refusal;
mod saved;
mod signals;
mod spawn;
mod stopping;
mod takeover;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_core::wire::keeper::ProcessSpec;

pub use client::{Client, Greeting};
pub use containment::{MARKER, home_hash};
pub use procfs::{boot_id, start_ticks};

/// The name of the process that the keeper itself starts and restarts.
pub const DAEMON: &str = "daemon";

/// Set by a keeper in the environment of the program that it becomes, to its process id.
pub const RESUME_VARIABLE: &str = "MFSERV_KEEPER_RESUME";

/// What a keeper is told when it starts.
#[derive(Debug)]
pub struct KeeperOptions {
    /// The runtime home; the keeper lives in its `var/run`, made 0700 if missing.
    pub home: PathBuf,
    /// What to keep running under the name [`DAEMON`]; its `id` is ignored.
    pub daemon: Option<ProcessSpec>,
    /// How long after SIGTERM the daemon may take to stop the node, milliseconds.
    pub grace_ms: u64,
    /// How long after the SIGTERM of a shutdown processes may take, milliseconds.
    pub stop_ms: u64,
    /// Whether to contain processes by cgroups where the system permits it; without, it is
    /// done by session, descent and the marker in the environment.
    pub cgroups: bool,
    /// `ready` and a line feed are written to it when the socket listens, and it is closed;
    /// closed without a word, the keeper did not start. (sd_notify(3) is obeyed besides.)
    pub ready: Option<OwnedFd>,
    /// This program replaces an earlier image of the same process.
    pub resume: bool,
}

impl KeeperOptions {
    /// No daemon, 60 s of grace; resumes if this process was told so by
    /// [`RESUME_VARIABLE`], in which case the command line need not say it.
    pub fn new(home: impl Into<PathBuf>) -> Self {
        let told = std::env::var(RESUME_VARIABLE).ok().and_then(|pid| pid.parse().ok());
        Self {
            home: home.into(),
            daemon: None,
            grace_ms: 60_000,
            stop_ms: 3_000,
            cgroups: true,
            ready: None,
            resume: told == Some(std::process::id()),
        }
    }
}

/// Where the keeper of a home listens.
pub fn socket_path(home: &Path) -> PathBuf {
    home.join("var/run/keep.sock")
}

/// Is the keeper of this home until it is told to end. To be called by a process that does
/// nothing else: it reaps every child and takes the descriptors 3 to 34.
///
/// # Errors
/// `Refused` when the home has a keeper already; `Failed` when the home cannot be used.
pub fn run(options: KeeperOptions) -> Result<(), Diagnostic> {
    keeper::Keeper::start(options)?.serve()
}
