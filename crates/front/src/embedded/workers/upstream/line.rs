//! The requests at a worker with one slot, in their order, and when it began with each: with one
//! that was given to a busy worker it begins when it has ended another.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use mfserv_core::peers::PeerKey;
use mfserv_core::route::Slots;
use mfserv_platform::sync::lock;
use tokio::time::Instant;

use super::{Inner, Slot};

/// Two answers that are seen within this time may have come in the other order: tasks of the
/// front are woken in any.
const AT_ONCE: Duration = Duration::from_millis(2);
/// So many answers may come from a worker, while it has an older request, before that one's time is
/// taken to have begun all the same. (Threads of the front may send in another order than that of
/// the places.)
const OVERTAKEN_MAX: u32 = 32;

/// The requests at a worker with one slot.
#[derive(Debug)]
pub(super) struct Line {
    /// Their places, the oldest first.
    numbers: VecDeque<u64>,
    /// When the one before the first was over.
    ended: Instant,
    /// When another one was answered before the first, the last time, and how often.
    overtaken_at: Instant,
    overtaken: u32,
}

impl Line {
    pub fn new(now: Instant) -> Self {
        Self { numbers: VecDeque::new(), ended: now, overtaken_at: now, overtaken: 0 }
    }

    fn is_first(&self, place: Place) -> bool {
        self.numbers.front() == Some(&place.number)
    }

    /// When the worker has begun with a request that it ends now.
    fn began(&self, place: Place, now: Instant) -> Instant {
        let before = self.ended.max(place.since);
        match now.saturating_duration_since(self.overtaken_at) > AT_ONCE {
            true => before.max(self.overtaken_at),
            false => before,
        }
    }

    /// Takes a request out of the line, and returns how long the worker had it, if that is known;
    /// and whether the worker has begun with another one.
    fn leave(&mut self, place: Place, now: Instant, is_over: bool) -> (Option<Duration>, bool) {
        let (is_first, began) = (self.is_first(place), self.began(place, now));
        self.numbers.retain(|number| *number != place.number);
        if is_first {
            (self.ended, self.overtaken) = (now, 0);
            return (Some(now.saturating_duration_since(began)), true);
        }
        if is_over && self.overtaken < OVERTAKEN_MAX {
            self.overtaken_at = now;
            self.overtaken += 1;
        }
        (None, is_over)
    }
}

/// The place of a request among those at its worker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    number: u64,
    pub since: Instant,
    /// Its worker has one slot.
    is_in_line: bool,
    /// It was given to a worker that was busy.
    pub is_behind: bool,
}

/// How a request stands at its worker.
#[derive(Debug, Clone, Copy)]
pub enum Standing {
    /// The worker has nothing older, since then.
    First(Instant),
    /// The worker has older ones.
    Behind {
        /// When the worker began with the one that runs.
        progress: Instant,
        /// Another worker has nothing to do.
        another_is_free: bool,
    },
}

impl Slot {
    /// How the request stands at the worker. `waker` is woken when another worker is free, if it
    /// stands behind others and none is.
    pub fn standing(&self, waker: &Waker) -> Standing {
        let place = self.place;
        if !place.is_in_line {
            return Standing::First(place.since);
        }
        let mut inner = lock(&self.upstream.inner);
        let another_is_free = inner.roster.has_free();
        match inner.member(self.peer.key) {
            Some(member) if !member.line.is_first(place) => {
                let progress = member.line.ended.max(member.line.overtaken_at);
                if !another_is_free {
                    inner.stuck.insert(place.number, waker.clone());
                }
                Standing::Behind { progress: progress.max(place.since), another_is_free }
            }
            Some(member) => {
                let progress = member.line.ended.max(member.line.overtaken_at);
                Standing::First(place.since.max(progress))
            }
            None => Standing::First(place.since),
        }
    }

    /// Until when the worker has its time, if it has begun later than was thought.
    pub fn later(&self, deadline: Instant, patience: Duration, waker: &Waker) -> Option<Instant> {
        let now = Instant::now();
        let since = match self.standing(waker) {
            Standing::First(since) => since,
            Standing::Behind { .. } => now,
        };
        Some(since + patience).filter(|later| *later > now.max(deadline))
    }

    /// When the worker has begun with this request, whose answer has begun.
    pub fn began(&self) -> Instant {
        let (place, now) = (self.place, Instant::now());
        if !place.is_in_line {
            return place.since;
        }
        let mut inner = lock(&self.upstream.inner);
        inner.member(self.peer.key).map_or(place.since, |member| member.line.began(place, now))
    }
}

impl Inner {
    /// A request is given to a worker.
    pub(super) fn join(&mut self, key: PeerKey, since: Instant) -> Place {
        let number = self.next_place;
        self.next_place += 1;
        let is_in_line = self.slots == (Slots::Finite { per_worker: 1 });
        let member = self.member(key).filter(|_| is_in_line);
        let is_behind = member.is_some_and(|member| {
            member.line.numbers.push_back(number);
            member.line.numbers.len() > 1
        });
        self.stats.behind += u64::from(is_behind);
        Place { number, since, is_in_line, is_behind }
    }

    /// A request is over, for the front; `is_over`: for the worker, too. How long the worker had it,
    /// as far as that is known.
    pub(super) fn leave(&mut self, key: PeerKey, place: Place, is_over: bool) -> Option<Duration> {
        let now = Instant::now();
        self.stuck.remove(&place.number);
        if !place.is_in_line {
            return Some(now.saturating_duration_since(place.since));
        }
        let (held, goes_on) = self.member(key)?.line.leave(place, now, is_over);
        if goes_on {
            self.set_time(now);
            self.roster.note_progress(key);
        }
        held
    }

    /// Wakes those that would rather have a worker that is free, if one is.
    pub(super) fn wake_stuck(&mut self) {
        if !self.stuck.is_empty() && self.roster.has_free() {
            std::mem::take(&mut self.stuck).into_values().for_each(Waker::wake);
        }
    }

    pub(super) fn set_time(&mut self, now: Instant) {
        self.roster.set_time(now.saturating_duration_since(self.epoch));
    }
}
