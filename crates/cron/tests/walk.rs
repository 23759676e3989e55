//! 10,000 days, minute by minute, in three zones, and fewer in two more: the clock and the next runs agree with the
//! reference and so with each other.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use mfserv_cron::{Change, Clock, LocalMinute, Schedule};

use super::kit::{self, schedule, zone};
use super::reference::{self, Cron, Job, Look, Minute, Walk, Zone};

/// 2024-01-01, and how long.
const FIRST_DAY: i64 = 19_723;
const DAYS: i64 = 10_000;
const FEW_DAYS: i64 = 2_000;

/// Looked for in every minute of all days.
const TEXTS: &[&str] = &[
    "30 2 * * *",
    "15,45 1-3 * * 0",
    "0 0 1 * *",
    "59 23 31 * *",
    "0 3 29 2 *",
    "30 1 29 2 */7",
    "0 0 1,15 * 5",
    "0 0 */2 * 7",
    "*/30 2 * * 0",
    "0 */3 * * 6",
    "10 1-22/7 * 3-10/7 0-6",
    "5 * 25-31 3,10 0",
];
/// Looked for in the hours around each change of the offset: they run too often for more.
const FREQUENT: &[&str] = &["* * * * *", "0-59 0-23 * * *", "*/7 */2 * * *", "3-50/4 * * * *"];
const AROUND: i64 = 12 * 60;

fn instant(minute: Minute) -> Timestamp {
    Timestamp::from_second(minute * 60).unwrap()
}

fn local(minute: Minute) -> LocalMinute {
    LocalMinute::at(instant(minute), &TimeZone::UTC)
}

/// The runs of the reference, each as its instant and its minute of the wall clock.
type Runs = Vec<(Minute, Minute)>;

/// Walks `minutes`, and calls `each` with every minute, whether it is the next one of the wall
/// clock, its looks and the walk.
fn walk(
    zone: &Zone,
    minutes: std::ops::Range<Minute>,
    mut each: impl FnMut(Minute, bool, &[Look], &Walk),
) {
    let mut walk = Walk::new(zone);
    let mut cron = Cron::new(walk.wall(minutes.start));
    let mut looks = Vec::new();
    for minute in minutes.start + 1..minutes.end {
        let difference = cron.wake(walk.wall(minute), &mut looks);
        each(minute, difference == 1, &looks, &walk);
    }
}

/// The minutes of `looks` in which a job runs.
fn found(looks: &[Look], walk: &Walk, job: &Job) -> Vec<Minute> {
    let found = looks.iter().filter(|look| walk.finds(**look, job));
    found.map(|look| look.0).collect()
}

fn compare(posix: &str, reference: &Zone, days: i64) {
    let zone = zone(posix);
    let (first, last) = (FIRST_DAY * 1440, (FIRST_DAY + days) * 1440);
    let jobs: Vec<Job> = TEXTS.iter().map(|text| Job::new(text)).collect();
    let schedules: Vec<Schedule> = TEXTS.iter().map(|text| schedule(text)).collect();
    // Which jobs may run at a minute of the hour: the walk looks at those alone.
    let may_run = |n: usize| (0..jobs.len()).filter(|index| jobs[*index].minutes[n]).collect();
    let candidates: Vec<Vec<usize>> = (0..60).map(may_run).collect();
    let all: Vec<usize> = (0..jobs.len()).collect();
    let mut runs: Vec<Runs> = vec![Vec::new(); TEXTS.len()];
    let mut clock = Clock::new(instant(first), &zone);
    let mut changes = 0_i64;
    walk(reference, first..last, |minute, is_next, looks, walk| {
        let wake = clock.wake(instant(minute), &zone).unwrap();
        assert_eq!(wake.change() == Change::None, is_next, "{posix}: {}", instant(minute));
        let some = &candidates[(looks[0].0 % 60) as usize];
        for &index in if looks.len() == 1 { some } else { &all } {
            let found = found(looks, walk, &jobs[index]);
            let due = wake.minutes(&schedules[index]);
            let expected: Vec<LocalMinute> = found.iter().map(|minute| local(*minute)).collect();
            assert_eq!(due, expected, "{posix}: {} at {}", TEXTS[index], instant(minute));
            runs[index].extend(found.into_iter().map(|found| (minute, found)));
        }
        changes += i64::from(!is_next);
    });
    assert!(changes >= days / 365 * 2, "{changes}: each year changes twice");
    for (index, runs) in runs.iter_mut().enumerate() {
        agree(&schedules[index], runs, first..last, &zone);
    }
    frequent(reference, &zone, last);
}

