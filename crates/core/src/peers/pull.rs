//! Workers that pull: they take requests from a queue by themselves. The queue stands among the
//! peers as one of them, [`QUEUE`]: a request that gets a slot of it is sent into the queue, and
//! nobody has decided which worker will have it.
//!
//! A worker that finds a request in the queue when it is done with one need not sleep, so there are
//! a few more than there are workers. The rest waits here, where it is ordered and can be given up.

use super::{Admission, HandedOver, Pace, PeerKey, Roster};

/// The queue that workers pull from. No peer has this key.
pub const QUEUE: PeerKey = PeerKey::MAX;
/// Requests in the queue and at the workers that pull from it, at most, for each of these.
const PER_WORKER: usize = 8;

/// What is in the queue and at the workers that pull from it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Pulled {
    pub in_flight: u32,
    /// Those of them that are slow.
    pub slow: u32,
    /// Those of them that nobody wants any more.
    pub given_up: u32,
}

impl Pulled {
    /// Another request is sent into the queue.
    pub fn enter(&mut self, pace: Pace) -> PeerKey {
        self.in_flight += 1;
        self.slow += u32::from(pace == Pace::Slow);
        QUEUE
    }

    /// A request of it is over.
    pub fn leave(&mut self, pace: Pace) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if pace == Pace::Slow {
            self.slow = self.slow.saturating_sub(1);
        }
    }
}

impl Roster {
    /// A peer pulls from now on: it is given no request any more.
    pub fn pull(&mut self, key: PeerKey) -> Vec<HandedOver> {
        if let Some(entry) = self.entry(key) {
            entry.is_linked = true;
            if matches!(entry.admission, Admission::Admitted | Admission::CoolingDown) {
                entry.admission = Admission::Pulling;
            }
        }
        self.hand_out()
    }

    /// A peer has a connection to the queue, and shall take nothing more from it: it gets traffic
    /// again from [`Roster::push`] on.
    pub fn leave_queue(&mut self, key: PeerKey) {
        if let Some(entry) = self.entry(key) {
            entry.is_linked = true;
            if matches!(entry.admission, Admission::Admitted | Admission::Pulling) {
                entry.admission = Admission::CoolingDown;
            }
        }
    }

    /// A peer does not pull any more, and has nothing that it has pulled: it is given requests, if
    /// it is admitted.
    pub fn push(&mut self, key: PeerKey) -> Vec<HandedOver> {
        if let Some(entry) = self.entry(key) {
            let was_linked = std::mem::take(&mut entry.is_linked);
            if was_linked && matches!(entry.admission, Admission::Pulling | Admission::CoolingDown)
            {
                entry.admission = Admission::Admitted;
            }
        }
        self.hand_out()
    }

    /// Nobody wants a request of the queue any more, and a worker may still have it: it keeps its
    /// place there, but not one of those that wait.
    pub fn abandon(&mut self) -> Vec<HandedOver> {
        self.pulled.given_up += 1;
        self.hand_out()
    }

    /// Gives the place of such a request back.
    pub fn release_abandoned(&mut self, pace: Pace) -> Vec<HandedOver> {
        self.pulled.given_up = self.pulled.given_up.saturating_sub(1);
        self.release(QUEUE, pace)
    }

    /// How many peers pull.
    pub fn pulling(&self) -> usize {
        self.entries.iter().filter(|entry| entry.admission == Admission::Pulling).count()
    }

    /// How many peers pull, or are done soon with what they have pulled.
    fn linked(&self) -> usize {
        self.entries.iter().filter(|entry| entry.is_linked).count()
    }

    /// True if a peer that pulls has nothing to do, as far as is known.
    pub(super) fn has_idle_puller(&self) -> bool {
        self.pulling() > 0 && (self.pulled.in_flight as usize) < self.linked()
    }

    /// True if another request may be sent into the queue.
    pub(super) fn queue_has_room(&self) -> bool {
        let most = PER_WORKER * self.pulling();
        // What waits in the queue counts as what waits here.
        let waiting = self.queue_max.min(most - self.pulling());
        self.has_idle_puller()
            || self.in_queue() < waiting && (self.pulled.in_flight as usize) < 2 * most
    }

