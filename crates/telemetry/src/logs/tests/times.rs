//! Times, as lines and people write them, and lines that come.

use jiff::civil::date;
use jiff::tz::TimeZone;

use super::*;

#[test]
fn times_are_read_as_people_write_them() {
    let zone = TimeZone::fixed(jiff::tz::offset(1));
    let now = date(2026, 3, 10).at(15, 30, 0, 0).to_zoned(zone).unwrap();
    let now_ms = now.timestamp().as_millisecond() as u64;
    let read = |text: &str| when(text, &now).map(|at| now_ms as i64 - at as i64);
    for (text, ago_s) in [
        ("now", 0),
        ("10m", 600),
        ("-10m", 600),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("15:00", 1800),
        ("15:00:30", 1770),
        ("today", 55_800),
        ("yesterday", 142_200),
        ("2026-03-10", 55_800),
        ("2026/03/10 14:30", 3600),
        ("2026-03-10T14:30:00", 3600),
        ("2026-03-10T14:30:00Z", 0),
        ("2026-03-10T14:30:00+01:00", 3600),
    ] {
        assert_eq!(read(text), Ok(ago_s * 1000), "{text}");
    }
    for text in ["", "10", "m", "10x", "25:00", "2026-13-01", "tomorrowish", "1:2:3:4", "-", "é"] {
        let error = when(text, &now).unwrap_err().to_string();
        assert!(error.contains("10m") && error.contains("14:30"), "{error}");
    }
}

#[test]
fn a_line_says_its_time_level_and_request_in_the_formats_of_those_who_write_logs() {
    let noon = 1_769_860_800_000;
    let local = date(2026, 1, 31).at(12, 0, 0, 0).to_zoned(TimeZone::system()).unwrap();
    let local = local.timestamp().as_millisecond() as u64;
    for (line, at_ms, level, id) in [
        ("2026-01-31T12:00:00.123456Z  [WARNING] (a#1) text", noon + 123, "WARNING", None),
        ("2026/01/31 12:00:00 [error] answered 502", local, "ERROR", None),
        ("2026-01-31 12:00:00,5 - a - INFO - text", local + 500, "INFO", None),
        ("[2026-01-31 13:00:00 +0100] [12] [CRITICAL] x", noon, "CRITICAL", None),
        ("2026-01-31 07:30:00,250 -04:30 x", noon + 250, "", None),
        ("2026-01-31T13:00:00+01 x", noon, "", None),
        ("2026-01-31 12:00:00 +1560 items", local, "", None),
        ("2026-01-31 12:00:00 +0100th item", local, "", None),
        ("2026-01-31 12:00:00 -5 degrees", local, "", None),
        (
            r#"{"event":"x","level":"error","request_id":"r","timestamp":"2026-01-31T13:00:00+01:00"}"#,
            noon,
            "ERROR",
            Some("r"),
        ),
        (r#"{"at_ms":1769860800000,"event":"note","text":"x"}"#, noon, "", None),
        (
            r#"{ "@timestamp": "2026-01-31T12:00:00+00:00", "request_id": "r" }"#,
            noon,
            "",
            Some("r"),
        ),
    ] {
        let found = facts(line.as_bytes());
        assert_eq!(found.at_ms(), Some(at_ms), "{line}");
        assert_eq!(found.level.map_or("", Level::as_str), level, "{line}");
        assert_eq!(found.request_id.as_deref(), id, "{line}");
        assert_eq!(line::quick_time(line.as_bytes()), Some(at_ms), "{line}");
        assert_eq!(line::quick_level(line.as_bytes()), found.level, "{line}");
    }
    assert_eq!(facts(b"no time, no level"), Facts::default());
    assert_eq!(facts(b"Traceback (most recent call last):").level, Some(Level::Error));
    assert_eq!(facts(b"{ not json"), Facts::default());
}

/// The zone of central Europe: summer time ends at 03:00 of 2026-10-25.
const EUROPE: &str = "CET-1CEST,M3.5.0,M10.5.0/3";

#[test]
fn a_local_time_that_comes_twice_is_read_as_either() {
    let zone = || TimeZone::posix(EUROPE).unwrap();
    let read = |line: &str| line::stamp_in(line.as_bytes(), zone).unwrap();
    let hour = 3_600_000;
    let utc = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64;
    let first = utc("2026-10-25T00:30:00Z");
    let stamp = read("2026/10/25 02:30:00 [error] x");
    assert_eq!((stamp.at_ms, stamp.or_ms, stamp.end), (first, Some(first + hour), 19));
    assert_eq!(stamp.near(None), first);
    assert_eq!(stamp.near(Some(first + hour - 100)), first + hour);
    for (line, at_ms) in [
        ("2026/10/25 01:30:00 x", first - hour),
        ("2026/10/25 03:30:00 x", first + 2 * hour),
        ("2026-10-25 02:30:00 +0100 x", first + hour),
        ("2026/03/29 02:30:00 x", utc("2026-03-29T01:30:00Z")),
    ] {
        let stamp = read(line);
        assert_eq!((stamp.at_ms, stamp.or_ms), (at_ms, None), "{line}");
    }
    let of = |from: u64, to: u64| Selection {
        since_ms: Some(first + from),
        until_ms: Some(first + to),
        ..Selection::default()
    };
    assert_eq!(of(hour - 5, hour + 5).reading(&stamp, None), first + hour);
    assert_eq!(of(0, 5).reading(&stamp, Some(first + hour)), first);
    assert_eq!(of(0, hour).reading(&stamp, Some(first + hour - 1000)), first + hour);
}

#[test]
fn lines_that_come_are_selected_as_those_that_are_there() {
    let workers = [source("app.p.main.1.1", "1"), source("app.p.main.2.2", "1")];
    let mut messages = Messages::of(Path::new("app_p_main.log"));
    let severe = Selection { level: Some(Level::Error), ..Selection::default() };
    let mut is_shown = |line: &str, worker: usize| {
        let (source, line) = (Some(&workers[worker]), line.as_bytes());
        let fresh = Fresh { line, source, read_ms: Some(5), now_ms: 9 };
        severe.matches(&fresh, &mut messages).is_some()
    };
    assert!(!is_shown("no level", 0));
    assert!(is_shown("[ERROR] bad", 0));
    assert!(is_shown("  File \"x.py\"", 0));
    assert!(!is_shown("what another worker says", 1));
    assert!(is_shown("Traceback (most recent call last):", 1) && is_shown("ValueError: x", 1));
    assert!(!is_shown("[INFO] good", 1) && !is_shown("  and more of it", 1));
    let between = Selection {
        since_ms: Some(START_MS),
        until_ms: Some(START_MS + 1000),
        ..Selection::default()
    };
    let time = |line: &str, read_ms: Option<u64>, now_ms: u64| {
        let fresh = Fresh { line: line.as_bytes(), source: None, read_ms, now_ms };
        let mut messages = Messages::of(Path::new("app_p_main.log"));
        between.matches(&fresh, &mut messages).map(|(at_ms, _)| at_ms)
    };
    assert_eq!(time("x", Some(START_MS + 1000), START_MS + 1400), Some(START_MS + 1000));
    assert_eq!(time("x", Some(START_MS + 1001), START_MS + 1400), None);
    assert_eq!(time("x", None, START_MS + 7), Some(START_MS + 7));
    assert_eq!(time("x", None, START_MS - 7), None);
    assert_eq!(time("2023-11-14T22:13:20.5Z x", None, START_MS + 3000), Some(START_MS + 500));
}
