//! Going on with what an earlier keeper has left: adoption after it has died, and
//! replacement of the program by execve(2).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use mfserv_core::wire::keeper::{Answer, Ended, Process};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use crate::connection::Connection;
use crate::copying::{Copier, NotPaused, Paused, Stream};
use crate::ends::{End, Living};
use mfserv_platform::clock::now_ms;

use crate::keeper::{Keeper, remark};
use crate::listening::Listener;
use crate::refusal::Refusal;
use crate::saved::{Handover, Saved, SavedListener, SavedProcess, SavedStream, VERSION};
use crate::{RESUME_VARIABLE, containment, descriptors, procfs, spawn};

/// Exit records in the state file: the newest. A handover has them all.
const EXITS_SAVED: usize = 200;

impl Keeper {
    /// What a new keeper must know.
    pub fn to_save(&self) -> Saved {
        let skipped = self.exits.len().saturating_sub(EXITS_SAVED);
        let ended = |living: &Living| living.end.as_ref().map(|e| (e.ended.clone(), e.at_ms));
        Saved {
            version: VERSION,
            boot_id: self.boot_id.clone(),
            next_key: self.next_key,
            processes: self
                .processes
                .values()
                .map(|living| SavedProcess {
                    process: living.process.clone(),
                    cgroup: living.cgroup.clone(),
                    ended: ended(living),
                })
                .collect(),
            streams: self.streams.values().map(SavedStream::from).collect(),
            listeners: self
                .listeners
                .iter()
                .map(|(name, it)| SavedListener { name: name.clone(), address: it.address.clone() })
                .collect(),
            exits: self.exits.iter().skip(skipped).cloned().collect(),
            handover: None,
        }
    }

    /// After the death of an earlier keeper: what lives is adopted, what has died is
    /// recorded, what nobody knows any more is killed.
    pub fn adopt(&mut self, saved: Saved) {
        if saved.version > VERSION {
            remark(format_args!(
                "the state is of version {}, newer than this keeper",
                saved.version
            ));
        }
        if saved.boot_id == self.boot_id {
            self.exits = saved.exits.into();
            for saved in saved.processes {
                self.adopt_process(saved);
            }
            for stream in saved.streams {
                self.reopen(stream.into());
            }
        }
        self.remove_unknown();
    }

    fn adopt_process(&mut self, saved: SavedProcess) {
        let process = Process { adopted: true, ..saved.process };
        let pidfd = open_same(&process);
        let end = match (&pidfd, saved.ended) {
            (_, Some((ended, at_ms))) => Some(End::new(ended, at_ms)),
            (None, None) => Some(End::new(Ended::Unknown, now_ms())),
            (Some(_), None) => {
                self.adopted += 1;
                None
            }
        };
        let living = Living { cgroup: saved.cgroup, pidfd, status_awaited: None, end, process };
        self.processes.insert(living.process.id.clone(), living);
    }

    fn reopen(&mut self, stream: Stream) {
        match spawn::open_fifo(&stream.fifo) {
            Ok(fifo) => self.copy_from(stream, fifo),
            Err(e) => remark(format_args!("{} cannot be read: {e}", stream.fifo.display())),
        }
    }

    /// A thread that copies has panicked: both begin anew, from the FIFOs.
    pub fn restart_copying(&mut self) {
        remark(format_args!("a thread that copies output has failed; output may be lost"));
        match Copier::start(true) {
            Ok(copier) => self.copier = Some(copier),
            Err(e) => cannot_copy(&e),
        }
        for stream in std::mem::take(&mut self.streams).into_values() {
            self.reopen(stream);
        }
        self.read_ends_again();
    }

