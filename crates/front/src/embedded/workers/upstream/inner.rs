//! What an upstream knows of its workers, under its lock.

use std::sync::Arc;

use mfserv_core::names::WorkerId;
use mfserv_core::peers::PeerKey;
use mfserv_core::route::Slots;
use mfserv_core::wire::front::Peer as PeerName;
use tokio::time::Instant;

use super::idle::Idle;
use super::pull::Pulling;
use super::{IDLE_COUNT, Inner, Member, Peer};

impl Inner {
    pub(super) fn find(&self, worker: &WorkerId) -> Option<Arc<Peer>> {
        let mut peers = self.members.iter().map(|member| &member.peer);
        peers.find(|peer| peer.name.worker == *worker).cloned()
    }

    pub(super) fn member_of(&self, key: PeerKey) -> Option<&Member> {
        self.members.iter().find(|member| member.peer.key == key)
    }

    pub(super) fn member(&mut self, key: PeerKey) -> Option<&mut Member> {
        self.members.iter_mut().find(|member| member.peer.key == key)
    }

    /// The worker whose slot was taken, with an idle connection to it. For a finite app that
    /// is any connection, so that a worker never has more connections than slots; else it
    /// is one of this lane.
    pub(super) fn with_idle(
        &mut self,
        key: PeerKey,
        lane: usize,
    ) -> Option<(Arc<Peer>, Option<Idle>)> {
        let finite = self.slots != Slots::Unlimited;
        let member = self.member(key)?;
        let own = member.idle.iter().rposition(|idle| idle.lane == lane);
        let any = || member.idle.len().checked_sub(1).filter(|_| finite);
        let idle = own.or_else(any).map(|at| member.idle.remove(at));
        Some((member.peer.clone(), idle))
    }

    /// Keeps an idle connection; returns it if it must not be kept.
    pub(super) fn keep(&mut self, key: PeerKey, idle: Idle) -> Option<Idle> {
        if !self.roster.is_admitted(key) || self.roster.is_suspended(key) {
            return Some(idle);
        }
        match self.member(key) {
            Some(member) if member.idle.len() < IDLE_COUNT && !member.peer.is_unruly() => {
                member.idle.push(idle);
                None
            }
            _ => Some(idle),
        }
    }

    pub(super) fn add(&mut self, name: PeerName) -> PeerKey {
        let key = self.next_key;
        self.next_key += 1;
        let (peer, idle, quiet_from) = (Arc::new(Peer::new(key, name)), Vec::new(), Instant::now());
        self.members.push(Member { peer, idle, pulling: Pulling::Unasked, quiet_from });
        self.has_unasked = true;
        key
    }

    /// Returns the idle connections, to be closed after the lock is released.
    pub(super) fn drain(&mut self, peer: &Peer) -> Vec<Idle> {
        let handed = self.roster.drain(peer.key);
        self.leave_queue(peer);
        let idle = self.take_idle(peer);
        self.deliver(handed);
        self.remove_if_empty(peer.key);
        idle
    }

    pub(super) fn take_idle(&mut self, peer: &Peer) -> Vec<Idle> {
        self.member(peer.key).map(|member| std::mem::take(&mut member.idle)).unwrap_or_default()
    }

    /// How many requests a worker has.
    pub(super) fn in_flight(&self, peer: &Peer) -> u32 {
        let has_pulled = self.queue.as_ref().is_some_and(|queue| queue.has_request(peer));
        self.roster.in_flight(peer.key) + u32::from(has_pulled)
    }

    /// Forgets a draining worker that has no request any more, and takes none.
    pub(super) fn remove_if_empty(&mut self, key: PeerKey) -> bool {
        let may_take = self.member_of(key).is_some_and(|one| one.pulling == Pulling::Linked);
        let is_busy = may_take || self.roster.in_flight(key) > 0;
        let empty = !self.roster.is_admitted(key) && !is_busy;
        if empty {
            self.roster.remove(key);
            if let (Some(queue), Some(member)) = (&self.queue, self.member_of(key)) {
                queue.forget(&member.peer);
            }
            self.members.retain(|member| member.peer.key != key);
        }
        empty
    }
}
