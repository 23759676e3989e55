//! The requests at a worker with one slot, in their order, and when it began with each: with one
//! that was given to a busy worker it begins when it has ended another.

use std::collections::VecDeque;
use std::task::Waker;
use std::time::Duration;

use mfserv_core::peers::{PeerKey, Ticket};
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
    /// Those, in the order in which it was given them.
    tickets: VecDeque<Ticket>,
    /// When the one before the first was over.
    ended: Instant,
    /// The one before the first was given up: the worker may be with it still, until it has
    /// answered another one.
    is_unsure: bool,
    /// When another one was answered before the first, the last time, and how often.
    overtaken_at: Instant,
    overtaken: u32,
}

impl Line {
    pub fn new(now: Instant) -> Self {
        let (tickets, is_unsure) = (VecDeque::new(), false);
        Self { tickets, ended: now, is_unsure, overtaken_at: now, overtaken: 0 }
    }

    fn is_first(&self, place: Place) -> bool {
        self.tickets.front() == Some(&place.ticket)
    }

    /// When the worker has begun with the request that runs, as far as answers have shown.
    fn progress(&self) -> Instant {
        self.ended.max(self.overtaken_at)
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
        self.tickets.retain(|ticket| *ticket != place.ticket);
        let was_unsure = self.is_unsure;
        self.is_unsure = if is_first { !is_over } else { was_unsure && !is_over };
        if is_first {
            if is_over {
                (self.ended, self.overtaken) = (now, 0);
            }
            let held = now.saturating_duration_since(began);
            return (Some(held).filter(|_| !was_unsure), is_over);
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
    pub ticket: Ticket,
    pub since: Instant,
    /// Its worker has one slot, at which others may wait.
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
        if !place.is_behind {
            return Standing::First(place.since);
        }
        let mut inner = lock(&self.upstream.inner);
        let another_is_free = inner.roster.has_free();
        let Some(member) = inner.member(self.peer.key) else {
            return Standing::First(place.since);
        };
        let progress = place.since.max(member.line.progress());
        if member.line.is_first(place) && !member.line.is_unsure {
            return Standing::First(progress);
        }
        if !another_is_free {
            inner.stuck.insert(place.ticket, waker.clone());
        }
        Standing::Behind { progress, another_is_free }
    }

    /// When the worker has begun with this request, whose answer has begun.
    pub fn began(&self) -> Instant {
        let (place, now) = (self.place, Instant::now());
        if !place.is_behind {
            return place.since;
        }
        let mut inner = lock(&self.upstream.inner);
        inner.member(self.peer.key).map_or(place.since, |member| member.line.began(place, now))
    }
}

impl Inner {
    /// A request is given to a worker.
    pub(super) fn join(&mut self, key: PeerKey, (ticket, since): (Ticket, Instant)) -> Place {
        let is_in_line = self.slots == (Slots::Finite { per_worker: 1 }) && self.depth > 1;
        let member = self.member(key).filter(|_| is_in_line);
        let is_behind = member.is_some_and(|member| {
            member.line.tickets.push_back(ticket);
            member.line.tickets.len() > 1
        });
        self.stats.behind += u64::from(is_behind);
        Place { ticket, since, is_in_line, is_behind }
    }

    /// A request is over, for the front; `is_over`: for the worker, too. How long the worker had it,
    /// as far as that is known.
    pub(super) fn leave(&mut self, key: PeerKey, place: Place, is_over: bool) -> Option<Duration> {
        let now = Instant::now();
        self.stuck.remove(&place.ticket);
        if !place.is_in_line {
            return Some(now.saturating_duration_since(place.since));
        }
        let (held, goes_on) = self.member(key)?.line.leave(place, now, is_over);
        if goes_on {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line() -> (Line, [Place; 3], Instant) {
        let began = Instant::now();
        let mut line = Line::new(began);
        let places = [0, 1, 2].map(|number| {
            line.tickets.push_back(Ticket(number));
            let is_behind = number > 0;
            Place { ticket: Ticket(number), since: began, is_in_line: true, is_behind }
        });
        (line, places, began)
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn each_request_of_a_line_has_its_worker_from_the_end_of_the_one_before() {
        let (mut line, [first, second, third], began) = line();
        assert_eq!(line.leave(first, began + ms(10), true), (Some(ms(10)), true));
        assert!(line.is_first(second) && !line.is_unsure);
        assert_eq!(line.leave(third, began + ms(11), false), (None, false));
        assert_eq!(line.leave(second, began + ms(15), true), (Some(ms(5)), true));
    }

    #[test]
    fn a_request_that_is_given_up_may_keep_its_worker_until_another_one_is_answered() {
        let (mut line, [first, second, third], began) = line();
        line.leave(first, began + ms(10), false);
        assert_eq!(line.progress(), began, "the worker may be with it still");
        assert!(line.is_first(second) && line.is_unsure);
        assert_eq!(line.leave(second, began + ms(50), true), (None, true), "nobody knows");
        assert!(!line.is_unsure);
        assert_eq!(line.leave(third, began + ms(52), true), (Some(ms(2)), true));
    }
}
