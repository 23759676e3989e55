//! A keeper that starts nothing: it speaks the real protocol over a real socket, and the
//! test decides what its "processes" do.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use mfserv_core::memory::OutOfMemory;
use mfserv_core::wire::frame;
use mfserv_core::wire::keeper::{
    Answer, Ask, Ended, Exit, FromKeeper, Notice, Process, ProcessSpec, Request, Response, Scope,
};
use mfserv_platform::clock::now_ms;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// What the keeper does when it is asked to start a process.
#[derive(Default)]
pub enum Spawning {
    #[default]
    Works,
    /// It refuses, for this reason.
    Refused(String),
    /// It answers later ([`Books::answers_at_last`]).
    Late,
}

/// What the keeper knows and has been asked.
#[derive(Default)]
pub struct Books {
    pub alive: BTreeMap<String, Process>,
    pub exits: Vec<Exit>,
    pub specs: BTreeMap<String, ProcessSpec>,
    /// Signals, oldest first: to whom, which, for whom of its tree.
    pub signals: Vec<(String, i32, Scope)>,
    /// Started processes, oldest first.
    pub spawned: Vec<String>,
    pub spawning: Spawning,
    /// Processes that ignore their stop signal.
    pub stubborn: BTreeSet<String>,
    /// Processes that survive even SIGKILL for now (disk sleep).
    pub unkillable: BTreeSet<String>,
    /// Processes of which the kernel has killed a part: the machine was out of memory.
    pub lost_a_part: BTreeSet<String>,
    late: Vec<(u64, ProcessSpec)>,
    client: Option<mpsc::UnboundedSender<FromKeeper>>,
}

/// A keeper, played.
pub struct PlayedKeeper {
    books: Arc<Mutex<Books>>,
    task: Option<JoinHandle<()>>,
}

impl PlayedKeeper {
    pub fn new() -> Self {
        PlayedKeeper { books: Arc::default(), task: None }
    }

    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap()
    }

    /// Listens on this path.
    pub fn listen(&mut self, path: &Path) {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        self.task = Some(tokio::spawn(serve(listener, self.books.clone())));
    }

    /// Hangs up and does not listen any more; its processes live on.
    pub fn goes_away(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.books().client = None;
    }
}

impl Books {
    /// A process ends.
    pub fn ends(&mut self, id: &str, ended: Ended, last_output: &str) {
        let Some(process) = self.alive.remove(id) else { panic!("{id} does not live") };
        let exit = Exit {
            id: id.into(),
            pid: process.pid,
            ended,
            out_of_memory: self.lost_a_part.contains(id).then_some(OutOfMemory::Machine),
            at_ms: now_ms(),
            last_output: last_output.into(),
            left_behind: 0,
            note: process.note,
        };
        self.exits.push(exit.clone());
        self.notify(Notice::Exited(exit));
    }

    /// Tells the daemon, if it is connected.
    pub fn notify(&mut self, notice: Notice) {
        if let Some(client) = &self.client {
            let _ = client.send(FromKeeper::Notice(notice));
        }
    }

    /// Starts what it was asked to start, and says so.
    pub fn answers_at_last(&mut self) {
        for (seq, spec) in std::mem::take(&mut self.late) {
            let answer = Answer::Spawned(self.start(spec));
            if let Some(client) = &self.client {
                let _ = client.send(FromKeeper::Response(Response { seq, answer }));
            }
        }
    }

    /// What a process that is started from this looks like.
    fn start(&mut self, spec: ProcessSpec) -> Process {
        let process = Process {
            id: spec.id.clone(),
            // No process has such a number: nothing is measured, nobody is signalled.
            pid: 1_000_000_000 + self.spawned.len() as u32,
            start_ticks: 1,
            started_ms: now_ms(),
            adopted: false,
            containment: "session".into(),
            memory: None,
            note: spec.note.clone(),
        };
        self.spawned.push(spec.id.clone());
        self.alive.insert(spec.id.clone(), process.clone());
        self.specs.insert(spec.id.clone(), spec);
        process
    }

    fn answer(&mut self, seq: u64, ask: Ask) -> Option<Answer> {
        Some(match ask {
            Ask::Hello { version, .. } => {
                let (listeners, program) = (Vec::new(), String::new());
                Answer::Hello { version, pid: 1, adopted: 0, listeners, program }
            }
            Ask::Watch => Answer::Processes {
                alive: self.alive.values().cloned().collect(),
                exits: self.exits.clone(),
            },
            Ask::Spawn { spec } => match &self.spawning {
                Spawning::Works => Answer::Spawned(self.start(*spec)),
                Spawning::Refused(reason) => Answer::Refused { reason: reason.clone(), errno: 2 },
                Spawning::Late => {
                    self.late.push((seq, *spec));
                    return None;
                }
            },
            Ask::Signal { id, signal, scope } => {
                self.signals.push((id.clone(), signal, scope));
                let kill = signal == 9;
                let obeys = match kill {
                    true => !self.unkillable.contains(&id),
                    false => !self.stubborn.contains(&id),
                };
                if self.alive.contains_key(&id) && obeys {
                    let ended = match kill {
                        true => Ended::Signalled { signal },
                        false => Ended::Exited { code: 0 },
                    };
                    self.ends(&id, ended, "");
                }
                Answer::Done
            }
            Ask::Forget { id } => {
                self.exits.retain(|exit| exit.id != id);
                Answer::Done
            }
            other => panic!("the supervisor has no reason to ask {other:?}"),
        })
    }
}

async fn serve(listener: UnixListener, books: Arc<Mutex<Books>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (client, notices) = mpsc::unbounded_channel();
        books.lock().unwrap().client = Some(client);
        speak(stream, &books, notices).await;
    }
}

/// Answers one client until it hangs up.
async fn speak(
    mut stream: UnixStream,
    books: &Mutex<Books>,
    mut notices: mpsc::UnboundedReceiver<FromKeeper>,
) {
    let mut incoming = Vec::new();
    loop {
        tokio::select! {
            biased;
            Some(message) = notices.recv() => {
                stream.write_all(&frame::encode(&message).unwrap()).await.unwrap();
            }
            read = stream.read_buf(&mut incoming) => {
                if read.unwrap_or(0) == 0 {
                    return;
                }
                while let Some(Request { seq, ask }) = frame::decode(&mut incoming).unwrap() {
                    let answer = books.lock().unwrap().answer(seq, ask);
                    let Some(answer) = answer else { continue };
                    let response = FromKeeper::Response(Response { seq, answer });
                    let _ = stream.write_all(&frame::encode(&response).unwrap()).await;
                }
            }
        }
    }
}
