//! How processes begin and end: started, reaped, cleaned up after, recorded.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use mfserv_core::wire::keeper::{Ended, Exit, Notice, Process, ProcessSpec};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Signal, WaitOptions, wait};

use crate::containment::{self, Tree};
use crate::copying::Stream;
use mfserv_platform::clock::now_ms;

use crate::keeper::{Keeper, remark};
use crate::refusal::Refusal;
use crate::spawn::{self, Gifts};
use crate::stopping::Stage;
use crate::{DAEMON, exit_status, procfs};

/// What a process has left behind is killed for so long.
const CLEANING: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The exit status of an adopted process is waited for so long: it is there when its
/// parent, whoever that is, has reaped it.
const STATUS_PATIENCE: Duration = Duration::from_secs(1);

/// A daemon that lives shorter is started again with a growing wait.
const QUICK_END_MS: u64 = 1000;
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// Exit records kept, and the bytes of last output and of notes in them: an answer with
/// all of them is one frame.
const MOST_EXITS: usize = 10_000;
const MOST_LAST_OUTPUT: usize = 1024 * 1024;
const MOST_NOTES: usize = 1024 * 1024;

/// A process, from its start until its exit is recorded.
pub(crate) struct Living {
    pub process: Process,
    pub cgroup: Option<PathBuf>,
    /// Set when it is not our child.
    pub pidfd: Option<OwnedFd>,
    /// The pidfd says that it has ended; since when the status is waited for.
    pub status_awaited: Option<Instant>,
    pub end: Option<End>,
}

/// It has ended; what it left is being killed, then its output read to the end.
pub(crate) struct End {
    pub ended: Ended,
    pub at_ms: u64,
    since: Instant,
    killed: BTreeSet<(u32, u64)>,
    /// Its output is being read to the end: the record follows.
    reading: bool,
}

impl End {
    pub fn new(ended: Ended, at_ms: u64) -> Self {
        Self { ended, at_ms, since: Instant::now(), killed: BTreeSet::new(), reading: false }
    }
}

impl Living {
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

    fn has_ended(&self) -> bool {
        let Some(pidfd) = &self.pidfd else { return false };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(1))
    }

    fn is_unreaped(&self) -> bool {
        procfs::stat(self.process.pid)
            .is_ok_and(|s| s.is_zombie() && s.start_ticks == self.process.start_ticks)
    }
}

impl Keeper {
    /// Starts a process and begins to copy its output.
    pub fn spawn(&mut self, spec: &ProcessSpec) -> Result<Process, Refusal> {
        spawn::check(spec)?;
        if self.processes.contains_key(&spec.id) {
            return Err(Refusal::because(format!("{} lives already", spec.id)));
        }
        let out = self.new_stream(spec, "out", &spec.output.stdout);
        let err = spec.output.stderr.as_ref().map(|log| self.new_stream(spec, "err", log));
        let made = self.spawn_into(spec, &out, err.as_ref());
        if made.is_err() {
            for stream in [Some(&out), err.as_ref()].into_iter().flatten() {
                let _ = fs::remove_file(&stream.fifo);
            }
        }
        made
    }

    fn new_stream(&mut self, spec: &ProcessSpec, end: &str, log: &std::path::Path) -> Stream {
        let key = self.next_key;
        self.next_key += 1;
        Stream {
            key,
            owner: spec.id.clone(),
            fifo: self.paths.fifos.join(format!("{}.{key}.{end}", spec.id)),
            log: log.to_owned(),
            rotation: spec.output.rotation,
        }
    }

