//! What clients ask, and what is answered.

use std::time::Instant;

use mfserv_core::wire::VERSION;
use mfserv_core::wire::keeper::{Answer, Ask, FromKeeper, Notice, ProcessSpec};

use super::Keeper;
use crate::DAEMON;
use crate::connection::{Asked, Connection};
use crate::refusal::Refusal;

/// The longest note of a process, bytes: an answer with all of them is one frame.
const LONGEST_NOTE: usize = 4 * 1024;

impl Keeper {
    pub(super) fn serve_clients(&mut self, readable: &[u64]) {
        for &id in readable {
            for one in self.clients.receive(id) {
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
        match answer {
            Ok(None) => {}
            Ok(Some(answer)) => self.clients.answer(client, seq, answer),
            Err(refusal) => self.clients.answer(client, seq, refusal.into()),
        }
    }

    /// Does what is asked. `None`: the answer follows later.
    fn answer(&mut self, client: u64, seq: u64, ask: Ask) -> Result<Option<Answer>, Refusal> {
        let changed = match ask {
            Ask::Hello { .. } => return Ok(Some(self.hello())),
            Ask::Watch => return Ok(Some(self.watch(client))),
            Ask::List => return Ok(Some(self.list())),
            Ask::Spawn { spec } => return self.spawn_asked(&spec).map(Some),
            Ask::Signal { id, signal, scope } => {
                self.processes.signal(&id, signal, scope)?;
                false
            }
            Ask::Forget { id } => {
                self.exits.forget(&id);
                true
            }
            Ask::Listen { name, address, backlog } => {
                self.listeners.listen(&name, &address, backlog)?
            }
            Ask::Unlisten { name } => self.listeners.close(&name),
            Ask::Offer { name, address } => {
                let offered = self.clients.get(client).and_then(Connection::take_descriptor);
                let offered = offered.ok_or_else(|| Refusal::because("no descriptor was attached"));
                self.listeners.offer(&name, &address, offered?)?
            }
            Ask::Upgrade { program } => return Err(self.upgrade(client, seq, &program)),
            Ask::Shutdown => {
                let step = self.ending.shut_down(Instant::now(), (client, seq));
                self.carry_out(step);
                return Ok(None);
            }
        };
        if changed {
            self.state.changed();
        }
        Ok(Some(Answer::Done))
    }

    fn hello(&self) -> Answer {
        Answer::Hello {
            version: VERSION,
            pid: std::process::id(),
            adopted: self.processes.adopted(),
            listeners: self.listeners.names().cloned().collect(),
            program: env!("CARGO_PKG_VERSION").into(),
        }
    }

    fn watch(&mut self, client: u64) -> Answer {
        let ending = self.ending.grace_left_ms(Instant::now());
        if let Some(client) = self.clients.get(client) {
            client.watch();
            if let Some(grace_ms) = ending {
                client.send(&FromKeeper::Notice(Notice::Ending { grace_ms }));
            }
        }
        self.list()
    }

    fn list(&self) -> Answer {
        Answer::Processes { alive: self.processes.list(), exits: self.exits.all() }
    }

    fn spawn_asked(&mut self, spec: &ProcessSpec) -> Result<Answer, Refusal> {
        if !self.ending.permits_starts() {
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
}
