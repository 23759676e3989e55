//! A bench as it is run: with a real node, and with the real servers of others.

#![allow(clippy::disallowed_methods, reason = "tests run the program")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use mfserv_testkit::{skipped, until};
use rustix::process::{Pid, Signal, kill_process};

/// The first run fetches the peers.
const PATIENCE: Duration = Duration::from_secs(600);

/// A cell: `12.3 [12.3-12.3]`.
fn median(cell: &str) -> Option<f64> {
    let (median, spread) = cell.trim().split_once(" [")?;
    let (lowest, highest) = spread.strip_suffix(']')?.split_once('-')?;
    let all = [median, lowest, highest].map(|number| number.parse::<f64>().ok());
    // There is one round only.
    (all[0] == all[1] && all[0] == all[2]).then_some(all[0]?)
}

/// The command of a small bench; all that it makes is below `place`. None if there is no mfserv.
fn bench(row: &str, rounds: &str, place: &Path) -> Option<Command> {
    if std::env::var_os("MFSERV_LONG").is_none() {
        skipped("`xtask bench stack`, which fetches five other stacks: MFSERV_LONG=1 runs it");
        return None;
    }
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let mfserv = xtask.with_file_name("mfserv");
    if !mfserv.exists() {
        skipped("`xtask bench stack`: there is no mfserv beside xtask; `cargo build` makes it");
        return None;
    }
    let mut command = Command::new(xtask);
    command.args(["bench", "stack", "--rows", row, "--workers", "1"]);
    command
        .args(["--seconds", "0.2", "--rounds", rounds, "--program"])
        .arg(mfserv)
        .env("TMPDIR", place);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Some(command)
}

/// Processes whose command line or directory is in a place.
fn processes_of(place: &Path) -> Vec<String> {
    let place = place.to_string_lossy();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let found = entries.filter_map(|entry| {
        let dir = entry.path();
        let line = fs::read(dir.join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let cwd = fs::read_link(dir.join("cwd")).unwrap_or_default();
        let is_there = line.contains(&*place) || cwd.starts_with(&*place);
        // The bench itself has the place in its environment only.
        is_there.then_some(line)
    });
    found.collect()
}

fn nothing_is_left(place: &Path) {
    until("no process is left", PATIENCE, || processes_of(place).is_empty());
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
    // Others who work for it, such as uv, leave locks.
    names.retain(|name| name.to_string_lossy().starts_with("mfb-"));
    assert!(names.is_empty(), "{names:?} is left");
}

#[test]
fn a_tiny_bench_of_stacks_prints_a_full_row_for_each_and_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let Some(mut command) = bench("raw", "1", place.path()) else { return };
    let Output { status, stdout, stderr } = command.output().unwrap();
    let (text, said) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "{text}\n{said}");
    let own = ["mfserv |", "mfserv, [front] kind=nginx |"];
    for name in own.into_iter().chain(["MFSERV's stack imitated", "nginx keep-alive + bjoern"]) {
        let begin = format!("| {name}");
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with(&begin)).collect();
        if let Some(why) = rows.iter().find(|row| row.contains("not measured")) {
            assert_ne!(name, own[0], "{text}\n{said}");
            skipped(&format!("`xtask bench stack` beside {why}"));
            continue;
        }
        assert_eq!(rows.len(), 2, "{name} at saturation and at 20 %:\n{text}\n{said}");
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
            let numbers: Vec<f64> = cells[1..9].iter().filter_map(|cell| median(cell)).collect();
            assert_eq!(numbers.len(), 8, "{row}");
            // What becomes of the servers of others on a busy machine is no promise of this one.
            assert!(!own.contains(&name) || cells[9].trim() == "0", "requests failed: {row}");
            let [front, workers, rest, whole, rate, p50, p99, _] = numbers[..] else {
                panic!("{row}")
            };
            assert!(front > 0.0 && workers > 0.0 && rate > 1.0 && p50 <= p99, "{row}");
            // Each is rounded.
            assert!((front + workers + rest - whole).abs() < 0.21, "{row}");
        }
    }
    nothing_is_left(place.path());
}

#[test]
fn a_bench_of_stacks_that_is_interrupted_leaves_nothing() {
    let place = tempfile::tempdir().unwrap();
    let Some(mut command) = bench("node", "100", place.path()) else { return };
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_child(&child);
    // PM2 starts last, and puts itself into the background.
    let mut has_ended = false;
    until("PM2 runs", PATIENCE, || {
        has_ended = child.try_wait().unwrap().is_some();
        has_ended || processes_of(place.path()).iter().any(|line| line.contains("God Daemon"))
    });
    if has_ended {
        let output = child.wait_with_output().unwrap();
        let (text, said) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        // Without one of the peers it goes on with the others to its end.
        assert!(text.contains("not measured"), "the bench has ended: {text}\n{said}");
        return skipped("the interruption of `xtask bench stack`, since PM2 is not to be had");
    }
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("interrupted"), "{said}");
    nothing_is_left(place.path());
}
