//! How often a request is tried.

use std::sync::Arc;

use tokio::time::Instant;

use crate::embedded::workers::failure::Failure;
use crate::embedded::workers::upstream::Peer;

/// What has been tried.
#[derive(Default)]
pub struct Tries {
    /// How many workers have failed.
    pub count: u32,
    first: Option<Arc<Peer>>,
    /// The first worker ended a new connection without an answer: it may have died of the
    /// request.
    first_may_have_died_of_it: bool,
    /// The worker that was asked last.
    pub avoid: Option<Arc<Peer>>,
    /// Since when it waits for slots: from the first time it has to.
    pub waits_since: Option<Instant>,
}

impl Tries {
    /// Whether another worker may be asked after this failure. There is one retry, and a
    /// second one only if the first worker cannot have died of the request.
    pub fn allow(&mut self, failure: Failure, peer: &Arc<Peer>, is_safe: bool) -> bool {
        let is_harmless =
            matches!(failure, Failure::Unsent | Failure::Unread | Failure::Overloaded);
        let is_silent = matches!(failure, Failure::Silent { .. });
        if !(is_harmless || (is_silent && is_safe)) {
            return false;
        }
        self.count += 1;
        self.avoid = Some(peer.clone());
        if self.count == 1 {
            self.first_may_have_died_of_it = failure == Failure::Silent { reused: false };
            self.first = (!is_harmless).then(|| peer.clone());
            return true;
        }
        let first_is_dead = self.first.as_ref().is_some_and(|peer| peer.gone.is_raised());
        self.count == 2 && !self.first_may_have_died_of_it && !first_is_dead
    }
}
