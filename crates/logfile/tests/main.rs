//! Real files in a temporary directory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::disallowed_methods,
    reason = "a test starts programs and stops at the first thing that is wrong"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_core::output::Rotation;
use mfserv_logfile::LogFile;

const NEVER: Rotation = Rotation { max_bytes: 0, max_age_s: 0, keep: 5, mode: Some(0o640) };

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory).unwrap().map(|e| e.unwrap().path()).collect();
    found.sort();
    found
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "waited too long: {what}");
        // the pause between two looks
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_file_is_made_with_its_directory_and_mode_and_is_appended_to() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("log/deep/a.log");
    LogFile::open(&path, NEVER).unwrap().append(b"one\n").unwrap();
    LogFile::open(&path, NEVER).unwrap().append(b"two\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
}

#[test]
fn a_file_rotates_by_size_between_lines_and_keeps_as_many_as_told() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    let mut log = LogFile::new(&path, Rotation { max_bytes: 100, keep: 0, ..NEVER });
    let lines: String = (0..100).map(|n| format!("line {n:03}\n")).collect();
    log.append(lines.as_bytes()).unwrap();
    let all = files(home.path());
    assert_eq!(all.len(), 10, "11 lines of 9 bytes each: {all:?}");
    for file in &all {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.len() <= 100 && text.starts_with("line") && text.ends_with('\n'));
    }
    log.set_rotation(Rotation { max_bytes: 100, keep: 3, ..NEVER });
    log.append(lines.as_bytes()).unwrap();
    assert_eq!(files(home.path()).len(), 3);
    assert!(fs::read_to_string(&path).unwrap().ends_with("line 099\n"));
}

#[test]
fn a_file_rotates_by_age_and_an_empty_one_does_not() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    let mut log = LogFile::open(&path, Rotation { max_age_s: 1, ..NEVER }).unwrap();
    log.append(b"old\n").unwrap();
    until("the rotation", || {
        log.tick().unwrap();
        files(home.path()).len() == 2
    });
    // only time can pass: the birth time of a file cannot be set
    std::thread::sleep(Duration::from_millis(2100));
    log.tick().unwrap();
    assert_eq!(files(home.path()).len(), 2, "nothing was written since");
}

#[test]
fn the_age_survives_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    LogFile::open(&path, NEVER).unwrap().append(b"old\n").unwrap();
    // only time can pass: the birth time of a file cannot be set
    std::thread::sleep(Duration::from_millis(1100));
    let mut log = LogFile::open(&path, Rotation { max_age_s: 2, ..NEVER }).unwrap();
    let opened = Instant::now();
    until("the rotation", || {
        log.tick().unwrap();
        files(home.path()).len() == 2
    });
    assert!(opened.elapsed() < Duration::from_millis(2000), "the age began anew");
}

#[test]
fn a_file_that_somebody_deletes_renames_or_truncates_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    let mut log = LogFile::open(&path, NEVER).unwrap();
    log.append(b"one\n").unwrap();
    fs::remove_file(&path).unwrap();
    until("a new file after a deletion", || {
        log.append(b"two\n").unwrap();
        path.exists()
    });
    fs::rename(&path, home.path().join("moved")).unwrap();
    until("a new file after a rename", || {
        log.append(b"three\n").unwrap();
        path.exists()
    });
    fs::write(&path, b"").unwrap();
    log.append(b"four\n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"four\n", "no hole is left where the old lines were");
}

#[test]
fn half_a_line_that_a_killed_writer_left_is_ended_and_a_whole_one_is_not() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    for expected in ["", "half", "half\n", "half\n"] {
        let mut log = LogFile::open(&path, NEVER).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
        if expected.is_empty() {
            log.append(b"half").unwrap();
        } else {
            log.end_line().unwrap();
        }
    }
}

#[test]
fn a_full_disk_is_an_error_that_says_how_far_it_came() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    std::os::unix::fs::symlink("/dev/full", &path).unwrap();
    let mut log = LogFile::open(&path, NEVER).unwrap();
    let trouble = log.append(b"one\n").unwrap_err();
    assert_eq!((trouble.written, trouble.error.raw_os_error()), (0, Some(28)));
}

#[test]
fn two_writers_of_one_file_survive_the_rotation_of_the_other() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    let small = Rotation { max_bytes: 50, keep: 0, ..NEVER };
    let (mut one, mut two) = (LogFile::new(&path, small), LogFile::new(&path, small));
    for n in 0..50 {
        one.append(format!("one {n}\n").as_bytes()).unwrap();
        two.append(format!("two {n}\n").as_bytes()).unwrap();
    }
    let lines: usize =
        files(home.path()).iter().map(|f| fs::read_to_string(f).unwrap().lines().count()).sum();
    assert_eq!(lines, 100);
}
