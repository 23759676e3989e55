//! When that is tried again for which nginx was too slow.

use std::time::Duration;

use tokio::time::Instant;

/// The pause before it is tried again: the first one, and the longest one.
const PAUSE_MIN: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// The time of the next try. The pauses grow.
#[derive(Debug, Default)]
pub struct Again {
    next: Option<Instant>,
    pause: Duration,
}

impl Again {
    /// True if it is to be tried now.
    pub fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| now >= next)
    }

    /// Takes note of how nginx has obeyed; `is_needed`: something is to be tried again.
    pub fn note(&mut self, now: Instant, is_needed: bool) {
        if !is_needed {
            *self = Self::default();
        } else if self.next.is_none() || self.is_due(now) {
            self.pause = (self.pause * 2).clamp(PAUSE_MIN, PAUSE_MAX);
            self.next = Some(now + self.pause);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pauses_grow_and_tries_between_do_not_put_the_next_one_off() {
        let (mut again, mut now) = (Again::default(), Instant::now());
        assert!(!again.is_due(now));
        again.note(now, true);
        for pause_s in [10, 20, 40, 80, 160, 300, 300] {
            now += Duration::from_secs(pause_s - 1);
            again.note(now, true);
            assert!(!again.is_due(now), "{pause_s}");
            now += Duration::from_secs(1);
            assert!(again.is_due(now), "{pause_s}");
            again.note(now, true);
        }
        again.note(now, false);
        assert!(!again.is_due(now + PAUSE_MAX));
        again.note(now, true);
        assert!(again.is_due(now + PAUSE_MIN));
    }
}
