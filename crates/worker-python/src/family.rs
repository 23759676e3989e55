//! This process and its descendants.

use std::fs;
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, getpid, kill_process};

/// How long the end waits for what the threads do to be written.
const PATIENCE: Duration = Duration::from_millis(500);

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
    if say(&format!("hard timeout ({} s) => SIGKILL\n", limit.as_secs())) {
        show_stacks();
    }
    let _ = kill_process(getpid(), Signal::KILL);
}

/// Writes to the standard error, unless nobody reads it any more: that would wait for ever, and
/// so might its lock. Returns whether it did.
fn say(line: &str) -> bool {
    let errors = std::io::stderr();
    let mut place = [PollFd::new(&errors, PollFlags::OUT)];
    poll(&mut place, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1)
        && rustix::io::write(&errors, line.as_bytes()).is_ok()
}

/// Writes what each thread of Python does to the standard error, where `faulthandler` has a handler
/// for it: that needs no lock of the interpreter. If nobody reads, this does not wait for ever.
fn show_stacks() {
    // `STACK_SIGNAL` of mfserv_wsgi.py and of the plan.
    let signal = libc::SIGRTMAX() - 4;
    // SAFETY: all bytes zero are a valid value of this structure of numbers and pointers.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: it writes the action that is set into the structure, and changes nothing.
    let is_known = unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) } == 0;
    if !is_known || action.sa_sigaction == libc::SIG_DFL {
        return;
    }
    let (is_done, done) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().spawn(move || {
        // SAFETY: a handler is set. It runs here, before this returns.
        unsafe { libc::raise(signal) };
        let _ = is_done.send(());
    });
    if thread.is_ok() {
        let _ = done.recv_timeout(PATIENCE);
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
