//! A request that waits for a slot.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use mfserv_platform::sync::lock;

use super::{Slot, Waiting};

/// Ready with the slot when it is this request's turn; with `None` if the app was removed,
/// or if all its workers wait for their next start.
impl Future for Waiting {
    type Output = Option<Slot>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Slot>> {
        let called = std::task::ready!(Pin::new(&mut self.call).poll(cx));
        self.called = true;
        Poll::Ready(called.ok().map(|peer| {
            let found = lock(&self.upstream.inner).with_idle(peer.key, self.lane);
            Slot::new(self.upstream.clone(), peer, self.lane, found.and_then(|(_, idle)| idle))
        }))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.called {
            return;
        }
        let mut inner = lock(&self.upstream.inner);
        inner.waiters.remove(&self.ticket);
        inner.roster.give_up(self.ticket);
        drop(inner);
        // The slot was handed over, and the request has gone: the next one gets it.
        if let Ok(peer) = self.call.try_recv() {
            self.upstream.release(&peer, None, None, true);
        }
    }
}
