//! Requests of clients that come back to the peer that they have had: they wait for it while others
//! are free, until the caller loosens them, and have any other one when it gets no more traffic.

use std::collections::{BTreeMap, VecDeque};

use super::{Admission, Entry, HandedOver, Pace, PeerKey, Roster, Take, Ticket, Waiting};

/// The requests that wait for a slot of one peer, by peer, the oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct StickyQueue(BTreeMap<PeerKey, VecDeque<Ticket>>);

impl StickyQueue {
    pub fn len(&self) -> usize {
        self.0.values().map(VecDeque::len).sum()
    }

    /// Takes a request out of it. False if it is not there.
    pub fn remove(&mut self, ticket: Ticket) -> bool {
        self.0.values_mut().any(|waiting| {
            let at = waiting.binary_search(&ticket).ok();
            at.and_then(|at| waiting.remove(at)).is_some()
        })
    }
}

/// It gets traffic, or will in a moment.
fn comes_back(entry: &Entry) -> bool {
    matches!(entry.admission, Admission::Admitted | Admission::CoolingDown)
}

impl Roster {
    /// True for a peer that is given requests, also for one that cools down: clients come back to
    /// it.
    pub fn serves(&self, key: PeerKey) -> bool {
        self.entries.iter().any(|entry| entry.key == key && comes_back(entry))
    }

    /// Takes a slot of this peer, or waits for one of it; as [`Roster::take`] if it does not serve,
    /// or if those that wait for it have its part of the queue.
    pub fn take_of(&mut self, wanted: PeerKey) -> Take {
        if !self.serves(wanted) {
            return self.take(None, Pace::Ordinary);
        }
        // Whoever waits for any peer waits since none is free.
        if let Some(at) = self.free(wanted) {
            return Take::Slot(self.occupy(at, Pace::Ordinary));
        }
        let part = self.queue_max.div_ceil(self.entries.len().max(1));
        let waits = self.sticky_queue.0.get(&wanted).map_or(0, VecDeque::len);
        if waits >= part || self.waiting() >= self.queue_max {
            return self.take(None, Pace::Ordinary);
        }
        let ticket = self.new_ticket();
        self.sticky_queue.0.entry(wanted).or_default().push_back(ticket);
        Take::Wait(ticket)
    }

    /// Lets a request that waits for one peer have any, in the order in which it came.
    pub fn loosen(&mut self, ticket: Ticket) -> Vec<HandedOver> {
        if self.sticky_queue.remove(ticket) {
            self.let_have_any(ticket, Pace::Ordinary);
        }
        self.hand_out()
    }

    /// The same for all of them.
    pub fn loosen_all(&mut self) -> Vec<HandedOver> {
        for ticket in std::mem::take(&mut self.sticky_queue).0.into_values().flatten() {
            self.let_have_any(ticket, Pace::Ordinary);
        }
        self.hand_out()
    }

    /// The same for those whose peer gets no more traffic.
    pub(super) fn loosen_orphans(&mut self) {
        let mut queue = std::mem::take(&mut self.sticky_queue);
        queue.0.retain(|key, waiting| {
            let serves = self.serves(*key);
            if !serves {
                waiting.drain(..).for_each(|ticket| self.let_have_any(ticket, Pace::Ordinary));
            }
            serves && !waiting.is_empty()
        });
        self.sticky_queue = queue;
    }

    /// Gives the oldest of these requests whose peer has a free slot that one, unless another
    /// request has waited longer for any.
    pub(super) fn hand_to_sticky(&mut self) -> Option<HandedOver> {
        let waiting = self.sticky_queue.0.iter();
        let first = waiting.filter_map(|(key, tickets)| {
            let ticket = *tickets.front()?;
            Some((ticket, self.free(*key)?))
        });
        let (ticket, at) = first.min_by_key(|(ticket, _)| *ticket)?;
        if self.queue.front().is_some_and(|first| first.ticket < ticket) {
            return None;
        }
        self.sticky_queue.remove(ticket);
        Some((ticket, self.occupy(at, Pace::Ordinary)))
    }

    /// Where a peer is that serves and has a free slot.
    fn free(&self, key: PeerKey) -> Option<usize> {
        let limit = self.limit();
        self.entries.iter().position(|entry| {
            entry.key == key && entry.admission == Admission::Admitted && entry.in_flight < limit
        })
    }

    /// A request waits for any peer now, in the order in which it came.
    pub(super) fn let_have_any(&mut self, ticket: Ticket, pace: Pace) {
        let at = self.queue.partition_point(|waiting| waiting.ticket < ticket);
        self.queue.insert(at, Waiting { ticket, pace });
    }
}

