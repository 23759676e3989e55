//! When a package of the site is looked at: not before it is complete, and again where what was wrong
//! may pass.

use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};
use tokio::time::Instant;

use super::Signature;

/// A file that has not changed for this long may be complete…
const STABLE: Duration = Duration::from_millis(500);
/// …and one that is no good package is given this long to become one: its writer may be slow, and
/// not be visible here.
pub const DOUBTFUL: Duration = Duration::from_millis(1_500);
/// How soon a file that is not complete is looked at again: who has it open is found in all of
/// `/proc`, so that the pause doubles each time…
const LOOK: Duration = Duration::from_millis(250);
/// …up to this one, until something changes.
const LONGEST_LOOK: Duration = Duration::from_secs(5);
/// What is refused for a while (another operation has the plugin, the node is starting) is tried
/// again after this pause, which doubles each time…
const RETRY: Duration = Duration::from_secs(5);
/// …so often. What is refused then is no matter of time.
const RETRIES: u32 = 6;

/// A file that may not be complete, or is to be tried again.
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    /// Of the file that waits.
    pub signature: Signature,
    /// Since when it has not changed.
    pub since: Instant,
    /// When it is looked at again.
    pub next: Instant,
    looks: u32,
    retries: u32,
}

impl Waiting {
    /// A file that is seen for the first time.
    pub fn new(signature: Signature, now: Instant) -> Self {
        Self { signature, since: now, next: now + STABLE, looks: 0, retries: 0 }
    }

    /// Something has changed in its directory.
    pub fn wake(&mut self, now: Instant) {
        if self.retries == 0 {
            (self.next, self.looks) = (now.max(self.since + STABLE), 0);
        }
    }

    /// It was looked at, and is not complete.
    pub fn put_off(&mut self, now: Instant) {
        self.next = now + (LOOK * 2_u32.pow(self.looks.min(8))).min(LONGEST_LOOK);
        self.looks += 1;
    }

    /// Its installation has failed: says whether it is tried again.
    pub fn retry(&mut self, problem: &Diagnostic, now: Instant) -> bool {
        let is_retried = passes(problem) && self.retries < RETRIES;
        if is_retried {
            self.next = now + RETRY * 2_u32.pow(self.retries);
            self.retries += 1;
        }
        is_retried
    }
}

/// What is refused now may be possible soon.
pub fn passes(problem: &Diagnostic) -> bool {
    matches!(problem.kind, Kind::Refused | Kind::NotRunning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_stays_open_is_looked_at_ever_more_rarely_until_something_changes() {
        let began = Instant::now();
        let mut waits = Waiting::new((1, 2, 3, 4), began);
        assert_eq!(waits.next - began, STABLE);
        let pauses = std::iter::repeat_with(|| {
            let now = waits.next;
            waits.put_off(now);
            waits.next - now
        });
        let pauses: Vec<Duration> = pauses.take(40).collect();
        assert_eq!((pauses[0], pauses[1], pauses[39]), (LOOK, LOOK * 2, LONGEST_LOOK));
        let later = waits.next;
        waits.wake(later);
        assert_eq!(waits.next, later);
        waits.put_off(later);
        assert_eq!(waits.next - later, LOOK);
    }

    #[test]
    fn what_is_refused_for_a_while_is_tried_again_and_what_is_wrong_is_not() {
        let began = Instant::now();
        let mut waits = Waiting::new((1, 2, 3, 4), began);
        let problem = |kind| Diagnostic::error("the plugin is being changed").kind(kind);
        assert!(!waits.retry(&Diagnostic::error("the package is cut off"), began));
        for kind in [Kind::Refused, Kind::NotRunning] {
            assert!(waits.retry(&problem(kind), began));
        }
        assert_eq!(waits.next - began, RETRY * 2);
        // What happens in the directory makes no try more.
        waits.wake(began);
        assert_eq!(waits.next - began, RETRY * 2);
        let tries = (2..100).take_while(|_| waits.retry(&problem(Kind::Refused), began)).count();
        assert_eq!(tries, RETRIES as usize - 2);
    }
}