/// The frequent schedules, around each change.
fn frequent(reference: &Zone, zone: &TimeZone, end: Minute) {
    let jobs: Vec<Job> = FREQUENT.iter().map(|text| Job::new(text)).collect();
    let changes = reference.changes().iter().map(|(at, _)| *at);
    for at in changes.filter(|at| FIRST_DAY * 1440 + AROUND < *at && at + AROUND < end) {
        let minutes = at - AROUND..at + AROUND;
        let mut runs: Vec<Runs> = vec![Vec::new(); FREQUENT.len()];
        walk(reference, minutes.clone(), |minute, _, looks, walk| {
            for (job, runs) in jobs.iter().zip(&mut runs) {
                let found = found(looks, walk, job);
                runs.extend(found.into_iter().map(|found| (minute, found)));
            }
        });
        for (text, runs) in FREQUENT.iter().zip(&mut runs) {
            agree(&schedule(text), runs, minutes.clone(), zone);
        }
    }
}

/// `next`, asked again and again, and `missed` are these runs.
fn agree(schedule: &Schedule, runs: &mut Runs, minutes: std::ops::Range<Minute>, zone: &TimeZone) {
    let (since, until) = (instant(minutes.start), instant(minutes.end - 1));
    let missed = schedule.missed(since, until, zone);
    assert_eq!(missed.map_or(0, |missed| missed.count) as usize, runs.len(), "{schedule}");
    let latest = runs.last().map(|(at, minute)| (instant(*at), local(*minute)));
    assert_eq!(missed.map(|missed| (missed.latest.at, missed.latest.minute)), latest);
    // Of runs that start at once, `next` shows the first.
    runs.dedup_by_key(|run| run.0);
    let mut after = since;
    for (at, minute) in runs {
        let run = schedule.next(after, zone).unwrap();
        assert_eq!((run.at, run.minute), (instant(*at), local(*minute)), "{schedule} {after}");
        after = run.at;
    }
    let beyond = schedule.next(after, zone);
    assert!(beyond.is_none_or(|run| run.at > until), "{schedule}");
}

#[test]
fn ten_thousand_days_in_paris_are_those_of_cron() {
    compare(kit::PARIS, &reference::paris(), DAYS);
}

#[test]
fn ten_thousand_days_in_new_york_are_those_of_cron() {
    compare(kit::NEW_YORK, &reference::new_york(), DAYS);
}

#[test]
fn ten_thousand_days_on_lord_howe_island_which_changes_by_half_an_hour_are_those_of_cron() {
    compare(kit::LORD_HOWE, &reference::lord_howe(), DAYS);
}

#[test]
fn two_thousand_days_in_troll_which_changes_by_two_hours_are_those_of_cron() {
    compare(kit::TROLL, &reference::troll(), FEW_DAYS);
}

#[test]
fn two_thousand_days_of_changes_by_four_hours_are_those_of_cron() {
    compare(kit::FOUR_HOURS, &reference::four_hours(), FEW_DAYS);
}

#[test]
fn a_clock_that_is_set_at_random_is_taken_as_cron_takes_it() {
    let (mut wall, mut random) = (FIRST_DAY * 1440, 42_u64);
    let mut clock = Clock::new(instant(wall), &TimeZone::UTC);
    let mut cron = Cron::new(wall);
    let (wild, fixed) = (schedule("* * * * *"), schedule("0-59 0-23 * * *"));
    let mut looks = Vec::new();
    let mut irregular = 0;
    for _ in 0..100_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let draw = (random >> 33) as i64;
        wall += match draw % 12 {
            0 => draw / 12 % 9 - 4,
            1 => draw / 12 % 420 - 210,
            2 => draw / 12 % 9_000 - 4_000,
            _ => 1,
        };
        cron.wake(wall, &mut looks);
        irregular += usize::from(looks.len() != 1);
        let wake = clock.wake(instant(wall), &TimeZone::UTC);
        assert_eq!(wake.is_none(), looks.is_empty());
        let Some(wake) = wake else { continue };
        let minutes = |is_wild: bool| -> Vec<LocalMinute> {
            let kind = |look: &&Look| if is_wild { look.1 } else { look.2 };
            looks.iter().filter(kind).map(|look| local(look.0)).collect()
        };
        assert_eq!(wake.minutes(&wild), minutes(true));
        assert_eq!(wake.minutes(&fixed), minutes(false));
    }
    assert!(irregular > 5_000, "{irregular}");
}
