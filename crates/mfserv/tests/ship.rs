//! Shipping to the real Elasticsearch and OpenSearch: each line arrives exactly once.

mod node;
mod proxy;
pub(crate) mod receivers;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use mfserv_testkit::{Engine, SearchEngine, until};
use serde_json::{Value, json};

use self::proxy::{Fault, Proxy};
use crate::{PATIENCE, PROGRAM, Turn};

/// An index in a fresh home; `None`, with the reason, where it is not to be had.
fn engine(engine: Engine, home: &Path, settings: &[&str]) -> Option<SearchEngine> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("search-engines");
    SearchEngine::start(engine, &cache, &home.join("index"), settings)
}

/// `mfserv ship`, in a directory.
fn ship(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.current_dir(dir).arg("ship").args(args);
    for secret in ["MFSERV_SHIP_PASSWORD", "MFSERV_SHIP_API_KEY"] {
        command.env_remove(secret);
    }
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn succeeds(mut command: Command) -> String {
    let Output { status, stdout, stderr } = command.output().unwrap();
    assert!(status.success(), "{status}: {}{}", text(&stdout), text(&stderr));
    text(&stdout)
}

fn append(file: &Path, lines: &str) {
    let mut file = File::options().create(true).append(true).open(file).unwrap();
    file.write_all(lines.as_bytes()).unwrap();
}

/// How a log is rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rotation {
    Rename,
    CopyTruncate,
}

/// A program that writes numbered lines to a log, and rotates it at this size.
struct Writer<'a> {
    log: PathBuf,
    rotation: Rotation,
    max_bytes: u64,
    numbers: &'a AtomicU64,
    last: u64,
    stop: &'a AtomicBool,
}

impl Writer<'_> {
    fn run(self) {
        let mut rotations = 0;
        while !self.stop.load(Ordering::SeqCst) {
            let number = self.numbers.fetch_add(1, Ordering::SeqCst);
            if number > self.last {
                return;
            }
            // Around midnight, so that the lines go to two indices.
            let time = if number % 2 == 0 { "01-31T23:59:59.5Z" } else { "02-01T00:00:00.5Z" };
            let line = format!(
                "{{\"timestamp\":\"2026-{time}\",\"n\":{number},\"event\":\"é {number}\"}}\n"
            );
            append(&self.log, &line);
            if fs::metadata(&self.log).unwrap().len() > self.max_bytes {
                rotations += 1;
                // What logrotate does: each older file gets the next number.
                for older in (1..rotations).rev() {
                    fs::rename(self.rotated(older), self.rotated(older + 1)).unwrap();
                }
                match self.rotation {
                    Rotation::Rename => fs::rename(&self.log, self.rotated(1)).unwrap(),
                    Rotation::CopyTruncate => {
                        fs::copy(&self.log, self.rotated(1)).unwrap();
                        File::options().write(true).open(&self.log).unwrap().set_len(0).unwrap();
                    }
                }
            }
            if number % 10 == 0 {
                // The pace of a busy app: the run is to last as long as the faults do.
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    }

    fn rotated(&self, number: usize) -> PathBuf {
        let mut name = self.log.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }
}

/// The numbers in all files of a directory.
fn written(dir: &Path) -> BTreeSet<u64> {
    let mut numbers = BTreeSet::new();
    for entry in fs::read_dir(dir).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        for line in BufReader::new(File::open(entry.path()).unwrap()).lines() {
            let value: Value = serde_json::from_str(&line.unwrap()).unwrap();
            assert!(numbers.insert(value["n"].as_u64().unwrap()), "a line is there twice");
        }
    }
    numbers
}

#[test]
fn each_line_is_in_elasticsearch_exactly_once_or_is_kept_with_the_reason_of_its_refusal() {
    let _turn = Turn::heavy();
    let dir = tempfile::tempdir().unwrap();
    // Requests of more than 256 KB are refused whole.
    let settings = ["http.max_content_length=256kb"];
    let Some(mut index) = engine(Engine::Elasticsearch, dir.path(), &settings) else { return };
    what_is_refused_is_kept(&index, dir.path());
    nothing_is_lost(&mut index, dir.path());
}

