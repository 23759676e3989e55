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

use mfserv_core::output::{LogCare, Rotation};
use mfserv_logfile::{
    Compressed, Index, LogFile, Mark, MarkKind, Source, care, compress, index_path, request_hash,
    rotated,
};

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

fn source(worker: &str) -> Source {
    Source { worker: worker.into(), stream: "both".into(), release: String::new() }
}

/// The worker that the index of a file names for each of its lines.
fn workers_of(file: &Path) -> Vec<String> {
    let index = Index::read(file, None).unwrap_or_default();
    let name = |offset| {
        let source = index.chunk_at(offset)?.source?;
        Some(index.sources[source].worker.clone())
    };
    let text = fs::read_to_string(file).unwrap();
    let offsets = text.match_indices('\n').map(|(end, _)| end as u64);
    offsets.map(|offset| name(offset).unwrap_or_default()).collect()
}

#[test]
fn an_index_goes_with_its_file_through_rotation_and_is_removed_with_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    let mut log = LogFile::new(&path, Rotation { max_bytes: 40, keep: 3, ..NEVER });
    let (one, two) = (source("one"), source("two"));
    for _ in 0..20 {
        let marks = [
            Mark { at: 0, source: &one, kind: MarkKind::Output(1) },
            Mark { at: 8, source: &two, kind: MarkKind::Output(1) },
            Mark { at: 16, source: &one, kind: MarkKind::Output(2) },
        ];
        log.append_marked(b"one say\ntwo say\none too\n", &marks).unwrap();
    }
    let rotated = rotated(&path).unwrap();
    assert_eq!(rotated.len(), 2);
    for file in rotated.iter().map(|file| &file.path).chain([&path]) {
        let text = fs::read_to_string(file).unwrap();
        let said: Vec<_> = text.lines().map(|line| &line[..3]).collect();
        assert_eq!(workers_of(file), said, "{file:?}");
    }
    assert_eq!(files(home.path()).len(), 6, "{:?}", files(home.path()));
}

#[test]
fn an_index_whose_file_was_renamed_without_it_is_given_back_and_a_foreign_one_begins_anew() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    let one = source("one");
    let write = |worker: &Source| {
        let mark = Mark { at: 0, source: worker, kind: MarkKind::Output(1) };
        LogFile::new(&path, NEVER).append_marked(b"a line\n", &[mark]).unwrap();
    };
    write(&one);
    // as a writer leaves it that is killed between the two renames of a rotation
    let old = home.path().join("a.log.20260101000000");
    fs::rename(&path, &old).unwrap();
    write(&source("two"));
    assert_eq!((workers_of(&old), workers_of(&path)), (vec!["one".into()], vec!["two".into()]));
    // an administrator takes the file away: its index stays and is of no use
    fs::rename(&path, home.path().join("mine")).unwrap();
    write(&one);
    assert_eq!(workers_of(&path), ["one"]);
    fs::write(&path, "").unwrap();
    write(&source("three"));
    assert_eq!(workers_of(&path), ["three"]);
}

#[test]
fn an_index_that_cannot_be_written_is_kept_and_says_of_which_bytes_it_knows_nothing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    let (index, aside) = (index_path(&path), home.path().join("aside"));
    let write = |log: &mut LogFile, worker: &str| {
        let mark = Mark { at: 0, source: &source(worker), kind: MarkKind::Output(1) };
        log.append_marked(format!("{worker}\n").as_bytes(), &[mark]).unwrap();
    };
    for rotates in [false, true] {
        let mut log = LogFile::new(&path, Rotation { mode: None, ..NEVER });
        write(&mut log, "one");
        drop(log);
        // a disk that is full for this file only
        fs::rename(&index, &aside).unwrap();
        std::os::unix::fs::symlink("/dev/full", &index).unwrap();
        let mut log = LogFile::new(&path, Rotation { mode: None, ..NEVER });
        write(&mut log, "two");
        write(&mut log, "three");
        assert!(index.is_symlink(), "it is not removed");
        // with what a failed write may leave
        fs::write(&aside, [fs::read(&aside).unwrap().as_slice(), b"torn"].concat()).unwrap();
        fs::rename(&aside, &index).unwrap();
        if !rotates {
            write(&mut log, "four");
            assert_eq!(workers_of(&path), ["one", "", "", "four"]);
            fs::remove_file(&path).unwrap();
            fs::remove_file(&index).unwrap();
            continue;
        }
        log.set_rotation(Rotation { max_bytes: 8, mode: None, ..NEVER });
        write(&mut log, "four");
        let old = rotated(&path).unwrap().remove(0).path;
        assert_eq!(
            (workers_of(&old).join(","), workers_of(&path)),
            ("one,,".into(), vec!["four".into()])
        );
    }
}

#[test]
fn the_index_of_an_access_log_says_that_requests_are_missing() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    let write = |id: &str| {
        let kind = MarkKind::Request(request_hash(id.as_bytes()));
        let mark = Mark { at: 0, source: &source("w"), kind };
        LogFile::new(&path, NEVER).append_marked(b"a line\n", &[mark]).unwrap();
    };
    let look = |id: &str| {
        let mut requests = Index::requests(&path, request_hash(id.as_bytes())).unwrap();
        (requests.by_ref().count(), requests.has_gaps())
    };
    write("one");
    assert_eq!((look("one"), look("two")), ((1, false), (0, false)));
    fs::remove_file(index_path(&path)).unwrap();
    write("two");
    assert_eq!((look("one"), look("two")), ((0, true), (1, true)));
}

