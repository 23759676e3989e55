//! The world, played: fronts, tokio's clock, a disk in memory, and a keeper that starts nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use mfserv_core::Diagnostic;
use mfserv_core::job::JobIdentity;
use mfserv_core::memory::MemoryControl;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::node_state::NodeState;
use mfserv_core::route::RouteTable;
use mfserv_core::wire::front::{Breakage, Peer, Stats};
use mfserv_core::wire::keeper::{
    Answer, Ask, Ended, Exit, FromKeeper, Notice, Process, ProcessSpec, Request, Response,
};
use mfserv_platform::clock::Clock;
use mfserv_platform::disk::Disk;
use mfserv_platform::link::AsyncLink;
use mfserv_supervisor::Handle;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::front_process::FrontProcess;
use crate::control::Pending;
use crate::daemon::world::Front;

/// What the keeper knows and has been asked.
#[derive(Default)]
pub struct Books {
    pub alive: BTreeMap<String, Process>,
    /// Started processes, the first one first.
    pub spawned: Vec<String>,
    /// Listening sockets: address by name.
    pub listening: BTreeMap<String, String>,
    /// `listen NAME`, `unlisten NAME`, `end ID`, `shutdown`, in their order.
    pub asked: Vec<String>,
    /// Addresses that another program listens on.
    pub taken: BTreeSet<String>,
    /// Plugins whose programs exit at once.
    pub broken: BTreeSet<String>,
    /// Processes that ignore their stop signal.
    pub stubborn: BTreeSet<String>,
    /// The processes of fronts, by id, if the fronts are not played as a whole.
    pub fronts: BTreeMap<String, FrontProcess>,
    /// Runs of jobs that were started.
    pub runs: Vec<ProcessSpec>,
    /// How the memory of runs is limited.
    pub run_memory: Option<MemoryControl>,
    /// Exits of runs that are not forgotten.
    pub exits: Vec<Exit>,
    /// How the next front behaves.
    pub next_front: Option<FrontProcess>,
    /// The time at which runs of jobs are started, milliseconds since the Unix epoch.
    pub now_ms: u64,
    sockets: BTreeMap<String, JoinHandle<()>>,
    /// Who watches: the newest client.
    client: Option<mpsc::UnboundedSender<FromKeeper>>,
    connections: Vec<JoinHandle<()>>,
}

/// A keeper.
#[derive(Clone, Default)]
pub struct PlayedKeeper(Arc<Mutex<Books>>);

impl PlayedKeeper {
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap()
    }

    /// Listens on this path. The task ends the link when it is aborted.
    pub fn listen(&self, path: &Path) -> JoinHandle<()> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let keeper = self.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Bounded by the exits that a test plays.
                let (client, notices) = mpsc::unbounded_channel();
                let speaker = keeper.clone();
                let speaking = async move { speaker.speak(AsyncLink::new(stream), notices).await };
                let mut books = keeper.books();
                books.client = Some(client);
                books.connections.push(tokio::spawn(speaking));
            }
        })
    }

    /// Every client loses its connection.
    pub fn hang_up(&self) {
        let mut books = self.books();
        books.client = None;
        books.connections.drain(..).for_each(|connection| connection.abort());
    }

    async fn speak(&self, mut link: AsyncLink, mut notices: mpsc::UnboundedReceiver<FromKeeper>) {
        loop {
            tokio::select! {
                biased;
                Some(message) = notices.recv() => {
                    let _ = link.send(&message).await;
                }
                request = link.receive::<Request>() => {
                    let Ok(Request { seq, ask }) = request else { return };
                    let answer = self.books().answer(ask);
                    let _ = link.send(&FromKeeper::Response(Response { seq, answer })).await;
                }
            }
        }
    }
}