/// Eight writers, rotations by renaming and by copying, and a shipper that is killed again and
/// again, before an index that is killed, too busy, and loses answers.
fn nothing_is_lost(index: &mut SearchEngine, dir: &Path) {
    let is_long = std::env::var_os("MFSERV_LONG").is_some();
    let (last, pace) = if is_long { (1_000_000, 5_000) } else { (50_000, 1_000) };
    let max_bytes = if is_long { 4 << 20 } else { 100 << 10 };
    // Every few requests one is refused, lost after it was done, or never arrives.
    let proxy = Proxy::new(index.address(), |number| match number % 11 {
        3 => Fault::Status(429),
        5 => Fault::NoAnswer,
        7 => Fault::Closed,
        9 => Fault::Status(503),
        _ => Fault::None,
    });
    let logs = dir.join("logs");
    fs::create_dir(&logs).unwrap();
    let url = proxy.url();
    let args = ["*.log", "--to", &url, "--index", "lines-%Y.%m.%d", "--state", "../state"];
    let start = || ship(&logs, &args).spawn().unwrap();
    let (numbers, stop) = (AtomicU64::new(1), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8)
            .map(|count| {
                let rotation =
                    if count % 2 == 0 { Rotation::Rename } else { Rotation::CopyTruncate };
                let log = logs.join(format!("writer_{count}.log"));
                let (numbers, stop) = (&numbers, &stop);
                let writer = Writer { log, rotation, max_bytes, numbers, last, stop };
                scope.spawn(move || writer.run())
            })
            .collect();
        let mut shipper: Child = start();
        for round in 0.. {
            if writers.iter().all(|writer| writer.is_finished()) {
                break;
            }
            // The pace of the kills: the shipper does some work between two of them.
            std::thread::sleep(Duration::from_millis(pace));
            shipper.kill().unwrap();
            shipper.wait().unwrap();
            shipper = start();
            match round % 4 {
                1 => {
                    index.kill();
                    index.start_again();
                }
                // Each document of a request is answered with 429.
                2 => block(index, true),
                3 => block(index, false),
                _ => {}
            }
        }
        block(index, false);
        shipper.kill().unwrap();
        shipper.wait().unwrap();
        stop.store(true, Ordering::SeqCst);
    });
    println!("{}", succeeds(ship(&logs, &[&args[..], &["--once"]].concat())));
    println!("{} requests", proxy.count());
    each_is_there_once(index, &logs, last);
}

/// What the files have is in the index, each line once.
fn each_is_there_once(index: &SearchEngine, logs: &Path, last: u64) {
    let written = written(logs);
    let (indexed, count) = index.numbers("lines-*", "n");
    let lost: Vec<_> = written.difference(&indexed).take(5).collect();
    assert!(lost.is_empty(), "lost: {lost:?}…");
    assert_eq!(count as usize, indexed.len(), "a line is there twice");
    let dropped = last as usize - written.len();
    println!("{count} documents; the rotation by copying dropped {dropped} lines");
    for day in ["2026.01.31", "2026.02.01"] {
        let (of_day, _) = index.numbers(&format!("lines-{day}"), "n");
        assert!(of_day.len() > written.len() / 3, "{day}: {}", of_day.len());
    }
}

/// Makes the index refuse each document for now, as a full disk does.
fn block(index: &SearchEngine, is_blocked: bool) {
    let value = if is_blocked { json!(true) } else { Value::Null };
    let settings = json!({"index.blocks.read_only_allow_delete": value});
    index.ask("PUT", "/lines-*/_settings", Some(&settings));
}

