//! Waiting for what is observed, never for a guessed time.

use std::time::{Duration, Instant};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Waits until the condition holds.
///
/// # Panics
/// When it does not hold within `patience`: the test has failed, and `what` says why.
#[track_caller]
pub fn until(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    until_some(what, patience, || condition().then_some(()));
}

/// Waits until there is a value.
///
/// # Panics
/// When there is none within `patience`.
#[track_caller]
pub fn until_some<T>(what: &str, patience: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(began.elapsed() < patience, "not within {patience:?}: {what}");
        // Between two looks: conditions of other processes can only be looked at.
        std::thread::sleep(LOOK);
    }
}
