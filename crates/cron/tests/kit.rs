//! Zones and shorthands of the tests.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use mfserv_cron::{Crontab, LocalMinute, Problem, Schedule, Severity};

/// A zone as POSIX writes it, so that no test needs a zone database.
pub fn zone(text: &str) -> TimeZone {
    TimeZone::posix(text).unwrap()
}

pub const PARIS: &str = "CET-1CEST,M3.5.0,M10.5.0/3";
pub const NEW_YORK: &str = "EST5EDT,M3.2.0,M11.1.0";
/// Half an hour.
pub const LORD_HOWE: &str = "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0";
/// Two hours.
pub const TROLL: &str = "<+00>0<+02>-2,M3.5.0/1,M10.5.0/3";
/// On 10 April two hours back at 01:00 UTC, and forward again at 02:00 UTC.
pub const BACK_AND_FORWARD: &str = "<STD>0<DST>-2,J100/2,J100/3";
/// Four hours, which no zone has: more than cron(8) makes up for.
pub const FOUR_HOURS: &str = "<STD>0<DST>-4,M3.5.0/1,M10.5.0/5";

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn schedule(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|problem| panic!("{text}: {problem:?}"))
}

/// A minute of the wall clock: `2026-03-29T02:30`.
pub fn minute(text: &str) -> LocalMinute {
    LocalMinute::at(at(&format!("{text}:00Z")), &TimeZone::UTC)
}

pub fn shown(minutes: &[LocalMinute]) -> Vec<String> {
    minutes.iter().map(ToString::to_string).collect()
}

/// The problem of a text that has one.
pub fn only_problem(text: &str) -> Problem {
    let crontab = Crontab::parse(text);
    assert_eq!(crontab.problems.len(), 1, "{text:?}: {:?}", crontab.problems);
    crontab.problems[0].clone()
}

/// The one entry of a text, which may be doubtful and is not wrong.
pub fn only_entry(text: &str) -> (String, String) {
    let crontab = Crontab::parse(text);
    let is_error = |problem: &&Problem| problem.severity == Severity::Error;
    assert_eq!(crontab.problems.iter().find(is_error), None, "{text:?}");
    assert_eq!(crontab.entries.len(), 1, "{text:?}");
    let entry = &crontab.entries[0];
    (entry.command.to_string(), entry.input.to_string())
}