    fn spawn_into(
        &mut self,
        spec: &ProcessSpec,
        out: &Stream,
        err: Option<&Stream>,
    ) -> Result<Process, Refusal> {
        let failed = |e| Refusal::system("descriptors run out", &e);
        let mut listeners = Vec::new();
        for name in &spec.listeners {
            let held = self.listeners.get(name);
            let held = held.ok_or_else(|| Refusal::because(format!("no socket {name} is held")))?;
            listeners.push((name.as_str(), held.socket.as_fd()));
        }
        let (out_reads, stdout) = spawn::make_fifo(&out.fifo)?;
        let (err_reads, stderr) = match err {
            Some(err) => spawn::make_fifo(&err.fifo).map(|(reads, end)| (Some(reads), end))?,
            None => (None, stdout.try_clone().map_err(failed)?),
        };
        let leaf = self.cgroups.leaf(&spec.id);
        let gifts = Gifts {
            marker: self.marker(&spec.id),
            listeners,
            stdout,
            stderr,
            cgroup: leaf.as_ref().map(|(_, procs)| procs),
            open_files: self.open_files,
        };
        let started = spawn::start(spec, gifts);
        let cgroup = leaf.map(|(path, _)| path);
        let in_cgroup = started.as_ref().is_ok_and(|started| started.in_cgroup);
        if let Some(unused) = cgroup.as_deref().filter(|_| !in_cgroup) {
            containment::remove_leaf(unused);
        }
        let started = started?;
        let process = Process {
            id: spec.id.clone(),
            pid: started.pid,
            // Not reaped yet, so it is there even if it has already ended.
            start_ticks: procfs::start_ticks(started.pid).unwrap_or(0),
            started_ms: now_ms(),
            adopted: false,
            containment: if in_cgroup { "cgroup" } else { "session" }.to_owned(),
            note: spec.note.clone(),
        };
        let cgroup = cgroup.filter(|_| in_cgroup);
        let living = Living {
            process: process.clone(),
            cgroup,
            pidfd: None,
            status_awaited: None,
            end: None,
        };
        self.processes.insert(spec.id.clone(), living);
        self.copy_from(out.clone(), out_reads);
        if let (Some(err), Some(reads)) = (err, err_reads) {
            self.copy_from(err.clone(), reads);
        }
        self.unsaved = true;
        Ok(process)
    }

    pub fn copy_from(&mut self, stream: Stream, fifo: OwnedFd) {
        self.streams.insert(stream.key, stream.clone());
        if let Some(copier) = &self.copier {
            copier.add(stream, fifo);
        }
    }

    pub fn marker(&self, id: &str) -> String {
        format!("{}:{id}", self.hash)
    }

    /// Sends a signal to everything that a process has started and to itself.
    pub fn signal_tree(&self, living: &Living, signal: Signal) -> usize {
        let marker = self.marker(&living.process.id);
        tree(living, &marker).signal(signal)
    }

