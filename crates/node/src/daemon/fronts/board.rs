//! What the fronts know: one task owns it and waits for nothing but the next message.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::node_state::NodeState;
use mfserv_core::route::{Amendment, RouteTable, plugin_of};
use mfserv_core::wire::front::{Breakage, FromFront, Peer, Stats, ToFront, TroubleCause};
use mfserv_core::{Diagnostic, Kind};
use mfserv_supervisor::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;

use super::counting::Counting;
use super::draining::Draining;
use super::idle::Questions;
use super::link::{Link, Report, Session};
use super::lives::Lives;
use super::{Command, front_socket};
use crate::daemon::events::Events;

/// Fronts understand amendments from this version of the protocol on.
const AMENDS: u32 = 2;
/// They say which workers are idle from this one on.
const SAYS_IDLE: u32 = 3;

/// What the fronts know, and what they have not reported yet.
pub struct Board {
    run_dir: PathBuf,
    reports: mpsc::Sender<Report>,
    supervisor: Handle,
    events: Events,
    table: Option<(u64, Box<RouteTable>)>,
    node_state: NodeState,
    broken: BTreeMap<String, Breakage>,
    lives: Lives,
    admitted: BTreeMap<String, Vec<Peer>>,
    sessions: BTreeMap<WorkerId, Session>,
    connecting: BTreeMap<WorkerId, AbortHandle>,
    /// Fronts of an earlier daemon that have not answered yet. They may hold requests.
    silent: BTreeSet<WorkerId>,
    draining: Draining,
    publishing: Vec<Publishing>,
    counting: Counting,
    questions: Questions,
}

struct Publishing {
    generation: u64,
    missing: BTreeSet<WorkerId>,
    reply: oneshot::Sender<Result<(), Diagnostic>>,
}

impl Board {
    /// No front is known yet; `admitted` is what living fronts have said.
    pub fn new(
        run_dir: PathBuf,
        reports: mpsc::Sender<Report>,
        supervisor: Handle,
        events: Events,
        admitted: BTreeMap<String, Vec<Peer>>,
    ) -> Board {
        Board {
            run_dir,
            reports,
            supervisor,
            events,
            table: None,
            node_state: NodeState::Starting,
            broken: BTreeMap::new(),
            lives: Lives::default(),
            admitted,
            sessions: BTreeMap::new(),
            connecting: BTreeMap::new(),
            silent: BTreeSet::new(),
            draining: Draining::default(),
            publishing: Vec::new(),
            counting: Counting::default(),
            questions: Questions::default(),
        }
    }

    /// Carries out a command.
    pub(super) fn obey(&mut self, command: Command) {
        match command {
            Command::Admit(upstream, peer) => self.admit(upstream, peer),
            Command::Drain(upstream, worker) => self.drain(upstream, worker),
            Command::Forget(upstream, worker) => {
                self.take_off(&upstream, &worker);
                self.draining.end(&worker);
                self.broadcast(&ToFront::Forget { upstream, worker });
            }
            Command::Publish(generation, table, reply) => self.publish(generation, table, reply),
            Command::Stats(number, reply) => self.count(number, reply),
            Command::Idle(workers) => self.ask_idle(&workers),
            Command::EndStats(number) => self.counting.end(number),
            Command::State(state) => {
                self.node_state = state;
                self.broadcast(&self.state());
            }
            Command::Broken(broken) => {
                self.broken = broken;
                self.broadcast(&self.state());
            }
            Command::Lives(worker) => self.note_lives(|lives| lives.started(worker)),
            Command::Rests(worker, at) => self.note_lives(|lives| lives.ended(&worker, at)),
            Command::ReplaceHanging(generation) => {
                let hanging = self.publishing.iter().filter(|p| p.generation == generation);
                let hanging = hanging.flat_map(|p| p.missing.clone()).collect();
                self.replace(hanging);
            }
            Command::Started(front) => self.connect(front),
            Command::Ended(front) => self.lost(&front),
        }
    }

    /// A link has something to report.
    pub fn receive(&mut self, report: Report) {
        match report {
            Report::Connected(front, session) => self.connected(front, session),
            Report::Message(front, message) => self.message(&front, message),
            Report::Lost(front) => self.lost(&front),
        }
    }

    fn state(&self) -> ToFront {
        ToFront::State {
            node: self.node_state,
            broken: self.broken.clone(),
            backing_off: self.lives.backing_off(),
        }
    }

    /// The fronts learn of a start or an end if an app begins or ends to be without any worker.
    fn note_lives(&mut self, note: impl FnOnce(&mut Lives)) {
        let before = self.lives.backing_off();
        note(&mut self.lives);
        if self.lives.backing_off() != before {
            self.broadcast(&self.state());
        }
    }

    fn broadcast(&mut self, message: &ToFront) {
        self.send_each(|_| Some(message.clone()));
    }

    /// Sends each front its message. One that has left too many unread hangs.
    fn send_each(&mut self, message: impl Fn(&Session) -> Option<ToFront>) {
        let mut hanging = BTreeSet::new();
        for (front, session) in &self.sessions {
            if message(session).is_some_and(|message| !session.send(message)) {
                hanging.insert(front.clone());
            }
        }
        self.replace(hanging);
    }

    fn admit(&mut self, upstream: String, peer: Peer) {
        let peers = self.admitted.entry(upstream.clone()).or_default();
        if !peers.iter().any(|known| known.is(&peer)) {
            peers.push(peer.clone());
        }
        self.broadcast(&ToFront::Admit { upstream, peer });
    }

