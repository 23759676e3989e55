//! Minutes that match a schedule, found by days and not minute by minute.

use std::ops::RangeInclusive;

use jiff::civil::Date;

use crate::minute::{DAY, LocalMinute};
use crate::schedule::Times;

impl Times {
    /// The first minute of `range` that matches.
    pub(crate) fn first_in(&self, range: &RangeInclusive<i64>) -> Option<LocalMinute> {
        let (first_day, first_minute) = LocalMinute(*range.start()).day_and_minute();
        let (mut day, mut from) = (first_day, first_minute);
        while day * DAY <= *range.end() {
            let date = date(day);
            if !self.has_month(date) {
                let rest = date.days_in_month() - date.day();
                (day, from) = (day + i64::from(rest) + 1, 0);
                continue;
            }
            let time = if self.has_day(date) { self.time_from(from) } else { None };
            if let Some(time) = time {
                let minute = day * DAY + time;
                return (minute <= *range.end()).then_some(LocalMinute(minute));
            }
            (day, from) = (day + 1, 0);
        }
        None
    }

    /// The last minute of `range` that matches, and how many do.
    pub(crate) fn last_and_count_in(
        &self,
        range: &RangeInclusive<i64>,
    ) -> Option<(LocalMinute, u64)> {
        let (first_day, first_minute) = LocalMinute(*range.start()).day_and_minute();
        let (last_day, last_minute) = LocalMinute(*range.end()).day_and_minute();
        let (mut last, mut count) = (None, 0);
        for day in first_day..=last_day {
            if !self.has_day(date(day)) {
                continue;
            }
            let from = if day == first_day { first_minute } else { 0 };
            let until = if day == last_day { last_minute } else { DAY - 1 };
            if let Some(time) = self.time_until(until).filter(|time| *time >= from) {
                last = Some(LocalMinute(day * DAY + time));
                count += self.times_until(until) - self.times_until(from - 1);
            }
        }
        last.map(|last| (last, count))
    }

    /// The first minute of a day that matches, at `from` or later.
    fn time_from(&self, from: i64) -> Option<i64> {
        let later = (from / 60..24).filter(|hour| self.hours >> hour & 1 == 1);
        for hour in later {
            let first = if hour == from / 60 { from % 60 } else { 0 };
            let minutes = self.minutes >> first << first;
            if minutes != 0 {
                return Some(hour * 60 + i64::from(minutes.trailing_zeros()));
            }
        }
        None
    }

    /// The last minute of a day that matches, at `until` or earlier.
    fn time_until(&self, until: i64) -> Option<i64> {
        let earlier = (0..=until / 60).rev().filter(|hour| self.hours >> hour & 1 == 1);
        for hour in earlier {
            let last = if hour == until / 60 { until % 60 } else { 59 };
            let minutes = self.minutes & (u64::MAX >> (63 - last));
            if minutes != 0 {
                return Some(hour * 60 + 63 - i64::from(minutes.leading_zeros()));
            }
        }
        None
    }

    /// How many minutes of a day match, up to `until`; -1 is before the day.
    fn times_until(&self, until: i64) -> u64 {
        if until < 0 {
            return 0;
        }
        let (hour, minute) = (until / 60, until % 60);
        let whole = u64::from((self.hours & ((1 << hour) - 1)).count_ones());
        let part = (self.minutes & (u64::MAX >> (63 - minute))).count_ones();
        whole * u64::from(self.minutes.count_ones())
            + u64::from(part) * u64::from(self.hours >> hour & 1)
    }
}

/// The date of a number of days since 1970-01-01; the last or first one, beyond those.
fn date(days: i64) -> Date {
    LocalMinute(days.saturating_mul(DAY)).civil().date()
}
