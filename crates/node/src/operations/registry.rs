//! The operations of a node: accepted, followed, cancelled, remembered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::clock;
use mfserv_plugin::{Home, store};
use tokio::sync::{mpsc, watch};

use super::conduct::{Done, conduct, outcome};
use super::env::stage_undo;
use super::running::{Running, blocking};
use super::{Event, FinishedBy, Journal, Node, OperationId, Record, Request, Submission};

/// Operations that have ended and are still known without reading the journal.
const REMEMBERED: usize = 64;
/// At most this many operations run at a time; who comes then is refused.
const MOST: usize = 256;
/// How long operations that are cancelled because the node stops may take to end.
const UNDOING: Duration = Duration::from_secs(30);

/// The operations of a node. Cheap to clone.
pub struct Operations<N: Node>(Arc<Inner<N>>);

impl<N: Node> Clone for Operations<N> {
    fn clone(&self) -> Self {
        Operations(self.0.clone())
    }
}

struct Inner<N: Node> {
    pub(super) node: N,
    pub(super) journal: Journal,
    finished_by: FinishedBy,
    known: Mutex<Known>,
    /// What an earlier daemon has left open has its turn first.
    open: watch::Sender<bool>,
}

#[derive(Default)]
struct Known {
    /// Those that run, and the last ones that have ended, by id; ids sort by time unless their
    /// askers chose them.
    all: BTreeMap<OperationId, Running>,
    /// Those that have ended, the oldest first.
    ended: Vec<OperationId>,
    stopping: bool,
}

impl<N: Node> Operations<N> {
    /// The operations of this node. Nothing is conducted before [`Operations::recover`].
    pub fn new(node: N, finished_by: FinishedBy) -> Operations<N> {
        let journal = Journal::new(node.places());
        Operations(Arc::new(Inner {
            node,
            journal,
            finished_by,
            known: Mutex::default(),
            open: watch::Sender::new(false),
        }))
    }

    /// Accepts an operation, and conducts it from here on, whoever asks or goes away. An id that
    /// is known joins that operation, and so does a stop while the node is being stopped. Returns
    /// the id.
    pub async fn submit(&self, submission: Submission) -> Result<OperationId, Diagnostic> {
        if submission.request == Request::Stop {
            // An earlier daemon may have begun one, which is gone on with.
            let mut open = self.0.open.subscribe();
            let _ = open.wait_for(|open| *open).await;
        }
        let id = submission.id.clone().unwrap_or_default();
        if submission.id.is_some() && self.find(&id).await.is_some() {
            return Ok(id);
        }
        let submission = self.resolved(submission, &id).await?;
        let is_stop = |op: &Running| op.submission().request == Request::Stop;
        if submission.request == Request::Stop {
            if let Some(stop) = self.running().into_iter().find(is_stop) {
                return Ok(stop.id().clone());
            }
        }
        let op = Running::new(id.clone(), submission, clock::now_ms(), false);
        let Some(op) = self.admit(op)? else { return Ok(id) };
        let (inner, record) = (self.0.clone(), op.record());
        let written = blocking(move || {
            inner.journal.open(&record)?;
            adopt(&inner.node, &record)
        });
        if let Err(problem) = written.await {
            // A full disk must not keep the node from stopping.
            if op.submission().request != Request::Stop {
                self.forget(&op);
                return Err(problem);
            }
        }
        self.begin(op);
        Ok(id)
    }

    /// A rollback goes to a release that is chosen here: a later daemon must know which. One that
    /// names no release first undoes what has changed of the variables of the current one.
    async fn resolved(
        &self,
        mut submission: Submission,
        id: &OperationId,
    ) -> Result<Submission, Diagnostic> {
        if let Request::Rollback { plugin, release, checked, .. } = &mut submission.request {
            let (home, name, wanted) = (self.home(), plugin.clone(), *release);
            if wanted.is_none() {
                let (home, name) = (home.clone(), name.clone());
                let owner = store::Owner::this_process(id.as_str());
                if let Some(what) = blocking(move || stage_undo(&home, &name, &owner)).await? {
                    submission.request = Request::Env { plugin: plugin.clone(), what };
                    return Ok(submission);
                }
            }
            // Nobody has checked what is chosen only now.
            *checked &= wanted.is_some();
            let chosen = blocking(move || store::choose(&home, &name, wanted)).await?;
            *release = Some(chosen.number);
        }
        Ok(submission)
    }

