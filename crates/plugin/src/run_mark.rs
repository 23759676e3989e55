//! The mark of what a build or a hook starts: a variable in the environment, which processes keep
//! that leave its process group and session (setsid). What has it is ended with the run.

use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::store::start_ticks;

const VARIABLE: &str = "_MFSERV_RUN";

/// A process that is killed may just have started another one: so often it is looked again.
const ROUNDS: u32 = 20;

/// The mark of one run: the PID namespace and the process that waits for it, and a number.
pub(crate) struct RunMark(String);

impl RunMark {
    /// A mark that no other run has. The first one of this process ends what runs have left
    /// whose own process was killed.
    pub(crate) fn new() -> Self {
        static ORPHANS: Once = Once::new();
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        ORPHANS.call_once(|| end(is_orphaned));
        let pid = std::process::id();
        let namespace = pid_namespace().unwrap_or(0);
        let ticks = start_ticks(pid).unwrap_or(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self(format!("{namespace}:{pid}:{ticks}:{number}"))
    }

    /// What this command starts has the mark.
    pub(crate) fn put(&self, command: &mut Command) {
        command.env(VARIABLE, &self.0);
    }

    /// Kills what has the mark.
    pub(crate) fn end(&self) {
        end(|mark| mark == self.0);
    }
}

/// The process that waits for the run with this mark has ended. A run of another PID namespace (a
/// container's, seen from the host) is not judged: its PID names another process here.
fn is_orphaned(mark: &str) -> bool {
    let parts: Option<Vec<u64>> = mark.split(':').map(|part| part.parse().ok()).collect();
    match parts.as_deref() {
        Some([namespace, pid, ticks, _]) if pid_namespace() == Some(*namespace) => {
            u32::try_from(*pid).is_ok_and(|pid| start_ticks(pid) != Some(*ticks))
        }
        _ => false,
    }
}

/// The inode of the PID namespace of this process: pid_namespaces(7).
fn pid_namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/pid").map(|namespace| namespace.ino()).ok()
}

/// Kills the processes whose mark is one of these.
fn end(is_meant: impl Fn(&str) -> bool) {
    let is_meant = |pid: u32| mark_of(pid).is_some_and(|mark| is_meant(&mark));
    // A process within execve(2) shows no environment for a moment: one look may miss it.
    let mut was_empty = false;
    for _ in 0..ROUNDS {
        let found: Vec<u32> = processes().filter(|pid| is_meant(*pid)).collect();
        if found.is_empty() && was_empty {
            return;
        }
        was_empty = found.is_empty();
        for pid in found {
            let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
            let Ok(process) = pidfd_open(process, PidfdFlags::empty()) else { continue };
            // Looked at again: the number may be another process's by now.
            if is_meant(pid) {
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The environment of a process that has ended, or of another user, cannot be read.
fn mark_of(pid: u32) -> Option<String> {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mark = environment
        .split(|byte| *byte == 0)
        .find_map(|entry| entry.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"="))?;
    Some(String::from_utf8_lossy(mark).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_orphaned_when_its_process_has_ended_and_not_before() {
        let own = RunMark::new();
        assert!(!is_orphaned(&own.0));
        let (pid, namespace) = (std::process::id(), pid_namespace().unwrap());
        assert!(own.0.starts_with(&format!("{namespace}:{pid}:")));
        assert!(is_orphaned(&format!("{namespace}:{pid}:1:0")), "another process had the number");
        let other = namespace + 1;
        assert!(!is_orphaned(&format!("{other}:{pid}:1:0")), "a process of another namespace");
        for odd in ["", "x:y:z:0", "1", &format!("{namespace}:-1:1:1"), &format!("{pid}:1:0")] {
            assert!(!is_orphaned(odd), "{odd}");
        }
    }

    #[test]
    fn what_a_killed_run_has_left_is_ended_and_what_a_living_one_has_is_not() {
        #[expect(clippy::disallowed_methods, reason = "a real process that is waited for")]
        let sleeps = |mark: &str| {
            let mut command = Command::new("sleep");
            command.arg("1000").env(VARIABLE, mark).spawn().unwrap()
        };
        let own = RunMark::new();
        let (mut left, mut living) =
            (sleeps(&format!("{}:4194304:1:0", pid_namespace().unwrap())), sleeps(&own.0));
        let mut elsewhere = sleeps(&format!("{}:4194304:1:0", pid_namespace().unwrap() + 1));
        end(is_orphaned);
        assert!(!left.wait().unwrap().success());
        assert!(living.try_wait().unwrap().is_none());
        assert!(elsewhere.try_wait().unwrap().is_none());
        elsewhere.kill().unwrap();
        elsewhere.wait().unwrap();
        own.end();
        assert!(!living.wait().unwrap().success());
    }
}
