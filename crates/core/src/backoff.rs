//! How long a crashed worker's slot waits before it starts again.
//!
//! Each crash adds to a score that halves with every [`HALF_LIFE_MS`] that a
//! worker of the slot was ready. Few crashes restart at once; a slot that keeps
//! crashing waits longer and longer, up to [`LONGEST_MS`].

/// The score halves when a worker of the slot has been ready for this long, milliseconds.
pub const HALF_LIFE_MS: u64 = 5_000;
/// The longest wait between two starts, milliseconds.
pub const LONGEST_MS: u64 = 30_000;
/// Up to this score a restart is immediate.
const FREE: f64 = 5.0;
/// The first wait beyond it, milliseconds; it doubles with each further point.
const FIRST_MS: f64 = 100.0;
/// A start that never became ready weighs more: it will most likely fail again.
const NEVER_READY: f64 = 2.5;

/// The memory of one slot's crashes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Backoff {
    score: f64,
}

impl Backoff {
    /// A worker ended without being asked to. `ready_ms` is how long it had been
    /// ready (`None`: it never was). Returns the wait before the next start, milliseconds.
    pub fn crashed(&mut self, ready_ms: Option<u64>) -> u64 {
        let forgiven = ready_ms.unwrap_or(0) as f64 / HALF_LIFE_MS as f64;
        self.score =
            self.score * 0.5f64.powf(forgiven) + if ready_ms.is_some() { 1.0 } else { NEVER_READY };
        self.wait_ms()
    }

    /// The wait that the present score asks for, milliseconds.
    pub fn wait_ms(&self) -> u64 {
        if self.score <= FREE {
            return 0;
        }
        let wait = FIRST_MS * 2f64.powf(self.score - FREE);
        wait.min(LONGEST_MS as f64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_crash_restarts_at_once() {
        assert_eq!(Backoff::default().crashed(Some(1)), 0);
        assert_eq!(Backoff::default().crashed(None), 0);
    }

    #[test]
    fn a_worker_killed_every_four_seconds_always_restarts_at_once() {
        let mut backoff = Backoff::default();
        for _ in 0..1000 {
            assert_eq!(backoff.crashed(Some(4_000)), 0);
        }
    }

    #[test]
    fn a_command_that_exits_at_once_waits_longer_each_time_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let waits: Vec<u64> = (0..12).map(|_| backoff.crashed(None)).collect();
        assert_eq!(waits[..2], [0, 0], "two immediate tries");
        assert!(waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        assert_eq!(*waits.last().unwrap(), LONGEST_MS);
    }

    #[test]
    fn a_long_good_life_is_a_clean_sheet() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            backoff.crashed(None);
        }
        assert!(backoff.wait_ms() > 0);
        assert_eq!(backoff.crashed(Some(20 * HALF_LIFE_MS)), 0);
    }

    #[test]
    fn a_loop_of_short_lives_is_slowed_down() {
        let mut backoff = Backoff::default();
        let last = (0..50).map(|_| backoff.crashed(Some(500))).last().unwrap();
        assert!(last >= 1_000, "{last} ms");
    }
}
