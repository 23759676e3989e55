//! Locks that go on after a panic.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Locks a mutex. A thread that panicked while it held the lock has poisoned it; each user
/// of this function leaves its data whole between two statements, so the others go on.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for a notification, at most `patience`, with the lock released; poison is ignored
/// as in [`lock`]. Returns the lock, and whether the time is over; it may return early for
/// no reason (see [`Condvar::wait_timeout`]).
pub fn wait<'a, T>(
    condition: &Condvar,
    guard: MutexGuard<'a, T>,
    patience: Duration,
) -> (MutexGuard<'a, T>, bool) {
    let waited = condition.wait_timeout(guard, patience);
    let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
    (guard, timeout.timed_out())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_a_panic_has_poisoned_is_taken_and_waited_with() {
        let (mutex, condition) = (Mutex::new(1), Condvar::new());
        let panicked = std::thread::scope(|scope| {
            scope
                .spawn(|| {
                    let _held = mutex.lock().unwrap();
                    panic!("while the lock is held");
                })
                .join()
        });
        assert!(panicked.is_err() && mutex.is_poisoned());
        let (held, _) = wait(&condition, lock(&mutex), Duration::from_millis(1));
        assert_eq!(*held, 1);
    }
}
