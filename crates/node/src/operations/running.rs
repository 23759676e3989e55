//! An operation while it runs: what it uses to claim plugins, to report steps and to commit,
//! and what those who follow it see.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::names::WatcherName;
use mfserv_plugin::Home;
use mfserv_plugin::store::{self, Claim, NotClaimed, Owner};
use mfserv_supervisor::{Progress, Until, View};
use tokio::sync::{mpsc, watch};

use super::{Event, Node, OperationId, Outcome, Record, StepState, Submission, Who};

/// How often a plugin is tried to be claimed that another operation has.
const LOOK: Duration = Duration::from_millis(50);
/// How long another operation on the same plugin is waited for by who does not wait until it
/// is served.
const LEAST_PATIENCE: Duration = Duration::from_secs(10);
/// Events that a follower has not read yet.
const UNREAD: usize = 16;

/// An operation that runs. Cheap to clone.
#[derive(Clone)]
pub struct Running(Arc<Inner>);

struct Inner {
    submission: Submission,
    id: OperationId,
    began_ms: u64,
    /// Another daemon has begun it.
    resumed: bool,
    step: AtomicU32,
    state: Mutex<State>,
    /// Counts the changes of the state: whoever follows waits for the next one.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// What was reported, each with the number of the change that brought it. A step that gets
    /// on takes the place of what was reported of it before: there are never more events than
    /// steps, and a slow follower misses only what is outdated.
    events: Vec<(u64, Event)>,
    changes: u64,
    committed: bool,
    cancelled: bool,
}

impl Running {
    /// An operation that begins now.
    pub fn new(id: OperationId, submission: Submission, began_ms: u64, resumed: bool) -> Running {
        let running = Running(Arc::new(Inner {
            submission,
            id: id.clone(),
            began_ms,
            resumed,
            step: AtomicU32::new(0),
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        }));
        running.report(Event::Accepted { operation: id });
        running
    }

    /// Its id.
    pub fn id(&self) -> &OperationId {
        &self.0.id
    }

    /// What was asked for.
    pub fn submission(&self) -> &Submission {
        &self.0.submission
    }

    /// When it was accepted, milliseconds since the Unix epoch.
    pub fn began_ms(&self) -> u64 {
        self.0.began_ms
    }

    /// Another daemon has begun it.
    pub fn is_resumed(&self) -> bool {
        self.0.resumed
    }

