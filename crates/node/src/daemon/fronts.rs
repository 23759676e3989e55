//! The living fronts: each has the same table and the same admitted workers, and a
//! worker is drained when all of them say so.

mod link;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::node_state::NodeState;
use mfserv_core::route::{Amendment, RouteTable, plugin_of};
use mfserv_core::wire::front::{Breakage, FromFront, Peer, ToFront};
use mfserv_core::{Diagnostic, Kind};
use mfserv_supervisor::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use self::link::{Line, Link};
use super::events::Events;
use super::front_socket;
use super::world::Front;
use crate::control::Pending;

/// How long a living front may take to answer a daemon that comes back.
const GREETING: Duration = Duration::from_secs(2);

/// How long a front may take to route by a new table.
const PUBLISH: Duration = Duration::from_secs(5);

/// Fronts know amendments from this version of the protocol on.
const AMENDS: u32 = 2;

enum Message {
    Admit(String, Peer),
    Drain(String, WorkerId),
    Forget(String, WorkerId),
    Publish(u64, Box<RouteTable>, oneshot::Sender<Result<(), Diagnostic>>),
    /// Fronts that have not said that they route by this table hang.
    Hangs(u64),
    State(NodeState),
    Broken(BTreeMap<String, Breakage>),
    Up(WorkerId),
    Gone(WorkerId),
    Connected(WorkerId, Line),
    Says(WorkerId, FromFront),
    Lost(WorkerId),
}

/// Speaks to every front. Cheap to clone.
#[derive(Clone)]
pub struct Fronts {
    messages: mpsc::UnboundedSender<Message>,
}

/// What was found before the task starts.
pub struct Found {
    run_dir: PathBuf,
    received: mpsc::UnboundedReceiver<Message>,
    links: Vec<(WorkerId, Link)>,
    admitted: BTreeMap<String, Vec<Peer>>,
    /// The greatest generation that a living front routes by.
    pub generation: u64,
}

impl Fronts {
    /// No front is known yet.
    pub fn new(run_dir: PathBuf) -> (Fronts, Found) {
        let (messages, received) = mpsc::unbounded_channel();
        let found = Found {
            run_dir,
            received,
            links: Vec::new(),
            admitted: BTreeMap::new(),
            generation: 0,
        };
        (Fronts { messages }, found)
    }

    /// Starts the task.
    pub fn run(&self, found: Found, supervisor: Handle, events: Events) {
        let mut board = Board {
            run_dir: found.run_dir,
            own: self.clone(),
            supervisor,
            events,
            table: None,
            node_state: NodeState::Starting,
            broken: BTreeMap::new(),
            admitted: found.admitted,
            lines: BTreeMap::new(),
            connecting: BTreeMap::new(),
            draining: BTreeMap::new(),
            publishing: Vec::new(),
        };
        for (id, link) in found.links {
            link.start(id, self.clone());
        }
        let mut received = found.received;
        tokio::spawn(async move {
            while let Some(message) = received.recv().await {
                board.receive(message);
            }
        });
    }

    /// Looks for facts about fronts among all facts.
    pub fn notice(&self, fact: &Fact) {
        let is_front = |worker: &WorkerId| worker.watcher == WatcherName::front();
        match fact {
            Fact::WorkerStarted { worker, .. } if is_front(worker) => {
                self.send(Message::Up(worker.clone()));
            }
            Fact::WorkerEnded { worker, .. } if is_front(worker) => {
                self.send(Message::Gone(worker.clone()));
            }
            _ => {}
        }
    }

    fn send(&self, message: Message) {
        let _ = self.messages.send(message);
    }
}

impl Front for Fronts {
    fn publish(&self, generation: u64, table: RouteTable) -> Pending<'_, Result<(), Diagnostic>> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Publish(generation, Box::new(table), reply));
        Box::pin(async move {
            let Ok(outcome) = tokio::time::timeout(PUBLISH, answer).await else {
                // The front is stopped or stuck. Its successor begins with the new table.
                self.send(Message::Hangs(generation));
                return Ok(());
            };
            outcome.unwrap_or_else(|_| Err(Diagnostic::error("the front link has ended")))
        })
    }

    fn state(&self, state: NodeState) {
        self.send(Message::State(state));
    }

    fn broken(&self, broken: BTreeMap<String, Breakage>) {
        self.send(Message::Broken(broken));
    }

    fn admit(&self, upstream: &str, peer: Peer) {
        self.send(Message::Admit(upstream.into(), peer));
    }

    fn drain(&self, upstream: &str, worker: &WorkerId) {
        self.send(Message::Drain(upstream.into(), worker.clone()));
    }

    fn forget(&self, upstream: &str, worker: &WorkerId) {
        self.send(Message::Forget(upstream.into(), worker.clone()));
    }
}

