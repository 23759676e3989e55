//! The living fronts: each has the same table and the same admitted workers, and a worker is
//! drained when every front has reported so.
//!
//! One task, the [`board`], holds what each front knows. It gets commands from the node and the
//! supervisor, and reports from the fronts, each of which has a [`link`] task of its own.

mod board;
mod counting;
mod draining;
mod idle;
mod link;
mod lives;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::Fact;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::node_state::NodeState;
use mfserv_core::route::RouteTable;
use mfserv_core::wire::front::{Breakage, Peer, Stats};
use mfserv_platform::clock::now_ms;
use mfserv_supervisor::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use self::board::Board;
use self::link::{Link, Report};
use super::events::Events;
use super::front_socket;
use super::world::Front;
use crate::control::Pending;

/// How long a living front may take to answer a daemon that comes back.
const GREETING: Duration = Duration::from_secs(2);

/// How long a front may take to route by a new table.
const PUBLISH: Duration = Duration::from_secs(5);

/// So often the fronts are asked whether they are there.
const BEAT: Duration = Duration::from_secs(2);

/// How long the fronts may take to report their counters.
const STATS: Duration = Duration::from_millis(500);

/// Reports that the board has not read yet. A front that reports faster waits at its socket.
const UNREAD_REPORTS: usize = 64;

/// What the node and the supervisor want of the fronts.
enum Command {
    Admit(String, Peer),
    Drain(String, WorkerId),
    Forget(String, WorkerId),
    Publish(u64, Box<RouteTable>, oneshot::Sender<Result<(), Diagnostic>>),
    /// Replace the fronts that have not reported that they route by this table.
    ReplaceHanging(u64),
    /// Sum up the counters of the fronts under this number; the reply comes when all have answered.
    Stats(u64, oneshot::Sender<Stats>),
    /// Tell the supervisor which of these workers have nothing in hand.
    Idle(BTreeMap<String, Vec<WorkerId>>),
    /// Reply with what has been summed up under this number.
    EndStats(u64),
    State(NodeState),
    Broken(BTreeMap<String, Breakage>),
    /// The process of a worker of an app was started.
    Lives(WorkerId),
    /// The process of a worker of an app has ended; its slot starts again at this time,
    /// milliseconds since the Unix epoch, if it does.
    Rests(WorkerId, Option<u64>),
    /// The process of a front was started.
    Started(WorkerId),
    /// The process of a front has ended.
    Ended(WorkerId),
}

/// Speaks to every front. Cheap to clone.
#[derive(Clone)]
pub struct Fronts {
    /// Not bounded, because the supervisor must not wait for a front. Bounded in fact: a worker
    /// is admitted, drained and forgotten once, and the board waits for nothing.
    commands: mpsc::UnboundedSender<Command>,
}

/// What is found before the board starts.
pub struct Found {
    run_dir: PathBuf,
    commands: mpsc::UnboundedReceiver<Command>,
    links: Vec<(WorkerId, Link)>,
    /// Fronts that listen and have not answered.
    silent: Vec<WorkerId>,
    /// Fronts that do not listen yet.
    starting: Vec<WorkerId>,
    admitted: BTreeMap<String, Vec<Peer>>,
    /// The greatest generation that a living front routes by.
    pub generation: u64,
}

impl Fronts {
    /// No front is known yet.
    pub fn new(run_dir: PathBuf) -> (Fronts, Found) {
        // Bounded in fact: see `Fronts`.
        let (sender, commands) = mpsc::unbounded_channel();
        let found = Found {
            run_dir,
            commands,
            links: Vec::new(),
            silent: Vec::new(),
            starting: Vec::new(),
            admitted: BTreeMap::new(),
            generation: 0,
        };
        (Fronts { commands: sender }, found)
    }

