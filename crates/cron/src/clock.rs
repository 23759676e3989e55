//! The main loop of cron(8): which minutes are due when it wakes, and what a change of the clock
//! does to them.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use crate::minute::{LocalMinute, instant};
use crate::schedule::Schedule;

/// Up to so many minutes the loop has only woken late: it makes up for every minute.
const LATE: i64 = 5;
/// A larger change of the clock, in minutes, is a correction: the new time is simply taken.
const CORRECTION: i64 = 3 * 60;

/// How the wall clock went since the last minute that was due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// To the next minute.
    None,
    /// Two to five minutes forward: the loop woke late. Every minute is made up for.
    Late,
    /// More than five minutes and up to three hours forward. Jobs at fixed times run for each
    /// minute skipped, jobs with a `*` in minute or hour only for the minute it is now.
    Forward,
    /// Less than three hours backward, or not there yet where it was before: jobs at fixed
    /// times wait until it is, jobs with a `*` in minute or hour go by the clock.
    Backward,
    /// Any more: the new time is taken, and nothing made up for.
    Correction,
}

/// The state of the loop. It may be saved, and goes on where it was; see
/// [`restart`](Self::restart) for what to do after a downtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// The latest minute for which the jobs at fixed times have run.
    virtual_minute: LocalMinute,
    /// What the wall clock showed when the loop woke last.
    woken_minute: LocalMinute,
    /// When that was, in unix seconds.
    woken_at: i64,
    /// How often the wall clock has gone backward.
    pass: u64,
}

impl Clock {
    /// A loop that begins now. The minute that it begins in is not due.
    ///
    /// A caller that remembers runs keeps its clock as long as them, over times without jobs too,
    /// and calls [`restart`](Self::restart): a new clock counts its passes from 0 again.
    pub fn new(now: Timestamp, zone: &TimeZone) -> Self {
        let minute = LocalMinute::at(now, zone);
        let woken_at = now.as_second();
        Self { virtual_minute: minute, woken_minute: minute, woken_at, pass: 0 }
    }

    /// When it woke last, to the second.
    pub fn woken_at(&self) -> Timestamp {
        instant(self.woken_at)
    }

    /// When to wake next: at the beginning of the next minute. The loop has to wake every minute
    /// while there are jobs, as cron(8) does: it would take a longer sleep for a change of the
    /// clock.
    pub fn next_wake(&self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        let offset = i64::from(zone.to_offset(now).seconds());
        let local = LocalMinute::of(now.as_second(), offset);
        instant((local.0 + 1) * 60 - offset)
    }

    /// The loop wakes: what is due? `None` while the wall clock shows the minute that it showed
    /// before.
    ///
    /// What was due before `now` and was not asked for, because the loop woke late, is treated as
    /// if the clock had been set: see [`Change`].
    pub fn wake(&mut self, now: Timestamp, zone: &TimeZone) -> Option<Wake> {
        self.woken_at = now.as_second();
        self.show(LocalMinute::at(now, zone))
    }

    /// Goes on at `now` after a downtime, without making up for anything. What was missed,
    /// [`Schedule::missed`] says: since [`woken_at`](Self::woken_at) of before, until `now`.
    ///
    /// After a short one (up to five minutes, or a clock that went backward) call
    /// [`wake`](Self::wake) instead, which makes up for every minute.
    pub fn restart(&mut self, now: Timestamp, zone: &TimeZone) {
        let minute = LocalMinute::at(now, zone);
        self.pass += u64::from(minute < self.woken_minute);
        (self.virtual_minute, self.woken_minute) = (minute, minute);
        self.woken_at = now.as_second();
    }

    /// A loop whose wall clock shows `minute` now, and nothing is owed.
    pub(crate) fn showing(minute: LocalMinute) -> Self {
        Self { virtual_minute: minute, woken_minute: minute, woken_at: 0, pass: 0 }
    }

    /// The latest minute for which the jobs at fixed times have run.
    pub(crate) fn virtual_minute(&self) -> LocalMinute {
        self.virtual_minute
    }

    /// As if it was woken every minute until the wall clock shows `minute`.
    pub(crate) fn run_until(&mut self, minute: LocalMinute) {
        self.virtual_minute = self.virtual_minute.max(minute);
        self.woken_minute = self.woken_minute.max(minute);
    }

    /// [`wake`](Self::wake), with what the wall clock shows.
    pub(crate) fn show(&mut self, minute: LocalMinute) -> Option<Wake> {
        if minute == self.woken_minute {
            return None;
        }
        self.pass += u64::from(minute < self.woken_minute);
        self.woken_minute = minute;
        let (now, due) = (minute.0, self.virtual_minute.0 + 1);
        let (change, by_clock, fixed) = match now - self.virtual_minute.0 {
            1 => (Change::None, due..=now, due..=now),
            2..=LATE => (Change::Late, due..=now, due..=now),
            6..=CORRECTION => (Change::Forward, now..=now, due..=now),
            // An empty range: the jobs at fixed times wait.
            forward if -CORRECTION < forward && forward <= 0 => {
                (Change::Backward, now..=now, due..=now)
            }
            _ => (Change::Correction, now..=now, now..=now),
        };
        if change != Change::Backward {
            self.virtual_minute = minute;
        }
        Some(Wake { change, pass: self.pass, by_clock, fixed })
    }
}

/// What is due when the loop wakes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wake {
    change: Change,
    pass: u64,
    by_clock: RangeInclusive<i64>,
    fixed: RangeInclusive<i64>,
}

impl Wake {
    /// How the wall clock went: worth a line in a log unless [`Change::None`].
    pub fn change(&self) -> Change {
        self.change
    }

    /// How often the wall clock had gone backward. A job, a minute and a pass name one run: no
    /// wake of a clock, or of one that was saved and restored, gives the same three again.
    pub fn pass(&self) -> u64 {
        self.pass
    }

    /// The minutes for which a job with this schedule runs now, in order; at most 180, and of
    /// nearly all wakes none or one.
    pub fn minutes(&self, schedule: &Schedule) -> Vec<LocalMinute> {
        let due = self.range(schedule).clone();
        due.map(LocalMinute).filter(|minute| schedule.matches(*minute)).collect()
    }

    pub(crate) fn range(&self, schedule: &Schedule) -> &RangeInclusive<i64> {
        if schedule.goes_by_clock() { &self.by_clock } else { &self.fixed }
    }
}
