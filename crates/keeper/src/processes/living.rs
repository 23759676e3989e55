//! One process, from its start until its exit is recorded.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mfserv_core::wire::keeper::{Ended, Process};
use mfserv_platform::clock::now_ms;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};

use crate::containment::Tree;
use crate::log::log;
use crate::procfs::Stat;
use crate::saved::SavedProcess;
use crate::{exit_status, procfs};

/// What a process has left behind is killed for so long.
const CLEANING: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The exit status of an adopted process of another user is waited for so long: if it exited with 0,
/// the kernel shows that only after the real parent of the process has reaped it.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// A process that the keeper has started or adopted.
pub(super) struct Living {
    pub process: Process,
    pub cgroup: Option<PathBuf>,
    /// Set when it is not our child.
    pidfd: Option<OwnedFd>,
    /// Its pidfd is readable: it has ended. Since then its status is waited for.
    status_awaited: Option<Instant>,
    end: Option<End>,
}

/// The process has ended. What it left is being killed, then its output is read to the end.
pub(super) struct End {
    pub ended: Ended,
    pub at_ms: u64,
    /// What it left behind and was killed, by number and start time.
    pub killed: BTreeSet<(u32, u64)>,
    since: Instant,
    /// Its output is being read to the end: the record follows.
    reading: bool,
}

impl Living {
    /// Our child.
    pub fn child(process: Process, cgroup: Option<PathBuf>) -> Self {
        Self { process, cgroup, pidfd: None, status_awaited: None, end: None }
    }

    /// A process of an earlier keeper that has died: nobody's child, or the child of another.
    pub fn adopt(saved: SavedProcess) -> Self {
        let process = Process { adopted: true, ..saved.process };
        Self::found_again(SavedProcess { process, ..saved })
    }

    /// A process of an earlier image of this keeper: our child, unless it was adopted.
    pub fn found_again(saved: SavedProcess) -> Self {
        let SavedProcess { process, cgroup, ended } = saved;
        let pidfd = if process.adopted { open_same(&process) } else { None };
        let lost = process.adopted && pidfd.is_none();
        let mut living = Self { process, cgroup, pidfd, status_awaited: None, end: None };
        match ended {
            Some((ended, at_ms)) => living.ended(ended, at_ms),
            None if lost => living.ended(Ended::Unknown, now_ms()),
            None => {}
        }
        living
    }

    /// What the next keeper must know.
    pub fn to_save(&self) -> SavedProcess {
        SavedProcess {
            process: self.process.clone(),
            cgroup: self.cgroup.clone(),
            ended: self.end.as_ref().map(|end| (end.ended.clone(), end.at_ms)),
        }
    }

    /// Returns true if it runs.
    pub fn runs(&self) -> bool {
        self.end.is_none()
    }

    /// Returns true if it is our child of this number, and runs.
    pub fn is_child(&self, pid: u32) -> bool {
        self.process.pid == pid && self.pidfd.is_none() && self.runs()
    }

    /// Everything that it has started. `hash` is that of the home.
    pub fn signal_tree(&self, hash: &str, signal: Signal) -> usize {
        let marker = self.marker(hash);
        self.tree(&marker).signal(signal)
    }

    fn marker(&self, hash: &str) -> String {
        format!("{hash}:{}", self.process.id)
    }

    fn tree<'a>(&'a self, marker: &'a str) -> Tree<'a> {
        Tree {
            pid: self.process.pid,
            start_ticks: self.process.start_ticks,
            cgroup: self.cgroup.as_deref(),
            marker,
        }
    }

    /// A child keeps its number until we reap it; for any other there is a pidfd.
    pub fn signal(&self, signal: Signal) -> rustix::io::Result<()> {
        match &self.pidfd {
            Some(pidfd) => pidfd_send_signal(pidfd, signal),
            None => {
                kill_process(Pid::from_raw(self.process.pid as i32).ok_or(Errno::SRCH)?, signal)
            }
        }
    }

    /// To be polled: it is not our child, and has not ended yet.
    pub fn pidfd_to_watch(&self) -> Option<BorrowedFd<'_>> {
        let idle = self.end.is_none() && self.status_awaited.is_none();
        self.pidfd.as_ref().filter(|_| idle).map(AsFd::as_fd)
    }

    /// When it is to be looked at again.
    pub fn next_moment(&self) -> Option<Instant> {
        let cleaning = self.end.as_ref().is_some_and(|end| !end.reading);
        let awaited = self.end.is_none() && self.status_awaited.is_some();
        (cleaning || awaited).then(|| Instant::now() + LOOK_AGAIN)
    }

    /// It has ended so.
    pub fn ended(&mut self, ended: Ended, at_ms: u64) {
        let (since, killed) = (Instant::now(), BTreeSet::new());
        self.end = Some(End { ended, at_ms, since, killed, reading: false });
    }

    /// Looks whether an adopted process has ended; returns true if it has.
    pub fn watch_adopted(&mut self) -> bool {
        if !self.runs() || (self.status_awaited.is_none() && !self.pidfd_says_ended()) {
            return false;
        }
        let since = *self.status_awaited.get_or_insert_with(Instant::now);
        // Asked first: once it is known to be reaped, the answer is there.
        let zombie = self.zombie();
        let status = self.pidfd.as_ref().and_then(|fd| exit_status::of_stranger(fd.as_fd()));
        let status = status.or_else(|| zombie.as_ref().and_then(exit_status::of_zombie));
        if status.is_none() && zombie.is_some() && since.elapsed() < STATUS_PATIENCE {
            return false;
        }
        self.ended(status.unwrap_or(Ended::Unknown), now_ms());
        true
    }

    fn pidfd_says_ended(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return false };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
    }

    /// It has ended, and its parent has not reaped it yet.
    fn zombie(&self) -> Option<Stat> {
        let stat = procfs::stat(self.process.pid).ok()?;
        (stat.is_zombie() && stat.start_ticks == self.process.start_ticks).then_some(stat)
    }

    /// Kills what it has left behind, if it has ended; returns true once, when nothing is
    /// left and its output can be read to the end.
    pub fn kill_left_behind(&mut self, hash: &str) -> bool {
        let marker = self.marker(hash);
        let Some(mut end) = self.end.take_if(|end| !end.reading) else { return false };
        let tree = self.tree(&marker);
        let left = tree.members();
        if end.since.elapsed() < CLEANING && (!left.is_empty() || tree.is_busy()) {
            end.killed.extend(left.iter().map(|stat| (stat.pid, stat.start_ticks)));
            if !left.is_empty() {
                tree.signal(Signal::KILL);
            }
        } else {
            if !left.is_empty() {
                let (count, id) = (left.len(), &self.process.id);
                log(format_args!("{count} processes that {id} left cannot be killed"));
            }
            end.reading = true;
        }
        let reading = end.reading;
        self.end = Some(end);
        reading
    }

    /// The threads that read its output have died: it is to be read again.
    pub fn read_again(&mut self) {
        if let Some(end) = &mut self.end {
            end.reading = false;
        }
    }

    /// Takes it apart, if it has ended.
    pub fn into_parts(self) -> Option<(Process, Option<PathBuf>, End)> {
        Some((self.process, self.cgroup, self.end?))
    }
}

/// A pidfd of exactly this process: opened first, then compared.
fn open_same(process: &Process) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let now = procfs::stat(process.pid).ok()?;
    (now.start_ticks == process.start_ticks && !now.is_zombie()).then_some(pidfd)
}
