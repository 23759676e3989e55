//! A flag that many tasks of many threads wait for: a worker is dead, the front ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Waker};

use mfserv_platform::sync::lock;

/// A flag with the tasks that wait for it. The flag is read without a lock, so that a
/// request may look at it as often as it likes.
#[derive(Debug, Default)]
pub struct Signal {
    raised: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    wakers: Vec<Option<Waker>>,
    /// Positions in `wakers` that no subscription has.
    free: Vec<usize>,
}

impl Signal {
    /// Raises the flag and wakes every task that waits for it.
    pub fn raise(&self) {
        self.raised.store(true, Ordering::Release);
        let mut waiting = self.lock();
        let wakers: Vec<Waker> = waiting.wakers.iter_mut().filter_map(Option::take).collect();
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Lowers the flag again. Nobody is woken.
    pub fn lower(&self) {
        self.raised.store(false, Ordering::Release);
    }

    /// True while the flag is up.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.waiting)
    }
}

/// The place of one task among those that wait for a signal; given up when dropped.
#[derive(Debug)]
pub struct Subscription {
    signal: Arc<Signal>,
    position: Option<usize>,
}

impl Subscription {
    /// A subscription that takes its place with the first call of
    /// [`Subscription::is_raised`].
    pub fn new(signal: Arc<Signal>) -> Self {
        Self { signal, position: None }
    }

    /// The signal itself, for a look without waiting.
    pub fn signal(&self) -> &Signal {
        &self.signal
    }

    /// True while the signal is raised; else the calling task is woken when it is. Only
    /// one task may use a subscription.
    pub fn is_raised(&mut self, cx: &Context<'_>) -> bool {
        if self.signal.is_raised() {
            return true;
        }
        if self.position.is_none() {
            let mut waiting = self.signal.lock();
            let waker = Some(cx.waker().clone());
            self.position = Some(match waiting.free.pop() {
                Some(position) => {
                    waiting.wakers[position] = waker;
                    position
                }
                None => {
                    waiting.wakers.push(waker);
                    waiting.wakers.len() - 1
                }
            });
            drop(waiting);
        }
        // It may have been raised before the waker was in its place.
        self.signal.is_raised()
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Some(position) = self.position {
            let mut waiting = self.signal.lock();
            waiting.wakers[position] = None;
            waiting.free.push(position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_raised_signal_wakes_each_subscription_once_and_dropped_ones_never() {
        let signal = Arc::new(Signal::default());
        let counts: Vec<Arc<Count>> = (0..3).map(|_| Arc::default()).collect();
        let mut subscriptions: Vec<_> = (0..3).map(|_| Subscription::new(signal.clone())).collect();
        for (one, count) in subscriptions.iter_mut().zip(&counts) {
            let waker = Waker::from(count.clone());
            assert!(!one.is_raised(&Context::from_waker(&waker)));
        }
        drop(subscriptions.remove(1));
        signal.raise();
        signal.raise();
        let woken: Vec<usize> = counts.iter().map(|count| count.0.load(Ordering::SeqCst)).collect();
        assert_eq!(woken, [1, 0, 1]);
        let noop = Context::from_waker(Waker::noop());
        assert!(subscriptions.iter_mut().all(|one| one.is_raised(&noop)));
        signal.lower();
        assert!(!signal.is_raised());
        assert_eq!(signal.lock().free.len(), 1, "the place of a dropped one is used again");
    }
}
