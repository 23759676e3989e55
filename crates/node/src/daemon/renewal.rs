//! Renews the workers of a plugin after an edit. The old code serves until the new code is ready,
//! and goes on serving if the new code does not start. The newest edit wins: an edit that arrives
//! while an earlier one is being tried replaces it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use mfserv_core::Diagnostic;
use mfserv_core::diff::Changes;
use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::WatcherName;
use mfserv_core::plan::{Plan, PlannedPlugin, PluginState};
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::worker::Phase;
use mfserv_supervisor::Until;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::node::Node;

/// The most files of an edit that an event names.
const NAMED: usize = 3;
/// Somebody who saves faster than the app starts waits this long; then the edit that is being
/// tried is served before the edits after it.
const PATIENT: Duration = Duration::from_secs(2);
/// How often a renewal is tried that other operations interrupt.
const TRIES: u32 = 5;

/// The changes since the workers were last renewed.
#[derive(Debug, Clone)]
pub struct Edit {
    began: Instant,
    files: BTreeSet<String>,
    more: u32,
}

impl Edit {
    /// An edit that begins at this time.
    pub fn begun(began: Instant) -> Edit {
        Edit { began, files: BTreeSet::new(), more: 0 }
    }

    /// When it began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// Adds a file.
    pub fn add(&mut self, file: &str) {
        if self.files.contains(file) {
            return;
        }
        match self.files.len() < NAMED {
            true => drop(self.files.insert(file.into())),
            false => self.more = self.more.saturating_add(1),
        }
    }

    fn as_fact(&self, plugin: &str) -> Fact {
        let files = self.files.iter().cloned().collect();
        Fact::FilesChanged { plugin: plugin.into(), files, more: self.more }
    }

    fn join(&mut self, later: Edit) {
        self.began = self.began.min(later.began);
        self.more = self.more.saturating_add(later.more);
        later.files.iter().for_each(|file| self.add(file));
    }
}

/// The queue between the file watch and the renewal of one plugin. It holds one edit: a later
/// edit is merged into an earlier one.
#[derive(Default)]
pub struct Edits {
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    /// Files are changing: an edit will follow.
    changing: bool,
    edit: Option<Edit>,
    closed: bool,
}

impl Edits {
    /// An empty queue.
    pub fn new() -> Arc<Edits> {
        Arc::default()
    }

    /// Files are changing: the code that is being tried is outdated.
    pub fn begin(&self) {
        if let Ok(mut queue) = self.queue.lock() {
            queue.changing = true;
        }
        self.changed.notify_one();
    }

    /// Queues an edit that is over.
    pub fn push(&self, edit: Edit) {
        if let Ok(mut queue) = self.queue.lock() {
            queue.changing = false;
            match &mut queue.edit {
                Some(known) => known.join(edit),
                none => *none = Some(edit),
            }
        }
        self.changed.notify_one();
    }

    /// No edit will follow.
    pub fn close(&self) {
        if let Ok(mut queue) = self.queue.lock() {
            queue.closed = true;
        }
        self.changed.notify_one();
    }

    /// Whether the code that is being tried is outdated.
    fn is_outdated(&self) -> bool {
        self.queue.lock().is_ok_and(|queue| queue.changing || queue.edit.is_some())
    }

    /// Waits for an edit; `None` when no edit will follow.
    async fn next(&self) -> Option<Edit> {
        loop {
            {
                let mut queue = self.queue.lock().ok().filter(|queue| !queue.closed)?;
                if let Some(edit) = queue.edit.take() {
                    return Some(edit);
                }
            }
            self.changed.notified().await;
        }
    }

    /// Waits until the code that is being tried is outdated.
    async fn outdated(&self) {
        while !self.is_outdated() {
            self.changed.notified().await;
        }
    }
}

/// How an attempt ended.
enum Attempt {
    /// The new code serves.
    Serves,
    /// It does not start.
    Broken(Diagnostic),
    /// Another edit follows.
    Newer,
    /// Another operation interrupted it (a reload that changes the same app).
    Interrupted,
    /// There is nothing to renew, or a refusal was reported already.
    Nothing,
}

impl Node {
    /// Renews the workers of a plugin after each edit, one attempt at a time, until the queue is
    /// closed.
    pub(super) async fn renew_when_edited(self, plugin: String, edits: Arc<Edits>) {
        let record = |fact| self.parts.events.record(fact);
        while let Some(mut edit) = edits.next().await {
            let mut tries = 0;
            record(edit.as_fact(&plugin));
            loop {
                let plugin = plugin.clone();
                match self.renew(&plugin, &edit, &edits).await {
                    Attempt::Newer => {
                        let Some(newer) = edits.next().await else { return };
                        edit.join(newer);
                        record(edit.as_fact(&plugin));
                        continue;
                    }
                    Attempt::Interrupted if tries < TRIES => {
                        tries += 1;
                        continue;
                    }
                    Attempt::Interrupted => {
                        let problem = interrupted(&plugin);
                        record(Fact::NotRenewed { plugin, problem });
                    }
                    Attempt::Nothing => {}
                    Attempt::Serves => {
                        let after_ms = edit.began.elapsed().as_millis() as u64;
                        record(Fact::Renewed { plugin, after_ms });
                    }
                    Attempt::Broken(problem) => record(Fact::NotRenewed { plugin, problem }),
                }
                break;
            }
        }
    }

