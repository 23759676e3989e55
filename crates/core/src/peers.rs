//! The load balancer of an app: which worker takes a request, and which requests wait.
//!
//! This is bookkeeping only; the caller keeps the connections and the clock. A request
//! takes a slot of a peer (a worker). When no slot is free, the request gets a [`Ticket`] in
//! a queue: first come, first served. A call that frees slots returns the tickets that
//! receive them.

use std::collections::VecDeque;

use crate::route::Slots;

/// The number of a peer. The caller chooses it and never uses it twice.
pub type PeerKey = u64;

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// What a request gets when it asks for a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// A slot of this peer; to be given back by [`Roster::release`].
    Slot(PeerKey),
    /// A place in the queue; to be given back by [`Roster::give_up`] unless it gets a slot.
    Wait(Ticket),
    /// No slot, because the queue is full.
    Full,
}

/// A waiting request and the peer whose slot it now has.
pub type HandedOver = (Ticket, PeerKey);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Admission {
    Admitted,
    /// Admitted, but it refused a connection a moment ago.
    CoolingDown,
    /// Admitted, but an operator has taken it out (`__socket_down`).
    Suspended,
    Draining,
}

#[derive(Debug, Clone)]
struct Entry {
    key: PeerKey,
    in_flight: u32,
    admission: Admission,
}

/// The peers of one app, their slots, and the queue for them.
#[derive(Debug, Clone)]
pub struct Roster {
    slots: Slots,
    queue_max: usize,
    entries: Vec<Entry>,
    queue: VecDeque<Ticket>,
    next_ticket: u64,
    /// Where the search for a peer begins: round robin among equal peers.
    turn: usize,
}

impl Roster {
    /// A roster without peers. At most `queue_max` requests wait.
    pub fn new(slots: Slots, queue_max: usize) -> Self {
        Self {
            slots,
            queue_max,
            entries: Vec::new(),
            queue: VecDeque::new(),
            next_ticket: 0,
            turn: 0,
        }
    }

    /// Changes the policy. New slots go to the requests that wait.
    pub fn set_policy(&mut self, slots: Slots, queue_max: usize) -> Vec<HandedOver> {
        self.slots = slots;
        self.queue_max = queue_max;
        self.hand_out()
    }

    /// Takes a slot, of another peer than `avoid` if possible.
    pub fn take(&mut self, avoid: Option<PeerKey>) -> Take {
        if self.queue.is_empty() {
            if let Some(at) = self.freest(avoid).or_else(|| self.freest(None)) {
                return Take::Slot(self.occupy(at));
            }
        }
        if self.queue.len() >= self.queue_max {
            return Take::Full;
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.queue.push_back(ticket);
        Take::Wait(ticket)
    }

    /// Gives a slot of this peer back.
    pub fn release(&mut self, key: PeerKey) -> Vec<HandedOver> {
        if let Some(entry) = self.entry(key) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
        }
        self.hand_out()
    }

    /// Takes a request out of the queue. False if it already has a slot.
    pub fn give_up(&mut self, ticket: Ticket) -> bool {
        let before = self.queue.len();
        self.queue.retain(|waiting| *waiting != ticket);
        self.queue.len() < before
    }

    /// Gives traffic to a peer; one that was draining gets traffic again.
    pub fn admit(&mut self, key: PeerKey) -> Vec<HandedOver> {
        match self.entry(key) {
            Some(entry) => entry.admission = Admission::Admitted,
            None => self.entries.push(Entry { key, in_flight: 0, admission: Admission::Admitted }),
        }
        self.hand_out()
    }

    /// Gives an admitted peer no traffic until [`Roster::end_cool_down`].
    pub fn cool_down(&mut self, key: PeerKey) {
        if let Some(entry) = self.entry(key) {
            if entry.admission == Admission::Admitted {
                entry.admission = Admission::CoolingDown;
            }
        }
    }

    /// Ends a cool-down: the peer gets traffic again.
    pub fn end_cool_down(&mut self, key: PeerKey) -> Vec<HandedOver> {
        match self.entry(key) {
            Some(entry) if entry.admission == Admission::CoolingDown => {
                entry.admission = Admission::Admitted
            }
            _ => {}
        }
        self.hand_out()
    }

    /// Gives an admitted peer no traffic until [`Roster::resume`] or [`Roster::admit`].
    pub fn suspend(&mut self, key: PeerKey) {
        if let Some(entry) = self.entry(key) {
            if entry.admission != Admission::Draining {
                entry.admission = Admission::Suspended;
            }
        }
    }

