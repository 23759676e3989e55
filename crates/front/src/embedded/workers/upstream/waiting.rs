//! A request that waits for a slot.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use mfserv_core::peers::{HandedOver, Pace, QUEUE, Ticket};
use mfserv_platform::sync::lock;

use super::{Inner, Peer, Place, SlotEnd, Waiting};

/// Ready with the slot when it is this request's turn; with `None` if the app was removed or is in
/// maintenance, or if all its workers wait for their next start.
impl Future for Waiting {
    type Output = Option<Place>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Place>> {
        let called = std::task::ready!(Pin::new(&mut self.call).poll(cx));
        self.called = true;
        if self.upstream.gate.maintenance().is_some() {
            called.into_iter().for_each(|peer| self.give_back(peer));
            return Poll::Ready(None);
        }
        Poll::Ready(called.ok().and_then(|peer| {
            let key = peer.map_or(QUEUE, |peer| peer.key);
            let (mut inner, asked) = (lock(&self.upstream.inner), self.asked.clone());
            self.upstream.place(&mut inner, key, self.lane, asked)
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

    /// Gives back a slot of this worker, or one of the queue, that was not used.
    fn give_back(&self, peer: Option<Arc<Peer>>) {
        let end = SlotEnd { is_over: true, ..SlotEnd::default() };
        match peer {
            Some(peer) => self.upstream.release(&peer, &self.asked, None, end),
            None => self.upstream.release_turn(&self.asked),
        }
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
            self.give_back(peer);
        }
    }
}

impl Inner {
    /// Ends the wait of all requests, without a slot.
    pub(super) fn send_away(&mut self) {
        let tickets: Vec<Ticket> = self.waiters.drain().map(|(ticket, _)| ticket).collect();
        for ticket in tickets {
            self.roster.give_up(ticket);
        }
    }

    /// Hands slots over to waiting requests, in their order. A slot whose request has gone goes
    /// to the next.
    pub(super) fn deliver(&mut self, handed: Vec<HandedOver>) {
        let mut handed = VecDeque::from(handed);
        while let Some((ticket, key)) = handed.pop_front() {
            let peer = self.member(key).map(|member| member.peer.clone());
            let waiter = self.waiters.remove(&ticket);
            let pace = waiter.as_ref().map_or(Pace::Ordinary, |waiter| waiter.pace);
            let is_there = key == QUEUE || peer.is_some();
            let taken = waiter.is_some_and(|one| is_there && one.tell.send(peer).is_ok());
            if !taken {
                handed.extend(self.roster.release(key, pace));
            }
        }
    }
}
