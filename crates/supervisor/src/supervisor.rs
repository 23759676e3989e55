//! The one task that owns every watcher: messages in, effects out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::wire::keeper::Notice;
use mfserv_core::worker::{Input, Want};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::handle::{Handle, Message};
use crate::keeper_link::{KeeperLink, KeeperNews, KeeperState};
use crate::saved::{Saved, SavedWatcher};
use crate::traffic::Traffic;
use crate::waiting::{Follower, Wait};
use crate::watcher::Watcher;

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

/// The owner of every watcher and worker.
pub struct Supervisor {
    pub(crate) watchers: BTreeMap<WatcherName, Watcher>,
    pub(crate) remembered: BTreeMap<WatcherName, SavedWatcher>,
    pub(crate) keeper: KeeperLink,
    pub(crate) traffic: Box<dyn Traffic>,
    emit: Emit,
    pub(crate) run_dir: PathBuf,
    state_file: PathBuf,
    pub(crate) handle: Handle,
    waiting: Vec<Wait>,
    followers: Vec<Follower>,
    /// A plan has said what is wanted. Before that nothing is started: what was adopted
    /// does not know its environment.
    pub(crate) planned: bool,
    unsaved_since: Option<Instant>,
}

impl Supervisor {
    /// Takes over what lives and starts the task. Nothing is started or stopped
    /// before the first [`Handle::apply`].
    pub fn start(options: Options) -> Handle {
        let (handle, task) = Supervisor::create(options);
        tokio::spawn(task);
        handle
    }

    /// The same, without the task: the caller runs it, and ends it when it likes.
    pub(crate) fn create(options: Options) -> (Handle, impl Future<Output = ()> + Send) {
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
            followers: Vec::new(),
            planned: false,
            unsaved_since: None,
        };
        let adopted = supervisor.adopt_all(options.found, &options.admitted);
        supervisor.emit(Fact::DaemonStarted { pid: std::process::id(), adopted });
        (handle, supervisor.run(received))
    }

    pub(crate) fn emit(&self, fact: Fact) {
        (self.emit)(fact);
    }

    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        loop {
            let next = self.next_deadline();
            let sleep = tokio::time::sleep_until(
                next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600)),
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
                waiting.swap_remove(index).end(outcome);
            }
        }
        self.waiting.append(&mut waiting);
        self.followers.retain_mut(|follower| follower.update(&self.watchers));
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

    pub(crate) fn unsaved(&mut self) {
        self.unsaved_since.get_or_insert_with(Instant::now);
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Apply(specs) => self.apply(specs),
            Message::Prepare(specs) => self.prepare(specs),
            Message::Abandon(names) => names.iter().for_each(|name| self.abandon(name)),
            Message::Renew(names, why, reply) => {
                let renewed = names.into_iter().filter(|name| self.renew(name, &why));
                let _ = reply.send(renewed.collect());
            }
            Message::Restart(names, why) => self.restart(&names, &why),
            Message::Ready(id) => self.drive(&id, Input::Ready),
            Message::Drained(id) => self.drive(&id, Input::Drained),
            Message::Spawned(id, answer) => self.spawned(&id, answer),
            Message::Keeper(news) => self.keeper_news(news),
            Message::Status(reply) => {
                let _ = reply.send(self.watchers.values().map(Watcher::status).collect());
            }
            Message::Wait(waiting) => self.waiting.push(Wait::new(waiting, &self.watchers)),
            Message::Follow(follower) => self.followers.push(follower),
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

    fn apply(&mut self, specs: Vec<WatcherSpec>) {
        self.planned = true;
        let wanted: BTreeMap<WatcherName, WatcherSpec> =
            specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        let all: BTreeSet<WatcherName> =
            self.watchers.keys().chain(wanted.keys()).cloned().collect();
        // The front first: it can answer while apps are still starting.
        let (apps, roles): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|name| name.plugin().is_some());
        for name in roles.into_iter().chain(apps) {
            let changed = self.want(&name, wanted.get(&name));
            if changed {
                self.promote(&name);
            }
            self.reconcile(&name);
        }
    }

    /// Sets what is wanted of a watcher; true if that is something else than before.
    fn want(&mut self, name: &WatcherName, spec: Option<&WatcherSpec>) -> bool {
        let saved = self.remembered.get(name).cloned();
        let Some(spec) = spec else {
            if let Some(watcher) = self.watchers.get_mut(name) {
                watcher.count = 0;
            }
            return true;
        };
        let watcher = self.watchers.entry(name.clone()).or_insert_with(|| {
            let mut watcher = Watcher::new(spec);
            watcher.remember(saved.unwrap_or_default());
            watcher
        });
        let fingerprint = spec.fingerprint();
        let changed = watcher.count != spec.count || watcher.fingerprint != fingerprint;
        watcher.count = spec.count;
        watcher.rolling.retain(|slot| *slot <= spec.count);
        if watcher.fingerprint != fingerprint {
            watcher.backoffs.clear();
        }
        watcher.fingerprint = fingerprint;
        watcher.spec = Arc::new(spec.clone());
        changed
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
            self.start_if_waiting(&id);
            self.queue_replacement(id, why.clone());
        }
        self.forget_watcher_if_over(name);
    }

    /// This worker is not needed any more.
    pub(crate) fn retire(&mut self, id: &WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        worker.want = Want::Down;
        let why = EndReason::Asked { what: "stop".into() };
        worker.reason.get_or_insert(why);
        self.drive(id, Input::Stop);
    }
}
