//! The dates of HTTP, read: the present form and the two obsolete ones of RFC 9110, 5.6.7.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// The Unix time of a date. `this_year` decides in which century a year of two digits is.
pub fn parse(text: &[u8], this_year: i16) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?;
    let words: Vec<&str> = text.split(' ').filter(|word| !word.is_empty()).take(7).collect();
    let (year, month, day, time) = match words[..] {
        [name, day, month, year, time, "GMT"] if name.ends_with(',') => {
            (number(year, 4)?, month, day, time)
        }
        [name, date, time, "GMT"] if name.ends_with(',') => {
            let mut parts = date.splitn(3, '-');
            let (day, month) = (parts.next()?, parts.next()?);
            (full_year(number(parts.next()?, 2)?, this_year), month, day, time)
        }
        [_, month, day, time, year] => (number(year, 4)?, month, day, time),
        _ => return None,
    };
    let month = MONTHS.iter().position(|name| *name == month)? as i8 + 1;
    let day = number(day, day.len().clamp(1, 2))? as i8;
    let mut clock = time.splitn(3, ':').map(|part| number(part, 2));
    let mut next = || clock.next().flatten();
    // A leap second is the last second of its minute.
    let (hour, minute, second) = (next()? as i8, next()? as i8, next()?.min(59) as i8);
    let date = Date::new(year, month, day).ok()?;
    let time = Time::new(hour, minute, second, 0).ok()?;
    let when = TimeZone::UTC.to_timestamp(DateTime::from_parts(date, time)).ok()?;
    Some(when.as_second())
}

/// Reads exactly `count` digits.
fn number(digits: &str, count: usize) -> Option<i16> {
    let good = digits.len() == count && digits.bytes().all(|b| b.is_ascii_digit());
    good.then(|| digits.parse().ok()).flatten()
}

/// The year that two digits mean: one that is at most 50 years ahead.
fn full_year(two: i16, this_year: i16) -> i16 {
    let year = this_year - this_year % 100 + two;
    if year > this_year + 50 { year - 100 } else { year }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_three_forms_are_read() {
        for (text, expected) in [
            ("Sun, 06 Nov 1994 08:49:37 GMT", Some(784_111_777)),
            ("Sunday, 06-Nov-94 08:49:37 GMT", Some(784_111_777)),
            ("Sun Nov  6 08:49:37 1994", Some(784_111_777)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Some(0)),
            ("Sat, 31 Dec 2016 23:59:60 GMT", Some(1_483_228_799)),
            ("Sun, 06 Nov 1994 08:49:37", None),
            ("Sun, 31 Feb 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 94 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 25:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49:+7 GMT", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(parse(text.as_bytes(), 2026), expected, "{text}");
        }
        assert_eq!(full_year(76, 2026), 2076);
        assert_eq!(full_year(77, 2026), 1977);
    }
}
