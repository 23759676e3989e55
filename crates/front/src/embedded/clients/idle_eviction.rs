//! Client connections without a request. When there are as many clients as allowed and
//! others come, those that have rested longest are ended for them.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

/// A shorter rest is not ended: the next request may be on its way.
const LEAST: Duration = Duration::from_secs(1);

thread_local! {
    /// All clients of this lane.
    static ALL: RefCell<Vec<Rc<Seat>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Default)]
struct Seat {
    /// Where it is in the list.
    place: Cell<usize>,
    since: Cell<Option<Instant>>,
    over: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The rest of one client, over and over again. It stays in its lane.
#[derive(Debug)]
pub struct Rest(Rc<Seat>);

impl Rest {
    /// Of a new client; it does not rest yet.
    pub fn new() -> Self {
        let seat = Rc::new(Seat::default());
        ALL.with_borrow_mut(|all| {
            seat.place.set(all.len());
            all.push(seat.clone());
        });
        Self(seat)
    }

    /// It rests from then on.
    pub fn begin(&self, now: Instant) {
        self.0.since.set(Some(now));
        self.0.over.set(false);
    }

    /// It has something to do again.
    pub fn end(&self) {
        self.0.since.set(None);
    }

    /// True if its connection is to be ended; else the task is woken when it is.
    pub fn is_over(&self, cx: &Context<'_>) -> bool {
        if self.0.over.get() {
            return true;
        }
        let mut waker = self.0.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        false
    }
}

impl Drop for Rest {
    fn drop(&mut self) {
        // Without the thread there is no list either.
        let _ = ALL.try_with(|all| {
            let mut all = all.borrow_mut();
            let place = self.0.place.get();
            all.swap_remove(place);
            if let Some(moved) = all.get(place) {
                moved.place.set(place);
            }
        });
    }
}

/// Ends the longest rests in this lane: of one in so many clients, of one at least.
pub fn end_longest(one_in: usize, now: Instant) {
    let mut longest: Vec<(Instant, Rc<Seat>)> = Vec::new();
    let all = ALL.with_borrow(|all| {
        let resting = all.iter().filter(|seat| !seat.over.get());
        let since = |seat: &Rc<Seat>| seat.since.get().map(|since| (since, seat.clone()));
        longest.extend(resting.filter_map(since).filter(|(since, _)| now - *since >= LEAST));
        all.len()
    });
    let count = (all / one_in.max(1)).max(1);
    if longest.len() > count {
        longest.select_nth_unstable_by_key(count, |(since, _)| *since);
        longest.truncate(count);
    }
    for (_, seat) in longest {
        seat.over.set(true);
        if let Some(waker) = seat.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_rests_end_first_and_short_ones_and_those_at_work_never() {
        let now = Instant::now() + Duration::from_secs(100);
        let cx = Context::from_waker(Waker::noop());
        let rests: Vec<Rest> = (0..10).map(|_| Rest::new()).collect();
        let ago = |rest: &Rest, s: u64| rest.begin(now - Duration::from_secs(s));
        [3, 50, 0, 40, 30].iter().zip(&rests).for_each(|(&s, rest)| ago(rest, s));
        let over = || -> Vec<usize> { (0..10).filter(|&at| rests[at].is_over(&cx)).collect() };
        end_longest(5, now);
        assert_eq!(over(), [1, 3]);
        end_longest(5, now);
        assert_eq!(over(), [0, 1, 3, 4]);
        end_longest(1, now);
        assert_eq!(over(), [0, 1, 3, 4]);
        // Another one begins, ends and begins again in the place of others.
        ago(&rests[1], 0);
        assert_eq!(over(), [0, 3, 4]);
        drop(rests);
        ALL.with_borrow(|all| assert!(all.is_empty()));
    }
}
