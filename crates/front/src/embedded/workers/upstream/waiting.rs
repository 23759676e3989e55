//! A request that waits for a slot.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use mfserv_core::peers::Pace;
use mfserv_platform::sync::lock;

use super::{Slot, SlotEnd, Waiting};

/// Ready with the slot when it is this request's turn; with `None` if the app was removed,
/// or if all its workers wait for their next start.
impl Future for Waiting {
    type Output = Option<Slot>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Slot>> {
        let called = std::task::ready!(Pin::new(&mut self.call).poll(cx));
        self.called = true;
        Poll::Ready(called.ok().map(|peer| {
            let found = lock(&self.upstream.inner).with_idle(peer.key, self.lane);
            let idle = found.and_then(|(_, idle)| idle);
            Slot::new(self.upstream.clone(), peer, self.lane, idle, self.asked)
        }))
    }
}

impl Waiting {
    /// True for a slow request, which may not have every slot.
    pub fn is_slow(&self) -> bool {
        self.asked.pace == Pace::Slow
    }

    /// Lets a slow request have any slot.
    pub fn hasten(&self) {
        let mut inner = lock(&self.upstream.inner);
        let handed = inner.roster.hasten(self.ticket);
        inner.deliver(handed);
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
            let end = SlotEnd { is_over: true, ..SlotEnd::default() };
            self.upstream.release(&peer, self.asked, None, end);
        }
    }
}