/// Which of these peers a client belongs to, each with its number: the same one on every thread and
/// node, and when one peer goes, only its clients are moved (rendezvous hashing).
pub fn by_address<T>(address: &[u8], peers: impl Iterator<Item = (u32, T)>) -> Option<T> {
    let client = address.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    peers.max_by_key(|(number, _)| mixed(client ^ mixed(u64::from(*number)))).map(|(_, peer)| peer)
}

/// Each bit of the result depends on each bit (the finalizer of SplitMix64).
fn mixed(mut bits: u64) -> u64 {
    bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{roster, slot, ticket};
    use super::*;

    #[test]
    fn a_request_waits_for_its_peer_while_others_are_free() {
        let mut roster = roster(1, 3, 9);
        assert_eq!(slot(roster.take_of(1)), 1);
        let first = ticket(roster.take_of(1));
        let second = ticket(roster.take_of(1));
        assert!(roster.hand_out().is_empty());
        assert_eq!(slot(roster.take(None, Pace::Ordinary)), 2, "nobody stands behind it");
        assert_eq!(roster.release(1, Pace::Ordinary), [(first, 1)]);
        assert_eq!(roster.loosen(second), [(second, 0)]);
        assert_eq!(roster.waiting(), 0);
    }

    #[test]
    fn when_its_peer_gets_no_more_traffic_a_request_has_any() {
        for leave in [Roster::drain, Roster::suspend] {
            let mut roster = roster(1, 2, 9);
            slot(roster.take_of(0));
            let waits = ticket(roster.take_of(0));
            roster.cool_down(0);
            assert!(roster.hand_out().is_empty(), "it comes back");
            assert_eq!(leave(&mut roster, 0), [(waits, 1)]);
            let next = ticket(roster.take_of(0));
            assert_eq!(roster.release(1, Pace::Ordinary), [(next, 1)]);
        }
    }

    #[test]
    fn one_that_cools_down_is_waited_for() {
        let mut roster = roster(1, 2, 9);
        roster.cool_down(0);
        let waits = ticket(roster.take_of(0));
        assert!(roster.hand_out().is_empty());
        assert_eq!(roster.end_cool_down(0), [(waits, 0)]);
    }

    #[test]
    fn those_that_wait_for_one_peer_do_not_have_the_whole_queue() {
        let mut roster = roster(1, 3, 3);
        slot(roster.take_of(0));
        ticket(roster.take_of(0));
        assert_eq!([slot(roster.take_of(0)), slot(roster.take_of(0))], [1, 2], "others are idle");
        ticket(roster.take_of(1));
        ticket(roster.take(None, Pace::Ordinary));
        assert_eq!(roster.take_of(2), Take::Full);
        let mut none = super::super::tests::roster(1, 2, 0);
        assert_eq!([slot(none.take_of(0)), slot(none.take_of(0))], [0, 1]);
    }

    #[test]
    fn whoever_has_waited_longest_gets_a_slot_that_becomes_free() {
        let mut roster = roster(1, 2, 3);
        assert_eq!([0, 1].map(|key| slot(roster.take_of(key))), [0, 1]);
        let any = ticket(roster.take(None, Pace::Ordinary));
        let own = ticket(roster.take_of(0));
        let gone = ticket(roster.take_of(1));
        assert_eq!(roster.take_of(1), Take::Full);
        assert!(roster.give_up(gone) && !roster.give_up(gone));
        assert_eq!(roster.release(0, Pace::Ordinary), [(any, 0)]);
        assert_eq!(roster.release(0, Pace::Ordinary), [(own, 0)]);
        assert!(roster.release(1, Pace::Ordinary).is_empty());
        slot(roster.take_of(1));
        let late = ticket(roster.take_of(1));
        assert!(roster.loosen_all().is_empty());
        assert_eq!(roster.release(0, Pace::Ordinary), [(late, 0)]);
    }

    #[test]
    fn addresses_spread_evenly_and_only_those_of_a_peer_that_goes_are_moved() {
        let clients: Vec<String> =
            (0..4000).map(|at| format!("10.0.{}.{}", at / 250, at % 250)).collect();
        let of = |client: &String, peers: &[u32]| {
            by_address(client.as_bytes(), peers.iter().map(|number| (*number, *number))).unwrap()
        };
        let mut counts = [0; 5];
        for client in &clients {
            let before = of(client, &[1, 2, 3, 4]);
            counts[before as usize] += 1;
            let after = of(client, &[1, 2, 4]);
            assert!(before == 3 || before == after, "{client}: {before} {after}");
        }
        assert!(counts[1..].iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        assert_eq!(by_address(b"a", std::iter::empty::<(u32, u32)>()), None);
    }
}