    fn home(&self) -> Home {
        Home::new(self.0.node.places().home())
    }

    /// Every event of an operation, from the first one to its outcome.
    pub async fn follow(&self, id: &OperationId) -> Result<mpsc::Receiver<Event>, Diagnostic> {
        if let Some(op) = self.known_one(id) {
            return Ok(op.follow());
        }
        let record = self.find(id).await.ok_or_else(|| unknown(id))?;
        if record.outcome.is_some() {
            return Ok(replay(record));
        }
        // An earlier daemon has left it open: it is finished or undone soon.
        let mut open = self.0.open.subscribe();
        let _ = open.wait_for(|open| *open).await;
        match self.known_one(id) {
            Some(op) => Ok(op.follow()),
            None => Ok(replay(self.find(id).await.ok_or_else(|| unknown(id))?)),
        }
    }

    /// Gives an operation up: refused after its commit.
    pub async fn cancel(&self, id: &OperationId) -> Result<(), Diagnostic> {
        let Some(op) = self.known_one(id) else {
            return match self.find(id).await {
                Some(_) => Err(has_ended(id)),
                None => Err(unknown(id)),
            };
        };
        match (op.cancel(), op.is_over()) {
            (true, _) => Ok(()),
            (false, true) => Err(has_ended(id)),
            (false, false) => Err(Diagnostic::error(format!("operation {id} goes on"))
                .kind(Kind::Refused)
                .because("what it changes is changed already")
                .help(format!("`mfserv wait {id}` waits for its end"))),
        }
    }

    /// An operation, whether it runs or has ended.
    pub async fn find(&self, id: &OperationId) -> Option<Record> {
        if let Some(op) = self.known().all.get(id) {
            return Some(op.record());
        }
        let (inner, id) = (self.0.clone(), id.clone());
        let found = move || {
            let ended = inner.journal.find(&id);
            let running = || inner.journal.running().into_iter().find(|one| one.id == id);
            Ok(ended.or_else(running))
        };
        blocking(found).await.ok().flatten()
    }

    /// The last operations, the newest last; those that run come after those that have ended.
    pub async fn recent(&self, most: usize) -> Vec<Record> {
        let inner = self.0.clone();
        let ended = blocking(move || Ok(inner.journal.ended(most))).await.unwrap_or_default();
        let running = self.running();
        let mut all: Vec<Record> =
            ended.into_iter().filter(|one| running.iter().all(|op| *op.id() != one.id)).collect();
        all.extend(running.iter().map(Running::record));
        all.split_off(all.len().saturating_sub(most))
    }

    /// A later one may begin: what an earlier daemon has left open has been claimed.
    pub(super) fn open(&self) {
        self.0.open.send_replace(true);
    }

    pub(super) fn node(&self) -> &N {
        &self.0.node
    }

    pub(super) fn journal(&self) -> &Journal {
        &self.0.journal
    }

    /// Goes on with an operation that an earlier daemon has begun.
    pub(super) fn resume(&self, record: &Record) -> Running {
        let submission = Submission {
            id: Some(record.id.clone()),
            request: record.request.clone(),
            who: record.who.clone(),
            patience_s: RESUMED_PATIENCE_S,
        };
        let op = Running::new(record.id.clone(), submission, record.began_ms, true);
        self.known().all.insert(record.id.clone(), op.clone());
        op
    }

    /// It has ended so.
    pub(super) async fn end(
        &self,
        op: &Running,
        done: Result<Done, Diagnostic>,
        finished_by: FinishedBy,
    ) {
        let outcome = outcome(done, finished_by);
        self.0.node.record(Fact::OperationEnded {
            id: op.id().to_string(),
            what: op.submission().request.to_string(),
            ok: outcome.ok,
            problem: outcome.problem.clone(),
            after_ms: clock::now_ms().saturating_sub(op.began_ms()),
        });
        let mut record = op.record();
        record.ended_ms = Some(clock::now_ms());
        record.outcome = Some(outcome.clone());
        let inner = self.0.clone();
        let closed = blocking(move || inner.journal.close(&record)).await;
        if let Err(problem) = closed {
            self.0.node.record(Fact::Problem { problem });
        }
        op.end(outcome);
        let mut known = self.known();
        known.ended.push(op.id().clone());
        if known.ended.len() > REMEMBERED {
            let oldest = known.ended.remove(0);
            known.all.remove(&oldest);
        }
    }

