//! When a job runs: five fields or a word with `@`.

use std::fmt;
use std::str::FromStr;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::field::{self, Field};
use crate::minute::LocalMinute;
use crate::problem::Problem;

/// When a job runs, as crontab(5) writes it: `*/5 8-18 * * mon-fri`, `@daily`. It is saved as
/// that text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Schedule {
    text: Box<str>,
    /// `None`: `@reboot`.
    times: Option<Times>,
}

/// The minutes that five fields stand for. Bit n of a field is its value n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    pub minutes: u64,
    pub hours: u32,
    days: u32,
    months: u32,
    /// Sunday is bit 0.
    weekdays: u32,
    /// Whether a date has to match day of month and day of week, or only one of them.
    both_days: bool,
    /// Whether minute or hour begin with `*`.
    by_clock: bool,
}

const WORDS: &[(&str, &str)] = &[
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
const REBOOT: &str = "@reboot";
const FIELDS: [&field::Kind; 5] =
    [&field::MINUTE, &field::HOUR, &field::DAY, &field::MONTH, &field::WEEKDAY];

impl Schedule {
    /// Reads a schedule that stands alone, and says what is doubtful about it.
    ///
    /// # Errors
    /// When it is none.
    pub fn parse(text: &str) -> Result<(Self, Vec<Problem>), Problem> {
        let mut doubts = Vec::new();
        let (schedule, end) = Self::read(text, &mut doubts)?;
        let rest = &text[end..];
        if !rest.is_empty() {
            let what = format!("there is more than a schedule: {rest}");
            let help = "write minute, hour, day of month, month and day of week, no command";
            let why = "a schedule has five fields, or is one word with @";
            return Err(Problem::error(what, why, help).at(text, end));
        }
        Ok((schedule, doubts))
    }

    /// Reads the schedule at the beginning of `line`; with the offset of what follows.
    pub(crate) fn read(line: &str, doubts: &mut Vec<Problem>) -> Result<(Self, usize), Problem> {
        let begin = skip_blanks(line, 0);
        if line[begin..].starts_with('@') {
            return Self::read_word(line, begin);
        }
        let (mut at, mut words) = (begin, Vec::with_capacity(5));
        let mut fields = [Field { bits: 0, star: false }; 5];
        for (kind, field) in FIELDS.iter().zip(&mut fields) {
            let end = end_of_word(line, at);
            let word = &line[at..end];
            if word.is_empty() {
                return Err(missing(line, at, words.len(), kind));
            }
            let mut faults = Vec::new();
            let problem = |fault: &field::Fault, is_error: bool| {
                let make = if is_error { Problem::error } else { Problem::warning };
                let doubt = if is_error { "is wrong" } else { "is doubtful" };
                let what = format!("the {} {word} {doubt}", kind.name);
                make(what, fault.why.clone(), fault.help.clone()).at(line, at + fault.offset)
            };
            *field = kind.parse(word, &mut faults).map_err(|fault| problem(&fault, true))?;
            doubts.extend(faults.iter().map(|fault| problem(fault, false)));
            words.push(word);
            at = skip_blanks(line, end);
        }
        let times = Times::new(fields);
        let text = words.join(" ");
        if !times.has_a_date() {
            let what = format!("{text} never runs");
            let why = "no year has a date with this day and month";
            let help = "correct the day of month or the month";
            doubts.push(Problem::warning(what, why, help).at(line, begin));
        }
        Ok((Self { text: text.into(), times: Some(times) }, at))
    }

    fn read_word(line: &str, begin: usize) -> Result<(Self, usize), Problem> {
        let end = end_of_word(line, begin);
        let word = &line[begin..end];
        let (text, after) = (word.into(), skip_blanks(line, end));
        if word == REBOOT {
            return Ok((Self { text, times: None }, after));
        }
        let expands_to = WORDS.iter().find(|(name, _)| *name == word);
        let times = expands_to.and_then(|(_, five)| Self::read(five, &mut Vec::new()).ok());
        match times {
            Some((five, _)) => Ok((Self { text, times: five.times }, after)),
            None => {
                let names = WORDS.iter().map(|(name, _)| *name).chain([REBOOT]);
                let names: Vec<&str> = names.collect();
                let what = format!("{word} is no schedule");
                let why = format!("cron(8) knows {}, in lower case", names.join(", "));
                let help = "write one of these, or minute, hour, day of month, month, day of week";
                Err(Problem::error(what, why, help).at(line, begin))
            }
        }
    }

    /// As it was written, with one blank between its fields.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is `@reboot`: a run at the start of the system (for a crontab of mfserv: of the
    /// node), and none at any minute.
    pub fn is_reboot(&self) -> bool {
        self.times.is_none()
    }

    /// Whether minute or hour begin with `*` (as in `@hourly`): after a change of the clock such
    /// a job goes by the new time at once, and runs that the change skips are not made up for.
    pub fn goes_by_clock(&self) -> bool {
        self.times.is_some_and(|times| times.by_clock)
    }

    /// Whether a run is due in this minute of the wall clock.
    pub fn matches(&self, minute: LocalMinute) -> bool {
        let minute = minute.0..=minute.0;
        self.times.is_some_and(|times| times.first_in(&minute).is_some())
    }

    pub(crate) fn times(&self) -> Option<&Times> {
        self.times.as_ref()
    }
}

impl Times {
    fn new([minute, hour, day, month, weekday]: [Field; 5]) -> Self {
        let low = |field: Field| u32::try_from(field.bits & u64::from(u32::MAX)).unwrap_or(0);
        // 7 is Sunday too.
        let weekdays = low(weekday);
        Self {
            minutes: minute.bits,
            hours: low(hour),
            days: low(day),
            months: low(month),
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            both_days: day.star || weekday.star,
            by_clock: minute.star || hour.star,
        }
    }

    pub fn has_month(&self, date: Date) -> bool {
        self.months >> date.month() & 1 == 1
    }

    pub fn has_day(&self, date: Date) -> bool {
        let day = self.days >> date.day() & 1 == 1;
        let weekday = self.weekdays >> date.weekday().to_sunday_zero_offset() & 1 == 1;
        let matches = if self.both_days { day && weekday } else { day || weekday };
        matches && self.has_month(date)
    }

    /// Whether there is any date that matches.
    fn has_a_date(&self) -> bool {
        // 2000 was a leap year.
        let first = |month: i8| jiff::civil::date(2000, month, 1);
        let has_day = |month: i8| {
            let days = 1..=i32::from(first(month).days_in_month());
            days.into_iter().any(|day| self.days >> day & 1 == 1)
        };
        let months = (1..=12).filter(|month| self.months >> month & 1 == 1);
        // Each day of a month falls on each day of the week in some year.
        let by_weekday = !self.both_days && self.weekdays != 0;
        months.into_iter().any(|month| by_weekday || has_day(month))
    }
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

pub(crate) fn skip_blanks(line: &str, from: usize) -> usize {
    let rest = &line[from..];
    from + rest.find(|c| !is_blank(c)).unwrap_or(rest.len())
}

fn end_of_word(line: &str, from: usize) -> usize {
    let rest = &line[from..];
    from + rest.find(is_blank).unwrap_or(rest.len())
}

fn missing(line: &str, at: usize, found: usize, kind: &field::Kind) -> Problem {
    let what = format!("the {} is missing", kind.name);
    let why = format!("a schedule has five fields, and here are {found}");
    let help = "write minute, hour, day of month, month and day of week, as in 30 2 * * 1-5";
    Problem::error(what, why, help).at(line, at)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Schedule {
    type Err = Problem;

    fn from_str(text: &str) -> Result<Self, Problem> {
        Self::parse(text).map(|(schedule, _)| schedule)
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.text.into()
    }
}

impl TryFrom<String> for Schedule {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse().map_err(|problem: Problem| format!("{}: {}", problem.what, problem.why))
    }
}
