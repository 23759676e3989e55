//! The vocabulary of the cases: a node whose keeper and fronts are played.
//!
//! Workers of the watcher `app.p.a` are named by slot and incarnation: `1.3` is
//! `app.p.a.1.3`. Each verb returns when everything that follows from it has happened;
//! time stands still except in [`Node::pass`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::output::{Output, Rotation};
use mfserv_core::status::{WatcherState, WatcherStatus};
use mfserv_core::watcher::{Probe, Rlimits, WatcherSpec};
use mfserv_core::wire::keeper::{Ended, Scope};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::played::{Books, PlayedKeeper, Spawning};
use super::played_fronts::{Fronts, PlayedFronts};
use crate::handle::Message;
use crate::{Handle, KeeperLink, KeeperNews, Options, Supervisor, Unmet, Until, View};

/// The longest chain of tasks that one message sets off has fewer steps than this.
const TURNS: usize = 40;

/// `count` workers of `app.p.a`, which serve requests and are ready when the test says so.
pub fn app(count: u32) -> WatcherSpec {
    named("a", count)
}

/// The same with another name.
pub fn named(name: &str, count: u32) -> WatcherSpec {
    WatcherSpec {
        upstream: Some(format!("app.p.{name}")),
        name: WatcherName::app("p", name),
        count,
        argv: vec!["/bin/app".into(), "{unix_socket_path}".into()],
        env: BTreeMap::new(),
        secrets: Default::default(),
        cwd: "/".into(),
        rlimits: Rlimits::default(),
        output: Output { stdout: "/log".into(), stderr: None, rotation: Rotation::default() },
        output_per_worker: false,
        socket_stem: Some("/nowhere/app".into()),
        socket_link_stem: None,
        on_port: false,
        need_not_listen: false,
        probe: Probe::Told,
        start_timeout_ms: 30_000,
        drain_timeout_ms: 60_000,
        answer_timeout_ms: 60_000,
        stack_signal: None,
        stop_signal: 15,
        stop_timeout_ms: 10_000,
        overlap: true,
        max_age_s: 0,
        listeners: Vec::new(),
        version: String::new(),
    }
}

/// The same watcher with another configuration.
pub fn edited(mut spec: WatcherSpec) -> WatcherSpec {
    let edition = spec.env.len();
    spec.env.insert(format!("EDITION_{edition}"), "1".into());
    spec
}

pub fn secs(s: u64) -> Duration {
    Duration::from_secs(s)
}

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// A worker by its short name.
pub fn id(short: &str) -> WorkerId {
    let is_number = short.starts_with(|c: char| c.is_ascii_digit());
    let long = if is_number { format!("app.p.a.{short}") } else { short.into() };
    long.parse().unwrap()
}

fn short(id: &str) -> String {
    id.strip_prefix("app.p.a.").unwrap_or(id).into()
}

pub fn asked(what: &str) -> EndReason {
    EndReason::Asked { what: what.into() }
}

/// A daemon's supervisor and the link that it has to its keeper.
struct Daemon {
    handle: Handle,
    tasks: Vec<JoinHandle<()>>,
}

/// A node without processes.
pub struct Node {
    home: TempDir,
    keeper: PlayedKeeper,
    fronts: Arc<Mutex<Fronts>>,
    facts: Arc<Mutex<Vec<Fact>>>,
    daemon: Option<Daemon>,
}

/// Somebody who waits for watchers.
pub struct Waiter(JoinHandle<Result<(), Unmet>>);

impl Waiter {
    /// The outcome, if there is one already.
    pub async fn outcome(&mut self) -> Option<Result<(), Unmet>> {
        turns().await;
        match self.0.is_finished() {
            true => Some((&mut self.0).await.unwrap()),
            false => None,
        }
    }

    #[track_caller]
    pub fn waits(&self) {
        assert!(!self.0.is_finished(), "the waiting is over");
    }

    pub async fn succeeds(mut self) {
        match self.outcome().await {
            Some(Ok(())) => {}
            other => panic!("should have succeeded: {other:?}"),
        }
    }

    pub async fn fails(mut self) -> Unmet {
        match self.outcome().await {
            Some(Err(problem)) => problem,
            other => panic!("should have failed: {other:?}"),
        }
    }
}

/// Lets every task go on until none has anything to do. Time does not pass: there is always one.
pub async fn turns() {
    for _ in 0..TURNS {
        tokio::task::yield_now().await;
    }
}

impl Node {
    /// A node on which nothing is wanted yet.
    pub async fn start() -> Node {
        let mut node = Node {
            home: TempDir::new().unwrap(),
            keeper: PlayedKeeper::new(),
            fronts: Arc::default(),
            facts: Arc::default(),
            daemon: None,
        };
        node.keeper.listen(&node.home.path().join("keep.sock"));
        node.daemon_starts().await;
        node
    }

