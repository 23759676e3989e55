//! An app of which no worker lives: how long its clients have to wait. And how often the
//! error log says that answers of an app find no room.

use std::sync::atomic::Ordering;
use std::time::Duration;

use mfserv_platform::sync::lock;
use tokio::time::Instant;

use super::Upstream;

/// Requests wait for a worker that starts within this time, milliseconds.
const RESTS_MIN_MS: u64 = 1000;
/// How often it is said that there is no room for answers to slow clients.
const SAY_FULL_EVERY: Duration = Duration::from_secs(60);

impl Upstream {
    /// All its workers wait for their next start until this time, milliseconds since the
    /// Unix epoch; 0: they do not. Requests that wait for them are answered so.
    pub fn rest_until(&self, at_ms: u64) {
        self.backing_off.store(at_ms, Ordering::Relaxed);
        if self.rests_s().is_some() {
            let mut inner = lock(&self.inner);
            if !inner.roster.has_admitted() {
                inner.send_away();
            }
        }
    }

    /// How long it is until the first of its workers starts again, if that is long and no
    /// worker is there; seconds, rounded up.
    pub fn rests_s(&self) -> Option<u32> {
        let until = self.backing_off.load(Ordering::Relaxed);
        if until == 0 || self.has_admitted() {
            return None;
        }
        let left = until.saturating_sub(mfserv_platform::clock::now_ms());
        // A shorter one is waited for.
        (left >= RESTS_MIN_MS).then(|| u32::try_from(left.div_ceil(1000)).unwrap_or(u32::MAX))
    }

    /// True at most once each [`SAY_FULL_EVERY`].
    pub fn may_say_full(&self) -> bool {
        let (mut said, now) = (lock(&self.said_full), Instant::now());
        let may_say = said.is_none_or(|at| now.duration_since(at) >= SAY_FULL_EVERY);
        if may_say {
            *said = Some(now);
        }
        may_say
    }
}