    /// Takes note of every child that has ended, and of the orphans that came to us.
    pub fn reap(&mut self) {
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_pid() as u32;
            let child = self.processes.values_mut().find(|living| {
                living.process.pid == pid && living.pidfd.is_none() && living.end.is_none()
            });
            if let Some(living) = child {
                living.end = Some(End::new(exit_status::of_child(status), now_ms()));
                self.unsaved = true;
            }
        }
    }

    /// Takes note of the adopted processes that have ended.
    pub fn watch_adopted(&mut self) {
        for living in self.processes.values_mut().filter(|living| living.end.is_none()) {
            if living.status_awaited.is_none() && !living.has_ended() {
                continue;
            }
            let since = *living.status_awaited.get_or_insert_with(Instant::now);
            // Asked first: once it is known to be reaped, the answer is there.
            let unreaped = living.is_unreaped();
            let status = living.pidfd.as_ref().and_then(|fd| exit_status::of_stranger(fd.as_fd()));
            if status.is_none() && unreaped && since.elapsed() < STATUS_PATIENCE {
                continue;
            }
            living.end = Some(End::new(status.unwrap_or(Ended::Unknown), now_ms()));
            self.unsaved = true;
        }
    }

    /// Kills what ended processes have left behind; once there is nothing, their output is
    /// read to the end.
    pub fn go_on_with_ends(&mut self) {
        let hash = self.hash.clone();
        for (id, living) in &mut self.processes {
            let marker = format!("{hash}:{id}");
            let Living { process, cgroup, end: Some(end), .. } = living else { continue };
            if end.reading {
                continue;
            }
            let tree = Tree {
                pid: process.pid,
                start_ticks: process.start_ticks,
                cgroup: cgroup.as_deref(),
                marker: &marker,
            };
            let left = tree.members();
            if end.since.elapsed() < CLEANING && (!left.is_empty() || tree.is_busy()) {
                end.killed.extend(left.iter().map(|stat| (stat.pid, stat.start_ticks)));
                if !left.is_empty() {
                    tree.signal(Signal::KILL);
                }
                continue;
            }
            if !left.is_empty() {
                remark(format_args!("{} processes that {id} left cannot be killed", left.len()));
            }
            end.reading = true;
            if let Some(copier) = &self.copier {
                copier.finish(id);
            }
        }
    }

    /// A process whose output was being read when the threads died: to be done again.
    pub fn read_ends_again(&mut self) {
        for end in self.processes.values_mut().filter_map(|living| living.end.as_mut()) {
            end.reading = false;
        }
    }

    /// The last thing of a process: its record.
    pub fn record_exit(&mut self, id: &str, last_output: String) {
        let Some(Living { process, cgroup, end: Some(end), .. }) = self.processes.remove(id) else {
            return;
        };
        if let Some(cgroup) = cgroup {
            containment::remove_leaf(&cgroup);
        }
        let lived_ms = end.at_ms.saturating_sub(process.started_ms);
        let exit = Exit {
            id: process.id,
            pid: process.pid,
            ended: end.ended,
            at_ms: end.at_ms,
            last_output,
            left_behind: end.killed.len() as u32,
            note: process.note,
        };
        // One record for a name; it outlives the next start, so that a daemon can read how
        // the one before it has ended.
        self.exits.retain(|earlier| earlier.id != id);
        self.exits.push_back(exit.clone());
        self.bound_exits();
        self.notify(Notice::Exited(exit));
        self.unsaved = true;
        if id == DAEMON {
            self.daemon_ended(lived_ms);
        }
    }

    fn bound_exits(&mut self) {
        let mut notes: usize = self.exits.iter().map(|exit| exit.note.len()).sum();
        while self.exits.len() > MOST_EXITS || notes > MOST_NOTES {
            notes -= self.exits.pop_front().map_or(0, |exit| exit.note.len());
        }
        let mut length: usize = self.exits.iter().map(|exit| exit.last_output.len()).sum();
        for exit in &mut self.exits {
            if length <= MOST_LAST_OUTPUT {
                return;
            }
            length -= exit.last_output.len();
            exit.last_output = String::new();
        }
    }

    /// Starts the daemon as soon as the loop runs, unless it lives.
    pub fn daemon_is_wanted(&mut self) {
        let lives = self.processes.contains_key(DAEMON);
        if let Some(daemon) = self.daemon.as_mut().filter(|_| !lives) {
            daemon.start_at = Some(Instant::now());
        }
    }

    fn daemon_ended(&mut self, lived_ms: u64) {
        let Some(daemon) = &mut self.daemon else { return };
        daemon.quick_ends = if lived_ms < QUICK_END_MS { daemon.quick_ends + 1 } else { 0 };
        let wait = match daemon.quick_ends {
            0 | 1 => Duration::ZERO,
            more => LONGEST_WAIT.min(Duration::from_millis(100 << (more - 2).min(6))),
        };
        daemon.start_at = Some(Instant::now() + wait);
    }

    pub fn start_daemon_if_due(&mut self) {
        if matches!(self.stage, Stage::Stopping { .. } | Stage::Killing { .. } | Stage::Over) {
            return;
        }
        let Some(daemon) = &mut self.daemon else { return };
        if daemon.start_at.is_none_or(|at| at > Instant::now()) {
            return;
        }
        daemon.start_at = None;
        let spec = daemon.spec.clone();
        match self.spawn(&spec) {
            Ok(_) => self.save(),
            Err(refusal) => {
                remark(format_args!("the daemon does not start: {}", refusal.reason));
                self.daemon_ended(0);
            }
        }
    }
}

/// What a process has started.
fn tree<'a>(living: &'a Living, marker: &'a str) -> Tree<'a> {
    Tree {
        pid: living.process.pid,
        start_ticks: living.process.start_ticks,
        cgroup: living.cgroup.as_deref(),
        marker,
    }
}
