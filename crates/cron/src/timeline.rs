//! The runs of a schedule by the instants at which cron(8) starts them, as long as nobody sets
//! the clock: only the zone changes its offset, at known instants.

use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::clock::Clock;
use crate::minute::{DAY, LocalMinute, instant};
use crate::schedule::Schedule;

/// A schedule without a run in so many years has none: 29 February is the same day of the week
/// at least every 40 years.
const HORIZON_YEARS: i64 = 50;
/// What a change of offset leaves owed is made up for within three hours; a day is ample.
const SETTLED: i64 = DAY * 60;

/// A run of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// When it starts, to the second.
    pub at: Timestamp,
    /// For which minute. Not the minute of `at` where the run makes up for an hour that the zone
    /// skipped: the one of 02:30 then starts at 03:00.
    pub minute: LocalMinute,
}

/// The runs of a job in a time in which nobody started them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Missed {
    /// How many.
    pub count: u64,
    /// The latest of them.
    pub latest: Run,
}

/// Consecutive minutes, and when the jobs of each are started.
struct Span {
    minutes: RangeInclusive<i64>,
    start: Start,
}

#[derive(Clone, Copy)]
enum Start {
    /// All of them at this unix second.
    At(i64),
    /// Each when the wall clock shows it, which is so many seconds ahead of UTC.
    Offset(i64),
}

impl Start {
    fn of(self, minute: i64) -> i64 {
        match self {
            Self::At(second) => second,
            Self::Offset(offset) => minute * 60 - offset,
        }
    }
}

impl Span {
    /// The minutes whose jobs start in `(after, until]`, unix seconds.
    fn between(&self, after: i64, until: i64) -> RangeInclusive<i64> {
        let none = RangeInclusive::new(1, 0);
        match self.start {
            Start::At(second) if after < second && second <= until => self.minutes.clone(),
            Start::At(_) => none,
            Start::Offset(offset) => {
                let first = (after + offset).div_euclid(60) + 1;
                let last = (until + offset).div_euclid(60);
                first.max(*self.minutes.start())..=last.min(*self.minutes.end())
            }
        }
    }
}

impl Schedule {
    /// The first run after `after`; of several that start at once, the first minute. `None`: it
    /// never runs again, or is `@reboot`.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Run> {
        let times = self.times()?;
        let after = after.as_second();
        let until = after.saturating_add(HORIZON_YEARS * 366 * DAY * 60);
        let mut next = None;
        self.walk(after, until, zone, |span| {
            next = times.first_in(&span.between(after, until)).map(|minute| (minute, span.start));
            next.is_none()
        });
        let (minute, start) = next?;
        // Not beyond the last instant that there is.
        Timestamp::from_second(start.of(minute.0)).ok().map(|at| Run { at, minute })
    }

    /// The runs after `since` and not after `until`; `None` where there are none.
    pub fn missed(&self, since: Timestamp, until: Timestamp, zone: &TimeZone) -> Option<Missed> {
        let times = self.times()?;
        let (since, until) = (since.as_second(), until.as_second());
        let mut missed: Option<Missed> = None;
        self.walk(since, until, zone, |span| {
            let found = times.last_and_count_in(&span.between(since, until));
            if let Some((minute, count)) = found {
                let latest = Run { at: instant(span.start.of(minute.0)), minute };
                let before = missed.map_or(0, |missed| missed.count);
                missed = Some(Missed { count: before + count, latest });
            }
            true
        });
        missed
    }

    /// Calls `visit` for the spans of this schedule, in order, from `after` to `until` and
    /// perhaps some beyond, until it says `false`.
    fn walk(&self, after: i64, until: i64, zone: &TimeZone, mut visit: impl FnMut(&Span) -> bool) {
        let begin = instant(after.saturating_sub(SETTLED));
        let mut offset = i64::from(zone.to_offset(begin).seconds());
        let mut from = begin.as_second();
        // The loop of cron(8), which is woken at every change of the offset.
        let mut clock = Clock::showing(LocalMinute::of(from, offset));
        let mut transitions = zone.following(begin);
        while from <= until {
            let transition = transitions.next();
            let end = transition.as_ref().map_or(i64::MAX / 2, |at| at.timestamp().as_second());
            let first = LocalMinute::of(from, offset);
            if let Some(wake) = clock.show(first) {
                let minutes = wake.range(self).clone();
                if !visit(&Span { minutes, start: Start::At(from) }) {
                    return;
                }
            }
            let last = LocalMinute::of(end - 1, offset);
            let done = if self.goes_by_clock() { first } else { clock.virtual_minute().max(first) };
            let minutes = done.0 + 1..=last.0;
            if !visit(&Span { minutes, start: Start::Offset(offset) }) {
                return;
            }
            clock.run_until(last);
            let Some(transition) = transition else { return };
            (from, offset) = (end, i64::from(transition.offset().seconds()));
        }
    }
}
