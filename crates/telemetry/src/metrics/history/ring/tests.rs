use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use super::super::sample::{NodeSample, Sample, Subject};
use super::*;

const SECONDS: Resolution = Resolution { step_s: 1, age_s: 600 };

fn tick(at: u64) -> Tick {
    let mut sample = Sample { cpu_ms: at, ..Sample::default() };
    sample.classes[0] = 1 + at % 5;
    sample.gauges.memory = Some(at << 20);
    let web = Arc::new(Subject::new("app", "shop", "web"));
    Tick {
        at,
        covered_ms: 1000,
        node: NodeSample { connections: Some(1), in_work: Some(0), ..NodeSample::default() },
        apps: BTreeMap::from([(web, sample)]),
    }
}

fn found(dir: &Path, since: u64) -> Vec<Tick> {
    let mut found = Vec::new();
    read_since(dir, 1, since, &mut |tick| found.push(tick)).unwrap();
    found
}

fn ticks(range: std::ops::RangeInclusive<u64>) -> Vec<Tick> {
    range.map(tick).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    list(dir, 1).unwrap().into_iter().map(|file| file.path).collect()
}

#[test]
fn ticks_outlive_the_process_and_the_next_one_goes_on_in_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    for from in [1, 11, 21] {
        let mut ring = Ring::new(dir.path(), SECONDS, 1 << 20);
        assert_eq!(ring.last().unwrap(), from - 1);
        ticks(from..=from + 9).iter().for_each(|tick| ring.append(tick).unwrap());
    }
    assert_eq!(found(dir.path(), 0), ticks(1..=30));
    assert_eq!(found(dir.path(), 25), ticks(26..=30));
    assert_eq!((files(dir.path()).len(), oldest(dir.path(), 1)), (1, Some(1)));
}

#[test]
fn a_file_that_a_full_disk_has_left_without_its_begin_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::new(dir.path(), SECONDS, 1 << 20);
    ticks(1..=5).iter().for_each(|tick| ring.append(tick).unwrap());
    drop(ring);
    for length in 0..MAGIC.len() {
        fs::write(path_of(dir.path(), 1, 1), &MAGIC[..length]).unwrap();
        let mut ring = Ring::new(dir.path(), SECONDS, 1 << 20);
        ring.append(&tick(6)).unwrap();
        assert_eq!(files(dir.path()).len(), 2);
        assert_eq!(found(dir.path(), 0), ticks(1..=6));
    }
}

#[test]
fn a_write_that_was_torn_at_any_byte_is_cut_off_and_nothing_else_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::new(dir.path(), SECONDS, 1 << 20);
    ticks(1..=5).iter().for_each(|tick| ring.append(tick).unwrap());
    drop(ring);
    let path = files(dir.path()).remove(0);
    let whole = fs::read(&path).unwrap();
    let mut codec = Codec::default();
    let before_last = (0..4).fold(MAGIC.len(), |at, _| at + codec.decode(&whole[at..]).unwrap().1);
    for length in before_last..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(found(dir.path(), 0), ticks(1..=4), "while it is torn: {length}");
        let mut ring = Ring::new(dir.path(), SECONDS, 1 << 20);
        assert_eq!(ring.last().unwrap(), 4);
        ring.append(&tick(6)).unwrap();
        let mut expected = ticks(1..=4);
        expected.push(tick(6));
        assert_eq!(found(dir.path(), 0), expected, "{length}");
    }
    // Not even the first bytes of a file were written, or they are of another version.
    for (begin, count) in [("", 1), ("mfh", 1), ("mfhist9\nxxxxxxxxxxx", 2)] {
        fs::write(&path, begin).unwrap();
        let mut ring = Ring::new(dir.path(), SECONDS, 1 << 20);
        ring.append(&tick(7)).unwrap();
        assert_eq!(found(dir.path(), 0), ticks(7..=7), "{begin:?}");
        assert_eq!(files(dir.path()).len(), count, "{begin:?}");
    }
}

#[test]
fn bytes_and_age_are_bounded_and_the_newest_ticks_stay() {
    let dir = tempfile::tempdir().unwrap();
    let bytes_max = 16 << 10;
    let mut ring = Ring::new(dir.path(), Resolution { age_s: 1_000_000, ..SECONDS }, bytes_max);
    ticks(1..=5_000).iter().for_each(|tick| ring.append(tick).unwrap());
    let size =
        |dir: &Path| files(dir).iter().map(|it| fs::metadata(it).unwrap().len()).sum::<u64>();
    assert!(size(dir.path()) <= bytes_max, "{}", size(dir.path()));
    let kept = found(dir.path(), 0);
    assert!(kept.len() > 300, "{}", kept.len());
    assert_eq!(kept, ticks(5_001 - kept.len() as u64..=5_000));
    drop(ring);
    // The same files, with a shorter age.
    let mut ring = Ring::new(dir.path(), Resolution { age_s: 100, ..SECONDS }, bytes_max);
    ring.append(&tick(5_001)).unwrap();
    assert!((100..200).contains(&found(dir.path(), 0).len()), "{}", found(dir.path(), 0).len());
}

#[test]
fn a_clock_that_was_set_back_begins_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut ring = Ring::new(dir.path(), SECONDS, 1 << 20);
    for at in [100, 101, 50, 51] {
        ring.append(&tick(at)).unwrap();
    }
    let times: Vec<u64> = found(dir.path(), 0).iter().map(|tick| tick.at).collect();
    assert_eq!((times, files(dir.path()).len()), (vec![100, 101, 50, 51], 2));
}

#[test]
fn two_processes_do_not_write_to_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut first, mut second) =
        (Ring::new(dir.path(), SECONDS, 1 << 20), Ring::new(dir.path(), SECONDS, 1 << 20));
    first.append(&tick(1)).unwrap();
    let refused = second.append(&tick(2)).unwrap_err().to_string();
    assert!(refused.contains("is written by another process"), "{refused}");
    drop(first);
    second.append(&tick(3)).unwrap();
    assert_eq!(found(dir.path(), 0), [tick(1), tick(3)]);
}

#[test]
fn a_directory_that_is_no_directory_or_read_only_is_an_error_and_then_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history");
    fs::write(&path, "").unwrap();
    let mut ring = Ring::new(&path, SECONDS, 1 << 20);
    ring.append(&tick(1)).unwrap_err();
    fs::remove_file(&path).unwrap();
    ring.append(&tick(2)).unwrap();
    if !rustix::process::geteuid().is_root() {
        drop(ring);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
        ring = Ring::new(&path, SECONDS, 1 << 20);
        ring.append(&tick(3)).unwrap_err();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    }
    ring.append(&tick(4)).unwrap();
    assert_eq!(found(&path, 0), [tick(2), tick(4)]);
}
