//! The slow lane: slow requests leave the last slot to the others.

use super::{Admission, Entry, HandedOver, Pace, Roster, Ticket};
use crate::route::Slots;

impl Roster {
    /// Lets a slow request that waits have any slot, in the order in which it came.
    pub fn hasten(&mut self, ticket: Ticket) -> Vec<HandedOver> {
        let before = self.slow_queue.len();
        self.slow_queue.retain(|waiting| *waiting != ticket);
        if self.slow_queue.len() == before {
            return Vec::new();
        }
        self.let_have_any(ticket, Pace::Slow);
        self.hand_out()
    }

    /// Lets all slow requests that wait have any slot, in the order in which they came.
    pub fn hasten_all(&mut self) -> Vec<HandedOver> {
        let mut handed = Vec::new();
        while let Some(ticket) = self.slow_queue.front() {
            handed.extend(self.hasten(*ticket));
        }
        handed
    }

    /// How many slow requests hold slots of peers that get traffic, and how many wait because
    /// the last slot is left to the others.
    pub fn slow(&self) -> (usize, usize) {
        let waiting = if self.slow_have_room() { 0 } else { self.slow_queue.len() };
        (self.slow_in_flight() as usize, waiting)
    }

    /// Whether a slow request may have a slot: one is left to the others, unless slow ones fill
    /// the queue, so that the next one would be refused while a slot is free.
    pub(super) fn slow_have_room(&self) -> bool {
        let Slots::Finite { per_worker } = self.slots else { return true };
        let workers = self.served().count() as u32;
        // What these have pulled is counted, too.
        let leaving = self.entries.iter().filter(|entry| entry.is_linked).count() as u32;
        let leaving = leaving - self.served().filter(|entry| entry.is_linked).count() as u32;
        let fill_the_queue = self.queue.is_empty() && self.slow_queue.len() >= self.queue_max;
        workers < 2
            || fill_the_queue
            || self.slow_in_flight() + 1 < workers * per_worker.max(1) + leaving
    }

    fn slow_in_flight(&self) -> u32 {
        self.pulled.slow + self.served().map(|entry| entry.slow).sum::<u32>()
    }

    /// The peers that get traffic.
    fn served(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| {
            use Admission::{Admitted, CoolingDown, Pulling};
            matches!(entry.admission, Admitted | CoolingDown | Pulling)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{roster, slot, ticket};
    use super::super::{PeerKey, Take};
    use super::*;

    fn take(roster: &mut Roster, pace: Pace) -> PeerKey {
        slot(roster.take(None, pace))
    }

    /// Where the queue has become full with it, others have got slots.
    fn wait(roster: &mut Roster, pace: Pace) -> (Ticket, Vec<HandedOver>) {
        let waits = ticket(roster.take(None, pace));
        (waits, roster.hand_out())
    }

    #[test]
    fn no_slow_request_is_refused_while_a_slot_is_free() {
        let mut without_queue = roster(1, 2, 0);
        let both = [(); 2].map(|()| take(&mut without_queue, Pace::Slow));
        assert_eq!(both, [0, 1]);
        assert_eq!(without_queue.take(None, Pace::Slow), Take::Full);

        let mut short_queue = roster(1, 2, 2);
        take(&mut short_queue, Pace::Slow);
        let (oldest, handed) = wait(&mut short_queue, Pace::Slow);
        assert!(handed.is_empty(), "one worker is left to the others: {handed:?}");
        let (_, handed) = wait(&mut short_queue, Pace::Slow);
        assert_eq!(handed, [(oldest, 1)], "the oldest first");
        let (page, _) = wait(&mut short_queue, Pace::Ordinary);
        assert_eq!(short_queue.take(None, Pace::Slow), Take::Full, "no slot is free");
        assert_eq!(short_queue.release(0, Pace::Slow), [(page, 0)], "the lane goes on");
    }

    #[test]
    fn the_slow_requests_of_a_suspended_worker_do_not_count_as_it_does_not() {
        let mut roster = roster(1, 3, 9);
        take(&mut roster, Pace::Slow);
        assert!(roster.suspend(0).is_empty());
        assert_eq!(roster.slow(), (0, 0));
        assert_eq!(take(&mut roster, Pace::Slow), 1);
        wait(&mut roster, Pace::Slow);
        assert_eq!(roster.slow(), (1, 1));
        assert!(roster.resume(0).is_empty(), "its slow request counts again");
        assert_eq!(roster.slow(), (2, 1));
    }

    #[test]
    fn slow_requests_that_wait_have_the_slot_of_the_only_worker_that_is_left() {
        for leave in [Roster::drain, Roster::suspend] {
            let mut roster = roster(1, 2, 9);
            take(&mut roster, Pace::Slow);
            let (waits, _) = wait(&mut roster, Pace::Slow);
            let (next, _) = wait(&mut roster, Pace::Slow);
            assert_eq!(leave(&mut roster, 0), [(waits, 1)]);
            assert_eq!(roster.slow(), (1, 0), "the other one waits as any would");
            assert_eq!(roster.release(1, Pace::Slow), [(next, 1)]);
        }
    }

    #[test]
    fn without_a_lane_all_that_wait_for_it_have_any_slot_in_their_order() {
        let mut roster = roster(1, 2, 9);
        assert_eq!([(); 2].map(|()| take(&mut roster, Pace::Ordinary)), [0, 1]);
        let (first, _) = wait(&mut roster, Pace::Slow);
        let (page, _) = wait(&mut roster, Pace::Ordinary);
        let (last, _) = wait(&mut roster, Pace::Slow);
        assert_eq!(roster.release(0, Pace::Ordinary), [(first, 0)]);
        assert!(roster.hasten_all().is_empty());
        assert_eq!(roster.release(1, Pace::Ordinary), [(page, 1)]);
        assert_eq!(roster.release(1, Pace::Ordinary), [(last, 1)]);
    }
}
