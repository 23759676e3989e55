//! The processes that live: started, signalled, reaped, cleaned up after, recorded.

mod living;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use mfserv_core::wire::keeper::{Exit, Process, ProcessSpec, Scope};
use mfserv_platform::clock::now_ms;
use mfserv_platform::memory;
use rustix::io::Errno;
use rustix::process::{Rlimit, Signal, WaitOptions, wait};

use crate::containment::{self, Cgroups};
use crate::log::log;
use crate::memory::{Prepared, remove_leaf};
use crate::refusal::Refusal;
use crate::saved::SavedProcess;
use crate::spawn::{self, Inherited};
use crate::{exit_status, procfs};

use living::Living;

/// All processes whose exit is not recorded yet, by name.
pub(crate) struct Processes {
    living: BTreeMap<String, Living>,
    /// What names this home in the markers.
    hash: String,
    cgroups: Cgroups,
    /// The inherited RLIMIT_NOFILE. Children get it, and not the raised one of the keeper.
    open_files: Rlimit,
    adopted: u32,
}

/// The record of a process that has ended.
pub(crate) struct Finished {
    pub exit: Exit,
    pub lived_ms: u64,
}

impl Processes {
    /// None yet.
    pub fn new(hash: String, cgroups: Cgroups, open_files: Rlimit) -> Self {
        Self { living: BTreeMap::new(), hash, cgroups, open_files, adopted: 0 }
    }

    /// Starts a process with these listening sockets, standard output and standard error.
    pub fn start(
        &mut self,
        spec: &ProcessSpec,
        listeners: Vec<(&str, BorrowedFd<'_>)>,
        (stdout, stderr): (OwnedFd, OwnedFd),
    ) -> Result<Process, Refusal> {
        let leaf = self.cgroups.leaf(&spec.id);
        let leaf_path = leaf.as_ref().map(|(path, _)| path.as_path());
        let memory = self.cgroups.memory.limit(&spec.id, spec.rlimits.memory, leaf_path);
        let inherited = Inherited {
            marker: format!("{}:{}", self.hash, spec.id),
            listeners,
            stdout,
            stderr,
            cgroup: leaf.as_ref().map(|(_, procs)| procs),
            memory_cgroup: memory.as_ref().and_then(|memory| memory.procs.as_ref()),
            open_files: self.open_files,
        };
        let started = spawn::start(spec, inherited);
        let cgroup = leaf.map(|(path, _)| path);
        let in_cgroup = started.as_ref().is_ok_and(|started| started.in_cgroup);
        if let Some(unused) = cgroup.as_deref().filter(|_| !in_cgroup) {
            containment::remove_leaf(unused);
        }
        let started = match started {
            Ok(started) => started,
            Err(refusal) => {
                memory.into_iter().for_each(Prepared::discard);
                return Err(refusal);
            }
        };
        let process = Process {
            id: spec.id.clone(),
            pid: started.pid,
            // Not reaped yet, so it is there even if it has already ended.
            start_ticks: procfs::start_ticks(started.pid).unwrap_or(0),
            started_ms: now_ms(),
            adopted: false,
            memory: memory.map(|memory| memory.started(in_cgroup, started.in_memory_cgroup)),
            containment: if in_cgroup { "cgroup" } else { "session" }.to_owned(),
            note: spec.note.clone(),
        };
        let living = Living::child(process.clone(), cgroup.filter(|_| in_cgroup));
        self.living.insert(spec.id.clone(), living);
        Ok(process)
    }

    /// Takes over what a keeper that has died had started.
    pub fn adopt(&mut self, saved: Vec<SavedProcess>) {
        for living in saved.into_iter().map(Living::adopt) {
            self.adopted += u32::from(living.runs());
            self.living.insert(living.process.id.clone(), living);
        }
    }

    /// Takes over what an earlier image of this keeper had started.
    pub fn resume(&mut self, saved: Vec<SavedProcess>) {
        for living in saved.into_iter().map(Living::found_again) {
            self.living.insert(living.process.id.clone(), living);
        }
    }

    /// Kills what was started but not yet saved when an earlier keeper died: no client was
    /// told of it.
    pub fn kill_unknown(&self) {
        for stat in containment::whole_node(&self.hash) {
            let marker = procfs::variable(stat.pid, containment::MARKER).unwrap_or_default();
            let id = marker.split_once(':').map_or("", |(_, id)| id);
            let marked = marker.starts_with(&self.hash);
            if marked && !self.has(id) && procfs::signal(&stat, Signal::KILL) {
                log(format_args!("process {} ({id}) is unknown and was killed", stat.pid));
            }
        }
        self.cgroups.remove_unknown(|id| self.has(id));
    }

    /// Returns true if the exit of this process is not recorded yet.
    pub fn has(&self, id: &str) -> bool {
        self.living.contains_key(id)
    }

    /// Returns true if every exit is recorded.
    pub fn is_empty(&self) -> bool {
        self.living.is_empty()
    }

    /// How many were adopted when the keeper started.
    pub fn adopted(&self) -> u32 {
        self.adopted
    }

    /// The soft RLIMIT_NOFILE of children.
    pub fn open_files(&self) -> Option<u64> {
        self.open_files.current
    }

    /// All of them.
    pub fn list(&self) -> Vec<Process> {
        self.living.values().map(|living| living.process.clone()).collect()
    }

    /// What a new keeper must know of them.
    pub fn to_save(&self) -> Vec<SavedProcess> {
        self.living.values().map(Living::to_save).collect()
    }

    /// The number of this process, if it runs.
    pub fn pid(&self, id: &str) -> Option<u32> {
        let living = self.living.get(id).filter(|living| living.runs());
        living.map(|living| living.process.pid)
    }

    /// Returns true if a signal (SIGSTOP) has stopped this process.
    pub fn is_stopped(&self, id: &str) -> bool {
        let stat = self.living.get(id).map(|living| procfs::stat(living.process.pid));
        stat.is_some_and(|stat| stat.is_ok_and(|stat| stat.state == b'T'))
    }

    /// Sends a signal to a process, or to everything that it has started.
    pub fn signal(&self, id: &str, number: i32, scope: Scope) -> Result<(), Refusal> {
        let gone = || Refusal::errno(format_args!("{id} does not live"), Errno::SRCH);
        let wrong = || Refusal::errno(format_args!("{number} is no signal"), Errno::INVAL);
        let signal = signal_of(number).ok_or_else(wrong)?;
        let living = self.living.get(id).filter(|living| living.runs()).ok_or_else(gone)?;
        match scope {
            Scope::Process => living
                .signal(signal)
                .map_err(|e| Refusal::errno(format_args!("{id} cannot be signalled"), e)),
            Scope::Tree => match living.signal_tree(&self.hash, signal) {
                0 => Err(gone()),
                _ => Ok(()),
            },
        }
    }

    /// Sends each process, with all that it has started, the signal chosen by its name.
    pub fn signal_all(&self, choose: impl Fn(&str) -> Signal) {
        for living in self.living.values().filter(|living| living.runs()) {
            living.signal_tree(&self.hash, choose(&living.process.id));
        }
    }

    /// Sends SIGKILL to everything of this node; returns how many processes were found.
    pub fn kill_node(&self) -> usize {
        self.signal_all(|_| Signal::KILL);
        let left = containment::whole_node(&self.hash);
        for stat in &left {
            procfs::signal(stat, Signal::KILL);
        }
        left.len()
    }

    /// Takes note of every child that has ended, and of the orphans that the kernel gave to
    /// this subreaper; returns true if a process has ended.
    pub fn reap(&mut self) -> bool {
        let mut changed = false;
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_pid() as u32;
            if let Some(child) = self.living.values_mut().find(|living| living.is_child(pid)) {
                child.ended(exit_status::of_child(status), now_ms());
                changed = true;
            }
        }
        changed
    }

