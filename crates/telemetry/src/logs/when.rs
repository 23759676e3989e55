//! Times as people write them.

use std::fmt;

use jiff::civil::{Date, DateTime, Time};
use jiff::{Timestamp, ToSpan, Zoned};

/// A time that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadTime(String);

impl fmt::Display for BadTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no time: write 10m or 2h (ago), 14:30, yesterday, 2026-01-31, \
             \"2026-01-31 14:30\" or 2026-01-31T14:30:00Z",
            self.0
        )
    }
}

impl std::error::Error for BadTime {}

/// A time, milliseconds since 1970: `now`, `today`, `yesterday`, a duration ago (`10m`, `2h`,
/// `1d12h`, also `-10m`), a time of today (`14:30`), a local date and time, or one with an
/// offset.
pub fn when(text: &str, now: &Zoned) -> Result<u64, BadTime> {
    let found = read(text.trim(), now).and_then(|at| u64::try_from(at.as_millisecond()).ok());
    found.ok_or_else(|| BadTime(text.to_owned()))
}

fn read(text: &str, now: &Zoned) -> Option<Timestamp> {
    let zone = now.time_zone();
    let midnight = |date: Date| date.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
    match text {
        "now" => return Some(now.timestamp()),
        "today" => return midnight(now.date()),
        "yesterday" => return midnight(now.date().yesterday().ok()?),
        _ => {}
    }
    if let Some(seconds) = ago(text) {
        return now.timestamp().checked_sub(seconds.seconds()).ok();
    }
    let local = |at: DateTime| at.to_zoned(zone.clone()).ok().map(|at| at.timestamp());
    if let Some(time) = time_of_day(text) {
        return local(now.date().to_datetime(time));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    if text.len() == 10 {
        return midnight(text.replace('/', "-").parse().ok()?);
    }
    // A date without a clock time would be accepted as midnight above; here it has one.
    let (date, time) = text.split_once(['T', ' '])?;
    let date: Date = date.replace('/', "-").parse().ok()?;
    local(date.to_datetime(time_of_day(time.trim())?))
}

/// Seconds of `10m`, `1h30m`, `-2d`.
fn ago(text: &str) -> Option<i64> {
    let mut rest = text.strip_prefix('-').unwrap_or(text);
    let mut seconds: i64 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
        let unit = rest[end..].chars().next()?;
        let length = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return None,
        };
        let count: i64 = rest[..end].parse().ok()?;
        seconds = seconds.checked_add(count.checked_mul(length)?)?;
        rest = &rest[end + unit.len_utf8()..];
    }
    (!text.is_empty() && text != "-" && seconds < 3_155_760_000).then_some(seconds)
}

/// `14:30`, `14:30:05`, `14:30:05.123`.
fn time_of_day(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once(['.', ',']).unwrap_or((text, "0"));
    let mut parts = whole.split(':').map(|part| {
        let is_number = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<i8>().ok().filter(|_| is_number)
    });
    let (hour, minute) = (parts.next()??, parts.next()??);
    let second = parts.next().unwrap_or(Some(0))?;
    let digits = format!("{fraction:0<9}");
    let nanos = digits.get(..9)?.parse().ok()?;
    let time = Time::new(hour, minute, second, nanos).ok()?;
    parts.next().is_none().then_some(time)
}
