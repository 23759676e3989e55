//! The three messages from the supervisor to whatever routes requests to workers.

use std::collections::BTreeMap;

use mfserv_core::names::WorkerId;
use mfserv_core::wire::front::Peer;

/// Routes requests to workers. Implemented by the daemon's side of the web fronts.
pub trait Traffic: Send + 'static {
    /// This worker is ready: give it requests.
    fn admit(&mut self, upstream: &str, peer: Peer);

    /// Give it no new request. The implementor calls [`crate::Handle::drained`] once the worker
    /// holds none.
    fn drain(&mut self, upstream: &str, worker: &WorkerId);

    /// Its process has ended.
    fn forget(&mut self, upstream: &str, worker: &WorkerId);

    /// Which of these workers, by upstream, have nothing in hand? The implementor calls
    /// [`crate::Handle::idle`], unless it cannot know.
    fn ask_idle(&mut self, workers: BTreeMap<String, Vec<WorkerId>>);
}