    /// Takes note of the adopted processes that have ended; returns true if one has.
    pub fn watch_adopted(&mut self) -> bool {
        let ended = self.living.values_mut().map(Living::watch_adopted);
        ended.fold(false, |any, ended| any | ended)
    }

    /// Kills what ended processes have left behind; returns those of which nothing is left
    /// and whose output can be read to the end.
    pub fn kill_left_behind(&mut self) -> Vec<String> {
        let Self { living, hash, .. } = self;
        let clean =
            living.iter_mut().filter_map(|(id, it)| it.kill_left_behind(hash).then_some(id));
        clean.cloned().collect()
    }

    /// The threads that read output have died: the output of ended processes is to be read
    /// to the end again.
    pub fn read_again(&mut self) {
        self.living.values_mut().for_each(Living::read_again);
    }

    /// The output of a process was read to the end: it is removed and its record returned.
    pub fn finish(&mut self, id: &str, last_output: String) -> Option<Finished> {
        let (process, cgroup, end) = self.living.remove(id)?.into_parts()?;
        let out_of_memory = process.memory.as_ref().and_then(memory::out_of_memory);
        process.memory.iter().for_each(remove_leaf);
        if let Some(cgroup) = cgroup {
            containment::remove_leaf(&cgroup);
        }
        let lived_ms = end.at_ms.saturating_sub(process.started_ms);
        let exit = Exit {
            id: process.id,
            pid: process.pid,
            ended: end.ended,
            out_of_memory,
            at_ms: end.at_ms,
            last_output,
            left_behind: end.killed.len() as u32,
            note: process.note,
        };
        Some(Finished { exit, lived_ms })
    }

    /// Readable when an adopted process ends.
    pub fn pidfds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.living.values().filter_map(Living::pidfd_to_watch)
    }

    /// When one of them is to be looked at again.
    pub fn next_moment(&self) -> Option<Instant> {
        self.living.values().filter_map(Living::next_moment).min()
    }

    /// Nothing lives: the cgroups of the node are removed.
    pub fn remove_cgroups(&self) {
        self.cgroups.remove_all();
    }
}
/// A signal by its number: one with a name, or a real-time signal.
fn signal_of(number: i32) -> Option<Signal> {
    // The C library keeps some below these for itself (signal(7)).
    const REAL_TIME: RangeInclusive<i32> = 35..=64;
    let of_app = REAL_TIME.contains(&number);
    // SAFETY: the number is that of a signal, and none of those that are reserved.
    let real_time = || unsafe { Signal::from_raw_unchecked(number) };
    Signal::from_named_raw(number).or_else(|| of_app.then(real_time))
}
