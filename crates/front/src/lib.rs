//! The HTTP front: what listens for clients and forwards to the workers of the apps.
//!
//! A front starts no process, knows no plugin, and opens files only below the static
//! roots that it was told. What it does is said by a [`mfserv_core::route::RouteTable`]
//! that a daemon publishes over its control socket; without a daemon it goes on with the
//! last one.

#![deny(unsafe_code)]

pub mod embedded;
mod keeper_link;
mod listeners;

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::output::Rotation;

pub use listeners::listeners_from_env;

/// How long a front that was asked to end goes on with what it holds, by default.
pub const DEFAULT_GRACE: Duration = Duration::from_secs(60);

/// What a front needs to know before a daemon speaks to it.
#[derive(Debug)]
pub struct FrontOptions {
    /// The listening sockets with their names, see [`listeners_from_env`].
    pub listeners: Vec<(String, OwnedFd)>,
    /// The unix socket on which it listens for the daemon (made with mode 0600).
    pub control_socket: PathBuf,
    /// The keeper's socket: a keeper that has lost the listening sockets gets them back.
    pub keeper_socket: Option<PathBuf>,
    /// The directory of `nginx_access.log` and `nginx_error.log`.
    pub log_dir: PathBuf,
    /// How the two are rotated.
    pub rotation: Rotation,
    /// After SIGTERM or SIGINT: how long requests and upgraded connections may go on.
    pub grace: Duration,
}

/// Runs a front: blocks until SIGTERM or SIGINT, and until what it holds then is over
/// (at most [`FrontOptions::grace`]). An error says why it could not start.
pub fn run(options: FrontOptions) -> Result<(), Diagnostic> {
    embedded::run(options)
}
