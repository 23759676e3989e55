//! Requests of clients that come back to the peer that they have had: they wait for it while others
//! are free, until the caller loosens them, and have any other one when it gets no more traffic.

use super::{Admission, HandedOver, Pace, PeerKey, Roster, Take, Ticket, Waiting as AnyOf};

/// A request that waits for a slot of one peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Waiting {
    pub ticket: Ticket,
    wanted: PeerKey,
}

impl Roster {
    /// True for a peer that is given requests now.
    pub fn serves(&self, key: PeerKey) -> bool {
        let serves = |admission| admission == Admission::Admitted;
        self.entries.iter().any(|entry| entry.key == key && serves(entry.admission))
    }

    /// Takes a slot of this peer, or waits for one of it; as [`Roster::take`] if it does not serve.
    pub fn take_of(&mut self, wanted: PeerKey) -> Take {
        if !self.serves(wanted) {
            return self.take(None, Pace::Ordinary);
        }
        // Whoever waits for any peer waits since none is free.
        if let Some(at) = self.free(wanted) {
            return Take::Slot(self.occupy(at, Pace::Ordinary));
        }
        if self.waiting() >= self.queue_max {
            return Take::Full;
        }
        let ticket = self.new_ticket();
        self.sticky_queue.push_back(Waiting { ticket, wanted });
        Take::Wait(ticket)
    }

    /// Lets a request that waits for one peer have any, in the order in which it came.
    pub fn loosen(&mut self, ticket: Ticket) -> Vec<HandedOver> {
        if let Some(at) = self.sticky_queue.iter().position(|waiting| waiting.ticket == ticket) {
            self.sticky_queue.remove(at);
            self.let_have_any(ticket);
        }
        self.hand_out()
    }

    /// The same for all of them.
    pub fn loosen_all(&mut self) -> Vec<HandedOver> {
        for waiting in std::mem::take(&mut self.sticky_queue) {
            self.let_have_any(waiting.ticket);
        }
        self.hand_out()
    }

    /// The same for those whose peer gets no more traffic. One that cools down will.
    pub(super) fn loosen_orphans(&mut self) {
        let gets_traffic = |roster: &Self, key| {
            let is_there =
                |admission| matches!(admission, Admission::Admitted | Admission::CoolingDown);
            roster.entries.iter().any(|entry| entry.key == key && is_there(entry.admission))
        };
        for waiting in std::mem::take(&mut self.sticky_queue) {
            match gets_traffic(self, waiting.wanted) {
                true => self.sticky_queue.push_back(waiting),
                false => self.let_have_any(waiting.ticket),
            }
        }
    }

    /// Gives the oldest of these requests whose peer has a free slot that one, unless another
    /// request has waited longer for any.
    pub(super) fn hand_to_sticky(&mut self) -> Option<HandedOver> {
        let mut waiting = self.sticky_queue.iter().enumerate();
        let (index, at) = waiting.find_map(|(index, one)| Some((index, self.free(one.wanted)?)))?;
        let ticket = self.sticky_queue.get(index)?.ticket;
        if self.queue.front().is_some_and(|first| first.ticket < ticket) {
            return None;
        }
        self.sticky_queue.remove(index);
        Some((ticket, self.occupy(at, Pace::Ordinary)))
    }

    /// Where a peer is that serves and has a free slot.
    fn free(&self, key: PeerKey) -> Option<usize> {
        let limit = self.limit();
        self.entries.iter().position(|entry| {
            entry.key == key && entry.admission == Admission::Admitted && entry.in_flight < limit
        })
    }

    fn let_have_any(&mut self, ticket: Ticket) {
        let at = self.queue.partition_point(|waiting| waiting.ticket < ticket);
        self.queue.insert(at, AnyOf { ticket, pace: Pace::Ordinary });
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
