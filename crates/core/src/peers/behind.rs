//! Requests that are given to a worker which is busy: they wait there, not in the front.
//!
//! A worker with one request at a time sleeps, and has the front wake it, for each of them. With
//! a few requests at the worker itself both do many in one go, which is far cheaper. Only
//! requests that are known to be short are given so, behind others of that kind, and only
//! while no worker is free: nothing is put behind a request that may take long.

use std::time::Duration;

use super::{Admission, Entry, Pace, PeerKey, Roster, Take, Ticket, Waiting};
use crate::route::Slots;

/// What waits at a worker may be expected to take so long in all, microseconds.
const EXPECTED_MAX_US: u32 = 2_000;
/// A worker that has been with one request for so long is given nothing to wait behind it.
const STALL: Duration = Duration::from_millis(3);

impl Roster {
    /// Up to so many requests may be at a worker with one slot, the running one counted.
    pub fn set_depth(&mut self, depth: u32) {
        self.depth = depth;
    }

    /// The time now, since any moment: what follows happens at it.
    pub fn set_time(&mut self, now: Duration) {
        self.now = now;
    }

    /// A peer begins with its next request now: it has ended one.
    pub fn note_progress(&mut self, key: PeerKey) {
        let now = self.now;
        if let Some(entry) = self.entry(key) {
            entry.progress = now;
        }
    }

    /// True if a peer has a free slot.
    pub fn has_free(&self) -> bool {
        self.freest(None).is_some()
    }

    /// Takes a slot again for a request that was taken back from a peer at which it has waited: it
    /// waits for a free peer, before all that came later and also if the queue is full.
    pub fn take_again(&mut self, ticket: Ticket, avoid: Option<PeerKey>) -> Take {
        let place = self.queue.partition_point(|waiting| waiting.ticket < ticket);
        let free = self.freest(avoid).or_else(|| self.freest(None));
        match free.filter(|_| place == 0) {
            Some(at) => Take::Slot(self.occupy(at, Pace::Ordinary)),
            None => {
                self.queue.insert(place, Waiting { ticket, pace: Pace::Ordinary });
                Take::Wait(ticket)
            }
        }
    }

    /// The peer with the fewest requests behind which a short one may wait.
    pub(super) fn least_loaded(&self, avoid: Option<PeerKey>) -> Option<usize> {
        if self.slots != (Slots::Finite { per_worker: 1 }) {
            return None;
        }
        let takes = |at: &usize| {
            let entry = &self.entries[*at];
            Some(entry.key) != avoid && entry.takes_another(self.depth, self.now)
        };
        self.in_turn().filter(takes).min_by_key(|at| self.entries[*at].in_flight)
    }
}

