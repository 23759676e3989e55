use super::*;

/// Peers `0..peers`, all admitted.
pub(super) fn roster(per_worker: u32, peers: u64, queue_max: usize) -> Roster {
    let mut roster = Roster::new(Slots::Finite { per_worker }, queue_max);
    for key in 0..peers {
        assert!(roster.admit(key).is_empty());
    }
    roster
}

pub(super) fn slot(take: Take) -> PeerKey {
    match take {
        Take::Slot(key) => key,
        other => panic!("expected a slot, got {other:?}"),
    }
}

pub(super) fn ticket(take: Take) -> Ticket {
    match take {
        Take::Wait(ticket) => ticket,
        other => panic!("expected to wait, got {other:?}"),
    }
}

fn finite(per_worker: u32, peers: u64) -> Roster {
    roster(per_worker, peers, 3)
}

#[test]
fn equal_peers_take_turns_and_no_one_gets_more_than_its_slots() {
    let mut roster = finite(1, 3);
    let got: Vec<Take> = (0..3).map(|_| roster.take(None, Pace::Ordinary)).collect();
    assert_eq!(got, [Take::Slot(0), Take::Slot(1), Take::Slot(2)]);
    ticket(roster.take(None, Pace::Ordinary));
}

#[test]
fn a_freed_slot_goes_to_the_oldest_waiter() {
    let mut roster = finite(1, 1);
    assert_eq!(roster.take(None, Pace::Ordinary), Take::Slot(0));
    let (first, second) =
        (ticket(roster.take(None, Pace::Ordinary)), ticket(roster.take(None, Pace::Ordinary)));
    assert_eq!(roster.release(0, Pace::Ordinary), [(first, 0)]);
    assert_eq!(roster.release(0, Pace::Ordinary), [(second, 0)]);
    assert!(roster.release(0, Pace::Ordinary).is_empty());
    assert_eq!(roster.in_flight(0), 0);
}

#[test]
fn nobody_overtakes_the_queue() {
    let mut roster = finite(1, 2);
    roster.take(None, Pace::Ordinary);
    roster.take(None, Pace::Ordinary);
    let first = ticket(roster.take(None, Pace::Ordinary));
    roster.cool_down(0);
    assert!(roster.release(0, Pace::Ordinary).is_empty());
    let second = ticket(roster.take(None, Pace::Ordinary));
    assert_eq!(roster.end_cool_down(0), [(first, 0)]);
    assert_eq!(roster.release(1, Pace::Ordinary), [(second, 1)]);
}

#[test]
fn the_queue_is_bounded_and_can_be_left() {
    let mut roster = finite(1, 0);
    let tickets: Vec<Ticket> = (0..3).map(|_| ticket(roster.take(None, Pace::Ordinary))).collect();
    assert_eq!(roster.take(None, Pace::Ordinary), Take::Full);
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
        roster.take(None, Pace::Ordinary);
    }
    assert_eq!((roster.in_flight(1), roster.in_flight(2)), (5, 5));
    roster.release(2, Pace::Ordinary);
    assert_eq!(roster.take(None, Pace::Ordinary), Take::Slot(2));
}

#[test]
fn a_draining_peer_gets_nothing_and_keeps_what_it_holds() {
    let mut roster = finite(4, 2);
    roster.take(None, Pace::Ordinary);
    roster.take(None, Pace::Ordinary);
    roster.drain(0);
    for _ in 0..3 {
        assert_eq!(roster.take(None, Pace::Ordinary), Take::Slot(1));
    }
    ticket(roster.take(None, Pace::Ordinary));
    assert_eq!(roster.in_flight(0), 1);
    assert!(!roster.is_admitted(0));
    roster.release(0, Pace::Ordinary);
    roster.remove(0);
    assert_eq!(roster.in_flight(0), 0);
}

#[test]
fn a_suspended_peer_stays_admitted_and_gets_nothing_until_it_is_resumed() {
    let mut roster = finite(1, 1);
    roster.suspend(0);
    roster.end_cool_down(0);
    let first = ticket(roster.take(None, Pace::Ordinary));
    assert!(roster.is_admitted(0) && roster.is_suspended(0));
    assert_eq!(roster.resume(0), [(first, 0)]);
    roster.suspend(0);
    let second = ticket(roster.take(None, Pace::Ordinary));
    assert!(roster.release(0, Pace::Ordinary).is_empty());
    assert_eq!(roster.admit(0), [(second, 0)]);
    roster.drain(0);
    roster.suspend(0);
    assert!(!roster.is_admitted(0) && !roster.is_suspended(0));
}

#[test]
fn a_peer_to_avoid_is_only_taken_when_it_alone_is_free() {
    let mut roster = finite(1, 2);
    assert_eq!(roster.take(Some(0), Pace::Ordinary), Take::Slot(1));
    assert_eq!(roster.take(Some(0), Pace::Ordinary), Take::Slot(0));
}

fn slow(roster: &mut Roster) -> Take {
    roster.take(None, Pace::Slow)
}

