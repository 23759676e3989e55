//! Logs as the keeper and the front write them, in a temporary directory.

use std::path::{Path, PathBuf};

use mfserv_core::output::Rotation;
use mfserv_logfile::{LogFile, Mark, MarkKind, Served, Source, compress, request_hash, rotated};

use super::*;

mod messages;
mod of_request;
mod times;
mod unknown;

const START_MS: u64 = 1_700_000_000_000;

fn rotation(max_bytes: u64) -> Rotation {
    Rotation { max_bytes, max_age_s: 0, keep: 0, mode: None }
}

fn source(worker: &str, release: &str) -> Source {
    Source { worker: worker.into(), stream: "both".into(), release: release.into() }
}

/// Two workers write a line each second, in turn; the older files are compressed.
fn written(path: &Path, count: u64) {
    let mut log = LogFile::new(path, rotation(10_000));
    let workers = [source("app.p.main.1.1", "1"), source("app.p.main.2.2", "2")];
    for n in 0..count {
        let kind = MarkKind::Output(START_MS + n * 1000);
        let mark = Mark { at: 0, source: &workers[n as usize % 2], kind };
        let level = ["INFO", "ERROR"][usize::from(n % 10 == 0)];
        let line = format!("line {n} [{level}] of {}\n", mark.source.worker);
        log.append_marked(line.as_bytes(), &[mark]).unwrap();
    }
    let old = rotated(path).unwrap();
    old[..old.len() - 1].iter().for_each(|file| assert!(compress(&file.path).unwrap()));
}

fn lines(logs: &[PathBuf], selection: &Selection, order: Order) -> Vec<String> {
    let mut lines = Vec::new();
    let searched = search(logs, selection, order, &mut |line| {
        lines.push(String::from_utf8(line.bytes).unwrap());
        true
    })
    .unwrap();
    assert_eq!(searched.count, lines.len());
    assert!(searched.unread.is_empty(), "{:?}", searched.unread);
    lines
}

fn request(log: &Path, id: &str) -> Option<Request> {
    let mut unread = Vec::new();
    let found = find_request(log, id, &mut unread).unwrap();
    assert!(unread.is_empty(), "{unread:?}");
    found
}

fn numbers(lines: &[String]) -> Vec<u64> {
    lines.iter().map(|line| line.split(' ').nth(1).unwrap().parse().unwrap()).collect()
}

#[test]
fn lines_are_found_in_all_files_by_time_worker_release_level_and_text() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app_p_main.log");
    written(&path, 3000);
    assert!(rotated(&path).unwrap().len() > 5, "several files");
    let logs = [path];
    let found = |selection: &Selection| numbers(&lines(&logs, selection, Order::OldestFirst(None)));
    let all: Vec<u64> = (0..3000).collect();
    assert_eq!(found(&Selection::default()), all);
    // files are younger than their lines here: only the index knows better
    let between = |from: u64, to: u64| Selection {
        since_ms: Some(START_MS + from * 1000 - 200),
        until_ms: Some(START_MS + to * 1000),
        ..Selection::default()
    };
    assert_eq!(found(&between(1000, 2000)), all[1000..=2000]);
    let of = |n: u64| Selection { worker: Some(format!("p.main.{n}")), ..between(100, 2900) };
    assert_eq!(found(&of(2)), (101..=2900).step_by(2).collect::<Vec<_>>());
    assert_eq!(found(&Selection { release: Some("1".into()), ..between(7, 10) }), [8, 10]);
    let errors = Selection { level: Some(Level::Error), ..between(100, 200) };
    assert_eq!(found(&errors), (100..=200).step_by(10).collect::<Vec<_>>());
    let text = |text| Selection { pattern: Pattern::new(text).ok(), ..Selection::default() };
    assert_eq!(found(&text("line 77 ")), [77]);
    assert_eq!(found(&text("^line 77[0-9] ")), (770..780).collect::<Vec<_>>());
    let newest = lines(&logs, &text("line 1"), Order::NewestFirst(Some(3)));
    assert_eq!(numbers(&newest), [1999, 1998, 1997]);
    let last = lines(&logs, &Selection::default(), Order::OldestFirst(Some(500)));
    assert_eq!(numbers(&last), (2500..3000).collect::<Vec<_>>());
    let all_back = lines(&logs, &Selection::default(), Order::NewestFirst(None));
    assert_eq!(numbers(&all_back), (0..3000).rev().collect::<Vec<_>>());
}

#[test]
fn a_log_without_an_index_is_searched_by_the_times_of_its_lines() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("own.log");
    let at = |n: u64| {
        let at = jiff::Timestamp::from_millisecond((START_MS + n * 100) as i64).unwrap();
        at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
    };
    let text: String =
        (0..50_000).map(|n| format!("{} n {n}\n  more of it n {n}\n", at(n))).collect();
    std::fs::write(&path, text).unwrap();
    let between = Selection {
        since_ms: Some(START_MS + 2_000_000),
        until_ms: Some(START_MS + 2_000_200),
        ..Selection::default()
    };
    for order in [Order::OldestFirst(None), Order::OldestFirst(Some(100))] {
        let found = lines(std::slice::from_ref(&path), &between, order);
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(found[0].ends_with(" n 20000") && found[5].ends_with("of it n 20002"));
    }
}