    /// Requests in the queue that no worker has yet, and that are wanted.
    pub(super) fn in_queue(&self) -> usize {
        let wanted = self.pulled.in_flight.saturating_sub(self.pulled.given_up);
        (wanted as usize).saturating_sub(self.linked())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Take;
    use super::super::tests::{roster, slot, ticket};
    use super::*;

    fn pulling(peers: u64, queue_max: usize) -> Roster {
        let mut roster = roster(1, peers, queue_max);
        (0..peers).for_each(|key| assert!(roster.pull(key).is_empty()));
        roster
    }

    fn fill(roster: &mut Roster) -> usize {
        let taken = std::iter::repeat_with(|| roster.take(None, Pace::Ordinary));
        taken.take_while(|take| *take == Take::Slot(QUEUE)).count()
    }

    #[test]
    fn workers_that_pull_have_eight_requests_each_and_the_others_wait_here() {
        let mut roster = pulling(2, 100);
        assert_eq!(fill(&mut roster), 16);
        assert_eq!(roster.waiting(), 14 + 1, "those in the queue wait, too");
        let next = ticket(roster.take(None, Pace::Ordinary));
        roster.give_up(next);
        let (first, key) = roster.release(QUEUE, Pace::Ordinary)[0];
        assert!(key == QUEUE && first < next);
    }

    #[test]
    fn no_more_requests_wait_than_may_wherever_they_do() {
        for (queue_max, most) in [(0, 2), (1, 3), (14, 16), (20, 16 + 6)] {
            let mut roster = pulling(2, queue_max);
            let taken = std::iter::repeat_with(|| roster.take(None, Pace::Ordinary));
            assert_eq!(taken.take_while(|take| *take != Take::Full).count(), most, "{queue_max}");
        }
    }

    #[test]
    fn slow_requests_leave_one_worker_that_pulls_to_the_others() {
        let mut roster = pulling(3, 100);
        assert_eq!([(); 2].map(|()| slot(roster.take(None, Pace::Slow))), [QUEUE; 2]);
        let waits = ticket(roster.take(None, Pace::Slow));
        assert_eq!(slot(roster.take(None, Pace::Ordinary)), QUEUE);
        assert!(roster.release(QUEUE, Pace::Ordinary).is_empty());
        assert_eq!(roster.release(QUEUE, Pace::Slow), [(waits, QUEUE)]);
        assert_eq!(roster.slow(), (2, 0));
    }

    #[test]
    fn no_request_stands_in_the_queue_while_a_peer_that_does_not_pull_is_free() {
        let mut roster = roster(1, 3, 9);
        roster.pull(0);
        let given = [(); 4].map(|()| slot(roster.take(None, Pace::Ordinary)));
        assert_eq!(given, [QUEUE, 1, 2, QUEUE]);
        assert_eq!(roster.release(1, Pace::Ordinary), []);
        assert_eq!(slot(roster.take(None, Pace::Ordinary)), 1);
        roster.push(0);
        assert_eq!((slot(roster.take(None, Pace::Ordinary)), roster.pulling()), (0, 0));
    }

    #[test]
    fn what_workers_that_leave_have_pulled_takes_no_place_of_the_others() {
        for leave in [Roster::drain, Roster::suspend] {
            let mut roster = pulling(2, 0);
            assert_eq!(slot(roster.take(None, Pace::Ordinary)), QUEUE);
            leave(&mut roster, 0);
            assert_eq!(slot(roster.take(None, Pace::Ordinary)), QUEUE);
            assert_eq!(roster.take(None, Pace::Ordinary), Take::Full);
        }
    }

    #[test]
    fn a_peer_that_is_admitted_again_while_it_is_busy_is_given_nothing_until_it_is_done() {
        let mut roster = pulling(1, 9);
        assert_eq!(slot(roster.take(None, Pace::Ordinary)), QUEUE);
        roster.drain(0);
        assert!(roster.admit(0).is_empty());
        let waits = ticket(roster.take(None, Pace::Ordinary));
        roster.release(QUEUE, Pace::Ordinary);
        assert_eq!(roster.push(0), [(waits, 0)]);
    }

    #[test]
    fn a_peer_that_shall_pull_no_more_is_given_nothing_until_it_is_done() {
        let mut roster = pulling(1, 9);
        assert_eq!(slot(roster.take(None, Pace::Ordinary)), QUEUE);
        roster.leave_queue(0);
        roster.admit(0);
        let waits = ticket(roster.take(None, Pace::Ordinary));
        assert!(roster.release(QUEUE, Pace::Ordinary).is_empty());
        assert_eq!(roster.push(0), [(waits, 0)]);
    }

    #[test]
    fn the_slow_requests_of_workers_that_leave_keep_no_slow_one_from_the_others() {
        let mut roster = pulling(3, 9);
        assert_eq!(slot(roster.take(None, Pace::Slow)), QUEUE);
        roster.drain(0);
        assert_eq!(slot(roster.take(None, Pace::Slow)), QUEUE);
    }

    #[test]
    fn what_was_given_up_takes_no_place_of_those_that_wait() {
        let mut roster = pulling(1, 2);
        assert_eq!(fill(&mut roster), 3);
        (0..2).for_each(|_| assert!(roster.abandon().is_empty()));
        assert_eq!((roster.waiting(), fill(&mut roster)), (0, 2));
        roster.release_abandoned(Pace::Ordinary);
        assert_eq!(roster.waiting(), 2);
        assert!(
            std::iter::repeat_with(|| {
                roster.abandon();
                fill(&mut roster)
            })
            .take(99)
            .sum::<usize>()
                < 16
        );
    }

    #[test]
    fn what_is_drained_or_suspended_does_not_pull_and_what_is_admitted_again_goes_on() {
        for leave in [Roster::drain, Roster::suspend] {
            let mut roster = pulling(1, 9);
            leave(&mut roster, 0);
            assert_eq!(roster.pulling(), 0);
            let waits = ticket(roster.take(None, Pace::Ordinary));
            assert!(roster.pull(0).is_empty(), "it was said too late");
            roster.admit(0);
            assert_eq!(roster.push(0), [(waits, 0)]);
        }
        let mut roster = pulling(1, 9);
        roster.admit(0);
        assert_eq!(roster.pulling(), 1);
    }
}
