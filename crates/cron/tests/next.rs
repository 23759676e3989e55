//! The next run of a schedule.

use jiff::tz::TimeZone;
use mfserv_cron::Run;

use super::kit::{
    BACK_AND_FORWARD, FOUR_HOURS, LORD_HOWE, NEW_YORK, PARIS, TROLL, at, schedule, zone,
};

/// The instants and the minutes of the runs after `after`, so many of them.
fn runs(text: &str, after: &str, zone: &TimeZone, count: usize) -> Vec<(String, String)> {
    let schedule = schedule(text);
    let mut after = at(after);
    let next = || {
        let Run { at, minute } = schedule.next(after, zone)?;
        after = at;
        Some((at.to_string(), minute.to_string()))
    };
    std::iter::from_fn(next).take(count).collect()
}

/// As `runs`, with the times alone, in a zone where both are the same.
fn utc(text: &str, after: &str, count: usize) -> Vec<String> {
    let runs = runs(text, after, &TimeZone::UTC, count);
    let same = |(at, minute): (String, String)| {
        assert_eq!(at, format!("{minute}:00Z"));
        minute
    };
    runs.into_iter().map(same).collect()
}

#[test]
fn the_next_run_is_the_first_minute_after_that_matches() {
    let cases: &[(&str, &str, &[&str])] = &[
        ("* * * * *", "2026-01-01T00:00:00Z", &["2026-01-01T00:01", "2026-01-01T00:02"]),
        ("* * * * *", "2026-12-31T23:59:59Z", &["2027-01-01T00:00"]),
        // Not the minute that has begun.
        ("30 2 * * *", "2026-01-01T02:29:59Z", &["2026-01-01T02:30"]),
        ("30 2 * * *", "2026-01-01T02:29:59.9Z", &["2026-01-01T02:30"]),
        ("30 2 * * *", "2026-01-01T02:30:00Z", &["2026-01-02T02:30"]),
        ("30 2 * * *", "2026-01-01T02:30:01Z", &["2026-01-02T02:30"]),
        ("10,40 1,5 * * *", "2026-01-01T01:20:00Z", &["2026-01-01T01:40", "2026-01-01T05:10"]),
        ("10 1,5 * * *", "2026-01-01T05:20:00Z", &["2026-01-02T01:10"]),
        ("59 23 31 12 *", "2026-01-01T00:00:00Z", &["2026-12-31T23:59", "2027-12-31T23:59"]),
        ("0 0 31 * *", "2026-02-01T00:00:00Z", &["2026-03-31T00:00", "2026-05-31T00:00"]),
        ("0 0 1 * 1", "2026-02-23T00:00:00Z", &["2026-03-01T00:00", "2026-03-02T00:00"]),
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", &["2028-02-29T00:00", "2032-02-29T00:00"]),
        // 2100 is no leap year.
        ("0 0 29 2 *", "2096-03-01T00:00:00Z", &["2104-02-29T00:00"]),
        // 40 years are the longest wait there is.
        ("0 0 29 2 */7", "2088-03-01T00:00:00Z", &["2128-02-29T00:00"]),
        ("0 0 30 2 *", "2026-01-01T00:00:00Z", &[]),
        ("0 0 31 4,6,9,11 *", "2026-01-01T00:00:00Z", &[]),
        ("@reboot", "2026-01-01T00:00:00Z", &[]),
        ("0 0 * * 7", "2026-01-01T00:00:00Z", &["2026-01-04T00:00", "2026-01-11T00:00"]),
        ("@yearly", "1969-06-01T00:00:00Z", &["1970-01-01T00:00", "1971-01-01T00:00"]),
        ("@monthly", "1969-11-01T00:00:00Z", &["1969-12-01T00:00"]),
    ];
    for (text, after, expected) in cases {
        assert_eq!(&utc(text, after, expected.len().max(1)), expected, "{text} after {after}");
    }
}

