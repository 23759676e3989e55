//! The one task that owns every watcher. It passes messages and deadlines on to them; what
//! they mean is decided there.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::wire::keeper::{Answer, Exit, Notice};
use mfserv_core::worker::Input;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::adopt::{adopt, by_id, is_of_another};
use crate::context::Context;
use crate::handle::{Handle, Message};
use crate::keeper_link::{KeeperLink, KeeperNews, KeeperState};
use crate::sampling::{Measured, Sampling};
use crate::saved::Saved;
use crate::traffic::Traffic;
use crate::waiting::{Follower, Wait};
use crate::watcher::Watcher;

/// The receiver of all facts.
pub type Emit = Arc<dyn Fn(Fact) + Send + Sync>;

/// What a supervisor is made of.
pub struct Options {
    /// The link to the keeper.
    pub keeper: KeeperLink,
    /// What the keeper said when the link was made.
    pub found: KeeperState,
    /// Workers that a living front gives requests to.
    pub admitted: BTreeSet<WorkerId>,
    /// Gives requests to workers.
    pub traffic: Box<dyn Traffic>,
    /// Receives all facts.
    pub emit: Emit,
    /// A directory for sockets (`var/run`).
    pub run_dir: PathBuf,
    /// The file of what the next daemon must know.
    pub state_file: PathBuf,
}

/// The owner of every watcher.
pub struct Supervisor {
    watchers: BTreeMap<WatcherName, Watcher>,
    context: Context,
    saved: Saved,
    waiting: Vec<Wait>,
    followers: Vec<Follower>,
    /// When the ready workers are looked at next.
    look_at: Instant,
    sampling: Sampling,
}

/// So often ready workers are looked at, without asking them.
const LOOK: Duration = Duration::from_secs(2);

