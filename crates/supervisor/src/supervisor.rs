//! The one task that owns every watcher: messages in, effects out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::status::{LastEnd, WatcherStatus};
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::wire::front::Peer;
use mfserv_core::wire::keeper::{Answer, Ask, Exit, Notice, Process, Scope};
use mfserv_core::worker::{Effect, Input, Phase, Want};
use mfserv_core::{Diagnostic, Kind};
use tokio::sync::{mpsc, oneshot};

use crate::keeper_link::{KeeperLink, KeeperNews, KeeperState};
use crate::saved::{Saved, SavedWatcher};
use crate::traffic::Traffic;
use crate::waiting::{Until, Waiting};
use crate::watcher::Watcher;
use crate::worker::Worker;
use crate::{now_ms, probe, sample, spawn};

/// How often what is remembered is written, at most.
const SAVE_EVERY: Duration = Duration::from_millis(200);

/// Where facts go.
pub type Emit = Arc<dyn Fn(Fact) + Send + Sync>;

/// What a supervisor is made of.
pub struct Options {
    /// The link to the keeper.
    pub keeper: KeeperLink,
    /// What the keeper said when the link was made.
    pub found: KeeperState,
    /// Workers that a living front gives requests to.
    pub admitted: BTreeSet<WorkerId>,
    /// Who gives requests to workers.
    pub traffic: Box<dyn Traffic>,
    /// Where facts go.
    pub emit: Emit,
    /// A directory for sockets (`var/run`).
    pub run_dir: PathBuf,
    /// Where what must be remembered is kept.
    pub state_file: PathBuf,
}

enum Message {
    Apply(Vec<WatcherSpec>),
    Prepare(Vec<WatcherSpec>),
    Abandon(Vec<WatcherName>),
    Renew(Vec<WatcherName>, EndReason),
    Restart(Vec<WatcherName>, EndReason),
    Ready(WorkerId),
    Drained(WorkerId),
    Spawned(WorkerId, Result<Answer, Diagnostic>),
    Keeper(KeeperNews),
    Status(oneshot::Sender<Vec<WatcherStatus>>),
    Wait(Waiting),
}

/// Speaks to the supervisor. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    messages: mpsc::UnboundedSender<Message>,
}

impl Handle {
    /// From now on these watchers are wanted, and no others.
    pub fn apply(&self, specs: Vec<WatcherSpec>) {
        self.send(Message::Apply(specs));
    }

    /// Start the workers of these specs beside what serves, for an `apply` that comes
    /// soon: then they take over all at once. See [`Until::Prepared`].
    pub fn prepare(&self, specs: Vec<WatcherSpec>) {
        self.send(Message::Prepare(specs));
    }

    /// What was prepared of these watchers takes over from what serves, whatever the
    /// slot, and the other slots are started anew: fresh code on the same plan.
    pub fn renew(&self, watchers: Vec<WatcherName>, why: EndReason) {
        self.send(Message::Renew(watchers, why));
    }

    /// Give up what was prepared of these watchers.
    pub fn abandon(&self, watchers: Vec<WatcherName>) {
        self.send(Message::Abandon(watchers));
    }

    /// Replace every worker of these watchers, one after the other.
    pub fn restart(&self, watchers: Vec<WatcherName>, why: EndReason) {
        self.send(Message::Restart(watchers, why));
    }

    /// A worker with [`mfserv_core::watcher::Probe::Told`] is ready.
    pub fn ready(&self, worker: WorkerId) {
        self.send(Message::Ready(worker));
    }

    /// A worker holds no request any more.
    pub fn drained(&self, worker: WorkerId) {
        self.send(Message::Drained(worker));
    }

    /// News from the keeper.
    pub fn keeper(&self, news: KeeperNews) {
        self.send(Message::Keeper(news));
    }

    /// What lives now, with memory and CPU.
    pub async fn status(&self) -> Vec<WatcherStatus> {
        let (reply, answer) = oneshot::channel();
        self.send(Message::Status(reply));
        let mut watchers = answer.await.unwrap_or_default();
        sample::add_samples(&mut watchers);
        watchers
    }

    /// Waits until these watchers are where they should be, at most this long.
    pub async fn wait(
        &self,
        until: Until,
        watchers: Vec<WatcherName>,
        at_most: Duration,
    ) -> Result<(), Diagnostic> {
        let (reply, answer) = oneshot::channel();
        let deadline = Instant::now() + at_most;
        let failed_before = BTreeMap::new();
        self.send(Message::Wait(Waiting { until, watchers, failed_before, deadline, reply }));
        answer.await.unwrap_or_else(|_| Err(Diagnostic::error("the supervisor has ended")))
    }