impl Found {
    /// Connects to the fronts that live, and learns whom they give requests to.
    /// Workers that are not `alive` any more are left out.
    pub async fn connect(
        &mut self,
        fronts: &BTreeSet<WorkerId>,
        alive: &BTreeSet<WorkerId>,
    ) -> BTreeSet<WorkerId> {
        for id in fronts {
            let socket = front_socket(&self.run_dir, id);
            let greeted = tokio::time::timeout(GREETING, Link::connect(&socket)).await;
            // One that does not answer is probed and replaced like any other worker.
            let Ok(Ok((link, generation, peers))) = greeted else { continue };
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
        let fronts = self.links.iter().map(|(id, _)| id.clone());
        peers.chain(fronts).collect()
    }
}

/// The task's state.
struct Board {
    run_dir: PathBuf,
    own: Fronts,
    supervisor: Handle,
    events: Events,
    table: Option<(u64, Box<RouteTable>)>,
    node_state: NodeState,
    broken: BTreeMap<String, Breakage>,
    admitted: BTreeMap<String, Vec<Peer>>,
    lines: BTreeMap<WorkerId, Line>,
    connecting: BTreeMap<WorkerId, AbortHandle>,
    /// Workers being drained, and the fronts that have not said so yet.
    draining: BTreeMap<WorkerId, BTreeSet<WorkerId>>,
    publishing: Vec<Publishing>,
}

struct Publishing {
    generation: u64,
    missing: BTreeSet<WorkerId>,
    reply: oneshot::Sender<Result<(), Diagnostic>>,
}

impl Board {
    fn receive(&mut self, message: Message) {
        match message {
            Message::Admit(upstream, peer) => self.admit(upstream, peer),
            Message::Drain(upstream, worker) => self.drain(upstream, worker),
            Message::Forget(upstream, worker) => {
                self.take_off(&upstream, &worker);
                self.draining.remove(&worker);
                self.tell_all(&ToFront::Forget { upstream, worker });
            }
            Message::Publish(generation, table, reply) => self.publish(generation, table, reply),
            Message::State(state) => {
                self.node_state = state;
                self.tell_all(&self.state());
            }
            Message::Broken(broken) => {
                self.broken = broken;
                self.tell_all(&self.state());
            }
            Message::Hangs(generation) => self.replace_hanging(generation),
            Message::Up(front) => self.reach(front),
            Message::Gone(front) => {
                if let Some(task) = self.connecting.remove(&front) {
                    task.abort();
                }
                self.lost(&front);
            }
            Message::Connected(front, line) => self.connected(front, line),
            Message::Says(front, said) => self.said(&front, said),
            Message::Lost(front) => self.lost(&front),
        }
    }

    fn state(&self) -> ToFront {
        ToFront::State { node: self.node_state, broken: self.broken.clone() }
    }

    fn tell_all(&self, message: &ToFront) {
        self.lines.values().for_each(|line| line.say(message.clone()));
    }

    fn admit(&mut self, upstream: String, peer: Peer) {
        let peers = self.admitted.entry(upstream.clone()).or_default();
        if !peers.contains(&peer) {
            peers.push(peer.clone());
        }
        self.tell_all(&ToFront::Admit { upstream, peer });
    }

    fn drain(&mut self, upstream: String, worker: WorkerId) {
        self.take_off(&upstream, &worker);
        let fronts: BTreeSet<WorkerId> = self.lines.keys().cloned().collect();
        if fronts.is_empty() {
            return self.supervisor.drained(worker);
        }
        self.draining.insert(worker.clone(), fronts);
        self.tell_all(&ToFront::Drain { upstream, worker });
    }

    fn take_off(&mut self, upstream: &str, worker: &WorkerId) {
        if let Some(peers) = self.admitted.get_mut(upstream) {
            peers.retain(|peer| peer.worker != *worker);
            if peers.is_empty() {
                self.admitted.remove(upstream);
            }
        }
    }

    fn publish(
        &mut self,
        generation: u64,
        table: Box<RouteTable>,
        reply: oneshot::Sender<Result<(), Diagnostic>>,
    ) {
        let before = self.table.replace((generation, table));
        let missing: BTreeSet<WorkerId> = self.lines.keys().cloned().collect();
        if missing.is_empty() {
            // The next front begins with this table.
            let _ = reply.send(Ok(()));
            return;
        }
        let amendment = before.as_ref().and_then(|(base, table)| self.amendment(*base, table));
        for line in self.lines.values() {
            let base = before.as_ref().map(|(base, _)| *base);
            let knows =
                line.version >= AMENDS && line.routes_by.is_some() && line.routes_by == base;
            let message = if knows { amendment.clone() } else { self.whole_table() };
            message.into_iter().for_each(|message| line.say(message));
        }
        self.publishing.push(Publishing { generation, missing, reply });
    }