    /// Starts the board with what was found.
    pub fn run(&self, found: Found, supervisor: Handle, events: Events) {
        let (reports, mut unread) = mpsc::channel::<Report>(UNREAD_REPORTS);
        for (id, link) in found.links {
            tokio::spawn(link.carry(id, reports.clone()));
        }
        let mut board = Board::new(found.run_dir, reports, supervisor, events, found.admitted);
        found.silent.into_iter().for_each(|id| board.found_silent(id));
        found.starting.into_iter().for_each(|id| board.connect(id));
        let mut commands = found.commands;
        let mut beats = tokio::time::interval(BEAT);
        // After a pause of the whole machine, one beat is late, not many.
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = beats.tick() => board.beat(),
                    command = commands.recv() => match command {
                        Some(command) => board.obey(command),
                        None => return,
                    },
                    Some(report) = unread.recv() => board.receive(report),
                }
            }
        });
    }

    /// Learns from a fact that a front or a worker of an app was started or has ended.
    pub fn notice(&self, fact: &Fact) {
        let is_front = |worker: &WorkerId| worker.watcher == WatcherName::front();
        match fact {
            Fact::WorkerStarted { worker, .. } if is_front(worker) => {
                self.send(Command::Started(worker.clone()));
            }
            Fact::WorkerEnded { worker, .. } if is_front(worker) => {
                self.send(Command::Ended(worker.clone()));
            }
            Fact::WorkerStarted { worker, .. } | Fact::WorkerAdopted { worker, .. } => {
                self.send(Command::Lives(worker.clone()));
            }
            Fact::WorkerEnded { worker, restart_in_ms, .. } => {
                // One that starts at once is waited for.
                let wait = restart_in_ms.filter(|wait| *wait > 0);
                let at = wait.map(|wait| now_ms().saturating_add(wait));
                self.send(Command::Rests(worker.clone(), at));
            }
            _ => {}
        }
    }

    fn send(&self, command: Command) {
        // The board lives as long as the daemon.
        let _ = self.commands.send(command);
    }
}

impl Front for Fronts {
    fn publish(&self, generation: u64, table: RouteTable) -> Pending<'_, Result<(), Diagnostic>> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Publish(generation, Box::new(table), reply));
        Box::pin(async move {
            let Ok(outcome) = tokio::time::timeout(PUBLISH, answer).await else {
                // The front is stopped or stuck. Its successor begins with the new table.
                self.send(Command::ReplaceHanging(generation));
                return Ok(());
            };
            outcome.unwrap_or_else(|_| Err(Diagnostic::error("the front link has ended")))
        })
    }

    fn stats(&self) -> Pending<'_, Stats> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let (reply, mut answer) = oneshot::channel();
        self.send(Command::Stats(number, reply));
        Box::pin(async move {
            if let Ok(answer) = tokio::time::timeout(STATS, &mut answer).await {
                return answer.unwrap_or_default();
            }
            self.send(Command::EndStats(number));
            answer.await.unwrap_or_default()
        })
    }

    fn state(&self, state: NodeState) {
        self.send(Command::State(state));
    }

    fn broken(&self, broken: BTreeMap<String, Breakage>) {
        self.send(Command::Broken(broken));
    }

    fn admit(&self, upstream: &str, peer: Peer) {
        self.send(Command::Admit(upstream.into(), peer));
    }

    fn drain(&self, upstream: &str, worker: &WorkerId) {
        self.send(Command::Drain(upstream.into(), worker.clone()));
    }

    fn forget(&self, upstream: &str, worker: &WorkerId) {
        self.send(Command::Forget(upstream.into(), worker.clone()));
    }

    fn ask_idle(&self, workers: BTreeMap<String, Vec<WorkerId>>) {
        self.send(Command::Idle(workers));
    }
}

impl Found {
    /// Connects to the fronts that live, and learns whom they give requests to. Returns those
    /// workers and the fronts that serve.
    /// Workers that are not `alive` any more are left out.
    pub async fn connect(
        &mut self,
        fronts: &BTreeSet<WorkerId>,
        alive: &BTreeSet<WorkerId>,
    ) -> BTreeSet<WorkerId> {
        for id in fronts {
            let socket = front_socket(&self.run_dir, id);
            let greeted = tokio::time::timeout(GREETING, Link::connect(&socket)).await;
            let (link, generation, peers) = match greeted {
                Ok(Ok(greeting)) => greeting,
                Ok(Err(_)) => {
                    self.starting.push(id.clone());
                    continue;
                }
                Err(_) => {
                    self.silent.push(id.clone());
                    continue;
                }
            };
            self.generation = self.generation.max(generation);
            self.links.push((id.clone(), link));
            for (upstream, peers) in peers {
                let known = self.admitted.entry(upstream).or_default();
                for peer in peers {
                    if alive.contains(&peer.worker) && !known.contains(&peer) {
                        known.push(peer);
                    }
                }
            }
        }
        let peers = self.admitted.values().flatten().map(|peer| peer.worker.clone());
        let answering = self.links.iter().map(|(id, _)| id.clone());
        // A silent one that is alone has served: it goes when another one is there, if it stays
        // silent. Beside others it may have been about to replace them.
        let alone = self.silent.iter().filter(|_| fronts.len() == 1).cloned();
        peers.chain(answering).chain(alone).collect()
    }
}
