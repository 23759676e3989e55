//! The ends of nginx: those that are asked for, and those that nobody has asked for.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, waitpid};

use super::master::Nginx;
use super::program::{Process, children, signal};

/// At most so many sets of old workers go on with their requests; the oldest of more are ended.
const OLD_SETS_MAX: usize = 8;

impl Nginx {
    /// The master is none any more: if it has ended, nobody has asked it to.
    pub(super) fn note_end(&mut self) {
        let Some(master) = self.master.take() else { return };
        if let Some(end) = master.end() {
            self.vitals.has_ended(master.pid, end.why);
        }
    }

    /// Ends the oldest of the workers that are leaving, where there are too many of them.
    pub(super) fn end_oldest(&self, master: Pid) {
        let leaving: Vec<Process> =
            children(master).into_iter().filter(|one| one.is_leaving).collect();
        let most = OLD_SETS_MAX * self.site.workers as usize;
        for old in leaving.iter().take(leaving.len().saturating_sub(most)) {
            signal(old.pid, Signal::TERM);
        }
    }

    /// nginx writes into the files of these names from now on.
    pub fn reopen_logs(&self) {
        if let Some(master) = &self.master {
            signal(master.pid, Signal::USR1);
        }
    }

    /// Takes note of orphans that have ended.
    pub fn reap(&mut self) {
        self.orphans
            .retain(|orphan| matches!(waitpid(Some(orphan.pid), WaitOptions::NOHANG), Ok(None)));
    }

    /// Ends nginx when its requests are answered, or after `grace`.
    pub async fn finish(&mut self, grace: Duration) {
        self.vitals.is_ending.set(true);
        if let Some(master) = self.master.take() {
            signal(master.pid, Signal::QUIT);
            // nginx itself ends its workers after as long.
            for (patience, next) in [
                (grace + Duration::from_secs(1), Signal::TERM),
                (Duration::from_secs(2), Signal::KILL),
            ] {
                if tokio::time::timeout(patience, master.ended()).await.is_ok() {
                    break;
                }
                signal(master.pid, next);
            }
            master.ended().await;
        }
        for orphan in children(rustix::process::getpid()) {
            signal(orphan.pid, Signal::TERM);
        }
        let _ = fs::remove_file(&self.config);
    }
}
