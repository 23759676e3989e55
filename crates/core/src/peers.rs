//! The load balancer of an app: which worker takes a request, and which requests wait.
//!
//! This is bookkeeping only; the caller keeps the connections and the clock. A request
//! takes a slot of a peer (a worker). When no slot is free, the request gets a [`Ticket`] in
//! a queue: first come, first served. A call that frees slots returns the tickets that
//! receive them.
//!
//! Slow requests have a queue of their own while they hold all slots but one: the last one is
//! for the others, so that a report of two seconds does not keep pages of two milliseconds
//! waiting. [`Kinds`] learns which are slow.

mod kinds;
mod lane;
mod pull;
mod sticky;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use self::kinds::{Kind, Kinds, Shape};
use self::pull::Pulled;
pub use self::pull::QUEUE;
pub use self::sticky::by_address;

use crate::route::Slots;

/// The number of a peer. The caller chooses it and never uses it twice.
pub type PeerKey = u64;

/// A place in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Which slots a request may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Any.
    Ordinary,
    /// All but the last one.
    Slow,
}

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
    /// Admitted, and takes requests from the queue by itself.
    Pulling,
    /// Admitted, but an operator has taken it out (`__socket_down`).
    Suspended,
    Draining,
}

#[derive(Debug, Clone)]
struct Entry {
    key: PeerKey,
    in_flight: u32,
    /// Those of them that are slow.
    slow: u32,
    admission: Admission,
    /// It has a connection to the queue: it pulls, or is done with what it has pulled soon.
    is_linked: bool,
}

/// A request in the queue of all slots. A slow one is there once it has waited long.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    ticket: Ticket,
    pace: Pace,
}

/// The peers of one app, their slots, and the queue for them.
#[derive(Debug, Clone)]
pub struct Roster {
    slots: Slots,
    queue_max: usize,
    entries: Vec<Entry>,
    pulled: Pulled,
    queue: VecDeque<Waiting>,
    /// Slow requests that wait for slots which they may have.
    slow_queue: VecDeque<Ticket>,
    /// Requests that wait for a slot of one peer.
    sticky_queue: sticky::StickyQueue,
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
            pulled: Pulled::default(),
            queue: VecDeque::new(),
            slow_queue: VecDeque::new(),
            sticky_queue: sticky::StickyQueue::default(),
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
    pub fn take(&mut self, avoid: Option<PeerKey>, pace: Pace) -> Take {
        let is_next = match pace {
            Pace::Ordinary => self.queue.is_empty(),
            Pace::Slow => self.held() == 0 && self.slow_have_room(),
        };
        if is_next {
            if let Some(key) = self.occupy_free(avoid, pace) {
                return Take::Slot(key);
            }
        }
        if self.waiting() >= self.queue_max {
            return Take::Full;
        }
        let ticket = self.new_ticket();
        match pace {
            Pace::Ordinary => self.queue.push_back(Waiting { ticket, pace }),
            Pace::Slow => self.slow_queue.push_back(ticket),
        }
        Take::Wait(ticket)
    }

