//! Finding lines: a log of eight workers and an access log, with their indexes.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::output::Rotation;
use mfserv_logfile::{LogFile, Mark, MarkKind, Source, compress, index_path, request_hash};

use super::failed;
use crate::bench::spread::Spread;
use crate::child;

const MIB: u64 = 1024 * 1024;
const PATIENCE: Duration = Duration::from_secs(120);
/// The first line is of this time, milliseconds since 1970: 2026-01-31T12:00:00Z.
const START_MS: u64 = 1_769_860_800_000;
const ROTATION: Rotation = Rotation { max_bytes: 0, max_age_s: 0, keep: 0, mode: None };

pub fn run(program: &Path, mib: u32, times: u32) -> Result<(), Diagnostic> {
    let home = tempfile::tempdir().map_err(|e| failed("no temporary directory", e))?;
    let log = home.path().join("log/app_bench_main.log");
    let access = home.path().join("log/nginx_access.log");
    eprintln!("writing two logs of {mib} MiB");
    let chunks = write_log(&log, u64::from(mib) * MIB)?;
    let requests = write_access_log(&access, u64::from(mib) * MIB)?;
    let at = |chunk: u64| utc((START_MS / 1000 + chunk / 100) as i64);
    let (since, until) = (at(chunks / 2), at(chunks / 2 + 100));
    let id = format!("{:032x}", request_hash(&(requests / 2).to_le_bytes()));
    let questions: [(&str, Vec<&str>); 4] = [
        ("a second, by time", vec!["--since", &since, "--until", &until]),
        (
            "a worker in that second",
            vec!["--worker", "bench.main.3", "--since", &since, "--until", &until],
        ),
        ("a request, by its id", vec!["--request", &id]),
        ("the newest 20 lines with a text", vec!["--grep", "chunk 5 ", "-n", "20"]),
    ];
    println!("ms to find in {mib} MiB, the middle of {times} (least to most):\n");
    println!("| | plain | compressed |\n|---|---|---|");
    let mut cells = vec![Vec::new(); questions.len()];
    for packed in [false, true] {
        if packed {
            eprintln!("compressing");
            for path in [&log, &access] {
                pack(path)?;
            }
        }
        for ((_, args), cells) in questions.iter().zip(&mut cells) {
            cells.push(ask(program, home.path(), args, times)?);
        }
    }
    for ((name, _), cells) in questions.iter().zip(cells) {
        println!("| {name} | {} |", cells.join(" | "));
    }
    Ok(())
}

fn ask(program: &Path, home: &Path, args: &[&str], times: u32) -> Result<String, Diagnostic> {
    let mut taken = Vec::new();
    for _ in 0..times {
        let mut command = Command::new(program);
        command.arg("--home").arg(home).arg("logs").args(args).stdin(Stdio::null());
        command.env("METWORK_ALLOW_USAGE_BY_ROOT", "1");
        let began = Instant::now();
        child::run(&mut command, PATIENCE)?;
        taken.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let spread = Spread::of(taken).ok_or_else(|| failed("nothing was measured", ""))?;
    Ok(format!("{spread:.0}"))
}

/// Chunks of twenty lines, one each 10 ms, of eight workers in turn; returns how many.
fn write_log(path: &Path, size: u64) -> Result<u64, Diagnostic> {
    let workers: Vec<Source> = (1..=8)
        .map(|slot| Source {
            worker: format!("app.bench.main.{slot}.{slot}"),
            stream: "both".into(),
            release: "1".into(),
        })
        .collect();
    let mut log = LogFile::new(path, ROTATION);
    let (mut written, mut chunk) = (0, 0);
    while written < size {
        let line = format!(
            "2026-01-31T12:00:00.000000Z [INFO] (app#1) chunk {chunk} of a worker {:-<40}\n",
            ""
        );
        let lines = line.repeat(20);
        let kind = MarkKind::Output(START_MS + chunk * 10);
        let mark = Mark { at: 0, source: &workers[chunk as usize % 8], kind };
        log.append_marked(lines.as_bytes(), &[mark]).map_err(|e| failed("no room", e))?;
        written += lines.len() as u64;
        chunk += 1;
    }
    Ok(chunk)
}

/// Lines as the front writes them; returns how many.
fn write_access_log(path: &Path, size: u64) -> Result<u64, Diagnostic> {
    let worker = Source { worker: "app.bench.main.1.1".into(), ..Source::default() };
    let mut log = LogFile::new(path, ROTATION);
    let (mut written, mut count): (u64, u64) = (0, 0);
    while written < size {
        let mut lines = String::new();
        let mut marks = Vec::new();
        for _ in 0..500 {
            let id = format!("{:032x}", request_hash(&count.to_le_bytes()));
            let kind = MarkKind::Request(request_hash(id.as_bytes()));
            marks.push(Mark { at: lines.len(), source: &worker, kind });
            lines += &format!(
                "{{ \"@timestamp\": \"{}\", \"from\": \"127.0.0.1\", \"host\": \"localhost\", \
                 \"method\": \"GET\", \"uri\": \"/bench/some/page?of={count}\", \"duration\": 0.012, \
                 \"status\": 200, \"request_length\": 120, \"reply_length\": 512, \
                 \"plugin\": \"bench\", \"request_id\": \"{id}\" }}\n",
                utc((START_MS / 1000 + count / 1000) as i64),
            );
            count += 1;
        }
        log.append_marked(lines.as_bytes(), &marks).map_err(|e| failed("no room", e))?;
        written += lines.len() as u64;
    }
    Ok(count)
}

/// Makes a log a compressed one, and begins an empty one.
fn pack(log: &Path) -> Result<(), Diagnostic> {
    let rotated = format!("{}.20260131120000", log.display());
    let rotated = Path::new(&rotated);
    let moved = std::fs::rename(log, rotated)
        .and_then(|()| std::fs::rename(index_path(log), index_path(rotated)))
        .and_then(|()| std::fs::write(log, ""))
        .and_then(|()| compress(rotated));
    moved.map(drop).map_err(|e| failed("the log cannot be compressed", e))
}

/// A time of that day or the next ones, `2026-01-31T12:00:00+00:00`.
fn utc(seconds: i64) -> String {
    let since = seconds - START_MS as i64 / 1000 + 12 * 3600;
    let (day, rest) = (since / 86_400, since % 86_400);
    let date = if day == 0 { "2026-01-31".to_owned() } else { format!("2026-02-{day:02}") };
    format!("{date}T{:02}:{:02}:{:02}+00:00", rest / 3600, rest / 60 % 60, rest % 60)
}
