//! A shell beside this process, which ends what the process has started when the process is killed: by
//! SIGKILL, a second Ctrl-C, or the kernel for want of memory.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// The shell waits for a line, which a [`Guard`] writes when it is dropped. A pipe that ends without
/// the line means that the process was killed.
const WAIT: &str = "read -r over && exit 0; ";
/// First SIGINT, so that pip and npm remove their temporary files, and SIGKILL 2 s later. dash takes no
/// `kill -INT -- -1`.
const END_GROUP: &str = "kill -s INT -- \"-$1\"; for part in 1 2 3 4 5 6 7 8 9 10; do sleep 0.2; \
    kill -s 0 -- \"-$1\" || exit 0; done; kill -s KILL -- \"-$1\"";

/// The shell. It acts when this process ends without having dropped the guard.
#[derive(Debug)]
pub struct Guard(Child);

impl Guard {
    /// Ends a process group.
    pub(crate) fn of_group(leader: u32) -> std::io::Result<Guard> {
        Guard::start(END_GROUP, [leader.to_string()])
    }

    /// Runs a program.
    pub fn running<S: AsRef<OsStr>>(words: impl IntoIterator<Item = S>) -> std::io::Result<Guard> {
        Guard::start("exec \"$@\"", words)
    }

    fn start<S: AsRef<OsStr>>(
        script: &str,
        words: impl IntoIterator<Item = S>,
    ) -> std::io::Result<Guard> {
        #[expect(clippy::disallowed_methods, reason = "it outlives this process to end its builds")]
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(format!("{WAIT}{script}")).arg("mfserv-guard").args(words);
        // Ctrl-C in a terminal is for the process that is guarded.
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        shell.spawn().map(Guard)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.0.stdin.take() {
            let _ = pipe.write_all(b"over\n");
        }
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_group_whose_guard_has_lost_its_process_is_ended_by_whatever_sh_is() {
        #[expect(clippy::disallowed_methods, reason = "it is waited for here")]
        let mut child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let mut guard = Guard::of_group(child.id()).unwrap();
        drop(guard.0.stdin.take());
        guard.0.wait().unwrap();
        assert!(!child.wait().unwrap().success(), "it was ended by a signal");
    }

    #[test]
    fn a_guard_whose_process_has_gone_acts_and_one_that_is_dropped_does_not() {
        let folder = tempfile::tempdir().unwrap();
        for (is_dropped, name) in [(true, "dropped"), (false, "gone")] {
            let file = folder.path().join(name);
            let mut guard = Guard::running([OsStr::new("touch"), file.as_os_str()]).unwrap();
            if !is_dropped {
                drop(guard.0.stdin.take());
                guard.0.wait().unwrap();
            }
            drop(guard);
            assert_eq!(file.exists(), !is_dropped, "{name}");
        }
    }
}
