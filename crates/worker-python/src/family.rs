//! This process and its descendants.

use std::fs;
use std::io::Write;
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process};

/// Ends all of them at once.
pub fn end(limit: Duration) {
    let line = format!("hard timeout ({} s) => SIGKILL\n", limit.as_secs());
    let _ = std::io::stderr().write_all(line.as_bytes());
    let mut found = vec![getpid()];
    let mut next = 0;
    while let Some(&process) = found.get(next) {
        found.extend(children(process));
        next += 1;
    }
    for process in found.into_iter().rev() {
        let _ = kill_process(process, Signal::KILL);
    }
}

fn children(process: Pid) -> Vec<Pid> {
    let threads = format!("/proc/{}/task", process.as_raw_nonzero());
    let threads = fs::read_dir(threads).into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let text: String = lists.collect();
    text.split_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect()
}