    /// A node whose watcher has all its workers ready.
    pub async fn serving_as(spec: WatcherSpec) -> Node {
        let mut node = Node::start().await;
        node.apply([spec]).await;
        node.everybody_is_ready().await;
        node
    }

    // ---- what is asked of the supervisor ----

    pub async fn apply(&mut self, specs: impl IntoIterator<Item = WatcherSpec>) {
        self.handle().apply(specs.into_iter().collect());
        turns().await;
    }

    pub async fn prepare(&mut self, spec: WatcherSpec) {
        self.handle().prepare(vec![spec]);
        turns().await;
    }

    pub async fn abandon(&mut self) {
        self.handle().abandon(vec![WatcherName::app("p", "a")]);
        turns().await;
    }

    /// True if something that was prepared has taken over.
    pub async fn renew(&mut self) -> bool {
        let names = vec![WatcherName::app("p", "a")];
        let renewed = self.handle().renew(names, EndReason::FilesChanged).await;
        turns().await;
        !renewed.is_empty()
    }

    pub async fn restart(&mut self) {
        self.handle().restart(vec![WatcherName::app("p", "a")], asked("restart"));
        turns().await;
    }

    pub async fn waits_for(&self, until: Until, at_most: Duration) -> Waiter {
        let handle = self.handle();
        let names = vec![WatcherName::app("p", "a")];
        let waiter = tokio::spawn(async move { handle.wait(until, names, at_most).await });
        turns().await;
        Waiter(waiter)
    }

    pub async fn follows(&self, until: Until) -> watch::Receiver<View> {
        let progress = self.handle().progress(until, vec![WatcherName::app("p", "a")]);
        turns().await;
        progress
    }

    // ---- what happens ----

    /// These workers say that they are ready.
    pub async fn ready<const N: usize>(&mut self, workers: [&str; N]) {
        for worker in workers {
            self.handle().ready(id(worker));
        }
        turns().await;
    }

    /// All workers that live say so, until nobody new comes.
    pub async fn everybody_is_ready(&mut self) {
        let mut known = BTreeSet::new();
        loop {
            let alive: BTreeSet<String> = self.alive().into_iter().collect();
            let new: Vec<&String> = alive.difference(&known).collect();
            if new.is_empty() {
                return;
            }
            for worker in new {
                self.handle().ready(id(worker));
                turns().await;
            }
            known.extend(alive);
        }
    }

    /// The process of a worker ends by itself.
    pub async fn exits(&mut self, worker: &str, code: i32) {
        self.keeper().ends(&id(worker).to_string(), Ended::Exited { code }, "last words\n");
        turns().await;
    }

    pub async fn crashes(&mut self, worker: &str) {
        self.exits(worker, 1).await;
    }

    /// The worker goes on in spite of its stop signal.
    pub fn ignores_its_stop_signal(&mut self, worker: &str) {
        self.keeper.books().stubborn.insert(id(worker).to_string());
    }

    /// The worker's process hangs in the kernel.
    pub fn cannot_be_killed(&mut self, worker: &str) {
        self.keeper.books().unkillable.insert(id(worker).to_string());
    }

    /// The worker's requests take until [`Node::finishes`].
    pub fn is_busy(&mut self, worker: &str) {
        self.fronts().busy.insert(id(worker).to_string());
    }

    /// A request of this worker ends now.
    pub fn has_served(&mut self, worker: &str) {
        self.fronts().served.insert(id(worker).to_string(), Instant::now());
    }

    pub async fn finishes(&mut self, worker: &str) {
        let held = self.fronts().draining.remove(&id(worker).to_string());
        assert!(held, "{worker} is not being drained");
        self.handle().drained(id(worker));
        turns().await;
    }

    /// Time passes.
    pub async fn pass(&mut self, time: Duration) {
        let step = (time / 40).max(ms(1));
        let mut left = time;
        while !left.is_zero() {
            tokio::time::advance(step.min(left)).await;
            left = left.saturating_sub(step);
            turns().await;
        }
    }

    pub async fn keeper_is_lost(&mut self) {
        self.keeper.goes_away();
        turns().await;
    }

    /// The keeper is there again. The daemon looks for it at least twice a second.
    pub async fn keeper_is_found(&mut self) {
        let path = self.home.path().join("keep.sock");
        self.keeper.listen(&path);
        self.pass(ms(600)).await;
    }

