//! The process of a front, played: it speaks the real protocol over a real socket.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use mfserv_core::wire::front::{self, FromFront, Peer, Stats, ToFront};
use mfserv_platform::link::AsyncLink;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// The process of a front: it listens on its control socket and speaks the real protocol.
#[derive(Clone, Default)]
pub struct FrontProcess(Arc<Mutex<FrontState>>);

/// What a front has been sent, and how it behaves.
pub struct FrontState {
    pub received: Vec<ToFront>,
    /// The version of the protocol that it speaks.
    pub version: u32,
    pub generation: u64,
    pub peers: BTreeMap<String, Vec<Peer>>,
    /// How long it says that workers have had nothing in hand, milliseconds.
    pub quiet_ms: u64,
    /// Its counters.
    pub stats: Stats,
    /// It answers neither a greeting nor a new table nor a question.
    pub hangs: bool,
    /// It answers a greeting with something else.
    pub greets_badly: bool,
    /// Why it refuses the next table.
    pub refuse: Option<String>,
    /// Workers whose requests take long: they are not drained before [`FrontProcess::finish`].
    pub busy: BTreeSet<String>,
    /// Bounded by what a test sends.
    reports: Option<mpsc::UnboundedSender<FromFront>>,
    connection: Option<JoinHandle<()>>,
}

impl Default for FrontState {
    fn default() -> Self {
        FrontState {
            received: Vec::new(),
            version: front::VERSION,
            generation: 0,
            peers: BTreeMap::new(),
            quiet_ms: 5000,
            stats: Stats::default(),
            hangs: false,
            greets_badly: false,
            refuse: None,
            busy: BTreeSet::new(),
            reports: None,
            connection: None,
        }
    }
}

impl FrontProcess {
    pub fn state(&self) -> MutexGuard<'_, FrontState> {
        self.0.lock().unwrap()
    }

    /// Listens on this path until the task is aborted.
    pub fn listen(&self, path: &Path) -> JoinHandle<()> {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let process = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let speaker = process.clone();
                let speaking = async move { speaker.speak(AsyncLink::new(stream)).await };
                // The newest daemon takes the place of the one before.
                let before = process.state().connection.replace(tokio::spawn(speaking));
                if let Some(before) = before {
                    before.abort();
                }
            }
        })
    }

    /// It hangs no more, and answers the greeting that it was sent.
    pub fn wakes_up(&self) {
        let mut state = self.state();
        state.hangs = false;
        let greeting = state.greeting();
        state.reports.as_ref().unwrap().send(greeting).unwrap();
    }

    /// The requests of a worker are finished.
    pub fn finish(&self, worker: &str) {
        let mut state = self.state();
        state.busy.remove(worker);
        let report = FromFront::Drained { worker: worker.parse().unwrap() };
        state.reports.as_ref().unwrap().send(report).unwrap();
    }

    /// How it has been sent tables: `publish 1`, `amend 2`.
    pub fn tables(&self) -> Vec<String> {
        let table = |message: &ToFront| match message {
            ToFront::Publish { generation, .. } => Some(format!("publish {generation}")),
            ToFront::Amend { generation, .. } => Some(format!("amend {generation}")),
            _ => None,
        };
        self.state().received.iter().filter_map(table).collect()
    }

    async fn speak(&self, mut link: AsyncLink) {
        // Bounded by what a test sends.
        let (reports, mut unsent) = mpsc::unbounded_channel();
        self.state().reports = Some(reports);
        loop {
            tokio::select! {
                biased;
                Some(report) = unsent.recv() => {
                    let _ = link.send(&report).await;
                }
                message = link.receive::<ToFront>() => {
                    let Ok(message) = message else { return };
                    let answer = self.state().answer(message);
                    if let Some(answer) = answer {
                        let _ = link.send(&answer).await;
                    }
                }
            }
        }
    }
}

impl FrontState {
    fn greeting(&self) -> FromFront {
        FromFront::Hello {
            version: self.version,
            pid: 2,
            generation: self.generation,
            peers: self.peers.clone(),
        }
    }

    fn answer(&mut self, message: ToFront) -> Option<FromFront> {
        self.received.push(message.clone());
        match message {
            ToFront::Hello { .. } if self.greets_badly => Some(FromFront::Stats(Stats::default())),
            ToFront::Hello { .. } if !self.hangs => Some(self.greeting()),
            ToFront::Publish { generation, .. } | ToFront::Amend { generation, .. } => {
                if self.hangs {
                    return None;
                }
                let is_older = generation < self.generation;
                let refused = is_older.then(|| format!("{} is in force", self.generation));
                if let Some(reason) = self.refuse.take().or(refused) {
                    return Some(FromFront::Refused { generation, reason });
                }
                self.generation = generation;
                Some(FromFront::Published { generation })
            }
            ToFront::Idle { workers } if !self.hangs => Some(FromFront::Idle {
                quiet: workers.into_values().flatten().map(|id| (id, self.quiet_ms)).collect(),
            }),
            ToFront::Stats if !self.hangs => Some(FromFront::Stats(self.stats.clone())),
            ToFront::Drain { worker, .. } if !self.busy.contains(&worker.to_string()) => {
                Some(FromFront::Drained { worker })
            }
            _ => None,
        }
    }
}
