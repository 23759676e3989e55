//! What the supervisor says about requests: three words, and no idea of HTTP.

use mfserv_core::names::WorkerId;
use mfserv_core::wire::front::Peer;

/// Gives requests to workers and takes them away again.
pub trait Traffic: Send + 'static {
    /// This worker is ready: give it requests.
    fn admit(&mut self, upstream: &str, peer: Peer);

    /// Give it no more. [`crate::Handle::drained`] is to be called once it holds none.
    fn drain(&mut self, upstream: &str, worker: &WorkerId);

    /// Its process is gone.
    fn forget(&mut self, upstream: &str, worker: &WorkerId);
}
