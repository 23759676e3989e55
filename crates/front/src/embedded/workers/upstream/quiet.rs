//! Since when a worker has nothing in hand.
//!
//! A request whose client has gone, or which broke in another way, is over for the front; the
//! worker may still be at work on it, for as long as the timeout of its app permits.

use mfserv_core::names::WorkerId;
use mfserv_core::peers::PeerKey;
use mfserv_platform::sync::lock;
use tokio::time::Instant;

use super::{Inner, Upstream};

impl Upstream {
    /// Of these workers, those that get traffic and have nothing in hand, with how long that
    /// has been so, milliseconds.
    pub fn quiet(&self, workers: &[WorkerId]) -> Vec<(WorkerId, u64)> {
        let (inner, now) = (lock(&self.inner), Instant::now());
        let mut quiet = Vec::new();
        for member in inner.members.iter().filter(|m| workers.contains(&m.peer.name.worker)) {
            let key = member.peer.key;
            let serves = inner.roster.is_admitted(key) && !inner.roster.is_suspended(key);
            if serves && inner.in_flight(&member.peer) == 0 && member.quiet_from <= now {
                let for_ms = now.duration_since(member.quiet_from).as_millis();
                quiet.push((member.peer.name.worker.clone(), for_ms as u64));
            }
        }
        quiet
    }
}

impl Inner {
    /// A request of this worker has ended; `is_over`: the worker has sent the whole answer.
    pub(super) fn note_end(&mut self, key: PeerKey, is_over: bool) {
        let patience = if is_over { std::time::Duration::ZERO } else { self.timeout };
        if let Some(member) = self.member(key) {
            member.quiet_from = member.quiet_from.max(Instant::now() + patience);
        }
    }
}