    /// Ends a suspension: the peer gets traffic again.
    pub fn resume(&mut self, key: PeerKey) -> Vec<HandedOver> {
        match self.entry(key) {
            Some(entry) if entry.admission == Admission::Suspended => {
                entry.admission = Admission::Admitted
            }
            _ => {}
        }
        self.hand_out()
    }

    /// True for a suspended peer.
    pub fn is_suspended(&self, key: PeerKey) -> bool {
        self.entries.iter().any(|entry| entry.key == key && entry.admission == Admission::Suspended)
    }

    /// Gives no more traffic to a peer; its requests in flight go on.
    pub fn drain(&mut self, key: PeerKey) {
        if let Some(entry) = self.entry(key) {
            entry.admission = Admission::Draining;
        }
    }

    /// Removes a peer.
    pub fn remove(&mut self, key: PeerKey) {
        self.entries.retain(|entry| entry.key != key);
    }

    /// Requests in flight at a peer.
    pub fn in_flight(&self, key: PeerKey) -> u32 {
        self.entries.iter().find(|entry| entry.key == key).map_or(0, |entry| entry.in_flight)
    }

    /// True for an admitted peer, also while it cools down or is suspended.
    pub fn is_admitted(&self, key: PeerKey) -> bool {
        self.entries.iter().any(|entry| entry.key == key && entry.admission != Admission::Draining)
    }

    /// True if any peer is admitted; those that cool down or are suspended count.
    pub fn has_admitted(&self) -> bool {
        self.entries.iter().any(|entry| entry.admission != Admission::Draining)
    }

