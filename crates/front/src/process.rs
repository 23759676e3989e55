//! What a process is that runs a front of either kind.

use std::future::Future;

use mfserv_core::Diagnostic;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::LocalOptions;

/// Descriptors that a front needs for itself: sockets, logs, pipes and event loops.
pub const OWN_DESCRIPTORS: u64 = 64;
/// Of the others, one in so many is kept for workers and files.
const KEPT_OF: u64 = 4;

/// How many descriptors this process, and each one that it starts, may have.
pub fn descriptors() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// How many clients there may be where a process may have so many descriptors.
pub fn clients_within(descriptors: u64) -> u64 {
    let others = descriptors.saturating_sub(OWN_DESCRIPTORS);
    (others - others / KEPT_OF).max(1)
}

/// Runs the whole life of a front on this thread.
pub fn run(life: impl Future<Output = Result<(), Diagnostic>>) -> Result<(), Diagnostic> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .map_err(|why| Diagnostic::error("the front cannot start").because(why))?;
    runtime.block_on(life)
}

/// Raises the limit of descriptors to what is allowed: each connection to a client or a
/// worker is one.
pub fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        // If the system refuses that, the present limit has to do.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    }
}