    fn begin(&self, op: Running) {
        self.0.node.record(Fact::OperationBegan {
            id: op.id().to_string(),
            what: op.submission().request.to_string(),
            who: op.submission().who.to_string(),
        });
        let operations = self.clone();
        tokio::spawn(async move {
            let mut open = operations.0.open.subscribe();
            let _ = open.wait_for(|open| *open).await;
            operations.carry_out(&op).await;
        });
    }

    /// Its conductor has died.
    pub(super) fn is_left(&self, record: &Record) -> bool {
        let lives = record.conductor.as_ref().is_some_and(store::Owner::lives);
        !lives && !self.known().all.contains_key(&record.id)
    }

    pub(super) async fn carry_out(&self, op: &Running) {
        let stops = op.submission().request == Request::Stop;
        if stops {
            self.undo_others(op).await;
        }
        // A panic of one operation is not the end of the node.
        let (node, running) = (self.0.node.clone(), op.clone());
        let done = tokio::spawn(async move { conduct(&node, &running).await }).await;
        let done = done.unwrap_or_else(|e| Err(Diagnostic::error("it failed").because(e)));
        let by = if op.is_resumed() { FinishedBy::NextDaemon } else { self.0.finished_by };
        self.end(op, done, by).await;
        if stops {
            self.0.node.end();
        }
    }

    /// Stopping is the last operation: what waits is refused, what is before its commit undone.
    async fn undo_others(&self, stop: &Running) {
        self.known().stopping = true;
        let others = self.running().into_iter().filter(|op| op.id() != stop.id());
        let undone: Vec<Running> = others.filter(Running::cancel).collect();
        let all = async {
            for op in undone {
                let mut events = op.follow();
                while events.recv().await.is_some() {}
            }
        };
        let _ = tokio::time::timeout(UNDOING, all).await;
    }

    /// Takes it into the list; `None` if it is there already.
    fn admit(&self, op: Running) -> Result<Option<Running>, Diagnostic> {
        let mut known = self.known();
        if known.all.contains_key(op.id()) {
            return Ok(None);
        }
        if known.stopping {
            return Err(Diagnostic::error("the node is stopping").kind(Kind::Refused));
        }
        if known.all.len() - known.ended.len() >= MOST {
            return Err(Diagnostic::error("too many operations run")
                .kind(Kind::Refused)
                .because(format!("{MOST} are allowed at a time"))
                .help("`mfserv operations` lists them"));
        }
        known.all.insert(op.id().clone(), op.clone());
        Ok(Some(op))
    }

    fn forget(&self, op: &Running) {
        self.known().all.remove(op.id());
        let _ = self.0.journal.abandon(op.id());
    }

    fn running(&self) -> Vec<Running> {
        let mut running: Vec<Running> =
            self.known().all.values().filter(|op| !op.is_over()).cloned().collect();
        running.sort_by_key(Running::began_ms);
        running
    }

    fn known_one(&self, id: &OperationId) -> Option<Running> {
        self.known().all.get(id).cloned()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long an operation that is resumed may wait: its asker is not known any more.
const RESUMED_PATIENCE_S: u64 = 120;

/// From here on a staged release stays when its stager goes away.
fn adopt<N: Node>(node: &N, record: &Record) -> Result<(), Diagnostic> {
    match &record.request {
        Request::Deploy { plugin, release, .. } => {
            store::adopt(&Home::new(node.places().home()), plugin, *release, record.id.as_str())
        }
        _ => Ok(()),
    }
}

/// The events of an operation that has ended.
fn replay(record: Record) -> mpsc::Receiver<Event> {
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let outcome = record.outcome.map(|outcome| Event::Outcome(Box::new(outcome)));
        for event in record.steps.into_iter().chain(outcome) {
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    receiver
}

fn unknown(id: &OperationId) -> Diagnostic {
    Diagnostic::error(format!("no operation is called {id}"))
        .kind(Kind::NotRunning)
        .help("`mfserv operations` lists the last ones")
}

fn has_ended(id: &OperationId) -> Diagnostic {
    Diagnostic::error(format!("operation {id} has ended"))
        .kind(Kind::Refused)
        .help(format!("`mfserv wait {id}` shows how"))
}
