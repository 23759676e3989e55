//! Idle connections of clients, and the eviction of those that have been idle longest.
//!
//! When there are as many clients as allowed and others wait to be accepted, each lane
//! closes a part of its idle connections.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::time::Instant;

/// A connection that has been idle for a shorter time is not evicted: the next request
/// may be on its way.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// The same for a client that has not sent anything yet.
const SILENT_MIN: Duration = Duration::from_millis(100);

thread_local! {
    /// All clients of this lane, idle or not.
    static ALL: RefCell<Vec<Rc<Entry>>> = const { RefCell::new(Vec::new()) };
}

#[derive(Debug, Default)]
struct Entry {
    /// Its position in the list.
    position: Cell<usize>,
    idle_since: Cell<Option<Instant>>,
    /// It has sent something before.
    has_spoken: Cell<bool>,
    is_evicted: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// The idle times of one connection, used again for each of them. It stays in the
/// thread of its lane.
#[derive(Debug)]
pub struct IdleTracker(Rc<Entry>);

impl IdleTracker {
    /// The tracker of a new connection, which is not idle yet.
    pub fn new() -> Self {
        let entry = Rc::new(Entry::default());
        ALL.with_borrow_mut(|all| {
            entry.position.set(all.len());
            all.push(entry.clone());
        });
        Self(entry)
    }

    /// The connection is idle from `now` on.
    pub fn begin(&self, now: Instant) {
        self.0.idle_since.set(Some(now));
        self.0.is_evicted.set(false);
    }

    /// The connection is idle no longer.
    pub fn end(&self) {
        self.0.idle_since.set(None);
        self.0.has_spoken.set(true);
    }

    /// The client has sent something that is no request yet.
    pub fn has_spoken(&self) {
        self.0.has_spoken.set(true);
    }

    /// True if the connection has to be closed; else the calling task is woken when it has.
    pub fn is_evicted(&self, cx: &Context<'_>) -> bool {
        if self.0.is_evicted.get() {
            return true;
        }
        let mut waker = self.0.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|known| known.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        false
    }
}

impl Drop for IdleTracker {
    fn drop(&mut self) {
        // The list is gone while the thread ends.
        let _ = ALL.try_with(|all| {
            let mut all = all.borrow_mut();
            let position = self.0.position.get();
            all.swap_remove(position);
            if let Some(moved) = all.get(position) {
                moved.position.set(position);
            }
        });
    }
}

/// Evicts the connections of this lane that have been idle longest: one of `one_in` of its
/// clients, and one at least. All clients are looked at (O(n)).
pub fn evict_longest_idle(one_in: usize, now: Instant) {
    let mut longest: Vec<(Instant, Rc<Entry>)> = Vec::new();
    let all = ALL.with_borrow(|all| {
        let candidates = all.iter().filter(|entry| !entry.is_evicted.get());
        let since = |entry: &Rc<Entry>| entry.idle_since.get().map(|since| (since, entry.clone()));
        let is_old = |(since, entry): &(Instant, Rc<Entry>)| {
            let least = if entry.has_spoken.get() { IDLE_MIN } else { SILENT_MIN };
            now - *since >= least
        };
        longest.extend(candidates.filter_map(since).filter(is_old));
        all.len()
    });
    let count = (all / one_in.max(1)).max(1);
    if longest.len() > count {
        longest.select_nth_unstable_by_key(count, |(since, _)| *since);
        longest.truncate(count);
    }
    for (_, entry) in longest {
        entry.is_evicted.set(true);
        if let Some(waker) = entry.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_idle_are_evicted_first_and_short_idlers_and_busy_ones_never() {
        let now = Instant::now() + Duration::from_secs(100);
        let cx = Context::from_waker(Waker::noop());
        let trackers: Vec<IdleTracker> = (0..10).map(|_| IdleTracker::new()).collect();
        let ago = |tracker: &IdleTracker, s: u64| tracker.begin(now - Duration::from_secs(s));
        [3, 50, 0, 40, 30].iter().zip(&trackers).for_each(|(&s, rest)| ago(rest, s));
        let evicted =
            || -> Vec<usize> { (0..10).filter(|&at| trackers[at].is_evicted(&cx)).collect() };
        evict_longest_idle(5, now);
        assert_eq!(evicted(), [1, 3]);
        evict_longest_idle(5, now);
        assert_eq!(evicted(), [0, 1, 3, 4]);
        evict_longest_idle(1, now);
        assert_eq!(evicted(), [0, 1, 3, 4]);
        // An evicted one that begins to be idle anew is evicted no longer.
        ago(&trackers[1], 0);
        assert_eq!(evicted(), [0, 3, 4]);
        drop(trackers);
        ALL.with_borrow(|all| assert!(all.is_empty()));
    }
}