#[test]
fn lines_of_several_logs_are_given_by_time() {
    let home = tempfile::tempdir().unwrap();
    let logs = ["a.log", "b.log"].map(|name| home.path().join(name));
    for n in 0..20 {
        let mark = MarkKind::Output(START_MS + n * 1000);
        let mark = Mark { at: 0, source: &source("app.p.a.1.1", ""), kind: mark };
        let mut log = LogFile::new(&logs[n as usize / 3 % 2], rotation(0));
        log.append_marked(format!("line {n}\n").as_bytes(), &[mark]).unwrap();
    }
    let forth = lines(&logs, &Selection::default(), Order::OldestFirst(None));
    assert_eq!(numbers(&forth), (0..20).collect::<Vec<_>>());
    let back = lines(&logs, &Selection::default(), Order::NewestFirst(None));
    assert_eq!(numbers(&back), (0..20).rev().collect::<Vec<_>>());
}

#[test]
fn a_message_of_several_lines_has_the_level_of_its_first_one_in_both_directions() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("app_p_main.log");
    let message = |n: usize| {
        let level = if n % 2 == 0 { "ERROR" } else { "INFO" };
        format!(
            "2026-01-31T12:00:00.{n:06}Z [{level}] (x#1) begun\n  File \"a.py\"\n  ValueError: {n}\n"
        )
    };
    std::fs::write(&path, (0..40_000).map(message).collect::<String>()).unwrap();
    let selection = Selection { level: Some(Level::Warning), ..Selection::default() };
    for order in [Order::OldestFirst(None), Order::OldestFirst(Some(60_000))] {
        let found = lines(std::slice::from_ref(&path), &selection, order);
        assert_eq!(found.len(), 60_000);
        assert!(found.last().unwrap().ends_with("ValueError: 39998"));
    }
}

#[test]
fn a_line_longer_than_a_block_and_bytes_that_are_no_text_are_found_in_both_directions() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a.log");
    let long = vec![b'x'; 5_000_000];
    let parts: [&[u8]; 5] = [b"first\n\xff\xfe\0\n", &long, b"\n", &[7; 3_000_000], b"\nlast"];
    std::fs::write(&path, parts.concat()).unwrap();
    for order in [Order::OldestFirst(None), Order::NewestFirst(None)] {
        let mut lengths = Vec::new();
        let none = Selection::default();
        search(std::slice::from_ref(&path), &none, order, &mut |line| {
            lengths.push(line.bytes.len());
            true
        })
        .unwrap();
        if order == Order::NewestFirst(None) {
            lengths.reverse();
        }
        assert_eq!(lengths, [5, 3, 5_000_000, 3_000_000, 4]);
    }
}

#[test]
fn a_request_is_found_by_its_id_with_its_worker_and_its_time() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("nginx_access.log");
    let line = |n: u64| {
        format!(
            "{{ \"@timestamp\": \"2027-01-15T08:00:{:02}+00:00\", \"duration\": 1.500, \
             \"request_id\": \"id{n}\" }}\n",
            n % 60
        )
    };
    let workers = [source("app.p.main.1.1", ""), source("", "")];
    for n in 0..100 {
        let kind = MarkKind::Request(request_hash(format!("id{n}").as_bytes()));
        let mark = Mark { at: 0, source: &workers[n as usize % 2], kind };
        LogFile::new(&path, rotation(3000)).append_marked(line(n).as_bytes(), &[mark]).unwrap();
    }
    let old = rotated(&path).unwrap();
    assert!(compress(&old[0].path).unwrap());
    let found = request(&path, "id4").unwrap();
    assert_eq!(found.worker.as_deref(), Some("app.p.main.1.1"));
    assert_eq!(found.line, line(4).trim_end());
    let end = "2027-01-15T08:00:04Z".parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64;
    assert!(found.from_ms <= end - 1500 && found.to_ms > end + 999, "{found:?}");
    assert_eq!(request(&path, "id55").unwrap().worker, None);
    assert_eq!(request(&path, "id555"), None);
    // without an index it is read
    std::fs::remove_file(mfserv_logfile::index_path(&old[1].path)).unwrap();
    let text = std::fs::read_to_string(&old[1].path).unwrap();
    let id = facts(text.lines().nth(1).unwrap().as_bytes()).request_id.unwrap();
    assert!(request(&path, &id).is_some());
}

#[test]
fn a_request_is_found_although_two_fronts_wrote_to_the_access_log_at_once() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("nginx_access.log");
    let fronts = ["app.p.main.1.1", "app.p.main.2.2"].map(|worker| source(worker, ""));
    let mut logs = [LogFile::new(&path, rotation(0)), LogFile::new(&path, rotation(0))];
    for n in 0..40 {
        let (log, worker) = (&mut logs[n % 2], &fronts[n % 2]);
        let id = format!("id{n}");
        let kind = MarkKind::Request(request_hash(id.as_bytes()));
        let line = format!("{{ \"duration\": 0.001, \"request_id\": \"{id}\" }}\n");
        log.append_marked(line.as_bytes(), &[Mark { at: 0, source: worker, kind }]).unwrap();
    }
    for n in 0..40 {
        let found = request(&path, &format!("id{n}")).unwrap();
        assert_eq!(found.worker.as_deref(), Some(fronts[n % 2].worker.as_str()), "{n}");
    }
}
