//! A request asks for a slot.

use std::sync::Arc;

use mfserv_core::peers::{PeerKey, QUEUE, Shape, Take};
use mfserv_platform::sync::lock;
use tokio::sync::oneshot;

use super::asking::Asked;
use super::{Client, Inner, Peer, Place, Slot, Taken, Turn, Upstream, Waiter, Waiting};

impl Upstream {
    /// Asks for a slot for a request of this lane, if possible not of the worker `avoid`.
    pub fn take(
        self: &Arc<Self>,
        lane: usize,
        avoid: Option<&Arc<Peer>>,
        (shape, client): (Shape<'_>, &Client<'_>),
    ) -> Taken {
        let mut inner = lock(&self.inner);
        if inner.removed {
            return Taken::Removed;
        }
        // Under the lock: it is sent away, or has its place before those who wait are.
        if self.gate.maintenance().is_some() {
            return Taken::Away;
        }
        for (_, peer) in inner.take_unlinked() {
            tokio::task::spawn_local(self.clone().keep_link(peer));
        }
        let asked = inner.learnt.look_at(shape);
        let avoid = avoid.map(|peer| peer.key);
        let wanted = inner.wanted(client).filter(|key| Some(*key) != avoid);
        let taken = match wanted {
            Some(key) => inner.roster.take_of(key),
            None => inner.roster.take(avoid, asked.pace),
        };
        match taken {
            Take::Slot(key) => {
                // No worker has it yet: others stand in the queue before it.
                inner.stats.queued += u64::from(key == QUEUE && inner.roster.waiting() > 0);
                match self.place(&mut inner, key, lane, asked) {
                    Some(place) => Taken::Now(place),
                    None => Taken::Removed,
                }
            }
            Take::Wait(ticket) => {
                let (tell, call) = oneshot::channel();
                inner.waiters.insert(ticket, Waiter { tell, pace: asked.pace });
                inner.stats.queued += 1;
                let handed = inner.roster.hand_out();
                inner.deliver(handed);
                let (upstream, called, is_sticky) = (self.clone(), false, wanted.is_some());
                Taken::Waiting(Waiting { upstream, lane, ticket, asked, call, called, is_sticky })
            }
            Take::Full => Taken::Full,
        }
    }

    /// The place of a request that has got a slot of this peer.
    pub(super) fn place(
        self: &Arc<Self>,
        inner: &mut Inner,
        key: PeerKey,
        lane: usize,
        asked: Asked,
    ) -> Option<Place> {
        if key == QUEUE {
            let queue = inner.queue.clone()?;
            return Some(Place::Turn(Turn::new(self.clone(), queue, lane, asked)));
        }
        let (peer, idle) = inner.with_idle(key, lane)?;
        Some(Place::Slot(Slot::new(self.clone(), peer, lane, idle, asked)))
    }
}