    fn send(&self, message: Message) {
        // A supervisor that is gone is the end of the daemon, which is restarted.
        let _ = self.messages.send(message);
    }
}

/// The owner of every watcher and worker.
pub struct Supervisor {
    pub(crate) watchers: BTreeMap<WatcherName, Watcher>,
    pub(crate) remembered: BTreeMap<WatcherName, SavedWatcher>,
    pub(crate) keeper: KeeperLink,
    traffic: Box<dyn Traffic>,
    emit: Emit,
    run_dir: PathBuf,
    state_file: PathBuf,
    handle: Handle,
    waiting: Vec<Waiting>,
    unsaved_since: Option<Instant>,
}

impl Supervisor {
    /// Takes over what lives and starts the task. Nothing is started or stopped
    /// before the first [`Handle::apply`].
    pub fn start(options: Options) -> Handle {
        let (messages, received) = mpsc::unbounded_channel();
        let handle = Handle { messages };
        let mut supervisor = Supervisor {
            watchers: BTreeMap::new(),
            remembered: Saved::load(&options.state_file).watchers,
            keeper: options.keeper,
            traffic: options.traffic,
            emit: options.emit,
            run_dir: options.run_dir,
            state_file: options.state_file,
            handle: handle.clone(),
            waiting: Vec::new(),
            unsaved_since: None,
        };
        let adopted = supervisor.adopt_all(options.found, &options.admitted);
        supervisor.emit(Fact::DaemonStarted { pid: std::process::id(), adopted });
        tokio::spawn(supervisor.run(received));
        handle
    }