    /// Renews workers that were started before the newest file was saved: the previous daemon
    /// died before that edit, or the edit was broken.
    pub(super) async fn renew_if_older(&self, plugin: &str, saved: SystemTime, edits: &Edits) {
        let Ok(saved) = saved.duration_since(SystemTime::UNIX_EPOCH) else { return };
        let watchers = self.parts.supervisor.status().await;
        let own = watchers.iter().filter(|watcher| watcher.plugin.as_deref() == Some(plugin));
        let mut ready = own.flat_map(|w| &w.workers).filter(|w| w.phase == Phase::Ready);
        if ready.any(|worker| u128::from(worker.started_ms) < saved.as_millis()) {
            edits.push(Edit::begun(Instant::now()));
        }
    }

    /// Tries an edit: the code at once, while the configuration, which may have changed too, is
    /// being read.
    async fn renew(&self, plugin: &str, edit: &Edit, edits: &Edits) -> Attempt {
        // A worker that is started now would not be stopped.
        if self.refuse_while_stopping().is_err() {
            return Attempt::Nothing;
        }
        let Ok(plan) = self.shown_plan() else { return Attempt::Nothing };
        let programs = Programs::of(&plan, plugin);
        // A plan is applied to its end, also when a newer edit ends this attempt.
        let node = self.clone();
        let applied = tokio::spawn(async move {
            let _turn = node.take_turn().await?;
            node.reconcile_in_turn().await
        });
        let attempt = async {
            let (applied, tried) = tokio::join!(applied, self.try_beside(&programs));
            let lost = |e| Diagnostic::error("applying the configuration failed").because(e);
            let changes = applied.map_err(lost).and_then(|applied| applied);
            self.let_serve(plugin, &programs, changes.map_err(Attempt::Broken)?, tried).await
        };
        let ended = tokio::select! {
            ended = attempt => ended,
            () = edits.outdated(), if edit.began.elapsed() < PATIENT => Err(Attempt::Newer),
        };
        match ended {
            Ok(()) => Attempt::Serves,
            // The failure is one of outdated code.
            Err(Attempt::Broken(_)) if edits.is_outdated() => Attempt::Newer,
            Err(other) => {
                self.parts.supervisor.abandon(names(&programs.beside));
                other
            }
        }
    }

    /// Starts one worker of each program beside those that serve, and waits until all are ready.
    /// One of each shows whether the new code starts.
    async fn try_beside(&self, programs: &Programs) -> Result<(), Diagnostic> {
        let first = programs.beside.iter().map(|spec| WatcherSpec { count: 1, ..spec.clone() });
        let supervisor = &self.parts.supervisor;
        supervisor.prepare(first.collect());
        supervisor.wait(Until::Prepared, names(&programs.beside), programs.patience).await?;
        Ok(())
    }

    /// Lets the new workers serve, unless they do not start. A program whose configuration has
    /// changed too is being replaced by the plan already.
    async fn let_serve(
        &self,
        plugin: &str,
        programs: &Programs,
        changes: Changes,
        tried: Result<(), Diagnostic>,
    ) -> Result<(), Attempt> {
        let plan = self.shown_plan().map_err(Attempt::Broken)?;
        let active = |one: &PlannedPlugin| one.name == plugin && one.state == PluginState::Active;
        if !plan.plugins.iter().any(active) {
            return Err(Attempt::Nothing);
        }
        tried.map_err(Attempt::Broken)?;
        let supervisor = &self.parts.supervisor;
        let mut replaced = changes.touched();
        replaced.retain(|name| name.plugin() == Some(plugin));
        let left = |specs: &[WatcherSpec]| -> Vec<WatcherName> {
            names(specs).into_iter().filter(|name| !replaced.contains(name)).collect()
        };
        let (beside, alone) = (left(&programs.beside), left(&programs.alone));
        let why = EndReason::FilesChanged;
        if supervisor.renew(beside.clone(), why.clone()).await.len() < beside.len() {
            return Err(Attempt::Interrupted);
        }
        supervisor.restart(alone.clone(), why);
        // A program that answers no requests is waited for only if there is no other.
        let waited = if beside.is_empty() { [replaced, alone].concat() } else { replaced };
        let settled = supervisor.wait(Until::Settled, waited, programs.patience);
        settled.await.map_err(|unmet| Attempt::Broken(unmet.into()))?;
        self.fronts_have_obeyed().await;
        Ok(())
    }
}

/// The programs of a plugin.
struct Programs {
    /// Programs of which a new worker may run beside the old ones.
    beside: Vec<WatcherSpec>,
    /// The others.
    alone: Vec<WatcherSpec>,
    /// How long the slowest of them may take to start.
    patience: Duration,
}

impl Programs {
    /// The programs in this plan; none if the plugin's directory was removed.
    fn of(plan: &Plan, plugin: &str) -> Programs {
        let there = plan.plugins.iter().any(|one| one.name == plugin && one.dir.exists());
        let own = |spec: &&WatcherSpec| spec.name.plugin() == Some(plugin) && spec.count > 0;
        let own = plan.watchers.values().filter(|_| there).filter(own);
        let patience = own.clone().map(|spec| spec.start_timeout_ms).max().unwrap_or(0) + 1000;
        let (beside, alone) =
            own.cloned().partition(|spec| spec.overlap && spec.upstream.is_some());
        Programs { beside, alone, patience: Duration::from_millis(patience) }
    }
}

fn interrupted(plugin: &str) -> Diagnostic {
    Diagnostic::error(format!("the new code of {plugin} does not serve yet"))
        .because(format!("other changes of the node came between, {TRIES} times"))
        .help(format!("save again, or `mfserv restart {plugin}`"))
}

fn names(specs: &[WatcherSpec]) -> Vec<WatcherName> {
    specs.iter().map(|spec| spec.name.clone()).collect()
}