    fn drain(&mut self, upstream: String, worker: WorkerId) {
        self.take_off(&upstream, &worker);
        let fronts: BTreeSet<WorkerId> =
            self.sessions.keys().chain(&self.silent).cloned().collect();
        if fronts.is_empty() {
            return self.supervisor.drained(worker);
        }
        self.draining.begin(worker.clone(), fronts);
        self.broadcast(&ToFront::Drain { upstream, worker });
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
        let missing: BTreeSet<WorkerId> = self.sessions.keys().cloned().collect();
        if missing.is_empty() {
            // The next front begins with this table.
            let _ = reply.send(Ok(()));
            return;
        }
        self.publishing.push(Publishing { generation, missing, reply });
        let base = before.as_ref().map(|(base, _)| *base);
        let amendment = before.as_ref().and_then(|(base, table)| self.amendment(*base, table));
        let whole = self.whole_table();
        self.send_each(|session| {
            let amends = session.version >= AMENDS && base.is_some() && session.generation == base;
            if amends { amendment.clone() } else { whole.clone() }
        });
    }

    /// What differs in the table in force, for fronts that route by the one before.
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

    /// A front of an earlier daemon has not answered. It may be busy, so it is asked again; it
    /// hangs if it leaves as many beats unanswered as one that was connected.
    pub fn found_silent(&mut self, front: WorkerId) {
        self.questions.ask(BTreeSet::from([front.clone()]));
        self.silent.insert(front.clone());
        self.connect(front);
    }

    /// Connects to a front that was started, as soon as it listens.
    pub fn connect(&mut self, front: WorkerId) {
        let (socket, reports, id) =
            (front_socket(&self.run_dir, &front), self.reports.clone(), front.clone());
        let task = tokio::spawn(async move {
            let link = Link::connect_again(&socket).await;
            // In a task of its own, which is not aborted: it always reports the end of the link.
            tokio::spawn(link.carry(id, reports));
        });
        self.connecting.insert(front, task.abort_handle());
    }

    fn connected(&mut self, front: WorkerId, session: Session) {
        self.connecting.remove(&front);
        self.silent.remove(&front);
        self.questions.lost(&front);
        let drains = self.draining.missing(&front).filter_map(|worker| {
            let upstream = worker.watcher.upstream()?;
            Some(ToFront::Drain { upstream, worker: worker.clone() })
        });
        let first = std::iter::once(self.state()).chain(drains).chain(self.whole_table());
        for message in first {
            // A new session has room for all of them.
            session.send(message);
        }
        self.sessions.insert(front, session);
    }

    fn message(&mut self, front: &WorkerId, message: FromFront) {
        match message {
            FromFront::Published { generation } => {
                if let Some(session) = self.sessions.get_mut(front) {
                    session.generation = Some(generation);
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
                self.draining.reported(front, &worker);
                self.report_drained();
            }
            FromFront::Trouble { worker, cause, detail } => {
                if matches!(cause, TroubleCause::Refused | TroubleCause::Timeout) {
                    self.supervisor.suspect(worker.clone());
                }
                self.events.record(Fact::WorkerTrouble { worker, cause, detail });
            }
            FromFront::NginxEnded(end) => self.events.record(Fact::NginxEnded(end)),
            FromFront::Stats(stats) => self.counting.add(front, &stats),
            FromFront::Idle { quiet } => {
                if let Some(quiet) = self.questions.answered(front, quiet) {
                    self.supervisor.idle(quiet);
                }
            }
            FromFront::Hello { .. } | FromFront::Admitted { .. } => {}
        }
    }

    /// A front that has not answered for several beats hangs.
    pub fn beat(&mut self) {
        let hanging = self.questions.beat();
        self.replace(hanging);
        self.ask_idle(&BTreeMap::new());
    }

    fn ask_idle(&mut self, workers: &BTreeMap<String, Vec<WorkerId>>) {
        let all_say = |session: &Session| session.version >= SAYS_IDLE;
        let asked = self.sessions.iter().filter(|(_, session)| all_say(session));
        let asked: BTreeSet<WorkerId> = asked.map(|(front, _)| front.clone()).collect();
        // An older front may have something in hand that it does not say.
        let known =
            if asked.len() == self.sessions.len() { workers.clone() } else { BTreeMap::new() };
        self.questions.ask(asked);
        let question = ToFront::Idle { workers: known };
        self.send_each(|session| all_say(session).then(|| question.clone()));
    }

    fn count(&mut self, number: u64, reply: oneshot::Sender<Stats>) {
        let fronts = self.sessions.keys().cloned().collect();
        self.broadcast(&ToFront::Stats);
        self.counting.begin(number, fronts, reply);
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

    /// Replaces fronts that do not answer.
    fn replace(&mut self, hanging: BTreeSet<WorkerId>) {
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

    /// A front has gone: it holds no request any more, and nothing is waited for from it.
    fn lost(&mut self, front: &WorkerId) {
        self.questions.lost(front);
        if let Some(task) = self.connecting.remove(front) {
            task.abort();
        }
        let was_silent = self.silent.remove(front);
        if self.sessions.remove(front).is_none() && !was_silent {
            return;
        }
        self.draining.lost(front);
        self.counting.lost(front);
        self.report_drained();
        let last = self.publishing.iter().map(|p| p.generation).max().unwrap_or(0);
        self.published(front, last, Ok(()));
    }

    fn report_drained(&mut self) {
        for worker in self.draining.take_drained() {
            self.supervisor.drained(worker);
        }
    }
}
