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
            3 => roster.drain(key),
            4 | 5 if !held.is_empty() => {
                let held_key = held.swap_remove(random(held.len() as u64) as usize);
                roster.release(held_key, Pace::Ordinary)
            }
            6 if !queue.is_empty() => {
                assert!(roster.give_up(queue.remove(0)));
                vec![]
            }
            _ => {
                match roster.take(None, Pace::Ordinary) {
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

/// A roster with what its requests have and wait for, driven at random.
struct Driven {
    roster: Roster,
    held: Vec<(PeerKey, Pace)>,
    queue: Vec<(Ticket, Pace)>,
    seed: u64,
}

impl Driven {
    fn random(&mut self, n: usize) -> usize {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.seed >> 33) as usize % n
    }

    fn receive(&mut self, handed: Vec<HandedOver>) {
        for (ticket, key) in handed {
            let at = self.queue.iter().position(|(waits, _)| *waits == ticket).unwrap();
            self.held.push((key, self.queue.remove(at).1));
        }
    }

    fn ask(&mut self) {
        let pace = match self.random(4) {
            0 => Pace::Ordinary,
            1 => Pace::Slow,
            2 => Pace::Short { expected_us: 300, may_wait_at_worker: true },
            _ => Pace::Short { expected_us: 900, may_wait_at_worker: false },
        };
        match self.roster.take(None, pace) {
            Take::Slot(key) => self.held.push((key, pace)),
            Take::Wait(ticket) => self.queue.push((ticket, pace)),
            Take::Full => assert_eq!(self.queue.len(), 64),
        }
    }

    fn end_one(&mut self, at: usize) {
        let (key, pace) = self.held.swap_remove(at);
        self.roster.note_progress(key);
        let handed = self.roster.release(key, pace);
        self.receive(handed);
    }

    fn leave_the_queue(&mut self, at: usize) {
        let (ticket, pace) = self.queue[at];
        if pace == Pace::Slow && self.random(2) == 0 {
            let handed = self.roster.hasten(ticket);
            return self.receive(handed);
        }
        self.queue.remove(at);
        assert!(self.roster.give_up(ticket));
    }

    fn step(&mut self) {
        let key = self.random(3) as u64;
        match self.random(9) {
            0 => {
                let handed = self.roster.admit(key);
                self.receive(handed);
            }
            1 if self.random(8) == 0 => {
                let handed = self.roster.drain(key);
                self.receive(handed);
            }
            2..=4 if !self.held.is_empty() => {
                let at = self.random(self.held.len());
                self.end_one(at);
            }
            5 if !self.queue.is_empty() => {
                let at = self.random(self.queue.len());
                self.leave_the_queue(at);
            }
            _ => self.ask(),
        }
    }

    fn check(&self) {
        for key in 0..3 {
            let at_it: Vec<Pace> =
                self.held.iter().filter(|(at, _)| *at == key).map(|(_, pace)| *pace).collect();
            assert_eq!(self.roster.in_flight(key) as usize, at_it.len());
            let is_short = |pace: &Pace| matches!(pace, Pace::Short { .. });
            assert!(at_it.len() <= 1 || at_it.iter().all(is_short), "{at_it:?}");
            assert!(at_it.len() <= 8);
        }
        assert_eq!(self.roster.waiting(), self.queue.len());
    }
}

#[test]
fn whatever_their_pace_requests_have_places_that_their_kind_may_have_and_none_waits_for_ever() {
    let mut roster = finite(1, 3);
    roster.set_policy(Slots::Finite { per_worker: 1 }, 64);
    roster.set_depth(8);
    let mut driven = Driven { roster, held: Vec::new(), queue: Vec::new(), seed: 11 };
    for step in 0..40_000 {
        driven.roster.set_time(std::time::Duration::from_micros(step * 100));
        driven.step();
        driven.check();
    }
    for key in 0..3 {
        let handed = driven.roster.admit(key);
        driven.receive(handed);
    }
    while !driven.held.is_empty() {
        driven.end_one(driven.held.len() - 1);
    }
    assert!(driven.queue.is_empty(), "{:?}", driven.queue);
}