#[test]
fn a_zone_is_taken_with_its_offset() {
    let new_york = zone(NEW_YORK);
    let found = runs("0 9 * * 1-5", "2026-01-02T13:00:00Z", &new_york, 2);
    assert_eq!(found[0], ("2026-01-02T14:00:00Z".into(), "2026-01-02T09:00".into()));
    assert_eq!(found[1], ("2026-01-05T14:00:00Z".into(), "2026-01-05T09:00".into()));
    let half = TimeZone::fixed(jiff::tz::Offset::from_seconds(5 * 3600 + 1800).unwrap());
    let found = runs("0 * * * *", "2026-01-02T00:00:00Z", &half, 1);
    assert_eq!(found[0], ("2026-01-02T00:30:00Z".into(), "2026-01-02T06:00".into()));
}

/// A zone, a schedule, the time after which, and the runs: the instant and the minute of each.
type Case = (&'static str, &'static str, &'static str, &'static [(&'static str, &'static str)]);

const SKIPPED: &[Case] = &[
    // 02:00 to 03:00 is not there.
    (
        PARIS,
        "30 2 * * *",
        "2026-03-28T12:00:00Z",
        &[
            ("2026-03-29T01:00:00Z", "2026-03-29T02:30"),
            ("2026-03-30T00:30:00Z", "2026-03-30T02:30"),
        ],
    ),
    (PARIS, "0 3 * * *", "2026-03-28T12:00:00Z", &[("2026-03-29T01:00:00Z", "2026-03-29T03:00")]),
    (PARIS, "59 1 * * *", "2026-03-28T12:00:00Z", &[("2026-03-29T00:59:00Z", "2026-03-29T01:59")]),
    // Both start at once: the first is shown.
    (
        PARIS,
        "15,45 2 * * *",
        "2026-03-28T12:00:00Z",
        &[
            ("2026-03-29T01:00:00Z", "2026-03-29T02:15"),
            ("2026-03-30T00:15:00Z", "2026-03-30T02:15"),
        ],
    ),
    (
        PARIS,
        "*/30 2 * * *",
        "2026-03-28T12:00:00Z",
        &[("2026-03-30T00:00:00Z", "2026-03-30T02:00")],
    ),
    (PARIS, "30 * * * *", "2026-03-29T00:30:00Z", &[("2026-03-29T01:30:00Z", "2026-03-29T03:30")]),
    (
        PARIS,
        "30 */2 * * *",
        "2026-03-29T00:00:00Z",
        &[("2026-03-29T02:30:00Z", "2026-03-29T04:30")],
    ),
    // Half an hour, and two hours.
    (
        LORD_HOWE,
        "15 2 * * *",
        "2026-10-03T12:00:00Z",
        &[("2026-10-03T15:30:00Z", "2026-10-04T02:15")],
    ),
    (TROLL, "59 2 * * *", "2026-03-28T12:00:00Z", &[("2026-03-29T01:00:00Z", "2026-03-29T02:59")]),
    // More than three hours are not made up for.
    (
        FOUR_HOURS,
        "30 2 * * *",
        "2026-03-28T12:00:00Z",
        &[("2026-03-29T22:30:00Z", "2026-03-30T02:30")],
    ),
    (
        FOUR_HOURS,
        "0 5 * * *",
        "2026-03-28T12:00:00Z",
        &[("2026-03-29T01:00:00Z", "2026-03-29T05:00")],
    ),
];

#[test]
fn an_hour_that_is_skipped_is_made_up_for_at_its_end_and_by_jobs_at_fixed_times_alone() {
    check(SKIPPED);
}

