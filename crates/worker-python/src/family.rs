//! This process and its descendants.

use std::fs;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getpid, kill_process};

/// Ends all of them at once.
pub fn end(limit: Duration) {
    let mut found = vec![getpid()];
    let mut next = 0;
    while let Some(&process) = found.get(next) {
        found.extend(children(process));
        next += 1;
    }
    for process in found.into_iter().skip(1).rev() {
        let _ = kill_process(process, Signal::KILL);
    }
    say(&format!("hard timeout ({} s) => SIGKILL\n", limit.as_secs()));
    let _ = kill_process(getpid(), Signal::KILL);
}

/// Writes to the standard error, unless nobody reads it any more: that would wait for ever, and
/// so might its lock.
fn say(line: &str) {
    let errors = std::io::stderr();
    let mut place = [PollFd::new(&errors, PollFlags::OUT)];
    if poll(&mut place, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1) {
        let _ = rustix::io::write(&errors, line.as_bytes());
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
