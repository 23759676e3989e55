//! The loop: late wakes, clocks that are set, saves and restarts.

use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use mfserv_cron::{Change, Clock, Wake};

use super::kit::{FOUR_HOURS, NEW_YORK, PARIS, at, schedule, shown, zone};

const BY_CLOCK: &str = "* * * * *";
const FIXED: &str = "0-59 0-23 * * *";

fn due(wake: &Wake, text: &str) -> Vec<String> {
    let minutes = shown(&wake.minutes(&schedule(text)));
    minutes.iter().map(|minute| minute[11..].to_string()).collect()
}

/// The minutes of a day from `first` to `last`.
fn minutes(first: i64, last: i64) -> Vec<String> {
    (first..=last).map(|n| format!("{:02}:{:02}", n / 60, n % 60)).collect()
}

/// A loop that woke at 12:00 UTC, and wakes again when the clock shows so many minutes more.
fn jump(by: i64) -> (Clock, Option<Wake>) {
    let noon = at("2026-06-01T12:00:00Z");
    let mut clock = Clock::new(noon, &TimeZone::UTC);
    let wake = clock.wake(noon + Span::new().minutes(by), &TimeZone::UTC);
    (clock, wake)
}

#[test]
fn a_change_of_the_clock_is_taken_by_its_size() {
    let noon = 12 * 60;
    // By how much, what it is, the minutes of jobs with a star and of those without.
    let cases = [
        (1, Change::None, (1, 1), (1, 1)),
        (2, Change::Late, (1, 2), (1, 2)),
        (5, Change::Late, (1, 5), (1, 5)),
        (6, Change::Forward, (6, 6), (1, 6)),
        (60, Change::Forward, (60, 60), (1, 60)),
        (180, Change::Forward, (180, 180), (1, 180)),
        (181, Change::Correction, (181, 181), (181, 181)),
        (700, Change::Correction, (700, 700), (700, 700)),
        (-1, Change::Backward, (-1, -1), (0, -1)),
        (-60, Change::Backward, (-60, -60), (0, -1)),
        (-179, Change::Backward, (-179, -179), (0, -1)),
        (-180, Change::Correction, (-180, -180), (-180, -180)),
        (-700, Change::Correction, (-700, -700), (-700, -700)),
    ];
    for (by, change, by_clock, fixed) in cases {
        let wake = jump(by).1.unwrap();
        assert_eq!(wake.change(), change, "{by}");
        assert_eq!(due(&wake, BY_CLOCK), minutes(noon + by_clock.0, noon + by_clock.1), "{by}");
        assert_eq!(due(&wake, FIXED), minutes(noon + fixed.0, noon + fixed.1), "{by}");
    }
    assert_eq!(jump(0).1, None);
}

#[test]
fn a_job_at_a_fixed_time_runs_once_when_the_clock_goes_back_over_it() {
    for (back, runs) in [(30, 1), (180, 1), (181, 2)] {
        let mut now = at("2026-06-01T11:50:00Z");
        let mut clock = Clock::new(now, &TimeZone::UTC);
        let mut set = false;
        let (mut fixed, mut by_clock) = (Vec::new(), Vec::new());
        for _ in 0..400 {
            now += Span::new().minutes(1);
            if !set && now == at("2026-06-01T12:10:00Z") {
                set = true;
                now -= Span::new().minutes(back);
            }
            let wake = clock.wake(now, &TimeZone::UTC).unwrap();
            fixed.extend(wake.minutes(&schedule("0 12 * * *")));
            by_clock.extend(wake.minutes(&schedule("*/60 12 * * *")));
        }
        assert_eq!(fixed.len(), runs, "{back}");
        assert_eq!(by_clock.len(), 2, "{back}");
    }
}

#[test]
fn no_job_runs_twice_in_the_minute_where_the_repeated_time_ends() {
    let mut clock = jump(-2).0;
    let wake = |clock: &mut Clock, time: &str| clock.wake(at(time), &TimeZone::UTC);
    for time in ["2026-06-01T11:59:00Z", "2026-06-01T12:00:00Z"] {
        let wake = wake(&mut clock, time).unwrap();
        assert_eq!((wake.change(), due(&wake, FIXED).len()), (Change::Backward, 0));
        assert_eq!(due(&wake, BY_CLOCK), [&time[11..16]]);
    }
    let first = wake(&mut clock, "2026-06-01T12:01:00Z").unwrap();
    assert_eq!((first.change(), due(&first, FIXED)), (Change::None, vec!["12:01".to_string()]));
}

#[test]
fn a_second_wake_in_a_minute_is_for_nothing() {
    let noon = at("2026-06-01T12:00:10Z");
    let mut clock = Clock::new(noon, &TimeZone::UTC);
    assert_eq!(clock.wake(at("2026-06-01T12:00:59Z"), &TimeZone::UTC), None);
    assert_eq!(clock.woken_at(), at("2026-06-01T12:00:59Z"));
    assert!(clock.wake(at("2026-06-01T12:01:00Z"), &TimeZone::UTC).is_some());
    // Set back by seconds.
    assert_eq!(clock.wake(at("2026-06-01T12:01:00Z"), &TimeZone::UTC), None);
    let back = clock.wake(at("2026-06-01T12:00:59Z"), &TimeZone::UTC).unwrap();
    assert_eq!((back.change(), due(&back, FIXED).len()), (Change::Backward, 0));
    assert_eq!(
        clock.wake(at("2026-06-01T12:01:01Z"), &TimeZone::UTC).unwrap().change(),
        Change::Backward
    );
}