impl Books {
    fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Hello { version, .. } => {
                let listeners = self.listening.keys().cloned().collect();
                Answer::Hello { version, pid: 1, adopted: 0, listeners, program: String::new() }
            }
            Ask::Watch | Ask::List => {
                let alive = self.alive.values().cloned().collect();
                Answer::Processes { alive, exits: self.exits.clone() }
            }
            Ask::Spawn { spec } if spec.once => self.start_once(*spec),
            Ask::Spawn { spec } => Answer::Spawned(self.start(&spec)),
            Ask::Signal { id, signal, .. } => {
                self.asked.push(format!("end {id}"));
                if self.alive.contains_key(&id) && (signal == 9 || !self.stubborn.contains(&id)) {
                    let of_run = Ended::Signalled { signal };
                    let is_run = JobIdentity::of_process(&id).is_some();
                    self.ends(&id, if is_run { of_run } else { Ended::Exited { code: 0 } });
                }
                Answer::Done
            }
            Ask::Listen { name, address, .. } => {
                self.asked.push(format!("listen {name}"));
                if self.taken.contains(&address) {
                    return Answer::Refused { reason: "Address already in use".into(), errno: 98 };
                }
                self.listening.insert(name, address);
                Answer::Done
            }
            Ask::Unlisten { name } => {
                self.asked.push(format!("unlisten {name}"));
                self.listening.remove(&name);
                Answer::Done
            }
            Ask::Shutdown => {
                self.asked.push("shutdown".into());
                Answer::Done
            }
            Ask::Forget { id } => {
                self.exits.retain(|exit| exit.id != id);
                Answer::Done
            }
            other => panic!("the daemon has no reason to ask {other:?}"),
        }
    }

    /// "Starts" the run of a job, once.
    fn start_once(&mut self, spec: ProcessSpec) -> Answer {
        let is_known = self.exits.iter().any(|exit| exit.id == spec.id);
        if is_known || self.alive.contains_key(&spec.id) {
            let reason = format!("{} was started already", spec.id);
            return Answer::Refused { reason, errno: 0 };
        }
        let process = Process {
            id: spec.id.clone(),
            pid: 1_000_000_000 + self.runs.len() as u32,
            start_ticks: 1,
            started_ms: self.now_ms,
            adopted: false,
            containment: "session".into(),
            memory: self.run_memory.clone(),
            note: String::new(),
        };
        self.alive.insert(spec.id.clone(), process.clone());
        self.runs.push(spec);
        Answer::Spawned(process)
    }

    /// "Starts" a process: a worker answers each connection to its socket, as HTTP.
    pub fn start(&mut self, spec: &ProcessSpec) -> Process {
        let process = Process {
            id: spec.id.clone(),
            // No process has such a number: nothing is measured, nobody is signalled.
            pid: 1_000_000_000 + self.spawned.len() as u32,
            start_ticks: 1,
            started_ms: 1,
            adopted: false,
            containment: "session".into(),
            memory: None,
            note: spec.note.clone(),
        };
        self.spawned.push(spec.id.clone());
        self.alive.insert(spec.id.clone(), process.clone());
        let worker: WorkerId = spec.id.parse().unwrap();
        let plugin = worker.watcher.plugin().unwrap_or_default();
        if worker.watcher == WatcherName::front() {
            let control = spec.argv.iter().skip_while(|arg| *arg != "--control").nth(1).unwrap();
            let process = self.next_front.take().unwrap_or_default();
            self.sockets.insert(spec.id.clone(), process.listen(Path::new(control)));
            self.fronts.insert(spec.id.clone(), process);
        } else if worker.watcher == WatcherName::telemetry() {
            let run_dir = Path::new(&spec.env["MFMODULE_RUNTIME_HOME"]).join("var/run");
            let socket = mfserv_core::telemetry::ask_socket(&run_dir);
            let _ = std::fs::remove_file(&socket);
            let listener = UnixListener::bind(&socket).unwrap();
            self.sockets.insert(spec.id.clone(), tokio::spawn(answer_http(listener)));
        } else if self.broken.contains(plugin) {
            self.ends(&spec.id, Ended::Exited { code: 1 });
        } else if let Some(socket) = spec.argv.get(1).filter(|arg| arg.ends_with(".socket")) {
            let _ = std::fs::remove_file(socket);
            let listener = UnixListener::bind(socket).unwrap();
            self.sockets.insert(spec.id.clone(), tokio::spawn(answer_http(listener)));
        }
        process
    }

    /// A process ends.
    pub fn ends(&mut self, id: &str, ended: Ended) {
        let process = self.alive.remove(id).unwrap_or_else(|| panic!("{id} does not live"));
        if let Some(task) = self.sockets.remove(id) {
            task.abort();
        }
        let exit = Exit {
            id: id.into(),
            pid: process.pid,
            ended,
            out_of_memory: None,
            at_ms: 1,
            last_output: "the last line".into(),
            left_behind: 0,
            note: process.note,
        };
        if JobIdentity::of_process(id).is_some() {
            self.exits.push(exit.clone());
        }
        if let Some(client) = &self.client {
            let _ = client.send(FromKeeper::Notice(Notice::Exited(exit)));
        }
    }

    /// The living workers of a watcher.
    pub fn workers(&self, watcher: &str) -> Vec<String> {
        let of =
            |id: &&String| id.parse::<WorkerId>().is_ok_and(|id| id.watcher.as_str() == watcher);
        self.alive.keys().filter(of).cloned().collect()
    }
}

