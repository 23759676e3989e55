//! Debian's crontab(5) and cron(8) (package cron 3.0pl1) as values and decisions: the lines of a
//! crontab, when each runs, and what happens when the clock is set or the zone changes its
//! offset. Nothing is started here, no clock
//! and no file is read but for the local time zone ([`local_zone`]).
//!
//! - [`Crontab::parse`] reads a file: entries, environment, problems.
//! - [`Schedule`] says when an entry runs: [`Schedule::next`], [`Schedule::missed`].
//! - [`Clock`] is the main loop of cron(8): woken once a minute, it says which minutes are due.
//!
//! A caller that runs jobs:
//!
//! ```
//! use jiff::{Timestamp, tz::TimeZone};
//! use mfserv_cron::{Clock, Crontab};
//!
//! let crontab = Crontab::parse("MAILTO=\"\"\n30 2 * * * backup --all\n");
//! let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
//! let mut now: Timestamp = "2026-06-01T00:29:30Z".parse().unwrap();
//! let mut clock = Clock::new(now, &zone);
//! now = clock.next_wake(now, &zone); // sleep until then, at most a minute
//! let wake = clock.wake(now, &zone).unwrap(); // None: it is still the same minute
//! for entry in &crontab.entries {
//!     for minute in wake.minutes(&entry.schedule) {
//!         assert_eq!(minute.to_string(), "2026-06-01T02:30"); // run `entry.command`
//!     }
//! }
//! ```

mod clock;
mod command;
mod crontab;
mod field;
mod minute;
mod problem;
mod schedule;
mod search;
mod setting;
mod timeline;
mod zone;

pub use clock::{Change, Clock, Wake};
pub use crontab::{
    Crontab, DEFAULT_PATH, DEFAULT_SHELL, Entry, MAX_ENTRIES, MAX_LINE, MAX_LINES, MAX_SETTINGS,
};
pub use minute::LocalMinute;
pub use problem::{Problem, Severity};
pub use schedule::Schedule;
pub use timeline::{Missed, Run};
pub use zone::local_zone;