    /// How many requests wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    fn entry(&mut self, key: PeerKey) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.key == key)
    }

    fn limit(&self) -> u32 {
        match self.slots {
            Slots::Finite { per_worker } => per_worker.max(1),
            Slots::Unlimited => u32::MAX,
        }
    }

    /// The admitted peer with a free slot and the fewest requests.
    fn freest(&self, avoid: Option<PeerKey>) -> Option<usize> {
        let count = self.entries.len();
        let limit = self.limit();
        (0..count)
            .map(|step| (self.turn + step) % count)
            .filter(|&at| {
                let entry = &self.entries[at];
                entry.admission == Admission::Admitted
                    && entry.in_flight < limit
                    && Some(entry.key) != avoid
            })
            .min_by_key(|&at| self.entries[at].in_flight)
    }

    fn occupy(&mut self, at: usize) -> PeerKey {
        self.turn = (at + 1) % self.entries.len();
        let entry = &mut self.entries[at];
        entry.in_flight += 1;
        entry.key
    }

    fn hand_out(&mut self) -> Vec<HandedOver> {
        let mut handed = Vec::new();
        while !self.queue.is_empty() {
            let Some(at) = self.freest(None) else { break };
            let key = self.occupy(at);
            if let Some(ticket) = self.queue.pop_front() {
                handed.push((ticket, key));
            }
        }
        handed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finite(per_worker: u32, peers: u64) -> Roster {
        let mut roster = Roster::new(Slots::Finite { per_worker }, 3);
        for key in 0..peers {
            assert!(roster.admit(key).is_empty());
        }
        roster
    }

    fn ticket(take: Take) -> Ticket {
        match take {
            Take::Wait(ticket) => ticket,
            other => panic!("expected to wait, got {other:?}"),
        }
    }

    #[test]
    fn equal_peers_take_turns_and_no_one_gets_more_than_its_slots() {
        let mut roster = finite(1, 3);
        let got: Vec<Take> = (0..3).map(|_| roster.take(None)).collect();
        assert_eq!(got, [Take::Slot(0), Take::Slot(1), Take::Slot(2)]);
        ticket(roster.take(None));
    }

    #[test]
    fn a_freed_slot_goes_to_the_oldest_waiter() {
        let mut roster = finite(1, 1);
        assert_eq!(roster.take(None), Take::Slot(0));
        let (first, second) = (ticket(roster.take(None)), ticket(roster.take(None)));
        assert_eq!(roster.release(0), [(first, 0)]);
        assert_eq!(roster.release(0), [(second, 0)]);
        assert!(roster.release(0).is_empty());
        assert_eq!(roster.in_flight(0), 0);
    }

    #[test]
    fn nobody_overtakes_the_queue() {
        let mut roster = finite(1, 2);
        roster.take(None);
        roster.take(None);
        let first = ticket(roster.take(None));
        roster.cool_down(0);
        assert!(roster.release(0).is_empty());
        let second = ticket(roster.take(None));
        assert_eq!(roster.end_cool_down(0), [(first, 0)]);
        assert_eq!(roster.release(1), [(second, 1)]);
    }

    #[test]
    fn the_queue_is_bounded_and_can_be_left() {
        let mut roster = finite(1, 0);
        let tickets: Vec<Ticket> = (0..3).map(|_| ticket(roster.take(None))).collect();
        assert_eq!(roster.take(None), Take::Full);
        assert!(roster.give_up(tickets[0]));
        assert!(!roster.give_up(tickets[0]));
        assert_eq!(roster.admit(9), [(tickets[1], 9)]);
    }

    #[test]
    fn unlimited_peers_get_the_request_with_the_fewest_in_flight() {
        let mut roster = Roster::new(Slots::Unlimited, 0);
        roster.admit(1);
        roster.admit(2);
        for _ in 0..10 {
            roster.take(None);
        }
        assert_eq!((roster.in_flight(1), roster.in_flight(2)), (5, 5));
        roster.release(2);
        assert_eq!(roster.take(None), Take::Slot(2));
    }

    #[test]
    fn a_draining_peer_gets_nothing_and_keeps_what_it_holds() {
        let mut roster = finite(4, 2);
        roster.take(None);
        roster.take(None);
        roster.drain(0);
        for _ in 0..3 {
            assert_eq!(roster.take(None), Take::Slot(1));
        }
        ticket(roster.take(None));
        assert_eq!(roster.in_flight(0), 1);
        assert!(!roster.is_admitted(0));
        roster.release(0);
        roster.remove(0);
        assert_eq!(roster.in_flight(0), 0);
    }

    #[test]
    fn a_suspended_peer_stays_admitted_and_gets_nothing_until_it_is_resumed() {
        let mut roster = finite(1, 1);
        roster.suspend(0);
        roster.end_cool_down(0);
        let first = ticket(roster.take(None));
        assert!(roster.is_admitted(0) && roster.is_suspended(0));
        assert_eq!(roster.resume(0), [(first, 0)]);
        roster.suspend(0);
        let second = ticket(roster.take(None));
        assert!(roster.release(0).is_empty());
        assert_eq!(roster.admit(0), [(second, 0)]);
        roster.drain(0);
        roster.suspend(0);
        assert!(!roster.is_admitted(0) && !roster.is_suspended(0));
    }

    #[test]
    fn a_peer_to_avoid_is_only_taken_when_it_alone_is_free() {
        let mut roster = finite(1, 2);
        assert_eq!(roster.take(Some(0)), Take::Slot(1));
        assert_eq!(roster.take(Some(0)), Take::Slot(0));
    }

    #[test]
    fn whatever_happens_slots_are_neither_lost_nor_given_twice() {
        let mut seed = 7u64;
        let mut random = move |n: u64| {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (seed >> 33) % n
        };
        let mut roster = Roster::new(Slots::Finite { per_worker: 2 }, 8);
        let mut held: Vec<PeerKey> = Vec::new();
        let mut queue: Vec<Ticket> = Vec::new();
        for _ in 0..20_000 {
            let key = random(4);
            let handed = match random(8) {
                0 => roster.admit(key),
                1 => {
                    roster.cool_down(key);
                    vec![]
                }
                2 => roster.end_cool_down(key),
                3 => {
                    roster.drain(key);
                    vec![]
                }
                4 | 5 if !held.is_empty() => {
                    let held_key = held.swap_remove(random(held.len() as u64) as usize);
                    roster.release(held_key)
                }
                6 if !queue.is_empty() => {
                    assert!(roster.give_up(queue.remove(0)));
                    vec![]
                }
                _ => {
                    match roster.take(None) {
                        Take::Slot(key) => held.push(key),
                        Take::Wait(ticket) => queue.push(ticket),
                        Take::Full => assert_eq!(queue.len(), 8),
                    }
                    vec![]
                }
            };
            for (ticket, key) in handed {
                assert_eq!(queue.remove(0), ticket, "first come, first served");
                held.push(key);
            }
            for key in 0..4 {
                let count = held.iter().filter(|held| **held == key).count();
                assert_eq!(roster.in_flight(key) as usize, count);
                assert!(count <= 2);
            }
            assert_eq!(roster.waiting(), queue.len());
        }
    }
}