    /// What the table in force says anew, for fronts that route by the one before.
    fn amendment(&self, base: u64, before: &RouteTable) -> Option<ToFront> {
        let (generation, table) = self.table.as_ref()?;
        let amendment = Box::new(Amendment::between(before, table));
        let changes = |app: &String| amendment.sections.contains_key(plugin_of(app));
        let peers = self.admitted_to(table, changes);
        Some(ToFront::Amend { base, generation: *generation, amendment, peers })
    }

    fn whole_table(&self) -> Option<ToFront> {
        let (generation, table) = self.table.as_ref()?;
        let peers = self.admitted_to(table, |_| true);
        Some(ToFront::Publish { generation: *generation, table: table.clone(), peers })
    }

    fn admitted_to(
        &self,
        table: &RouteTable,
        wanted: impl Fn(&String) -> bool,
    ) -> BTreeMap<String, Vec<Peer>> {
        // Workers of an app that is not in the table any more are on their way out.
        let there = |app: &String| table.upstreams.contains_key(app) && wanted(app);
        let admitted = self.admitted.iter().filter(|(app, _)| there(app));
        admitted.map(|(app, peers)| (app.clone(), peers.clone())).collect()
    }

    /// A front was started: connect to it as soon as it listens.
    fn reach(&mut self, front: WorkerId) {
        let (socket, own, id) =
            (front_socket(&self.run_dir, &front), self.own.clone(), front.clone());
        let task = tokio::spawn(async move {
            loop {
                if let Ok((link, ..)) = Link::connect(&socket).await {
                    return link.start(id, own);
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        });
        self.connecting.insert(front, task.abort_handle());
    }

    fn connected(&mut self, front: WorkerId, line: Line) {
        self.connecting.remove(&front);
        line.say(self.state());
        self.whole_table().into_iter().for_each(|message| line.say(message));
        self.lines.insert(front, line);
    }

    fn said(&mut self, front: &WorkerId, said: FromFront) {
        match said {
            FromFront::Published { generation } => {
                if let Some(line) = self.lines.get_mut(front) {
                    line.routes_by = Some(generation);
                }
                self.supervisor.ready(front.clone());
                self.published(front, generation, Ok(()));
            }
            FromFront::Refused { generation, reason } => {
                let problem = Diagnostic::error("the front refuses the new routes")
                    .kind(Kind::BadConfiguration)
                    .because(reason)
                    .help("the routes in force before are still in force");
                self.published(front, generation, Err(problem));
            }
            FromFront::Drained { worker } => {
                if let Some(missing) = self.draining.get_mut(&worker) {
                    missing.remove(front);
                }
                self.tell_drained();
            }
            FromFront::Trouble { worker, cause } => {
                self.events.record(Fact::WorkerTrouble { worker, cause });
            }
            FromFront::Hello { .. } | FromFront::Admitted { .. } | FromFront::Stats(_) => {}
        }
    }

    fn published(&mut self, front: &WorkerId, generation: u64, outcome: Result<(), Diagnostic>) {
        for publishing in &mut self.publishing {
            if publishing.generation <= generation {
                publishing.missing.remove(front);
            }
        }
        for index in (0..self.publishing.len()).rev() {
            if self.publishing[index].missing.is_empty() {
                let _ = self.publishing.swap_remove(index).reply.send(outcome.clone());
            }
        }
    }

    fn replace_hanging(&mut self, generation: u64) {
        let hanging = self.publishing.iter().filter(|p| p.generation == generation);
        let hanging: BTreeSet<WorkerId> = hanging.flat_map(|p| p.missing.clone()).collect();
        for front in &hanging {
            let text = format!("{front} does not answer: it is replaced");
            self.events.record(Fact::Note { text });
            self.lost(front);
        }
        if !hanging.is_empty() {
            let why = EndReason::FailedProbe { saw: "it does not answer the daemon".into() };
            self.supervisor.restart(vec![WatcherName::front()], why);
        }
    }

    /// A front is gone, and with it all that it held.
    fn lost(&mut self, front: &WorkerId) {
        if self.lines.remove(front).is_none() {
            return;
        }
        for missing in self.draining.values_mut() {
            missing.remove(front);
        }
        self.tell_drained();
        let last = self.publishing.iter().map(|p| p.generation).max().unwrap_or(0);
        self.published(front, last, Ok(()));
    }

    fn tell_drained(&mut self) {
        let drained: Vec<WorkerId> = self
            .draining
            .iter()
            .filter(|(_, missing)| missing.is_empty())
            .map(|(worker, _)| worker.clone())
            .collect();
        for worker in drained {
            self.draining.remove(&worker);
            self.supervisor.drained(worker);
        }
    }
}