    pub(crate) fn emit(&self, fact: Fact) {
        (self.emit)(fact);
    }

    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        loop {
            let next = self.next_deadline();
            let sleep = tokio::time::sleep_until(
                next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600)).into(),
            );
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.receive(message),
                    None => return,
                },
                () = sleep => {}
            }
            self.tick();
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let workers = self.watchers.values().flat_map(|w| w.workers.values());
        let patience = workers.flat_map(|w| [w.deadline, w.expires]).flatten();
        let waiting = self.waiting.iter().map(|w| w.deadline);
        patience.chain(waiting).chain(self.unsaved_since.map(|at| at + SAVE_EVERY)).min()
    }

    /// What time alone brings: patience that ends, old age, waiters, saving.
    fn tick(&mut self) {
        let now = Instant::now();
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let workers = || self.watchers.values().flat_map(|w| w.workers.values());
        let late: Vec<WorkerId> =
            workers().filter(|w| due(w.deadline)).map(|w| w.id.clone()).collect();
        let old: Vec<WorkerId> =
            workers().filter(|w| due(w.expires)).map(|w| w.id.clone()).collect();
        for id in late {
            self.out_of_patience(&id);
        }
        for id in old {
            let Some(worker) = self.worker(&id) else { continue };
            worker.expires = None;
            match worker.prepared {
                true => self.abandon(&id.watcher),
                false => self.queue_replacement(id, EndReason::TooOld),
            }
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        for index in (0..waiting.len()).rev() {
            if let Some(outcome) = waiting[index].outcome(&self.watchers) {
                let _ = waiting.swap_remove(index).reply.send(outcome);
            }
        }
        self.waiting.append(&mut waiting);
        if self.unsaved_since.is_some_and(|at| at + SAVE_EVERY <= now) {
            self.save();
        }
    }

    fn save(&mut self) {
        self.unsaved_since = None;
        if let Err(error) = Saved::store(&self.state_file, &self.watchers, &self.remembered) {
            let text = format!("cannot write {}: {error}", self.state_file.display());
            self.emit(Fact::Note { text });
        }
    }

    fn unsaved(&mut self) {
        self.unsaved_since.get_or_insert_with(Instant::now);
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Apply(specs) => self.apply(specs),
            Message::Prepare(specs) => self.prepare(specs),
            Message::Abandon(names) => names.iter().for_each(|name| self.abandon(name)),
            Message::Renew(names, why) => names.iter().for_each(|name| self.renew(name, &why)),
            Message::Restart(names, why) => self.restart(&names, &why),
            Message::Ready(id) => self.drive(&id, Input::Ready),
            Message::Drained(id) => self.drive(&id, Input::Drained),
            Message::Spawned(id, answer) => self.spawned(&id, answer),
            Message::Keeper(news) => self.keeper_news(news),
            Message::Status(reply) => {
                let _ = reply.send(self.watchers.values().map(Watcher::status).collect());
            }
            Message::Wait(mut waiting) => {
                waiting.failed_before =
                    self.watchers.iter().map(|(n, w)| (n.clone(), w.failed_starts)).collect();
                if waiting.until == Until::Tried {
                    waiting.failed_before.clear();
                }
                self.waiting.push(waiting);
            }
        }
    }

    fn keeper_news(&mut self, news: KeeperNews) {
        match news {
            KeeperNews::Connected(state) => self.resync(state),
            KeeperNews::Notice(Notice::Exited(exit)) => self.exited(exit),
            KeeperNews::Notice(Notice::Dropped { id, bytes }) => {
                self.emit(Fact::OutputDropped { id, bytes });
            }
            KeeperNews::Notice(Notice::LogTrouble { file, reason }) => {
                let text = format!("cannot write {}: {reason}", file.display());
                self.emit(Fact::Note { text });
            }
            KeeperNews::Lost | KeeperNews::Notice(Notice::Ending { .. }) => {}
        }
    }

    // ---- what is wanted ----

    fn apply(&mut self, specs: Vec<WatcherSpec>) {
        let wanted: BTreeMap<WatcherName, WatcherSpec> =
            specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        let all: BTreeSet<WatcherName> =
            self.watchers.keys().chain(wanted.keys()).cloned().collect();
        // The front first: it can answer while apps are still starting.
        let (apps, roles): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|name| name.plugin().is_some());
        for name in roles.into_iter().chain(apps) {
            self.want(&name, wanted.get(&name));
            self.promote(&name);
            self.reconcile(&name);
        }
    }

    fn want(&mut self, name: &WatcherName, spec: Option<&WatcherSpec>) {
        let saved = self.remembered.get(name).cloned();
        let Some(spec) = spec else {
            if let Some(watcher) = self.watchers.get_mut(name) {
                watcher.count = 0;
            }
            return;
        };
        let watcher = self.watchers.entry(name.clone()).or_insert_with(|| {
            let mut watcher = Watcher::new(spec);
            watcher.remember(saved.unwrap_or_default());
            watcher
        });
        watcher.count = spec.count;
        watcher.rolling.retain(|slot| *slot <= spec.count);
        let fingerprint = spec.fingerprint();
        if watcher.fingerprint != fingerprint {
            watcher.backoffs.clear();
        }
        watcher.fingerprint = fingerprint;
        watcher.spec = Arc::new(spec.clone());
    }

    /// Brings one watcher from what lives to what is wanted.
    pub(crate) fn reconcile(&mut self, name: &WatcherName) {
        let Some(watcher) = self.watchers.get(name) else { return };
        let (count, fingerprint) = (watcher.count, watcher.fingerprint);
        let surplus: Vec<WorkerId> =
            watcher.workers.keys().filter(|id| id.slot > count).cloned().collect();
        let empty: Vec<u32> =
            (1..=count).filter(|slot| watcher.needed(*slot).next().is_none()).collect();
        let outdated: Vec<WorkerId> = watcher
            .workers
            .values()
            .filter(|w| w.id.slot <= count && w.want == Want::Up && w.fingerprint != fingerprint)
            .map(|w| w.id.clone())
            .collect();
        for id in surplus {
            self.retire(&id);
        }
        for slot in empty {
            self.start_in(name, slot, None, None);
        }
        let why = EndReason::Asked { what: "configuration changed".into() };
        for id in outdated {
            self.queue_replacement(id, why.clone());
        }
        self.forget_watcher_if_over(name);
    }

    fn restart(&mut self, names: &[WatcherName], why: &EndReason) {
        for name in names {
            let Some(watcher) = self.watchers.get_mut(name) else { continue };
            watcher.backoffs.clear();
            let ids: Vec<WorkerId> = watcher
                .workers
                .values()
                .filter(|w| w.want == Want::Up)
                .map(|w| w.id.clone())
                .collect();
            for id in ids {
                self.queue_replacement(id, why.clone());
            }
        }
    }

    /// This worker is not needed any more.
    pub(crate) fn retire(&mut self, id: &WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        worker.want = Want::Down;
        let why = EndReason::Asked { what: "stop".into() };
        worker.reason.get_or_insert(why);
        self.drive(id, Input::Stop);
    }

    // ---- replacing one after the other ----

    fn queue_replacement(&mut self, id: WorkerId, why: EndReason) {
        let name = id.watcher.clone();
        let Some(watcher) = self.watchers.get_mut(&name) else { return };
        if !watcher.queue.iter().any(|(queued, _)| *queued == id) {
            watcher.queue.push_back((id, why));
        }
        self.roll(&name);
    }

    /// Starts as many of the queued replacements as may be under way at a time.
    fn roll(&mut self, name: &WatcherName) {
        loop {
            let Some(watcher) = self.watchers.get_mut(name) else { return };
            if watcher.rolling.len() >= watcher.rolling_width() {
                return;
            }
            let Some((id, why)) = watcher.queue.pop_front() else { return };
            if !watcher.needs_replacement(&id) {
                continue;
            }
            let Some(worker) = watcher.workers.get_mut(&id) else { continue };
            let (phase, overlap) = (worker.phase(), worker.spec.overlap);
            if phase == Phase::Backoff {
                // Not started yet: it will start as what is wanted now, at once.
                self.drive(&id, Input::Start);
                continue;
            }
            worker.reason = Some(why.clone());
            watcher.rolling.insert(id.slot);
            self.emit(Fact::WorkerRetiring { worker: id.clone(), why });
            // Without overlap the old one goes first; its requests wait in the front.
            self.drive(&id, if overlap { Input::Recycle } else { Input::Stop });
        }
    }

    // ---- the life of a worker ----

    /// Something happens to a worker: ask the table, carry out the effect.
    pub(crate) fn drive(&mut self, id: &WorkerId, input: Input) {
        let Some(worker) = self.worker(id) else { return };
        let effect = worker.advance(input);
        self.unsaved();
        match effect {
            Effect::Nothing => {}
            Effect::Spawn => self.spawn(id),
            Effect::Admit => self.admit(id),
            Effect::Drain => self.drain(id),
            Effect::Signal => self.signal(id),
            Effect::Kill => self.kill(id),
            Effect::Replace => self.start_in(&id.watcher, id.slot, None, Some(id.clone())),
            Effect::Restart => self.restart_slot(id),
            Effect::Gone => self.gone(id),
        }
    }

    fn out_of_patience(&mut self, id: &WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        worker.deadline = None;
        if worker.phase() == Phase::Starting {
            let saw = worker.saw.lock().map(|saw| saw.clone()).unwrap_or_default();
            worker.reason = Some(EndReason::FailedProbe { saw });
        }
        self.drive(id, Input::Timeout);
    }

    /// A new worker in a slot: at once, or after a wait.
    fn start_in(
        &mut self,
        name: &WatcherName,
        slot: u32,
        wait: Option<Duration>,
        replaces: Option<WorkerId>,
    ) {
        let Some(watcher) = self.watchers.get_mut(name) else { return };
        let id = watcher.next_id(slot);
        let mut worker = Worker::new(id.clone(), watcher.spec.clone(), watcher.fingerprint, wait);
        worker.replaces = replaces;
        watcher.workers.insert(id.clone(), worker);
        if wait.is_none() {
            self.drive(&id, Input::Start);
        }
    }

    pub(crate) fn spawn(&mut self, id: &WorkerId) {
        let Some(watcher) = self.watchers.get_mut(&id.watcher) else { return };
        let (spec, fingerprint) = (watcher.spec.clone(), watcher.fingerprint);
        let Some(worker) = watcher.workers.get_mut(id) else { return };
        // One that has waited for its start starts as what is wanted now.
        if !worker.prepared {
            worker.spec = spec;
            worker.fingerprint = fingerprint;
        }
        worker.started = Instant::now();
        let (spec, prepared) = (worker.spec.clone(), worker.prepared);
        self.probe(id);
        let spec = Box::new(spawn::process_spec(&spec, id, &self.run_dir, prepared));
        let (keeper, handle, id) = (self.keeper.clone(), self.handle.clone(), id.clone());
        tokio::spawn(async move {
            let answer = keeper.ask(Ask::Spawn { spec }).await;
            handle.send(Message::Spawned(id, answer));
        });
    }

    /// Watches for readiness, until ready or out of patience.
    pub(crate) fn probe(&mut self, id: &WorkerId) {
        let notify = spawn::notify_path(&self.run_dir, id);
        let handle = self.handle.clone();
        let Some(worker) = self.worker(id) else { return };
        let socket = spawn::socket_path(&worker.spec, id);
        let kind = worker.spec.probe.clone();
        let Ok(prepared) = probe::prepare(&kind, socket, &notify) else { return };
        let (saw, id) = (worker.saw.clone(), id.clone());
        let task = tokio::spawn(async move {
            probe::until_ready(kind, prepared, saw).await;
            handle.send(Message::Ready(id));
        });
        if let Some(before) = worker.probe.replace(task.abort_handle()) {
            before.abort();
        }
    }

    fn spawned(&mut self, id: &WorkerId, answer: Result<Answer, Diagnostic>) {
        if self.worker(id).is_none() && matches!(answer, Ok(Answer::Spawned(_))) {
            // Given up in the meantime: nobody would ever stop it.
            let tree = Ask::Signal { id: id.to_string(), signal: 9, scope: Scope::Tree };
            self.keeper.tell(tree);
        }
        let Some(worker) = self.worker(id) else { return };
        match answer {
            Ok(Answer::Spawned(process)) => self.has_process(id, process),
            // The keeper is away; when it is back, what it says decides.
            Err(problem) if problem.kind == Kind::NotRunning => {}
            other => {
                let why = match other {
                    Err(problem) => problem.what,
                    Ok(answer) => format!("unexpected answer of the keeper: {answer:?}"),
                };
                worker.reason = Some(EndReason::NotStarted { why });
                self.ended(id, None);
            }
        }
    }

    fn has_process(&mut self, id: &WorkerId, process: Process) {
        self.emit(Fact::WorkerStarted { worker: id.clone(), pid: process.pid });
        let Some(worker) = self.worker(id) else { return };
        worker.process = Some(process);
        // Stopped while it was being started: what was asked then is done now.
        match worker.phase() {
            Phase::Stopping => self.signal(id),
            Phase::Killing => self.kill(id),
            _ => {}
        }
    }

    pub(crate) fn admit(&mut self, id: &WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        if worker.prepared {
            return self.wait_for_plan(id);
        }
        let after_ms = worker.started.elapsed().as_millis() as u64;
        let (spec, slot) = (worker.spec.clone(), id.slot);
        self.emit(Fact::WorkerReady { worker: id.clone(), after_ms });
        if let (Some(upstream), Some(socket)) = (&spec.upstream, spawn::socket_path(&spec, id)) {
            if let Some(link) = spawn::socket_link(&spec, id) {
                point(&link, &socket);
            }
            self.traffic.admit(upstream, Peer { worker: id.clone(), socket });
        }
        self.retire_replaced(id);
        if let Some(watcher) = self.watchers.get_mut(&id.watcher) {
            watcher.rolling.remove(&slot);
        }
        self.roll(&id.watcher);
    }

    fn drain(&mut self, id: &WorkerId) {
        let upstream = self.worker(id).and_then(|w| w.spec.upstream.clone());
        match upstream {
            Some(upstream) => self.traffic.drain(&upstream, id),
            None => self.drive(id, Input::Drained),
        }
    }

    pub(crate) fn signal(&mut self, id: &WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        let signal = worker.spec.stop_signal;
        if worker.process.is_some() {
            self.keeper.tell(Ask::Signal { id: id.to_string(), signal, scope: Scope::Process });
        }
    }

    pub(crate) fn kill(&mut self, id: &WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        if worker.process.is_some() {
            self.keeper.tell(Ask::Signal { id: id.to_string(), signal: 9, scope: Scope::Tree });
        } else {
            // Its start was never answered (the keeper is away): nothing to kill.
            self.ended(id, None);
        }
    }

    // ---- ends ----

    pub(crate) fn exited(&mut self, exit: Exit) {
        self.keeper.tell(Ask::Forget { id: exit.id.clone() });
        if let Ok(id) = exit.id.parse::<WorkerId>() {
            self.ended(&id, Some(exit));
        }
    }

    pub(crate) fn ended(&mut self, id: &WorkerId, exit: Option<Exit>) {
        let Some(worker) = self.worker(id) else { return };
        let asked = matches!(
            worker.reason,
            Some(EndReason::Asked { .. } | EndReason::TooOld | EndReason::FilesChanged)
        ) && worker.phase() != Phase::Ready;
        let why = match (&worker.reason, &exit) {
            (Some(reason), _) if asked || worker.phase() != Phase::Ready => reason.clone(),
            (_, Some(exit)) => EndReason::of(&exit.ended),
            (reason, None) => reason.clone().unwrap_or(EndReason::UnknownAdopted),
        };
        let (ready_ms, upstream) = (worker.ready_ms(), worker.spec.upstream.clone());
        if let Some(upstream) = upstream {
            self.traffic.forget(&upstream, id);
        }
        let (last_output, left_behind) =
            exit.map_or_else(Default::default, |e| (e.last_output, e.left_behind));
        let crash = (!asked).then(|| LastEnd {
            worker: id.clone(),
            why: why.clone(),
            at_ms: now_ms(),
            last_output: last_output.clone(),
        });
        let wait = crash.and_then(|end| self.crashed(id, end, ready_ms));
        if let Some(worker) = self.worker(id) {
            worker.reason = Some(why.clone());
        }
        let needed = self.worker(id).is_some_and(|w| w.want == Want::Up);
        self.emit(Fact::WorkerEnded {
            worker: id.clone(),
            why,
            last_output,
            left_behind,
            restart_in_ms: needed.then_some(wait.map_or(0, |w| w.as_millis() as u64)),
        });
        self.drive(id, Input::Exited);
    }

    /// Counts a crash; returns how long its slot waits, if it does.
    fn crashed(&mut self, id: &WorkerId, end: LastEnd, ready_ms: Option<u64>) -> Option<Duration> {
        let watcher = self.watchers.get_mut(&id.watcher)?;
        watcher.crashes += 1;
        watcher.failed_starts += u64::from(ready_ms.is_none());
        watcher.last_end = Some(end);
        if watcher.workers.get(id).is_some_and(|w| w.prepared) {
            return None;
        }
        let wait = watcher.backoffs.entry(id.slot).or_default().crashed(ready_ms);
        (wait > 0).then(|| Duration::from_millis(wait))
    }

    /// A needed worker has ended: another one takes its slot, unless one is there already.
    fn restart_slot(&mut self, id: &WorkerId) {
        let Some(watcher) = self.watchers.get_mut(&id.watcher) else { return };
        let replaces = watcher.workers.get(id).and_then(|w| w.replaces.clone());
        let asked = watcher
            .workers
            .get(id)
            .is_some_and(|w| matches!(w.reason, Some(EndReason::Asked { .. } | EndReason::TooOld)));
        let wait = watcher.backoffs.get(&id.slot).map_or(0, |b| b.wait_ms());
        let wait = (wait > 0 && !asked).then(|| Duration::from_millis(wait));
        // The one it was to replace may still serve: then this is one more try.
        let replaces = replaces.filter(|old| watcher.workers.contains_key(old));
        let covered = watcher
            .needed(id.slot)
            .any(|other| other.id != *id && Some(&other.id) != replaces.as_ref());
        self.remove(id);
        if !covered {
            self.start_in(&id.watcher, id.slot, wait, replaces);
        }
    }

    fn gone(&mut self, id: &WorkerId) {
        self.remove(id);
        self.forget_watcher_if_over(&id.watcher);
    }

    /// Forgets a worker that has no process, and its sockets.
    fn remove(&mut self, id: &WorkerId) {
        let Some(watcher) = self.watchers.get_mut(&id.watcher) else { return };
        let Some(worker) = watcher.workers.remove(id) else { return };
        if let Some(probe) = &worker.probe {
            probe.abort();
        }
        let _ = std::fs::remove_file(spawn::notify_path(&self.run_dir, id));
        let socket = spawn::socket_path(&worker.spec, id);
        if let (Some(socket), Some(link)) = (socket, spawn::socket_link(&worker.spec, id)) {
            let _ = std::fs::remove_file(&socket);
            if std::fs::read_link(&link).is_ok_and(|to| to == socket) {
                let _ = std::fs::remove_file(link);
            }
        }
        self.unsaved();
    }

    pub(crate) fn forget_watcher_if_over(&mut self, name: &WatcherName) {
        if self.watchers.get(name).is_some_and(Watcher::is_over) {
            if let Some(watcher) = self.watchers.remove(name) {
                self.remembered.insert(name.clone(), watcher.to_remember());
            }
        }
    }
}

/// Makes `link` point to `socket`, in one step.
fn point(link: &std::path::Path, socket: &std::path::Path) {
    let beside = link.with_extension("new");
    let _ = std::fs::remove_file(&beside);
    if std::os::unix::fs::symlink(socket, &beside).is_ok() {
        let _ = std::fs::rename(&beside, link);
    }
}
