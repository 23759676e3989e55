//! A minute of the local wall clock.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{Timestamp, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// A minute of the local wall clock: the minutes since 1970-01-01T00:00 of that clock. The hour
/// that a change of the clock repeats has the same minutes twice. Shown as `2026-03-29T02:30`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LocalMinute(pub(crate) i64);

pub(crate) const DAY: i64 = 24 * 60;

impl LocalMinute {
    /// What the wall clock in `zone` shows at `instant`.
    pub fn at(instant: Timestamp, zone: &TimeZone) -> Self {
        let offset = zone.to_offset(instant).seconds();
        Self::of(instant.as_second(), i64::from(offset))
    }

    /// As [`at`](Self::at): unix seconds, and the seconds that the clock is ahead of UTC.
    pub(crate) fn of(second: i64, offset: i64) -> Self {
        Self((second + offset).div_euclid(60))
    }

    /// The date and time that the wall clock shows. Without a zone: the minute may be one that
    /// the clock skips.
    pub fn civil(self) -> DateTime {
        Offset::UTC.to_datetime(instant(self.0.saturating_mul(60)))
    }

    /// The days since 1970-01-01 and the minutes since midnight.
    pub(crate) fn day_and_minute(self) -> (i64, i64) {
        (self.0.div_euclid(DAY), self.0.rem_euclid(DAY))
    }
}

/// The instant of a unix second; the last or first one that there is, beyond those.
pub(crate) fn instant(second: i64) -> Timestamp {
    let limit = if second < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(second).unwrap_or(limit)
}

impl fmt::Display for LocalMinute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.civil().strftime("%Y-%m-%dT%H:%M"))
    }
}