    pub fn keeper(&self) -> MutexGuard<'_, Books> {
        self.keeper.books()
    }

    pub fn spawning(&mut self, spawning: Spawning) {
        self.keeper.books().spawning = spawning;
    }

    pub async fn daemon_dies(&mut self) {
        // What it knew is on disk at most this much later.
        self.pass(ms(300)).await;
        for task in self.daemon.take().unwrap().tasks {
            task.abort();
        }
        turns().await;
        self.fronts().handle = None;
        self.facts.lock().unwrap().clear();
    }

    /// The fronts end with their daemon: nobody is given requests any more.
    pub fn fronts_die(&mut self) {
        *self.fronts() = Fronts::default();
    }

    /// A daemon comes and takes over what lives.
    pub async fn daemon_starts(&mut self) {
        let (keeper, mut news) = KeeperLink::start(&self.home.path().join("keep.sock"));
        let found = loop {
            match news.try_recv() {
                Ok(KeeperNews::Connected(state)) => break state,
                Ok(other) => panic!("{other:?}"),
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let facts = self.facts.clone();
        let admitted = self.fronts().serving.iter().map(|worker| id(worker)).collect();
        let (handle, supervisor) = Supervisor::create(Options {
            keeper,
            found,
            admitted,
            traffic: Box::new(PlayedFronts(self.fronts.clone())),
            emit: Arc::new(move |fact| facts.lock().unwrap().push(fact)),
            run_dir: self.home.path().into(),
            state_file: self.home.path().join("supervisor.json"),
        });
        self.fronts().handle = Some(handle.clone());
        let to = handle.clone();
        let listens = tokio::spawn(async move {
            while let Some(news) = news.recv().await {
                to.keeper(news);
            }
        });
        self.daemon = Some(Daemon { handle, tasks: vec![tokio::spawn(supervisor), listens] });
        turns().await;
    }

    // ---- what is seen ----

    pub fn handle(&self) -> Handle {
        self.daemon.as_ref().unwrap().handle.clone()
    }

    pub fn fronts(&self) -> MutexGuard<'_, Fronts> {
        self.fronts.lock().unwrap()
    }

    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// Workers that have a process.
    pub fn alive(&self) -> Vec<String> {
        self.keeper.books().alive.keys().map(|id| short(id)).collect()
    }

    /// Workers that are given requests.
    pub fn serving(&self) -> Vec<String> {
        self.fronts().serving.iter().map(|id| short(id)).collect()
    }

    /// Started workers since the beginning.
    pub fn spawned(&self) -> Vec<String> {
        self.keeper.books().spawned.iter().map(|id| short(id)).collect()
    }

    /// Signals since the beginning, as `1.1 TERM` or `1.1 KILL tree`.
    pub fn signals(&self) -> Vec<String> {
        let books = self.keeper.books();
        let said = books.signals.iter().map(|(id, signal, scope)| {
            let signal = match signal {
                9 => "KILL".into(),
                15 => "TERM".into(),
                other => other.to_string(),
            };
            let scope = if *scope == Scope::Tree { " tree" } else { "" };
            format!("{} {signal}{scope}", short(id))
        });
        said.collect()
    }

    /// Counts from here how few and how many workers are given requests at a time.
    pub fn count_from_here(&mut self) {
        let mut fronts = self.fronts();
        (fronts.fewest, fronts.most) = (fronts.serving.len(), fronts.serving.len());
    }

    pub fn fewest_serving(&self) -> usize {
        self.fronts().fewest
    }

    pub fn most_serving(&self) -> usize {
        self.fronts().most
    }

    pub fn facts(&self) -> Vec<Fact> {
        self.facts.lock().unwrap().clone()
    }

    /// Why workers ended, as `1.1 exited with code 1`.
    pub fn ends(&self) -> Vec<String> {
        let facts = self.facts();
        let ends = facts.iter().filter_map(|fact| match fact {
            Fact::WorkerEnded { worker, why, .. } => {
                Some(format!("{} {why}", short(&worker.to_string())))
            }
            _ => None,
        });
        ends.collect()
    }

    /// What the end of a worker said about the next start of its slot, milliseconds.
    pub fn restarts_in_ms(&self, worker: &str) -> Option<u64> {
        let facts = self.facts();
        let found = facts.iter().find_map(|fact| match fact {
            Fact::WorkerEnded { worker: ended, restart_in_ms, .. } if *ended == id(worker) => {
                Some(*restart_in_ms)
            }
            _ => None,
        });
        found.unwrap_or_else(|| panic!("{worker} has not ended: {facts:#?}"))
    }

    /// How often a worker was announced as ready.
    pub fn times_ready(&self, worker: &str) -> usize {
        let facts = self.facts();
        let ready =
            |fact: &&Fact| matches!(fact, Fact::WorkerReady { worker: w, .. } if *w == id(worker));
        facts.iter().filter(ready).count()
    }

    pub async fn watchers(&self) -> Vec<WatcherStatus> {
        let (reply, answer) = oneshot::channel();
        self.handle().send(Message::Status(reply));
        answer.await.unwrap()
    }

    pub async fn status(&self) -> WatcherStatus {
        let mut all = self.watchers().await.into_iter();
        all.find(|it| it.name == WatcherName::app("p", "a")).expect("the watcher is known")
    }

    pub async fn state(&self) -> WatcherState {
        self.status().await.state
    }
}