#[test]
fn slow_requests_leave_one_slot_to_the_others() {
    let mut roster = finite(1, 3);
    assert_eq!((slow(&mut roster), slow(&mut roster)), (Take::Slot(0), Take::Slot(1)));
    let third = ticket(slow(&mut roster));
    assert_eq!(roster.slow(), (2, 1));
    for _ in 0..3 {
        assert_eq!(roster.take(None, Pace::Ordinary), Take::Slot(2), "nobody waits for slow ones");
        assert!(roster.release(2, Pace::Ordinary).is_empty());
    }
    assert_eq!(roster.release(0, Pace::Slow), [(third, 0)]);
    assert_eq!(roster.slow(), (2, 0));
}

#[test]
fn the_oldest_that_may_have_a_slot_gets_it() {
    let mut roster = finite(1, 2);
    assert_eq!(slow(&mut roster), Take::Slot(0));
    assert_eq!(roster.take(None, Pace::Ordinary), Take::Slot(1));
    let old = ticket(slow(&mut roster));
    let young = ticket(roster.take(None, Pace::Ordinary));
    assert_eq!(
        roster.release(1, Pace::Ordinary),
        [(young, 1)],
        "the last slot is not for slow ones"
    );
    let third = ticket(roster.take(None, Pace::Ordinary));
    assert_eq!(roster.release(0, Pace::Slow), [(old, 0)], "the older first");
    assert_eq!(roster.release(1, Pace::Ordinary), [(third, 1)]);
}

#[test]
fn a_slow_request_that_has_waited_long_gets_any_slot_in_its_turn() {
    let mut roster = finite(1, 2);
    assert_eq!(slow(&mut roster), Take::Slot(0));
    let waits = ticket(slow(&mut roster));
    assert_eq!(roster.hasten(waits), [(waits, 1)]);
    assert!(roster.hasten(waits).is_empty(), "once");
    let old = ticket(slow(&mut roster));
    let young = ticket(roster.take(None, Pace::Ordinary));
    assert!(roster.hasten(old).is_empty());
    assert_eq!(roster.release(1, Pace::Slow), [(old, 1)]);
    assert_eq!(roster.release(1, Pace::Slow), [(young, 1)]);
    assert_eq!(roster.slow(), (1, 0));
}

#[test]
fn slow_requests_have_all_slots_of_one_worker_and_of_workers_without_a_limit() {
    let mut roster = finite(1, 1);
    assert_eq!(slow(&mut roster), Take::Slot(0));
    let mut roster = Roster::new(Slots::Unlimited, 0);
    roster.admit(1);
    roster.admit(2);
    for _ in 0..8 {
        assert!(matches!(slow(&mut roster), Take::Slot(_)));
    }
    // One worker of two drains: what it holds says nothing of the other's slot.
    let mut roster = finite(1, 2);
    assert_eq!(slow(&mut roster), Take::Slot(0));
    roster.drain(0);
    assert_eq!(slow(&mut roster), Take::Slot(1));
}

const PEERS: u64 = 4;

/// A request that waits.
#[derive(Debug, Clone, Copy)]
struct Waits {
    ticket: Ticket,
    pace: Pace,
    /// The last slot is not for it.
    in_lane: bool,
}

/// A roster with what its requests have and wait for, driven at random.
struct Driven {
    roster: Roster,
    slots: usize,
    queue_max: usize,
    peers: [Option<Admission>; PEERS as usize],
    held: Vec<(PeerKey, Pace)>,
    queue: Vec<Waits>,
    seed: u64,
}

impl Driven {
    fn new(slots: u32, queue_max: usize) -> Self {
        let roster = Roster::new(Slots::Finite { per_worker: slots }, queue_max);
        let (slots, held, queue) = (slots as usize, Vec::new(), Vec::new());
        let peers = [None; PEERS as usize];
        Self { roster, slots, queue_max, peers, held, queue, seed: 11 }
    }

