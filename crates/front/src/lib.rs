//! The HTTP front: it accepts clients and forwards their requests to the workers of apps.
//!
//! A front starts no process, and opens files only below the static roots of its routes.
//! A daemon sends it a [`mfserv_core::route::RouteTable`] over its control socket
//! (`ToFront`, `FromFront` in `mfserv_core::wire::front`); without a daemon it goes on with
//! the last table. [`run`] chooses among the kinds of front: one is built in ([`embedded`]),
//! the other one ([`nginx`]) has nginx accept the clients and the first one answer it.

#![deny(unsafe_code)]

mod control_socket;
pub mod embedded;
mod keeper_link;
mod listeners;
pub mod nginx;
mod process;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::output::Rotation;

pub use embedded::{TlsProblems, inspect_tls};
pub use listeners::listeners_from_env;
pub use nginx::NginxOptions;

/// What the name of a listening socket for TLS begins with, before a colon and its address.
pub const TLS_LISTENER: &str = "https";

/// The name of a listening socket on which only nginx connects, as the edge of the node.
pub const EDGE_LISTENER: &str = "edge";

/// How long a front that has been asked to end goes on with its requests, by default.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(60);

/// What a front has to know before a daemon connects.
#[derive(Debug)]
pub struct FrontOptions {
    /// The listening sockets with their names, see [`listeners_from_env`].
    pub listeners: Vec<(String, OwnedFd)>,
    /// The unix socket on which it listens for the daemon (made with mode 0600).
    pub control_socket: PathBuf,
    /// The keeper's socket: a keeper that has lost the listening sockets gets copies.
    pub keeper_socket: Option<PathBuf>,
    /// The socket of the telemetry role: it gets the counters once a second.
    pub metrics_socket: Option<PathBuf>,
    /// The directory of `nginx_access.log` and `nginx_error.log`.
    pub log_dir: PathBuf,
    /// How the two are rotated.
    pub rotation: Rotation,
    /// After SIGTERM or SIGINT: how long requests and upgraded connections may go on.
    pub grace: Duration,
    /// What nginx says to be believed on the listener [`EDGE_LISTENER`]; `None`: nobody is.
    pub edge_key: Option<String>,
    /// What the kind [`Kind::Nginx`] needs to know.
    pub nginx: Option<NginxOptions>,
}

/// The kinds of front. All of them understand the same messages of a daemon, and pass the
/// same tests (`tests/`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The front that is built in.
    Embedded,
    /// nginx accepts the clients; a front that is built in, a process of its own, answers nginx.
    Nginx,
}

/// Runs a front of this kind: blocks until SIGTERM or SIGINT, and until its requests are
/// answered (at most [`FrontOptions::grace`]). An error says why it could not start.
pub fn run(kind: Kind, options: FrontOptions) -> Result<(), Diagnostic> {
    match kind {
        Kind::Embedded => embedded::run(options),
        Kind::Nginx => nginx::run(options),
    }
}