fn what_is_refused_is_kept(index: &SearchEngine, dir: &Path) {
    let to = format!("http://{}", index.address());
    let log = dir.join("a.log");
    let line = |n: u64| format!("{{\"timestamp\":\"2026-01-31T12:00:00Z\",\"n\":{n},\"pid\":1}}\n");
    let lines: String = (0..3000).map(line).collect();
    let huge = format!("{{\"n\":3000,\"event\":\"{}\"}}\n", "x".repeat(300_000));
    let odd = "{\"n\":3001,\"timestamp\":\"2026-01-31T12:00:00Z\",\"pid\":\"none\"}\n";
    let traceback = "it failed\nTraceback (most recent call last):\n  File \"x\"\nValueError: no\n";
    append(&log, &format!("{lines}{huge}{odd}{traceback}no end"));
    let args = ["a.log", "--to", &to, "--index", "mflog-%Y.%m.%d", "--no-gzip", "--once"];
    let args = [&args[..], &["--template", "mflog", "--transform", "set:module=MFSERV"]].concat();
    let ran = ship(dir, &args).output().unwrap();
    assert_eq!(ran.status.code(), Some(1), "{}", text(&ran.stderr));
    let summary = text(&ran.stdout);
    assert!(summary.contains("3001 documents sent, 0 were there already, 2 refused"), "{summary}");
    assert!(summary.contains("6 bytes of last lines without an end"), "{summary}");
    let dead = fs::read_to_string(dir.join(".a.log.ship/dead.jsonl")).unwrap();
    let dead: Vec<Value> = dead.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |status: u64| dead.iter().find(|letter| letter["status"] == status).unwrap();
    assert_eq!((dead.len(), &of(413)["document"]["n"]), (2, &json!(3000)));
    assert_eq!(of(400)["document"]["n"], 3001);
    assert!(of(400)["reason"].as_str().unwrap().contains("pid"), "{}", of(400));
    let (numbers, count) = index.numbers("mflog-2026.01.31", "n");
    assert_eq!((numbers.len(), count), (3000, 3000));
    let query = json!({"query": {"exists": {"field": "message"}}});
    index.ask("POST", "/mflog-*/_refresh", None);
    let found = index.ask("POST", "/mflog-*/_search", Some(&query));
    let source = &found["hits"]["hits"][0]["_source"];
    assert_eq!(
        (&source["message"], &source["module"]),
        (&json!(traceback.trim_end()), &json!("MFSERV"))
    );
    let mapping = index.ask("GET", "/mflog-2026.01.31/_mapping", None);
    let mapping = &mapping["mflog-2026.01.31"]["mappings"]["properties"];
    assert_eq!(
        (&mapping["pid"]["type"], &mapping["timestamp"]["type"]),
        (&json!("integer"), &json!("date"))
    );
    let again = succeeds(ship(dir, &args));
    assert!(again.contains("0 documents sent, 0 were there already"), "{again}");
}

#[test]
fn a_data_stream_knows_what_it_has_and_an_index_that_is_stopped_is_waited_for() {
    let _turn = Turn::heavy();
    let dir = tempfile::tempdir().unwrap();
    let Some(mut index) = engine(Engine::OpenSearch, dir.path(), &[]) else { return };
    let template = json!({"index_patterns": ["app"], "data_stream": {}, "template":
        {"settings": {"number_of_replicas": 0}}});
    index.ask("PUT", "/_index_template/app", Some(&template));
    // The first node does not exist, the second one compresses nothing and loses an answer.
    let proxy = Proxy::new(index.address(), |n| if n == 1 { Fault::NoAnswer } else { Fault::None });
    let log = dir.path().join("app.log");
    append(&log, &(0..2000).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>());
    let url = proxy.url();
    let args = ["app.log", "--to", "http://127.0.0.1:1", "--to", &url, "--index", "app"];
    let args = [&args[..], &["--data-stream", "--once"]].concat();
    let summary = succeeds(ship(dir.path(), &args));
    assert!(summary.contains("0 documents sent, 2000 were there already"), "{summary}");
    let first = &proxy.seen()[0];
    assert!(first.to_lowercase().contains("content-encoding: gzip"), "{first}");
    let (numbers, count) = index.numbers("app", "n");
    assert_eq!((numbers.len(), count), (2000, 2000));

    index.kill();
    append(&log, "{\"n\":2000}\n");
    let mut waiting = ship(dir.path(), &args).spawn().unwrap();
    let before = proxy.count();
    until("it has tried", PATIENCE, || proxy.count() > before);
    assert!(waiting.try_wait().unwrap().is_none(), "it goes on trying");
    index.start_again();
    assert!(waiting.wait().unwrap().success());
    assert_eq!(index.numbers("app", "n").1, 2001);
}