    fn random(&mut self, n: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.seed >> 33) as usize % n
    }

    fn receive(&mut self, handed: Vec<HandedOver>) {
        for (ticket, key) in handed {
            let at = self.queue.iter().position(|waits| waits.ticket == ticket).unwrap();
            let waits = self.queue.remove(at);
            let mut older = self.queue.iter().filter(|other| other.in_lane == waits.in_lane);
            assert!(older.all(|other| other.ticket > ticket), "first come, first served");
            self.held.push((key, waits.pace));
        }
    }

    fn ask(&mut self) {
        let pace = if self.random(2) == 0 { Pace::Slow } else { Pace::Ordinary };
        let avoid = Some(self.random(2 * PEERS as usize) as u64);
        match self.roster.take(avoid, pace) {
            Take::Slot(key) => self.held.push((key, pace)),
            Take::Wait(ticket) => {
                self.queue.push(Waits { ticket, pace, in_lane: pace == Pace::Slow });
                let handed = self.roster.hand_out();
                self.receive(handed);
            }
            Take::Full => assert!(self.queue.len() >= self.queue_max && !self.has_free_slot()),
        }
    }

    fn end_one(&mut self, at: usize) {
        let (key, pace) = self.held.swap_remove(at);
        let handed = self.roster.release(key, pace);
        self.receive(handed);
    }

    fn leave_the_queue(&mut self, at: usize) {
        if self.queue[at].in_lane && self.random(2) == 0 {
            self.queue[at].in_lane = false;
            let handed = self.roster.hasten(self.queue[at].ticket);
            return self.receive(handed);
        }
        let left = self.queue.remove(at);
        assert!(self.roster.give_up(left.ticket));
    }

    fn change(&mut self, key: PeerKey) {
        use Admission::{Admitted, CoolingDown, Draining, Suspended};
        let state = self.peers[key as usize];
        let (state, handed) = match (self.random(12), state) {
            (0, Some(_)) => (Some(Draining), self.roster.drain(key)),
            (1, Some(Admitted | CoolingDown | Suspended)) => {
                (Some(Suspended), self.roster.suspend(key))
            }
            (2 | 3, Some(Admitted)) => {
                self.roster.cool_down(key);
                (Some(CoolingDown), Vec::new())
            }
            (4..=6, Some(CoolingDown)) => (Some(Admitted), self.roster.end_cool_down(key)),
            (7 | 8, Some(Suspended)) => (Some(Admitted), self.roster.resume(key)),
            (9.., _) => (Some(Admitted), self.roster.admit(key)),
            // What ends another state than this one changes nothing.
            (4..=6, state) => (state, self.roster.end_cool_down(key)),
            (7 | 8, state) => (state, self.roster.resume(key)),
            (_, state) => (state, Vec::new()),
        };
        self.peers[key as usize] = state;
        self.receive(handed);
    }

    fn step(&mut self) {
        match self.random(12) {
            0 | 1 => {
                let key = self.random(PEERS as usize) as u64;
                self.change(key);
            }
            2..=5 if !self.held.is_empty() => {
                let at = self.random(self.held.len());
                self.end_one(at);
            }
            6 if !self.queue.is_empty() => {
                let at = self.random(self.queue.len());
                self.leave_the_queue(at);
            }
            _ => self.ask(),
        }
    }

    fn at(&self, key: PeerKey) -> Vec<Pace> {
        self.held.iter().filter(|(at, _)| *at == key).map(|(_, pace)| *pace).collect()
    }

    fn has_free_slot(&self) -> bool {
        let is_admitted = |key: u64| self.peers[key as usize] == Some(Admission::Admitted);
        (0..PEERS).any(|key| is_admitted(key) && self.at(key).len() < self.slots)
    }

    /// How many slow requests hold slots of workers with traffic, and whether others may.
    fn slow_lane(&self) -> (usize, bool) {
        let is_served = |key: &u64| {
            let state = self.peers[*key as usize];
            matches!(state, Some(Admission::Admitted | Admission::CoolingDown))
        };
        let served: Vec<u64> = (0..PEERS).filter(is_served).collect();
        let paces = served.iter().flat_map(|key| self.at(*key));
        let slow = paces.filter(|pace| *pace == Pace::Slow).count();
        // One more would be refused, while a slot is free.
        let fill_the_queue =
            self.queue.len() >= self.queue_max && self.queue.iter().all(|waits| waits.in_lane);
        let leave_one = slow + 1 < served.len() * self.slots;
        (slow, served.len() < 2 || leave_one || fill_the_queue)
    }

    fn check(&self) {
        for key in 0..PEERS {
            let at_it = self.at(key);
            assert_eq!(self.roster.in_flight(key) as usize, at_it.len());
            assert!(at_it.len() <= self.slots, "{at_it:?}");
        }
        assert_eq!(self.roster.waiting(), self.queue.len());
        let in_lane = self.queue.iter().filter(|waits| waits.in_lane).count();
        let (slow, have_room) = self.slow_lane();
        assert_eq!(self.roster.slow(), (slow, if have_room { 0 } else { in_lane }));
        if self.has_free_slot() {
            assert_eq!(self.queue.len(), in_lane, "others wait while a slot is free");
            assert!(in_lane == 0 || !have_room, "slow ones wait for a slot that they may have");
        }
    }
}

#[test]
fn whatever_happens_no_slot_is_lost_or_given_twice_or_free_while_one_waits_that_may_have_it() {
    for (slots, queue_max) in [(1, 3), (2, 8), (1, 64), (2, 0)] {
        let mut driven = Driven::new(slots, queue_max);
        for _ in 0..20_000 {
            driven.step();
            driven.check();
        }
        for key in 0..PEERS {
            let handed = driven.roster.admit(key);
            driven.receive(handed);
        }
        while !driven.held.is_empty() {
            driven.end_one(driven.held.len() - 1);
        }
        assert!(driven.queue.is_empty(), "{:?}", driven.queue);
    }
}