fn lines_in(file: &Path) -> String {
    let mut packed = Compressed::open(file).unwrap();
    let mut text = vec![0; packed.len() as usize];
    let mut done = 0;
    while done < text.len() {
        let count = packed.read_at(&mut text[done..], done as u64).unwrap();
        assert!(count > 0);
        done += count;
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn a_compressed_file_is_read_from_any_place_and_by_other_programs() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log.20260101000000");
    let text: String = (0..300_000).map(|n| format!("line {n:06}\n")).collect();
    fs::write(&path, &text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    assert!(compress(&path).unwrap());
    let packed = home.path().join("a.log.20260101000000.zst");
    assert_eq!(files(home.path()), std::slice::from_ref(&packed));
    let found = fs::metadata(&packed).unwrap();
    assert!(found.permissions().mode() & 0o777 == 0o640 && found.modified().unwrap() == modified);
    assert_eq!(lines_in(&packed), text);
    let mut reader = Compressed::open(&packed).unwrap();
    for n in [0, 1, 87_382, 200_000, 299_999] {
        let mut line = [0; 12];
        reader.read_at(&mut line, n * 12).unwrap();
        assert_eq!(line.get(..11), text.as_bytes().get(n as usize * 12..n as usize * 12 + 11));
    }
    let plain = zstd::stream::decode_all(fs::File::open(&packed).unwrap()).unwrap();
    assert_eq!(plain, text.as_bytes());
}

#[test]
fn a_compression_that_is_killed_at_any_step_loses_no_line_and_doubles_none() {
    let home = tempfile::tempdir().unwrap();
    let name = |end: &str| home.path().join(format!("a.log.20260101000000{end}"));
    let all = |text: &str| {
        let found = rotated(&home.path().join("a.log")).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        let now = match found[0].is_compressed {
            true => lines_in(&found[0].path),
            false => fs::read_to_string(&found[0].path).unwrap(),
        };
        assert_eq!(now, text);
    };
    // the compressed file is not whole
    fs::write(name(""), "one\ntwo\n").unwrap();
    fs::write(home.path().join(".a.log.20260101000000.zst.part"), "half of it").unwrap();
    all("one\ntwo\n");
    assert!(compress(&name("")).unwrap());
    all("one\ntwo\n");
    // the plain file is still there
    fs::write(name(""), "one\ntwo\n").unwrap();
    all("one\ntwo\n");
    assert!(compress(&name("")).unwrap());
    all("one\ntwo\n");
    // the plain file has another content than the compressed one
    fs::write(name(""), "one\ntwo\nthree\n").unwrap();
    assert!(compress(&name("")).unwrap());
    all("one\ntwo\nthree\n");
    assert_eq!(files(home.path()), [name(".zst")]);
}

#[test]
fn the_newest_rotated_file_stays_plain_and_the_oldest_goes_when_all_are_too_large() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, age: u64| {
        let path = home.path().join(name);
        fs::write(&path, "a line that is repeated\n".repeat(1000)).unwrap();
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
        path
    };
    let live = [write("a.log", 0), write("b.log", 0), write("c.log.old", 900)];
    let [a1, a2] = [write("a.log.20260101000000", 50), write("a.log.20260102000000", 30)];
    let [b1, b2] = [write("b.log.20260101000000", 40), write("b.log.20260103000000", 20)];
    let nothing = LogCare::default();
    assert!(care(home.path(), nothing).unwrap().removed.is_empty());
    let done = care(home.path(), LogCare { compress: true, max_bytes: 100_000 }).unwrap();
    assert!(done.troubles.is_empty(), "{done:?}");
    // 3 live files of 24,000 bytes leave room for the newest and two compressed ones
    let removed: Vec<_> = done.removed.iter().map(|(path, _)| path.clone()).collect();
    let packed = |plain: &Path| PathBuf::from(format!("{}.zst", plain.display()));
    assert_eq!(removed, [packed(&a1), packed(&b1), a2]);
    let mut left: Vec<_> = live.into_iter().chain([b2]).collect();
    left.sort();
    assert_eq!(files(home.path()), left);
}

#[test]
fn of_one_log_the_oldest_by_name_goes_first_although_the_clock_was_set_back() {
    let home = tempfile::tempdir().unwrap();
    let write = |name: &str, age: u64| {
        let path = home.path().join(name);
        fs::write(&path, [b'x'; 1000]).unwrap();
        let file = fs::File::options().append(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
        path
    };
    let before = write("a.log.20261025025900", 100);
    let after = ["a.log.20261025025900.2", "a.log.20261025025900.10"].map(|name| write(name, 3700));
    let other = write("b.log.20261025023000", 1900);
    let done = care(home.path(), LogCare { compress: false, max_bytes: 1500 }).unwrap();
    let removed: Vec<_> = done.removed.iter().map(|(path, _)| path.clone()).collect();
    assert_eq!(removed, [other, before, after[0].clone()]);
}
