//! What clients ask, and what is answered.

use mfserv_core::wire::VERSION;
use mfserv_core::wire::keeper::{Answer, Ask, FromKeeper, Notice, ProcessSpec, Scope};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, pidfd_send_signal};

use crate::DAEMON;
use crate::connection::{Asked, Connection};
use crate::ends::Living;
use crate::keeper::Keeper;
use crate::listening;
use crate::refusal::Refusal;
use crate::stopping::Stage;

/// The longest note of a process, bytes: an answer with all of them is one frame.
const LONGEST_NOTE: usize = 4 * 1024;

impl Keeper {
    pub fn serve_clients(&mut self, readable: &[u64]) {
        for &id in readable {
            let asked = self.client(id).map(Connection::receive).unwrap_or_default();
            for one in asked {
                self.serve_one(id, one);
            }
        }
    }

    fn serve_one(&mut self, client: u64, asked: Asked) {
        let (seq, answer) = match asked {
            Asked::Ask(seq, ask) => (seq, self.answer(client, seq, ask)),
            Asked::Unknown(seq, why) => {
                let reason = format!("this keeper (protocol {VERSION}) does not understand: {why}");
                (seq, Err(Refusal::because(reason)))
            }
        };
        let answer = match answer {
            Ok(None) => return,
            Ok(Some(answer)) => answer,
            Err(refusal) => refusal.into(),
        };
        if let Some(client) = self.client(client) {
            client.answer(seq, answer);
        }
    }

    pub fn client(&mut self, id: u64) -> Option<&mut Connection> {
        self.clients.iter_mut().find(|client| client.id == id)
    }

    /// `None`: the answer follows later.
    fn answer(&mut self, client: u64, seq: u64, ask: Ask) -> Result<Option<Answer>, Refusal> {
        match ask {
            Ask::Hello { .. } => return Ok(Some(self.hello())),
            Ask::Watch => return Ok(Some(self.watch(client))),
            Ask::List => return Ok(Some(self.list())),
            Ask::Spawn { spec } => return self.spawn_asked(&spec).map(Some),
            Ask::Signal { id, signal, scope } => self.signal(&id, signal, scope)?,
            Ask::Forget { id } => {
                self.exits.retain(|exit| exit.id != id);
                self.unsaved = true;
            }
            Ask::Listen { name, address, backlog } => self.listen(&name, &address, backlog)?,
            Ask::Unlisten { name } => self.unlisten(&name),
            Ask::Offer { name, address } => self.take_offer(client, &name, &address)?,
            Ask::Upgrade { program } => return Err(self.upgrade(client, seq, &program)),
            Ask::Shutdown => {
                self.begin_stopping(Some((client, seq)));
                return Ok(None);
            }
        }
        Ok(Some(Answer::Done))
    }

    fn hello(&self) -> Answer {
        Answer::Hello {
            version: VERSION,
            pid: std::process::id(),
            adopted: self.adopted,
            listeners: self.listeners.keys().cloned().collect(),
        }
    }

    fn watch(&mut self, client: u64) -> Answer {
        let list = self.list();
        let ending = self.stage.grace_left_ms();
        if let Some(client) = self.client(client) {
            client.watches = true;
            if let Some(grace_ms) = ending {
                client.send(&FromKeeper::Notice(Notice::Ending { grace_ms }));
            }
        }
        list
    }

    fn list(&self) -> Answer {
        Answer::Processes {
            alive: self.processes.values().map(|living| living.process.clone()).collect(),
            exits: self.exits.iter().cloned().collect(),
        }
    }

    fn spawn_asked(&mut self, spec: &ProcessSpec) -> Result<Answer, Refusal> {
        if !matches!(self.stage, Stage::Serving | Stage::Waiting { .. }) {
            return Err(Refusal::because("the keeper is stopping everything"));
        }
        if spec.id == DAEMON && self.daemon.is_some() {
            return Err(Refusal::because("the daemon is started by the keeper itself"));
        }
        if spec.note.len() > LONGEST_NOTE {
            let reason = format!("the note of {} is over {LONGEST_NOTE} bytes", spec.id);
            return Err(Refusal::because(reason));
        }
        self.spawn(spec).map(Answer::Spawned)
    }

    fn signal(&self, id: &str, number: i32, scope: Scope) -> Result<(), Refusal> {
        let gone = || Refusal::errno(format_args!("{id} does not live"), Errno::SRCH);
        let wrong = || Refusal::errno(format_args!("{number} is no signal"), Errno::INVAL);
        let signal = Signal::from_named_raw(number).ok_or_else(wrong)?;
        let living = self.processes.get(id).filter(|living| living.end.is_none());
        let living = living.ok_or_else(gone)?;
        match scope {
            Scope::Process => signal_process(living, signal)
                .map_err(|e| Refusal::errno(format_args!("{id} cannot be signalled"), e)),
            Scope::Tree => match self.signal_tree(living, signal) {
                0 => Err(gone()),
                _ => Ok(()),
            },
        }
    }

    fn listen(&mut self, name: &str, address: &str, backlog: i32) -> Result<(), Refusal> {
        if self.holds(name, address)? {
            return Ok(());
        }
        let listener = listening::open(address, backlog)?;
        self.listeners.insert(name.to_owned(), listener);
        self.unsaved = true;
        Ok(())
    }

    /// True if it is held already; refuses what cannot be held.
    fn holds(&self, name: &str, address: &str) -> Result<bool, Refusal> {
        if name.is_empty() || name.len() > 200 || name.contains(['=', ',', '\0']) {
            return Err(Refusal::because(format!("{name:?} is no name for a socket")));
        }
        match self.listeners.get(name) {
            Some(held) if held.address == address => Ok(true),
            Some(held) => {
                Err(Refusal::because(format!("{name} listens on {} already", held.address)))
            }
            None if self.listeners.len() >= listening::MOST => {
                Err(Refusal::because(format!("{} sockets are held already", listening::MOST)))
            }
            None => Ok(false),
        }
    }

    fn unlisten(&mut self, name: &str) {
        if let Some(held) = self.listeners.remove(name) {
            drop(held.socket);
            listening::remove_file(&held.address);
            self.unsaved = true;
        }
    }

    fn take_offer(&mut self, client: u64, name: &str, address: &str) -> Result<(), Refusal> {
        let offered = self.client(client).and_then(Connection::take_descriptor);
        let offered = offered.ok_or_else(|| Refusal::because("no descriptor was attached"))?;
        if self.holds(name, address)? {
            return Ok(());
        }
        let listener = listening::accept_offer(address, offered)?;
        self.listeners.insert(name.to_owned(), listener);
        self.unsaved = true;
        Ok(())
    }
}

/// A child keeps its number until we reap it; for any other there is a pidfd.
fn signal_process(living: &Living, signal: Signal) -> rustix::io::Result<()> {
    match &living.pidfd {
        Some(pidfd) => pidfd_send_signal(pidfd, signal),
        None => kill_process(Pid::from_raw(living.process.pid as i32).ok_or(Errno::SRCH)?, signal),
    }
}
