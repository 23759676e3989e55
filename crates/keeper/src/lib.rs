//! The keeper: the only parent.
//!
//! The keeper starts the processes that clients ask for, reaps and records every exit,
//! holds the listening sockets, copies output to log files, and restarts the daemon. It
//! decides nothing else. Its protocol is [`mfserv_core::wire::keeper`].
//!
//! - `keeper` is the loop; `keeper/requests` answers clients; `keeper/takeover` adopts what
//!   a dead keeper has left, and replaces the program by execve(2).
//! - The loop calls types with private fields: `processes` (what lives), `exits` (how it
//!   ended), `listeners` (sockets), `clients`, `outputs` (streams and their threads),
//!   `daemon` (when it is started again), `ending` (how the node ends), `saved` (the state
//!   file).
//! - `spawn` starts one process; `containment` finds all processes that it started; `memory`
//!   makes the cgroups that limit their memory.
//! - `copying` brings output from FIFOs to files, in two threads of its own.
//! - `client` is the other side of the socket.
//!
//! Stopping (`Ask::Shutdown`, or SIGTERM after its grace): the daemon is killed at once,
//! so that it starts nothing; everything else gets SIGTERM and [`KeeperOptions::stop_ms`],
//! then SIGKILL, until no descendant and no process with the marker of this home is left.
//!
//! A keeper that is killed with -9 loses only exit codes: those of processes that end before
//! the next keeper starts and, before Linux 6.15, of processes that the next one adopts.
//! Output is in the FIFOs or the log files, except for the lines that waited in memory for a
//! slow disk.

mod client;
mod clients;
mod connection;
mod containment;
mod copying;
mod daemon;
mod descriptors;
mod ending;
mod exit_status;
mod exits;
mod keeper;
mod listeners;
mod listening_socket;
mod log;
mod memory;
mod outputs;
mod processes;
mod procfs;
mod refusal;
mod saved;
mod sd_notify;
mod signals;
mod spawn;
mod startup;

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

/// The options of a keeper.
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
    /// `ready` and a line feed are written to it when the socket listens; then it is closed.
    /// If it is closed and empty, the keeper did not start. (sd_notify(3) is used as well.)
    pub ready: Option<OwnedFd>,
    /// This program replaces an earlier image of the same process.
    pub resume: bool,
}

impl KeeperOptions {
    /// No daemon, 60 s of grace. Resumes if [`RESUME_VARIABLE`] names this process: the
    /// command line need not say it.
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

/// Runs the keeper of a home; blocks until the node has been stopped. The process must do
/// nothing else: the keeper reaps every child and takes the descriptors 3 to 34.
///
/// # Errors
/// `Refused` when the home has a keeper already; `Failed` when the home cannot be used.
pub fn run(options: KeeperOptions) -> Result<(), Diagnostic> {
    keeper::Keeper::start(options)?.serve()
}