const REPEATED: &[Case] = &[
    (
        PARIS,
        "30 2 * * *",
        "2026-10-24T12:00:00Z",
        &[
            ("2026-10-25T00:30:00Z", "2026-10-25T02:30"),
            ("2026-10-26T01:30:00Z", "2026-10-26T02:30"),
        ],
    ),
    (PARIS, "0 3 * * *", "2026-10-24T12:00:00Z", &[("2026-10-25T02:00:00Z", "2026-10-25T03:00")]),
    (
        PARIS,
        "0 2,3 * * *",
        "2026-10-24T12:00:00Z",
        &[
            ("2026-10-25T00:00:00Z", "2026-10-25T02:00"),
            ("2026-10-25T02:00:00Z", "2026-10-25T03:00"),
        ],
    ),
    (
        PARIS,
        "30 * 25 * *",
        "2026-10-25T00:00:00Z",
        &[
            ("2026-10-25T00:30:00Z", "2026-10-25T02:30"),
            ("2026-10-25T01:30:00Z", "2026-10-25T02:30"),
            ("2026-10-25T02:30:00Z", "2026-10-25T03:30"),
        ],
    ),
    // Asked in the repeated hour.
    (PARIS, "45 2 * * *", "2026-10-25T01:10:00Z", &[("2026-10-26T01:45:00Z", "2026-10-26T02:45")]),
    (
        PARIS,
        "*/45 2 * * *",
        "2026-10-25T01:10:00Z",
        &[("2026-10-25T01:45:00Z", "2026-10-25T02:45")],
    ),
    (
        LORD_HOWE,
        "45 1 * * *",
        "2026-04-04T00:00:00Z",
        &[
            ("2026-04-04T14:45:00Z", "2026-04-05T01:45"),
            ("2026-04-05T15:15:00Z", "2026-04-06T01:45"),
        ],
    ),
    (
        TROLL,
        "30 1,2 * * *",
        "2026-10-24T12:00:00Z",
        &[
            ("2026-10-24T23:30:00Z", "2026-10-25T01:30"),
            ("2026-10-25T00:30:00Z", "2026-10-25T02:30"),
            ("2026-10-26T01:30:00Z", "2026-10-26T01:30"),
        ],
    ),
    // What has run in the first of two changes is not made up for at the second.
    (
        BACK_AND_FORWARD,
        "30 2,3 * * *",
        "2026-04-10T00:00:00Z",
        &[
            ("2026-04-10T00:30:00Z", "2026-04-10T02:30"),
            ("2026-04-10T02:00:00Z", "2026-04-10T03:30"),
            ("2026-04-11T00:30:00Z", "2026-04-11T02:30"),
        ],
    ),
    // More than three hours: the time is simply taken again.
    (
        FOUR_HOURS,
        "30 4 * * *",
        "2026-10-24T12:00:00Z",
        &[
            ("2026-10-25T00:30:00Z", "2026-10-25T04:30"),
            ("2026-10-25T04:30:00Z", "2026-10-25T04:30"),
        ],
    ),
];

#[test]
fn an_hour_that_is_repeated_is_for_jobs_with_a_star_alone() {
    check(REPEATED);
}

fn check(cases: &[Case]) {
    for (posix, text, after, expected) in cases {
        let found = runs(text, after, &zone(posix), expected.len());
        let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(&found, expected, "{text} in {posix}");
    }
}

#[test]
fn a_run_that_is_decades_away_is_found_without_looking_at_each_minute() {
    let begin = std::time::Instant::now();
    let paris = zone(PARIS);
    for text in ["0 0 29 2 */7", "0 0 30 2 *", "59 23 29 2 */7"] {
        for _ in 0..5 {
            schedule(text).next(at("2072-03-01T00:00:00Z"), &paris);
        }
    }
    // A walk through the minutes of 50 years takes minutes in this build.
    assert!(begin.elapsed().as_secs() < 5, "{:?}", begin.elapsed());
}

#[test]
fn the_ends_of_time_have_no_next_run() {
    let last = jiff::Timestamp::MAX;
    assert_eq!(schedule("* * * * *").next(last, &TimeZone::UTC), None);
    let first = schedule("@yearly").next(jiff::Timestamp::MIN, &zone(PARIS));
    assert!(first.is_some());
}
