//! A worker as its upstream knows it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use mfserv_core::peers::PeerKey;
use mfserv_core::wire::front::Peer as PeerName;
use mfserv_logfile::Source;

use crate::embedded::io::signal::Signal;

/// One worker.
#[derive(Debug)]
pub struct Peer {
    pub(super) key: PeerKey,
    /// Its name and socket.
    pub name: PeerName,
    /// Its name in the index of the access log.
    pub source: Arc<Source>,
    /// What a cookie of its clients says.
    pub mark: String,
    /// Raised when the worker is known to be dead.
    pub gone: Arc<Signal>,
    /// Raised while the worker gets no more traffic: upgraded connections get a limit.
    pub leaving: Arc<Signal>,
    /// Raised when it shall take no more requests from the queue.
    pub(super) shut: Arc<Signal>,
    /// How many connections in a row it did not take.
    pub(super) refusals: AtomicU32,
    /// It has sent bytes that nobody asked for: its connections are kept no longer.
    pub(super) unruly: AtomicBool,
    /// And that has been reported.
    pub(super) reported: AtomicBool,
}

impl Peer {
    /// A worker that has just been admitted.
    pub(super) fn new(key: PeerKey, name: PeerName) -> Self {
        let source = Source { worker: name.worker.to_string(), ..Source::default() };
        Self {
            key,
            mark: super::sticky::mark(&name.worker),
            name,
            source: source.into(),
            gone: Arc::default(),
            leaving: Arc::default(),
            shut: Arc::default(),
            refusals: AtomicU32::new(0),
            unruly: AtomicBool::new(false),
            reported: AtomicBool::new(false),
        }
    }

    /// Where its scripts are, if those of the release that is routed to are in `current`: those of
    /// another release belong to other workers.
    pub fn scripts(&self, current: &Path) -> PathBuf {
        match (&self.name.dir, current.file_name()) {
            (Some(dir), Some(app)) => dir.join(app),
            _ => current.to_owned(),
        }
    }

    /// The directory of its release, if that is known.
    pub fn home(&self) -> Option<&Path> {
        self.name.dir.as_deref()
    }

    /// True if the worker has sent bytes that nobody asked for. Its connections are not kept:
    /// the next request would take such bytes for its answer.
    pub fn is_unruly(&self) -> bool {
        self.unruly.load(Ordering::Relaxed)
    }
}