async fn answer_http(listener: UnixListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer_one(stream));
    }
}

async fn answer_one(mut stream: UnixStream) {
    let mut head = [0; 4096];
    if stream.read(&mut head).await.is_ok_and(|n| n > 0) {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    }
}

/// The fronts. They are ready as soon as they were started, unless they are broken.
#[derive(Default)]
pub struct PlayedFronts(Mutex<Fronts>);

#[derive(Default)]
pub struct Fronts {
    /// What was published: generations, and the last table.
    pub published: Vec<u64>,
    pub table: Option<RouteTable>,
    pub under_way: Vec<u64>, // what the next questions are answered, the last one first
    pub states: Vec<NodeState>,
    pub broken: BTreeMap<String, Breakage>,
    pub serving: BTreeSet<String>,
    /// Why they refuse the next table.
    pub refuse: Option<String>,
    /// They never become ready.
    pub stuck: bool,
    pub supervisor: Option<Handle>,
}

impl PlayedFronts {
    pub fn seen(&self) -> MutexGuard<'_, Fronts> {
        self.0.lock().unwrap()
    }

    pub fn started(&self, worker: &WorkerId) {
        let fronts = self.seen();
        if worker.watcher == WatcherName::front() && !fronts.stuck {
            fronts.supervisor.iter().for_each(|supervisor| supervisor.ready(worker.clone()));
        }
    }
}

impl Front for PlayedFronts {
    fn publish(&self, generation: u64, table: RouteTable) -> Pending<'_, Result<(), Diagnostic>> {
        let mut fronts = self.seen();
        let outcome = match fronts.refuse.take() {
            Some(reason) => Err(Diagnostic::error(reason)),
            None => {
                fronts.published.push(generation);
                fronts.table = Some(table);
                Ok(())
            }
        };
        Box::pin(async { outcome })
    }

    fn stats(&self) -> Pending<'_, Stats> {
        let under_way = self.seen().under_way.pop().unwrap_or_default();
        Box::pin(async move { Stats { under_way, ..Stats::default() } })
    }

    fn state(&self, state: NodeState) {
        self.seen().states.push(state);
    }

    fn broken(&self, broken: BTreeMap<String, Breakage>) {
        self.seen().broken = broken;
    }

    fn admit(&self, _: &str, peer: Peer) {
        self.seen().serving.insert(peer.worker.to_string());
    }

    fn drain(&self, _: &str, worker: &WorkerId) {
        let mut fronts = self.seen();
        fronts.serving.remove(&worker.to_string());
        // It held no request.
        fronts.supervisor.iter().for_each(|supervisor| supervisor.drained(worker.clone()));
    }

    fn forget(&self, _: &str, worker: &WorkerId) {
        self.seen().serving.remove(&worker.to_string());
    }

    // These fronts say nothing of idle workers.
    fn ask_idle(&self, _: BTreeMap<String, Vec<WorkerId>>) {}
}

/// A clock that goes with tokio's, which a test pauses.
pub struct PlayedClock(pub Instant);

/// When a played node begins, milliseconds since the Unix epoch.
pub const BEGINNING_MS: u64 = 1_700_000_000_000;

impl Clock for PlayedClock {
    fn now_ms(&self) -> u64 {
        BEGINNING_MS + self.0.elapsed().as_millis() as u64
    }
}

/// A disk in memory, which may be full.
#[derive(Default)]
pub struct PlayedDisk(Mutex<Files>);

#[derive(Default)]
pub struct Files {
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// The mode that a file was written with.
    pub modes: BTreeMap<PathBuf, u32>,
    pub full: bool,
    pub writes: u32,
}

impl PlayedDisk {
    pub fn held(&self) -> MutexGuard<'_, Files> {
        self.0.lock().unwrap()
    }
}

impl Disk for PlayedDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let file = self.held().files.get(path).cloned();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn replace(&self, path: &Path, mode: u32, text: &[u8]) -> io::Result<()> {
        let mut held = self.held();
        if held.full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        held.writes += 1;
        held.files.insert(path.into(), text.into());
        held.modes.insert(path.into(), mode);
        Ok(())
    }

    fn write(&self, path: &Path, text: &[u8]) -> Result<(), Diagnostic> {
        self.replace(path, 0o600, text).map_err(|e| Diagnostic::error("can't write").because(e))
    }
}