    /// A process that was started but not yet saved was never answered for: nobody knows
    /// it. The same for FIFOs.
    fn remove_unknown(&mut self) {
        for stat in containment::whole_node(&self.hash) {
            let marker = procfs::variable(stat.pid, containment::MARKER).unwrap_or_default();
            let id = marker.split_once(':').map_or("", |(_, id)| id);
            let marked = marker.starts_with(&self.hash);
            if marked && !self.processes.contains_key(id) && procfs::signal(&stat, Signal::KILL) {
                remark(format_args!("process {} ({id}) is nobody's and was killed", stat.pid));
            }
        }
        let known: Vec<_> = self.streams.values().map(|stream| stream.fifo.clone()).collect();
        for entry in fs::read_dir(&self.paths.fifos).into_iter().flatten().flatten() {
            if !known.contains(&entry.path()) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    /// As the next program of the same process: everything is as it was.
    pub fn resume(
        &mut self,
        saved: Saved,
        handover: Handover,
        kept: Vec<(u64, io::Result<OwnedFd>)>,
    ) {
        self.exits = saved.exits.into();
        for SavedProcess { process, cgroup, ended } in saved.processes {
            let end = ended.map(|(ended, at_ms)| End::new(ended, at_ms));
            let pidfd = if process.adopted { open_same(&process) } else { None };
            let lost = process.adopted && pidfd.is_none() && end.is_none();
            let end = if lost { Some(End::new(Ended::Unknown, now_ms())) } else { end };
            let living = Living { cgroup, pidfd, status_awaited: None, end, process };
            self.processes.insert(living.process.id.clone(), living);
        }
        for (name, number) in handover.listeners {
            let address =
                saved.listeners.iter().find(|l| l.name == name).map(|l| l.address.clone());
            match (address, descriptors::inherited(number)) {
                (Some(address), Ok(socket)) => {
                    self.listeners.insert(name, Listener { address, socket });
                }
                _ => remark(format_args!("the socket {name} was not inherited")),
            }
        }
        self.remember(&handover.last_outputs);
        let mut kept: std::collections::BTreeMap<_, _> = kept.into_iter().collect();
        for stream in saved.streams {
            match kept.remove(&stream.key) {
                Some(Ok(fifo)) => self.copy_from(stream.into(), fifo),
                _ => self.reopen(stream.into()),
            }
        }
        if let Some((number, seq, watches)) = handover.asker {
            let socket = descriptors::inherited(number).map(Into::into);
            if let Ok(mut client) = socket.and_then(|s| Connection::new(self.next_client, s)) {
                self.next_client += 1;
                client.watches = watches;
                client.answer(seq, Answer::Done);
                client.flush();
                self.clients.push(client);
            }
        }
    }

    fn remember(&mut self, last_outputs: &[(String, String)]) {
        let Some(Ok(mut paused)) = self.copier.take().map(Copier::pause) else { return };
        last_outputs.iter().for_each(|(owner, text)| paused.remember(owner, text));
        self.copier = go_on(paused);
    }

    /// Becomes another program. Returns only if that is not possible, and then everything
    /// goes on as before.
    pub fn upgrade(&mut self, client: u64, seq: u64, program: &Path) -> Refusal {
        let runs = fs::metadata(program)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        if !program.is_absolute() || !runs {
            return Refusal::because(format!(
                "{} is no absolute path of a program",
                program.display()
            ));
        }
        self.clients.iter_mut().for_each(Connection::flush);
        let paused = match self.copier.take().map(Copier::pause) {
            Some(Ok(paused)) => paused,
            Some(Err(NotPaused::Late(copier))) => {
                self.copier = Some(copier);
                return Refusal::because("output still waits for the disk: it would be lost");
            }
            Some(Err(NotPaused::Died)) => {
                self.restart_copying();
                return Refusal::because("a thread that copies output has failed; try again");
            }
            None => return Refusal::because("no output is being copied"),
        };
        paused.words().into_iter().for_each(|word| self.hear(word));
        let refusal = self.become_program(client, seq, program, &paused);
        self.copier = go_on(paused);
        self.unsaved = true;
        refusal
    }

    fn become_program(&self, client: u64, seq: u64, program: &Path, paused: &Paused) -> Refusal {
        let asker = self.clients.iter().find(|c| c.id == client);
        let mut survivors = vec![self.lock.as_fd(), self.door.as_fd()];
        survivors.extend(paused.streams().map(|(_, fifo)| fifo));
        survivors.extend(self.listeners.values().map(|it| it.socket.as_fd()));
        survivors.extend(asker.map(|c| c.socket().as_fd()));
        let streams = paused.streams().map(|(stream, fifo)| (stream.key, fifo.as_raw_fd()));
        let listeners = self.listeners.iter().map(|(n, it)| (n.clone(), it.socket.as_raw_fd()));
        let handover = Handover {
            lock: self.lock.as_raw_fd(),
            door: self.door.as_raw_fd(),
            streams: streams.collect(),
            listeners: listeners.collect(),
            last_outputs: paused.last_outputs().map(|(id, text)| (id.to_owned(), text)).collect(),
            asker: asker.map(|c| (c.socket().as_raw_fd(), seq, c.watches)),
            open_files: self.open_files.current,
        };
        let exits = self.exits.iter().cloned().collect();
        let saved = Saved { handover: Some(handover), exits, ..self.to_save() };
        if let Err(e) = saved.write(&self.paths.state) {
            return Refusal::system("the state cannot be written", &e);
        }
        for survivor in &survivors {
            if let Err(e) = descriptors::survive_exec(*survivor, true) {
                return Refusal::system("a descriptor cannot be passed on", &e);
            }
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "an upgrade replaces this process by the new program"
        )]
        let error = Command::new(program)
            .args(std::env::args_os().skip(1))
            .env(RESUME_VARIABLE, std::process::id().to_string())
            .exec();
        for survivor in survivors {
            let _ = descriptors::survive_exec(survivor, false);
        }
        Refusal::system(format_args!("{} cannot be executed", program.display()), &error)
    }
}

fn go_on(paused: Paused) -> Option<Copier> {
    paused.resume().map_err(|e| cannot_copy(&e)).ok()
}

/// A keeper without its copying threads would let the apps stand still: better none, and
/// a new one that adopts.
fn cannot_copy(error: &io::Error) -> ! {
    remark(format_args!("the threads that copy output cannot be started: {error}"));
    std::process::abort()
}

/// A pidfd of exactly this process: opened first, then compared.
fn open_same(process: &Process) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let now = procfs::stat(process.pid).ok()?;
    (now.start_ticks == process.start_ticks && !now.is_zombie()).then_some(pidfd)
}

impl From<&Stream> for SavedStream {
    fn from(it: &Stream) -> Self {
        let Stream { key, owner, fifo, log, rotation } = it.clone();
        Self { key, owner, fifo, log, rotation }
    }
}

impl From<SavedStream> for Stream {
    fn from(it: SavedStream) -> Self {
        let SavedStream { key, owner, fifo, log, rotation } = it;
        Self { key, owner, fifo, log, rotation }
    }
}