#[test]
fn the_loop_sleeps_until_the_next_minute_of_the_wall_clock() {
    let next =
        |now: &str, zone: &TimeZone| Clock::new(at(now), zone).next_wake(at(now), zone).to_string();
    assert_eq!(next("2026-06-01T12:00:00Z", &TimeZone::UTC), "2026-06-01T12:01:00Z");
    assert_eq!(next("2026-06-01T12:00:59.9Z", &TimeZone::UTC), "2026-06-01T12:01:00Z");
    // A wall clock that is 20 seconds ahead of whole minutes.
    let odd = TimeZone::fixed(jiff::tz::Offset::from_seconds(3620).unwrap());
    assert_eq!(next("2026-06-01T12:00:00Z", &odd), "2026-06-01T12:00:40Z");
}

#[test]
fn no_two_wakes_give_the_same_minute_and_pass() {
    // A clock that goes forward, stops and jumps, also over a saved state.
    let paris = zone(PARIS);
    let mut now = at("2026-10-24T20:00:00Z");
    let mut clock = Clock::new(now, &paris);
    let mut seen = std::collections::HashSet::new();
    let mut random = 7_u64;
    for step in 0..20_000 {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let by = match (random >> 33) % 40 {
            0 => -((random >> 40) as i64 % 400),
            1 => (random >> 40) as i64 % 400,
            2 => (random >> 40) as i64 % 8,
            _ => 1,
        };
        now += Span::new().minutes(by);
        if step % 50 == 0 {
            clock = serde_json::from_str(&serde_json::to_string(&clock).unwrap()).unwrap();
        }
        if step % 777 == 0 {
            clock.restart(now, &paris);
        }
        let Some(wake) = clock.wake(now, &paris) else { continue };
        for text in [BY_CLOCK, FIXED] {
            for minute in wake.minutes(&schedule(text)) {
                assert!(seen.insert((text, minute, wake.pass())), "{text} {minute} {step}");
            }
        }
    }
    assert!(seen.len() > 10_000);
}

#[test]
fn a_loop_that_was_saved_goes_on_where_it_was() {
    let zone = zone(NEW_YORK);
    // In the repeated hour, with half an hour owed.
    let mut now = at("2026-11-01T05:00:00Z");
    let mut clock = Clock::new(now, &zone);
    while now < at("2026-11-01T06:30:00Z") {
        now += Span::new().minutes(1);
        clock.wake(now, &zone);
    }
    let saved = serde_json::to_string(&clock).unwrap();
    let mut restored: Clock = serde_json::from_str(&saved).unwrap();
    assert_eq!(restored, clock);
    assert_eq!(restored.wake(now, &zone), None, "the minute has had its wake");
    for _ in 0..60 {
        now += Span::new().minutes(1);
        assert_eq!(restored.wake(now, &zone), clock.wake(now, &zone));
    }
    // A loop that is new does not know that the hour is a repeated one.
    let mut new = Clock::new(at("2026-11-01T06:30:00Z"), &zone);
    let wake = new.wake(at("2026-11-01T06:31:00Z"), &zone).unwrap();
    assert_eq!(due(&wake, FIXED), ["01:31"]);
}

#[test]
fn a_restart_after_a_downtime_makes_up_for_nothing() {
    let restarted = |now: &str| -> (Timestamp, Clock) {
        let mut clock = jump(1).0;
        clock.restart(at(now), &TimeZone::UTC);
        (at(now), clock)
    };
    for now in ["2026-06-01T13:30:00Z", "2026-06-08T00:00:20Z", "2026-06-01T11:00:00Z"] {
        let (now, mut clock) = restarted(now);
        assert_eq!(clock.woken_at(), now);
        assert_eq!(clock.wake(now, &TimeZone::UTC), None);
        let wake = clock.wake(now + Span::new().minutes(1), &TimeZone::UTC).unwrap();
        assert_eq!((wake.change(), due(&wake, FIXED).len()), (Change::None, 1), "{now}");
        let is_before = now < at("2026-06-01T12:01:00Z");
        assert_eq!(wake.pass(), u64::from(is_before), "{now}");
    }
}

#[test]
fn a_zone_that_changes_its_offset_is_a_clock_that_is_set() {
    let wake = |posix: &str, before: &str, now: &str| {
        let mut clock = Clock::new(at(before), &zone(posix));
        clock.wake(at(now), &zone(posix)).unwrap()
    };
    let spring = wake(PARIS, "2026-03-29T00:59:00Z", "2026-03-29T01:00:00Z");
    assert_eq!(spring.change(), Change::Forward);
    assert_eq!(due(&spring, BY_CLOCK), ["03:00"]);
    assert_eq!(due(&spring, FIXED), minutes(120, 180));
    let autumn = wake(PARIS, "2026-10-25T00:59:00Z", "2026-10-25T01:00:00Z");
    assert_eq!((autumn.change(), due(&autumn, BY_CLOCK)), (Change::Backward, vec!["02:00".into()]));
    assert_eq!(due(&autumn, FIXED), [""; 0]);
    assert_eq!(autumn.pass(), 1);
    let large = wake(FOUR_HOURS, "2026-03-29T00:59:00Z", "2026-03-29T01:00:00Z");
    assert_eq!((large.change(), due(&large, FIXED)), (Change::Correction, vec!["05:00".into()]));
}