impl Entry {
    fn takes_another(&self, depth: u32, now: Duration) -> bool {
        let waits: u32 = self.short.iter().skip(1).sum();
        self.admission == Admission::Admitted
            && self.in_flight < depth
            && self.short.len() == self.in_flight as usize
            && waits <= EXPECTED_MAX_US
            && now.saturating_sub(self.progress) <= STALL
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{roster, slot, ticket};
    use super::*;

    const PAGE: Pace = Pace::Short { expected_us: 200, may_wait_at_worker: true };
    const POST: Pace = Pace::Short { expected_us: 200, may_wait_at_worker: false };

    fn deep(peers: u64, depth: u32) -> Roster {
        let mut roster = roster(1, peers, 100);
        roster.set_depth(depth);
        roster
    }

    fn take(roster: &mut Roster, pace: Pace) -> PeerKey {
        slot(roster.take(None, pace))
    }

    fn wait(roster: &mut Roster, pace: Pace) -> Ticket {
        ticket(roster.take(None, pace))
    }

    #[test]
    fn short_requests_go_to_free_workers_first_then_to_the_least_loaded() {
        let mut roster = deep(2, 3);
        let given: Vec<PeerKey> = (0..6).map(|_| take(&mut roster, PAGE)).collect();
        assert_eq!(given, [0, 1, 0, 1, 0, 1]);
        let waits = wait(&mut roster, PAGE);
        assert_eq!(roster.release(0, PAGE), [(waits, 0)]);
        assert!(roster.release(1, PAGE).is_empty());
        assert!(roster.release(1, PAGE).is_empty());
        assert_eq!((take(&mut roster, PAGE), roster.in_flight(1)), (1, 2));
        assert!(roster.release(1, PAGE).is_empty() && roster.release(1, PAGE).is_empty());
        assert_eq!(take(&mut roster, PAGE), 1, "the free one");
    }

    #[test]
    fn nothing_waits_behind_or_as_a_request_that_is_not_known_to_be_short() {
        for running in [Pace::Ordinary, Pace::Slow] {
            let mut roster = deep(1, 8);
            take(&mut roster, running);
            wait(&mut roster, PAGE);
        }
        for next in [Pace::Ordinary, Pace::Slow, POST] {
            let mut roster = deep(1, 8);
            take(&mut roster, PAGE);
            let first = wait(&mut roster, next);
            // Nobody overtakes it, or it would wait as long as there are short ones.
            let second = wait(&mut roster, PAGE);
            let both = [(first, 0), (second, 0)];
            let behind = usize::from(next == POST);
            assert_eq!(roster.release(0, PAGE), both[..=behind], "{next:?}");
        }
        let mut roster = deep(1, 8);
        take(&mut roster, POST);
        assert_eq!(take(&mut roster, PAGE), 0, "behind a short one of any method");
    }

    #[test]
    fn little_work_waits_at_a_worker_and_none_at_one_that_makes_no_progress() {
        let long = Pace::Short { expected_us: 1_100, may_wait_at_worker: true };
        let mut roster = deep(1, 8);
        for _ in 0..3 {
            take(&mut roster, long);
        }
        wait(&mut roster, long);
        let mut roster = deep(1, 8);
        roster.set_time(Duration::from_millis(100));
        take(&mut roster, PAGE);
        roster.set_time(Duration::from_millis(100) + STALL);
        take(&mut roster, PAGE);
        roster.set_time(Duration::from_millis(101) + STALL);
        let waits = wait(&mut roster, PAGE);
        roster.note_progress(0);
        assert_eq!(roster.release(0, PAGE), [(waits, 0)]);
        assert_eq!(take(&mut roster, PAGE), 0);
    }

    #[test]
    fn a_depth_of_one_workers_that_leave_and_several_slots_have_nothing_waiting_at_them() {
        let mut roster = deep(1, 1);
        take(&mut roster, PAGE);
        wait(&mut roster, PAGE);
        let mut roster = deep(2, 8);
        take(&mut roster, PAGE);
        roster.drain(0);
        assert_eq!((take(&mut roster, PAGE), take(&mut roster, PAGE)), (1, 1));
        roster.suspend(1);
        wait(&mut roster, PAGE);
        let mut roster = Roster::new(Slots::Finite { per_worker: 2 }, 1);
        roster.set_depth(8);
        roster.admit(0);
        assert_eq!((take(&mut roster, PAGE), take(&mut roster, PAGE)), (0, 0));
        wait(&mut roster, PAGE);
    }

    #[test]
    fn what_is_taken_back_gets_the_next_free_peer_before_all_that_came_later() {
        let mut roster = deep(2, 8);
        roster.set_policy(Slots::Finite { per_worker: 1 }, 1);
        let keys = [(); 2].map(|()| take(&mut roster, Pace::Ordinary));
        let tickets = [(); 2].map(|()| roster.ticket());
        let late = wait(&mut roster, PAGE);
        assert_eq!(roster.take(None, PAGE), Take::Full);
        for ticket in [tickets[1], tickets[0]] {
            assert_eq!(roster.take_again(ticket, Some(0)), Take::Wait(ticket));
        }
        assert_eq!(roster.release(keys[1], Pace::Ordinary), [(tickets[0], 1)]);
        assert_eq!(roster.release(1, Pace::Ordinary), [(tickets[1], 1)]);
        assert_eq!(roster.release(0, Pace::Ordinary), [(late, 0)]);
        assert!(roster.release(0, PAGE).is_empty());
        assert!(roster.release(1, Pace::Ordinary).is_empty());
        let again = roster.ticket();
        assert_eq!(roster.take_again(again, Some(0)), Take::Slot(1), "another one");
    }

    #[test]
    fn a_slow_request_that_may_have_a_slot_is_not_overtaken() {
        let mut roster = deep(2, 8);
        take(&mut roster, PAGE);
        take(&mut roster, PAGE);
        let slow = wait(&mut roster, Pace::Slow);
        let page = wait(&mut roster, PAGE);
        assert_eq!(roster.release(0, PAGE), [(slow, 0), (page, 1)]);
        let second = wait(&mut roster, Pace::Slow);
        assert_eq!(take(&mut roster, PAGE), 1, "the second one may have no slot yet");
        assert_eq!(roster.release(0, Pace::Slow), [(second, 0)]);
    }
}