    /// How long each wait of it may take; zero = it does not wait until it is served.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(self.0.submission.patience_s)
    }

    /// What is remembered of it, as it is now.
    pub fn record(&self) -> Record {
        let state = self.state();
        let events = state.events.iter().map(|(_, event)| event.clone());
        let (outcomes, steps): (Vec<Event>, Vec<Event>) =
            events.partition(|event| matches!(event, Event::Outcome(_)));
        let outcome = outcomes.into_iter().find_map(|event| match event {
            Event::Outcome(outcome) => Some(*outcome),
            _ => None,
        });
        Record {
            id: self.0.id.clone(),
            who: self.0.submission.who.clone(),
            request: self.0.submission.request.clone(),
            began_ms: self.0.began_ms,
            conductor: Some(Owner::this_process(self.0.id.as_str())),
            ended_ms: outcome.as_ref().map(|_| mfserv_platform::clock::now_ms()),
            steps,
            outcome,
        }
    }

    // ---- what the operations use ----

    /// Waits until no other operation changes the plugin, and claims it.
    pub async fn claim<N: Node>(&self, node: &N, plugin: &str) -> Result<Arc<Claim>, Diagnostic> {
        let home = Home::new(node.places().home());
        let owner = Owner::this_process(self.0.id.as_str());
        let patience = self.patience().max(LEAST_PATIENCE);
        let began = Instant::now();
        loop {
            let (home, plugin_name, owner) = (home.clone(), plugin.to_string(), owner.clone());
            let claimed = blocking(move || Ok(store::claim(&home, &plugin_name, &owner))).await?;
            let other = match claimed {
                Ok(claim) => return Ok(Arc::new(claim)),
                Err(NotClaimed::Failed(problem)) => return Err(problem),
                Err(NotClaimed::Busy(other)) => other,
            };
            if began.elapsed() >= patience {
                return Err(other.refusal(plugin));
            }
            self.report_waiting(began.elapsed().as_secs(), &other);
            let pause = async {
                tokio::time::sleep(LOOK).await;
                Ok(())
            };
            self.unless_cancelled(pause).await?;
        }
    }

    /// The next step begins; the one before is done.
    pub fn step(&self, text: impl Into<String>) {
        self.done();
        let n = self.0.step.fetch_add(1, Ordering::Relaxed) + 1;
        let text = text.into();
        self.report(Event::Step { n, of: None, text, state: StepState::Started });
    }

    /// The step gets on.
    pub fn progress(&self, text: impl Into<String>) {
        let n = self.0.step.load(Ordering::Relaxed);
        let text = text.into();
        self.report(Event::Step { n, of: None, text, state: StepState::Started });
    }

    /// From here on it cannot be cancelled. An error if it has been.
    pub fn commit(&self) -> Result<(), Diagnostic> {
        let mut state = self.state();
        if state.cancelled {
            return Err(interrupted());
        }
        let first = !state.committed;
        state.committed = true;
        drop(state);
        if first {
            self.report(Event::Committed);
        }
        Ok(())
    }

    /// Does this, unless it is cancelled meanwhile: then the future is dropped.
    pub async fn unless_cancelled<T>(
        &self,
        doing: impl Future<Output = Result<T, Diagnostic>>,
    ) -> Result<T, Diagnostic> {
        let mut changed = self.0.changed.subscribe();
        let cancelled = async {
            while !self.is_cancelled() {
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::select! {
            done = doing => done,
            () = cancelled => Err(interrupted()),
        }
    }

    /// Waits until watchers have reached a state, and reports how far they have come:
    /// `3 of 21 WHAT`.
    pub async fn wait<N: Node>(
        &self,
        node: &N,
        (until, what): (Until, &str),
        watchers: Vec<WatcherName>,
    ) -> Result<(), Diagnostic> {
        let mut progress = node.progress(until, watchers.clone());
        let waiting = node.wait(until, watchers, self.patience());
        tokio::pin!(waiting);
        let mut counts = true;
        loop {
            tokio::select! {
                changed = progress.changed(), if counts => {
                    counts = changed.is_ok();
                    let View { progress: Progress { done, wanted }, elsewhere } =
                        progress.borrow_and_update().clone();
                    // Who made it can mend it at once, and need not wait for the end of the time.
                    let why = match elsewhere.is_empty() {
                        true => String::new(),
                        false => format!(": {elsewhere}"),
                    };
                    if wanted > 0 {
                        self.progress(format!("{done} of {wanted} {what}{why}"));
                    }
                }
                done = &mut waiting => return done,
            }
        }
    }

    fn done(&self) {
        let n = self.0.step.load(Ordering::Relaxed);
        let state = self.state();
        let last = state.events.iter().rev().find_map(|(_, event)| match event {
            Event::Step { n: of, text, .. } if *of == n => Some(text.clone()),
            _ => None,
        });
        drop(state);
        if let Some(text) = last {
            self.report(Event::Step { n, of: None, text, state: StepState::Done });
        }
    }

    fn report_waiting(&self, seconds: u64, other: &Owner) {
        let Ok(for_operation) = other.operation.parse::<OperationId>() else { return };
        let who = Who { command: other.command.clone(), pid: other.pid, ..Who::default() };
        self.report(Event::Waiting { seconds, for_operation, who });
    }

    // ---- what the registry uses ----

    /// Gives it up, if it is not committed; true if it is given up.
    pub fn cancel(&self) -> bool {
        let mut state = self.state();
        if state.committed || is_over(&state) {
            return false;
        }
        state.cancelled = true;
        self.announce(state);
        true
    }

    /// It is over. Returns what is to be remembered.
    pub fn end(&self, outcome: Outcome) -> Record {
        if outcome.ok {
            self.done();
        }
        self.report(Event::Outcome(Box::new(outcome)));
        self.record()
    }

    /// It has ended.
    pub fn is_over(&self) -> bool {
        is_over(&self.state())
    }

    /// It has been cancelled before its commit.
    pub fn is_cancelled(&self) -> bool {
        self.state().cancelled
    }

    /// Every event, from the first to the outcome. Bounded: who does not read holds up nobody.
    pub fn follow(&self) -> mpsc::Receiver<Event> {
        let (sender, receiver) = mpsc::channel(UNREAD);
        let running = self.clone();
        tokio::spawn(async move {
            let mut changed = running.0.changed.subscribe();
            let mut seen = 0;
            loop {
                let (news, over) = {
                    let state = running.state();
                    let fresh = state.events.iter().filter(|(change, _)| *change > seen);
                    let mut news: Vec<(u64, Event)> = fresh.cloned().collect();
                    news.sort_by_key(|(change, _)| *change);
                    seen = state.changes;
                    (news, is_over(&state))
                };
                for (_, event) in news {
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
                if over || changed.changed().await.is_err() {
                    return;
                }
            }
        });
        receiver
    }

    fn report(&self, event: Event) {
        let mut state = self.state();
        let at = state.changes + 1;
        let same = |old: &Event| match (old, &event) {
            (Event::Step { n: old, .. }, Event::Step { n: new, .. }) => old == new,
            (
                Event::Waiting { for_operation: old, .. },
                Event::Waiting { for_operation: new, .. },
            ) => old == new,
            _ => false,
        };
        match state.events.iter_mut().rfind(|(_, old)| same(old)) {
            Some((_, old)) if *old == event => return,
            Some(place) => *place = (at, event),
            None => state.events.push((at, event)),
        }
        self.announce(state);
    }

    fn announce(&self, mut state: MutexGuard<'_, State>) {
        state.changes += 1;
        let changes = state.changes;
        drop(state);
        self.0.changed.send_replace(changes);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a thread that panicked has left is whole: each change is one assignment.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_over(state: &State) -> bool {
    matches!(state.events.last(), Some((_, Event::Outcome(_))))
}

fn interrupted() -> Diagnostic {
    Diagnostic::error("interrupted: nothing has changed")
}

/// Files may be slow; the daemon must not be.
pub async fn blocking<T: Send + 'static>(
    doing: impl FnOnce() -> Result<T, Diagnostic> + Send + 'static,
) -> Result<T, Diagnostic> {
    let done = tokio::task::spawn_blocking(doing).await;
    done.map_err(|e| Diagnostic::error("it failed").because(e))?
}
