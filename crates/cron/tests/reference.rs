//! A second writing of cron(8), to compare with: it looks at every minute, keeps fields as lists,
//! counts its own days, and takes no zone from a library. Nothing of it is efficient, and nothing
//! is shared with the crate.

/// A minute since 1970-01-01T00:00 UTC, or of the wall clock.
pub type Minute = i64;

/// A zone as the instants of its changes and the minutes ahead of UTC from there on.
pub struct Zone {
    first: i64,
    days: Vec<Day>,
    changes: Vec<(Minute, i64)>,
}

/// In UTC: the month, which Sunday (0: the last), hour and minute, days to add; the new offset.
type Rule = (u8, u8, i64, i64);

/// The zones of `kit`, for the years of the walk.
pub fn paris() -> Zone {
    Zone::new(60, &[(3, 0, 60, 120), (10, 0, 60, 60)])
}
pub fn new_york() -> Zone {
    Zone::new(-300, &[(3, 2, 7 * 60, -240), (11, 1, 6 * 60, -300)])
}
/// Its changes are on Saturday in UTC.
pub fn lord_howe() -> Zone {
    Zone::new(660, &[(4, 1, 15 * 60 - 1440, 630), (10, 1, 15 * 60 + 30 - 1440, 660)])
}
pub fn troll() -> Zone {
    Zone::new(0, &[(3, 0, 60, 120), (10, 0, 60, 0)])
}
pub fn four_hours() -> Zone {
    Zone::new(0, &[(3, 0, 60, 240), (10, 0, 60, 0)])
}

impl Zone {
    fn new(first: i64, rules: &[Rule]) -> Self {
        let days = calendar();
        let mut changes = Vec::new();
        let mut sundays = 0;
        for (number, day) in days.iter().enumerate() {
            sundays = if day.day == 1 { 0 } else { sundays };
            if day.weekday != 0 {
                continue;
            }
            sundays += 1;
            let is_last = days.get(number + 7).is_none_or(|later| later.month != day.month);
            for &(month, which, minute, offset) in rules {
                if day.month == month && (sundays == which || (which == 0 && is_last)) {
                    changes.push((number as i64 * 1440 + minute, offset));
                }
            }
        }
        Self { first, days, changes }
    }

    pub fn changes(&self) -> &[(Minute, i64)] {
        &self.changes
    }
}

/// A date.
#[derive(Clone, Copy)]
struct Day {
    month: u8,
    day: u8,
    weekday: u8,
}

/// The days from 1970-01-01, a Thursday, to the end of 2052, counted one by one.
fn calendar() -> Vec<Day> {
    let mut days = Vec::new();
    for year in 1970..2053 {
        let is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let lengths = [31, if is_leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        for (month, length) in (1..).zip(lengths) {
            for day in 1..=length {
                days.push(Day { month, day, weekday: ((days.len() + 4) % 7) as u8 });
            }
        }
    }
    days
}

/// A schedule as lists of values.
pub struct Job {
    pub minutes: Vec<bool>,
    hours: Vec<bool>,
    days: Vec<bool>,
    months: Vec<bool>,
    weekdays: Vec<bool>,
    star_day: bool,
    star_weekday: bool,
    pub wild: bool,
}

impl Job {
    pub fn new(text: &str) -> Self {
        let fields: Vec<&str> = text.split(' ').collect();
        let list = |field: usize, low: usize, high: usize| {
            let mut values = vec![false; high + 1];
            for item in fields[field].split(',') {
                let (range, step) = item.split_once('/').unwrap_or((item, "1"));
                let (from, to) = match range.split_once('-') {
                    Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
                    None if range == "*" => (low, high),
                    None => (range.parse().unwrap(), range.parse().unwrap()),
                };
                let mut value = from;
                while value <= to {
                    values[value] = true;
                    value += step.parse::<usize>().unwrap();
                }
            }
            values
        };
        let star = |field: usize| fields[field].starts_with('*');
        let mut weekdays = list(4, 0, 7);
        weekdays[0] |= weekdays[7];
        Self {
            minutes: list(0, 0, 59),
            hours: list(1, 0, 23),
            days: list(2, 1, 31),
            months: list(3, 1, 12),
            weekdays,
            star_day: star(2),
            star_weekday: star(4),
            wild: star(0) || star(1),
        }
    }

    fn matches(&self, day: Day, time: i64) -> bool {
        let (hour, minute) = (time / 60, time % 60);
        if !self.minutes[minute as usize] || !self.hours[hour as usize] {
            return false;
        }
        let by_day = self.days[usize::from(day.day)];
        let by_weekday = self.weekdays[usize::from(day.weekday)];
        let day_is_right = if self.star_day || self.star_weekday {
            by_day && by_weekday
        } else {
            by_day || by_weekday
        };
        day_is_right && self.months[usize::from(day.month)]
    }
}

/// One look for jobs, as cron(8) takes it: the minute of the wall clock, whether jobs with a star
/// in minute or hour are looked for, and whether those without are.
pub type Look = (Minute, bool, bool);

/// cron(8), which wakes at each minute and is told the wall clock.
pub struct Cron {
    running: Minute,
    virtual_time: Minute,
}

impl Cron {
    pub fn new(wall: Minute) -> Self {
        Self { running: wall, virtual_time: wall }
    }

    /// Puts what it looks for into `looks`, and says by how many minutes it is later than it was.
    pub fn wake(&mut self, wall: Minute, looks: &mut Vec<Look>) -> i64 {
        looks.clear();
        if wall == self.running {
            return 0;
        }
        self.running = wall;
        let difference = wall - self.virtual_time;
        if difference > 180 || difference <= -180 {
            self.virtual_time = wall;
            looks.push((wall, true, true));
        } else if difference > 5 {
            looks.push((wall, true, false));
            while self.virtual_time < wall {
                self.virtual_time += 1;
                looks.push((self.virtual_time, false, true));
            }
        } else if difference > 0 {
            while self.virtual_time < wall {
                self.virtual_time += 1;
                looks.push((self.virtual_time, true, true));
            }
        } else {
            looks.push((wall, true, false));
        }
        difference
    }
}

/// A walk through the minutes of a zone.
pub struct Walk<'a> {
    zone: &'a Zone,
    changes: usize,
    offset: i64,
}

impl<'a> Walk<'a> {
    pub fn new(zone: &'a Zone) -> Self {
        Self { zone, changes: 0, offset: zone.first }
    }

    /// The wall clock in this minute, which is later than the one before.
    pub fn wall(&mut self, minute: Minute) -> Minute {
        while let Some(&(at, offset)) = self.zone.changes.get(self.changes) {
            if at > minute {
                break;
            }
            (self.changes, self.offset) = (self.changes + 1, offset);
        }
        minute + self.offset
    }

    /// Whether a look finds this job.
    pub fn finds(&self, look: Look, job: &Job) -> bool {
        let (minute, wild, fixed) = look;
        let kind = if job.wild { wild } else { fixed };
        kind && job.matches(self.zone.days[(minute / 1440) as usize], minute % 1440)
    }
}