/// So many workers are probed after each look at most: with many workers, each is probed less
/// often.
const PROBES_PER_LOOK: usize = 40;

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
        let (handle, messages) = Handle::new();
        let saved = Saved::load(options.state_file);
        let mut context = Context {
            keeper: options.keeper,
            traffic: options.traffic,
            emit: options.emit,
            run_dir: options.run_dir,
            handle: handle.clone(),
            changed: false,
        };
        let (watchers, adopted) = adopt(options.found, &options.admitted, &saved, &mut context);
        context.emit(Fact::DaemonStarted { pid: std::process::id(), adopted });
        let (waiting, followers) = (Vec::new(), Vec::new());
        let look_at = Instant::now() + LOOK;
        let sampling = Sampling::default();
        let supervisor =
            Supervisor { watchers, context, saved, waiting, followers, look_at, sampling };
        (handle, supervisor.run(messages))
    }

    async fn run(mut self, mut messages: mpsc::UnboundedReceiver<Message>) {
        loop {
            let idle = || Instant::now() + Duration::from_secs(3600);
            let sleep = tokio::time::sleep_until(self.next_deadline().unwrap_or_else(idle));
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
        let watchers = self.watchers.values().filter_map(Watcher::next_deadline);
        let others = self.waiting.iter().map(|w| w.deadline).chain(self.saved.due());
        let is_limited = || self.watchers.values().any(|w| w.to_measure().next().is_some());
        let sampling = self.sampling.due().filter(|_| is_limited());
        watchers.chain(others).chain(sampling).chain([self.look_at]).min()
    }

    fn measured(&mut self, measured: Vec<Measured<WorkerId>>, took: Duration) {
        self.sampling.ended(&measured, took);
        for one in measured {
            let name = one.id.watcher.clone();
            self.with(&name, |watcher, context| watcher.measured(one, context));
        }
    }

    /// Measures the workers whose memory is limited.
    fn measure(&mut self) {
        let workers: Vec<_> = self.watchers.values().flat_map(Watcher::to_measure).collect();
        if !workers.is_empty() {
            let handle = self.context.handle.clone();
            let tell = move |measured, took| handle.send(Message::Measured(measured, took));
            self.sampling.begin(workers, tell);
        }
    }

    /// After each message and at each deadline: timeouts, waiters, followers, saving.
    fn tick(&mut self) {
        let now = Instant::now();
        let due = |w: &Watcher| w.next_deadline().is_some_and(|at| at <= now);
        let late = self.watchers.values().filter(|w| due(w)).map(|w| w.name().clone());
        for name in late.collect::<Vec<_>>() {
            self.with(&name, |watcher, context| watcher.tick(now, context));
        }
        if self.look_at <= now {
            self.look_at = now + LOOK;
            for name in self.watchers.keys().cloned().collect::<Vec<_>>() {
                self.with(&name, Watcher::look);
            }
            self.ask_idle(now);
            if self.saved.is_missing() {
                self.saved.changed();
            }
        }
        if self.sampling.due().is_some_and(|at| at <= now) {
            self.measure();
        }
        for index in (0..self.waiting.len()).rev() {
            if let Some(outcome) = self.waiting[index].outcome(&self.watchers) {
                self.waiting.swap_remove(index).end(outcome);
            }
        }
        self.followers.retain_mut(|follower| follower.update(&self.watchers));
        if std::mem::take(&mut self.context.changed) {
            self.saved.changed();
        }
        if self.saved.due().is_some_and(|at| at <= now) {
            self.save();
        }
    }

    /// The ready workers that were asked longest ago: the fronts say which of them have nothing
    /// in hand, and these are asked.
    fn ask_idle(&mut self, now: Instant) {
        let mut due: Vec<_> = self.watchers.values().flat_map(|w| w.due_for_probe(now)).collect();
        due.sort();
        due.truncate(PROBES_PER_LOOK);
        let mut workers: BTreeMap<String, Vec<WorkerId>> = BTreeMap::new();
        for (_, upstream, id) in due {
            self.with(&id.watcher, |watcher, _| watcher.begin_probe(&id, now));
            workers.entry(upstream).or_default().push(id);
        }
        if !workers.is_empty() {
            self.context.traffic.ask_idle(workers);
        }
    }

    fn save(&mut self) {
        let present = self.watchers.iter().map(|(name, w)| (name.clone(), w.to_save()));
        if let Err(text) = self.saved.store(present) {
            self.context.emit(Fact::Note { text });
        }
    }

    /// Does something with a watcher, if it exists, and forgets it if it is over then.
    fn with<T>(
        &mut self,
        name: &WatcherName,
        act: impl FnOnce(&mut Watcher, &mut Context) -> T,
    ) -> Option<T> {
        let watcher = self.watchers.get_mut(name)?;
        let result = act(watcher, &mut self.context);
        if watcher.is_over() {
            self.saved.keep(name.clone(), watcher.to_save().next_incarnation);
            self.watchers.remove(name);
        }
        Some(result)
    }

    /// Does something with the watcher of this spec, which is made if it does not exist.
    fn with_spec(
        &mut self,
        spec: WatcherSpec,
        act: impl FnOnce(&mut Watcher, WatcherSpec, &mut Context),
    ) {
        let name = spec.name.clone();
        if !self.watchers.contains_key(&name) {
            let watcher = Watcher::new(spec.clone(), self.saved.recall(&name));
            self.watchers.insert(name.clone(), watcher);
        }
        self.with(&name, |watcher, context| act(watcher, spec, context));
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Apply(specs) => self.apply(specs),
            Message::Prepare(specs) => {
                for spec in specs {
                    self.with_spec(spec, Watcher::prepare);
                }
            }
            Message::Abandon(names) => {
                for name in names {
                    self.with(&name, Watcher::abandon);
                }
            }
            Message::Renew(names, why, reply) => {
                let _ = reply.send(self.renew(names, &why));
            }
            Message::Restart(names, why) => {
                for name in names {
                    self.with(&name, |watcher, context| watcher.restart(&why, context));
                }
            }
            Message::Replace(workers, why) => self.replace(workers, &why),
            Message::Stop(names) => {
                for name in names {
                    self.with(&name, Watcher::stop);
                }
            }
            Message::Ready(id) => self.drive(&id, Input::Ready),
            Message::PortTaken(id) => {
                self.with(&id.watcher, |watcher, context| watcher.port_taken(&id, context));
            }
            Message::Suspect(id) => {
                self.with(&id.watcher, |watcher, context| watcher.suspect(&id, context));
            }
            Message::Checked { id, was_idle, checked } => {
                let act = |watcher: &mut Watcher, context: &mut Context| {
                    watcher.checked(&id, was_idle, checked, context);
                };
                self.with(&id.watcher, act);
            }
            Message::Idle(workers) => {
                for (id, for_ms) in workers {
                    let idle = Duration::from_millis(for_ms);
                    self.with(&id.watcher, |watcher, context| watcher.is_idle(&id, idle, context));
                }
            }
            Message::Measured(measured, took) => self.measured(measured, took),
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

    fn apply(&mut self, specs: Vec<WatcherSpec>) {
        let mut wanted: BTreeMap<WatcherName, WatcherSpec> =
            specs.into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        let all: BTreeSet<WatcherName> =
            self.watchers.keys().chain(wanted.keys()).cloned().collect();
        // The front first: it can answer while apps are still starting.
        let (apps, roles): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|name| name.plugin().is_some());
        for name in roles.into_iter().chain(apps) {
            match wanted.remove(&name) {
                Some(spec) => self.with_spec(spec, Watcher::apply),
                None => drop(self.with(&name, Watcher::stop)),
            }
        }
    }

    fn renew(&mut self, names: Vec<WatcherName>, why: &EndReason) -> Vec<WatcherName> {
        let mut renewed = names;
        renewed.retain(|name| {
            self.with(name, |watcher, context| watcher.renew(why, context)).unwrap_or(false)
        });
        renewed
    }

    fn replace(&mut self, workers: Vec<WorkerId>, why: &EndReason) {
        for id in workers {
            let replace = |watcher: &mut Watcher, context: &mut Context| {
                watcher.replace(vec![id.clone()], why, context);
            };
            self.with(&id.watcher, replace);
        }
    }

    fn drive(&mut self, id: &WorkerId, input: Input) {
        self.with(&id.watcher, |watcher, context| watcher.drive(id, input, context));
    }

    fn spawned(&mut self, id: &WorkerId, answer: Result<Answer, Diagnostic>) {
        let known = self.watchers.get(&id.watcher).is_some_and(|watcher| watcher.has(id));
        if !known && matches!(answer, Ok(Answer::Spawned(_))) {
            // Its worker was given up in the meantime: nobody would ever stop the process.
            self.context.kill_tree(id);
        }
        self.with(&id.watcher, |watcher, context| watcher.spawned(id, answer, context));
    }

    fn keeper_news(&mut self, news: KeeperNews) {
        match news {
            KeeperNews::Connected(state) => self.resync(state),
            KeeperNews::Notice(Notice::Exited(exit)) => self.exited(exit),
            KeeperNews::Notice(Notice::Dropped { id, bytes }) => {
                self.context.emit(Fact::OutputDropped { id, bytes });
            }
            KeeperNews::Notice(Notice::LogTrouble { file, reason }) => {
                let file = file.to_string_lossy().into_owned();
                self.context.emit(Fact::LogTrouble { file, reason });
            }
            KeeperNews::Lost | KeeperNews::Notice(Notice::Ending { .. }) => {}
        }
    }

    fn exited(&mut self, exit: Exit) {
        if is_of_another(&exit.id) {
            return;
        }
        self.context.forget_exit(exit.id.clone());
        if let Ok(id) = exit.id.parse::<WorkerId>() {
            self.with(&id.watcher, |watcher, context| watcher.exited(&id, exit, context));
        }
    }

    /// The link to the keeper is back: what the keeper says lives is the truth.
    fn resync(&mut self, keeper: KeeperState) {
        for exit in keeper.exits {
            self.exited(exit);
        }
        let alive = by_id(keeper.alive);
        let known = |id: &WorkerId| self.watchers.get(&id.watcher).is_some_and(|w| w.counts_on(id));
        for stray in alive.keys().filter(|id| !known(id)) {
            self.context.kill_tree(stray);
        }
        for name in self.watchers.keys().cloned().collect::<Vec<_>>() {
            self.with(&name, |watcher, context| watcher.resync(&alive, context));
        }
    }
}
