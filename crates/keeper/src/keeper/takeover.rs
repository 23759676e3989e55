//! Going on with what an earlier keeper has left: adoption after it has died, and
//! replacement of the program by execve(2).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::Keeper;
use crate::copying::Paused;
use crate::log::log;
use crate::refusal::Refusal;
use crate::saved::{Handover, Saved, SavedListener, VERSION};
use crate::{RESUME_VARIABLE, descriptors};

/// Exit records in the state file: the newest. A handover has them all.
const EXITS_SAVED: usize = 200;

impl Keeper {
    /// What a new keeper must know.
    pub(super) fn to_save(&self) -> Saved {
        let listeners = self.listeners.iter().map(|(name, address, _)| SavedListener {
            name: name.to_owned(),
            address: address.to_owned(),
        });
        Saved {
            version: VERSION,
            boot_id: self.boot_id.clone(),
            next_key: self.outputs.next_key(),
            processes: self.processes.to_save(),
            streams: self.outputs.to_save(),
            listeners: listeners.collect(),
            exits: self.exits.newest(EXITS_SAVED),
            handover: None,
        }
    }

    /// After the death of an earlier keeper: what lives is adopted, what has died is
    /// recorded, what no client was told of is killed.
    pub(super) fn adopt(&mut self, saved: Saved) {
        if saved.version > VERSION {
            let version = saved.version;
            log(format_args!("the state is of version {version}, newer than this keeper"));
        }
        if saved.boot_id == self.boot_id {
            self.exits = saved.exits.into();
            self.processes.adopt(saved.processes);
            let (outputs, processes) = (&mut self.outputs, &self.processes);
            saved.streams.into_iter().for_each(|one| outputs.reopen(one.into(), processes));
        }
        self.processes.kill_unknown();
        self.outputs.remove_unknown_fifos();
    }

    /// As the next program of the same process: everything is as it was.
    pub(super) fn resume(
        &mut self,
        saved: Saved,
        handover: Handover,
        kept: Vec<(u64, io::Result<OwnedFd>)>,
    ) {
        self.exits = saved.exits.into();
        self.processes.resume(saved.processes);
        for (name, number) in handover.listeners {
            let address =
                saved.listeners.iter().find(|l| l.name == name).map(|l| l.address.clone());
            match (address, descriptors::inherited(number)) {
                (Some(address), Ok(socket)) => self.listeners.restore(name, address, socket),
                _ => log(format_args!("the socket {name} was not inherited")),
            }
        }
        self.outputs.remember(&handover.last_outputs);
        let mut kept: std::collections::BTreeMap<_, _> = kept.into_iter().collect();
        for stream in saved.streams {
            match kept.remove(&stream.key) {
                Some(Ok(fifo)) => self.outputs.copy_from(stream.into(), fifo),
                _ => self.outputs.reopen(stream.into(), &self.processes),
            }
        }
        if let Some((number, seq, watches)) = handover.asker {
            if let Ok(socket) = descriptors::inherited(number) {
                self.clients.resume(socket.into(), seq, watches);
            }
        }
    }

    /// Becomes another program. Returns only if that is not possible, and then everything
    /// goes on as before.
    pub(super) fn upgrade(&mut self, client: u64, seq: u64, program: &Path) -> Refusal {
        let runs = fs::metadata(program)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        if !program.is_absolute() || !runs {
            let reason = format!("{} is no absolute path of a program", program.display());
            return Refusal::because(reason);
        }
        self.clients.flush();
        let paused = match self.outputs.pause() {
            Ok(paused) => paused,
            Err(refusal) => return refusal,
        };
        paused.messages().into_iter().for_each(|message| self.obey_copier(message));
        let refusal = self.become_program(client, seq, program, &paused);
        self.outputs.resume(paused);
        self.state.changed();
        refusal
    }

    fn become_program(&self, client: u64, seq: u64, program: &Path, paused: &Paused) -> Refusal {
        let asker = self.clients.iter().find(|c| c.id() == client);
        let mut survivors = vec![self.lock.as_fd(), self.clients.listener().as_fd()];
        survivors.extend(paused.streams().map(|(_, fifo)| fifo));
        survivors.extend(self.listeners.iter().map(|(_, _, socket)| socket));
        survivors.extend(asker.map(|c| c.socket().as_fd()));
        let streams = paused.streams().map(|(stream, fifo)| (stream.key, fifo.as_raw_fd()));
        let listeners = self.listeners.iter();
        let listeners = listeners.map(|(name, _, socket)| (name.to_owned(), socket.as_raw_fd()));
        let handover = Handover {
            lock: self.lock.as_raw_fd(),
            listener: self.clients.listener().as_raw_fd(),
            streams: streams.collect(),
            listeners: listeners.collect(),
            last_outputs: paused.last_outputs().map(|(id, text)| (id.to_owned(), text)).collect(),
            asker: asker.map(|c| (c.socket().as_raw_fd(), seq, c.watches())),
            open_files: self.processes.open_files(),
            ignored_hangup: self.signals.ignored_hangup,
        };
        let saved = Saved { handover: Some(handover), exits: self.exits.all(), ..self.to_save() };
        if let Err(e) = saved.write(self.state.path()) {
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