    fn new_ticket(&mut self) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        ticket
    }

    /// Gives a slot of this peer back, from a request of this pace.
    pub fn release(&mut self, key: PeerKey, pace: Pace) -> Vec<HandedOver> {
        if key == QUEUE {
            self.pulled.leave(pace);
        } else if let Some(entry) = self.entry(key) {
            entry.in_flight = entry.in_flight.saturating_sub(1);
            if pace == Pace::Slow {
                entry.slow = entry.slow.saturating_sub(1);
            }
        }
        self.hand_out()
    }

    /// Takes a request out of the queue. False if it already has a slot.
    pub fn give_up(&mut self, ticket: Ticket) -> bool {
        let before = self.held();
        self.queue.retain(|waiting| waiting.ticket != ticket);
        self.slow_queue.retain(|waiting| *waiting != ticket);
        self.sticky_queue.remove(ticket);
        self.held() < before
    }

    /// Gives traffic to a peer; one that was draining gets traffic again.
    pub fn admit(&mut self, key: PeerKey) -> Vec<HandedOver> {
        match self.entry(key) {
            Some(entry) => entry.serve(),
            None => {
                let admission = Admission::Admitted;
                let is_linked = false;
                self.entries.push(Entry { key, in_flight: 0, slow: 0, admission, is_linked });
            }
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
    pub fn suspend(&mut self, key: PeerKey) -> Vec<HandedOver> {
        if let Some(entry) = self.entry(key) {
            if entry.admission != Admission::Draining {
                entry.admission = Admission::Suspended;
            }
        }
        // Where one worker is left, slow requests may have its slot.
        self.hand_out()
    }

    /// Ends a suspension: the peer gets traffic again.
    pub fn resume(&mut self, key: PeerKey) -> Vec<HandedOver> {
        match self.entry(key) {
            Some(entry) if entry.admission == Admission::Suspended => entry.serve(),
            _ => {}
        }
        self.hand_out()
    }

    /// True for a suspended peer.
    pub fn is_suspended(&self, key: PeerKey) -> bool {
        self.entries.iter().any(|entry| entry.key == key && entry.admission == Admission::Suspended)
    }

    /// Gives no more traffic to a peer; its requests in flight go on.
    pub fn drain(&mut self, key: PeerKey) -> Vec<HandedOver> {
        if let Some(entry) = self.entry(key) {
            entry.admission = Admission::Draining;
        }
        self.hand_out()
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

    /// How many requests wait, here or in the queue that workers pull from.
    pub fn waiting(&self) -> usize {
        self.held() + self.in_queue()
    }

    /// How many of them wait here.
    fn held(&self) -> usize {
        self.queue.len() + self.slow_queue.len() + self.sticky_queue.len()
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

    fn occupy(&mut self, at: usize, pace: Pace) -> PeerKey {
        self.turn = (at + 1) % self.entries.len();
        let entry = &mut self.entries[at];
        entry.in_flight += 1;
        entry.slow += u32::from(pace == Pace::Slow);
        entry.key
    }

    /// Gives slots that are free to requests that wait and may have them. To be called after
    /// [`Take::Wait`]: with it the queue may have become full.
    pub fn hand_out(&mut self) -> Vec<HandedOver> {
        let mut handed = Vec::new();
        self.loosen_orphans();
        loop {
            if let Some(one) = self.hand_to_sticky() {
                handed.push(one);
                continue;
            }
            let waits = !self.queue.is_empty() || !self.slow_queue.is_empty();
            let Some(Waiting { ticket, pace }) =
                (waits && self.has_free()).then(|| self.pop()).flatten()
            else {
                return handed;
            };
            handed.extend(self.occupy_free(None, pace).map(|key| (ticket, key)));
        }
    }

    fn has_free(&self) -> bool {
        self.queue_has_room() || self.freest(None).is_some()
    }

    /// Takes a slot that is free, of another peer than `avoid` if possible.
    fn occupy_free(&mut self, avoid: Option<PeerKey>, pace: Pace) -> Option<PeerKey> {
        if self.has_idle_puller() {
            return Some(self.pulled.enter(pace));
        }
        // None stands in the queue while a worker of the other sort has nothing to do.
        if let Some(at) = self.freest(avoid).or_else(|| self.freest(None)) {
            return Some(self.occupy(at, pace));
        }
        self.queue_has_room().then(|| self.pulled.enter(pace))
    }

    /// The oldest request that may have a slot.
    fn pop(&mut self) -> Option<Waiting> {
        let slow = self.slow_queue.front().copied().filter(|_| self.slow_have_room());
        match (slow, self.queue.front()) {
            (Some(slow), first) if first.is_none_or(|first| slow < first.ticket) => {
                self.slow_queue.pop_front().map(|ticket| Waiting { ticket, pace: Pace::Slow })
            }
            _ => self.queue.pop_front(),
        }
    }
}

impl Entry {
    /// It gets traffic; one that has pulled, once it is done with that.
    fn serve(&mut self) {
        self.admission = match (self.admission, self.is_linked) {
            (Admission::Pulling, _) => Admission::Pulling,
            (_, true) => Admission::CoolingDown,
            (_, false) => Admission::Admitted,
        };
    }
}
