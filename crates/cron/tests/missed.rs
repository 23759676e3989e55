//! What was missed in a downtime.

use jiff::tz::TimeZone;

use super::kit::{PARIS, at, schedule, zone};

#[test]
fn the_missed_runs_are_counted_and_the_latest_is_named() {
    let paris = zone(PARIS);
    let cases = [
        // The schedule, since, until, how many, the latest.
        ("* * * * *", "2026-01-01T00:00:00Z", "2026-01-01T00:00:59Z", 0, ""),
        ("* * * * *", "2026-01-01T00:00:30Z", "2026-01-01T00:01:00Z", 1, "2026-01-01T01:01"),
        ("* * * * *", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", 525_600, "2027-01-01T01:00"),
        // Downtimes begin after a run and end with one.
        ("30 2 * * *", "2026-06-01T00:30:00Z", "2026-06-03T00:29:59Z", 1, "2026-06-02T02:30"),
        ("30 2 * * *", "2026-06-01T00:30:00Z", "2026-06-03T00:30:00Z", 2, "2026-06-03T02:30"),
        ("30 2 * * *", "2026-06-01T00:29:59Z", "2026-06-03T00:30:00Z", 3, "2026-06-03T02:30"),
        ("5,50 8,20 * * *", "2026-06-01T06:20:00Z", "2026-06-01T18:30:00Z", 2, "2026-06-01T20:05"),
        ("5,50 8,20 * * *", "2026-06-01T06:20:00Z", "2026-06-02T06:50:00Z", 5, "2026-06-02T08:50"),
        ("*/10 8-9 * * *", "2026-06-01T06:10:00Z", "2026-06-01T07:20:00Z", 7, "2026-06-01T09:20"),
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2046-01-01T00:00:00Z", 5, "2044-02-29T00:00"),
        ("0 0 1 * *", "2026-01-01T00:00:00Z", "2026-12-31T00:00:00Z", 11, "2026-12-01T00:00"),
        // The hour that is skipped is made up for, the one that is repeated counts once…
        ("*/1 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z", 0, ""),
        ("0-59 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z", 60, "2026-03-29T02:59"),
        ("0-59 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z", 60, "2026-10-25T02:59"),
        // …or twice by the clock.
        ("*/1 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z", 120, "2026-10-25T02:59"),
        ("0 3 * * *", "2026-03-29T00:59:59Z", "2026-03-29T01:00:00Z", 1, "2026-03-29T03:00"),
        // Nothing ran backward.
        ("* * * * *", "2026-01-01T01:00:00Z", "2026-01-01T00:00:00Z", 0, ""),
        ("@reboot", "2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z", 0, ""),
        ("0 0 30 2 *", "2026-01-01T00:00:00Z", "2046-01-01T00:00:00Z", 0, ""),
    ];
    for (text, since, until, count, latest) in cases {
        let missed = schedule(text).missed(at(since), at(until), &paris);
        let found = missed
            .map_or((0, String::new()), |missed| (missed.count, missed.latest.minute.to_string()));
        assert_eq!(found, (count, latest.to_string()), "{text} {since} {until}");
    }
}

#[test]
fn the_latest_missed_run_has_the_instant_at_which_it_would_have_started() {
    let paris = zone(PARIS);
    let missed = schedule("30 2 * * *");
    let missed =
        missed.missed(at("2026-03-28T12:00:00Z"), at("2026-03-29T12:00:00Z"), &paris).unwrap();
    assert_eq!(missed.latest.at, at("2026-03-29T01:00:00Z"));
    let missed = schedule("30 2 * * *")
        .missed(at("2026-05-01T00:00:00Z"), at("2026-05-03T12:00:00Z"), &paris)
        .unwrap();
    assert_eq!(missed.latest.at, at("2026-05-03T00:30:00Z"));
}

#[test]
fn the_count_is_that_of_the_next_runs() {
    let texts = ["7-50/9 3-20/4 * * *", "59 23 1,31 * 1", "0 0 * * *", "*/13 */7 */5 * *"];
    let (since, until) = (at("2025-11-03T07:21:30Z"), at("2027-02-14T15:02:10Z"));
    for text in texts {
        let schedule = schedule(text);
        let mut after = since;
        let next = || {
            let run = schedule.next(after, &TimeZone::UTC).filter(|run| run.at <= until)?;
            after = run.at;
            Some(run)
        };
        let runs: Vec<_> = std::iter::from_fn(next).collect();
        let missed = schedule.missed(since, until, &TimeZone::UTC).unwrap();
        assert_eq!((missed.count as usize, Some(&missed.latest)), (runs.len(), runs.last()));
    }
}
