//! The workers of a plugin are renewed after an edit. The old code serves until the new one
//! is ready; if it does not start, it goes on serving. The newest edit wins: one that comes
//! while the last one is being tried takes its place.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::WatcherName;
use mfserv_core::plan::{PlannedPlugin, PluginState};
use mfserv_core::watcher::WatcherSpec;
use mfserv_supervisor::Until;
use tokio::sync::Notify;

use super::node::Node;

/// The most files of an edit that are named.
const NAMED: usize = 3;
/// Who saves faster than the app starts sees nothing new for so long; then what is being
/// tried is served before what came after it.
const PATIENT: Duration = Duration::from_secs(2);
/// How often a renewal is tried that other operations give up.
const TRIES: u32 = 5;

/// What has changed since the workers were last renewed.
#[derive(Debug, Clone)]
pub struct Edit {
    began: Instant,
    files: BTreeSet<String>,
    more: u32,
}

impl Edit {
    /// An edit that began at this time.
    pub fn begun(began: Instant) -> Edit {
        Edit { began, files: BTreeSet::new(), more: 0 }
    }

    /// When it began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// This file is part of it.
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

/// The edits of one plugin on their way to who renews it: one place, in which a later edit
/// joins an earlier one.
#[derive(Default)]
pub struct Edits {
    place: Mutex<Place>,
    told: Notify,
}

#[derive(Default)]
struct Place {
    edit: Option<Edit>,
    closed: bool,
}

impl Edits {
    /// There was none yet.
    pub fn new() -> Arc<Edits> {
        Arc::default()
    }

    /// An edit is over.
    pub fn tell(&self, edit: Edit) {
        if let Ok(mut place) = self.place.lock() {
            match &mut place.edit {
                Some(known) => known.join(edit),
                none => *none = Some(edit),
            }
        }
        self.told.notify_one();
    }

    /// There will be no more.
    pub fn close(&self) {
        if let Ok(mut place) = self.place.lock() {
            place.closed = true;
        }
        self.told.notify_one();
    }

    fn take(&self) -> Option<Edit> {
        self.place.lock().ok().and_then(|mut place| place.edit.take())
    }

    fn is_waiting(&self) -> bool {
        self.place.lock().is_ok_and(|place| place.edit.is_some())
    }

    /// Waits for an edit; `None` when there will be no more.
    async fn next(&self) -> Option<Edit> {
        loop {
            if self.place.lock().map_or(true, |place| place.closed) {
                return None;
            }
            match self.take() {
                Some(edit) => return Some(edit),
                None => self.told.notified().await,
            }
        }
    }

    /// Waits until an edit waits.
    async fn newer(&self) {
        while !self.is_waiting() {
            self.told.notified().await;
        }
    }
}

/// How an attempt ended.
enum Attempt {
    /// The new code serves.
    Serves,
    /// It does not start.
    Broken(Diagnostic),
    /// Another edit came.
    Newer,
    /// Another operation gave it up (a reload that changes the same app).
    GivenUp,
    /// There is nothing to renew, or it has been said why not.
    Nothing,
}

impl Node {
    /// Renews the workers of a plugin after each edit, one attempt at a time, until there
    /// will be no more edits.
    pub(super) async fn renew_when_edited(self, plugin: String, edits: Arc<Edits>) {
        let record = |fact| self.parts.events.record(fact);
        while let Some(mut edit) = edits.next().await {
            let mut tries = 0;
            record(edit.as_fact(&plugin));
            loop {
                let plugin = plugin.clone();
                match self.renew(&plugin, &edit, &edits).await {
                    Attempt::Newer => {
                        edits.take().into_iter().for_each(|newer| edit.join(newer));
                        record(edit.as_fact(&plugin));
                        continue;
                    }
                    Attempt::GivenUp if tries < TRIES => {
                        tries += 1;
                        continue;
                    }
                    Attempt::GivenUp | Attempt::Nothing => {}
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

    /// Files of a plugin have changed: perhaps its configuration; its code for certain.
    async fn renew(&self, plugin: &str, edit: &Edit, edits: &Edits) -> Attempt {
        let applied = {
            let _turn = self.turn.lock().await;
            self.reconcile_in_turn().await
        };
        let changes = match applied {
            Ok(changes) => changes,
            Err(problem) => return Attempt::Broken(problem),
        };
        let Ok(plan) = self.shown_plan() else { return Attempt::Nothing };
        let active = |one: &PlannedPlugin| one.name == plugin && one.state == PluginState::Active;
        if !plan.plugins.iter().any(active) {
            return Attempt::Nothing;
        }
        let of_plugin = |name: &WatcherName| name.plugin() == Some(plugin);
        let mut wanted: Vec<&WatcherSpec> =
            plan.watchers.values().filter(|spec| of_plugin(&spec.name) && spec.count > 0).collect();
        // Their configuration has changed too: they are being replaced already.
        let mut waited: Vec<WatcherName> = changes.touched();
        waited.retain(of_plugin);
        wanted.retain(|spec| !waited.contains(&spec.name));
        let (beside, alone): (Vec<&WatcherSpec>, Vec<&WatcherSpec>) =
            wanted.into_iter().partition(|spec| spec.overlap && spec.upstream.is_some());
        self.parts.supervisor.restart(names(&alone), EndReason::FilesChanged);
        if beside.is_empty() {
            waited.extend(names(&alone));
        }
        let patience = plan.watchers.values().filter(|spec| of_plugin(&spec.name));
        let patience = patience.map(|spec| spec.start_timeout_ms).max().unwrap_or(0) + 1000;
        let attempt = async {
            self.renew_beside(&beside, Duration::from_millis(patience)).await?;
            let supervisor = &self.parts.supervisor;
            let settled = supervisor.wait(Until::Settled, waited, Duration::from_millis(patience));
            settled.await.map_err(Attempt::Broken)
        };
        let ended = tokio::select! {
            ended = attempt => ended,
            () = edits.newer(), if edit.began.elapsed() < PATIENT => Err(Attempt::Newer),
        };
        match ended {
            Ok(()) => Attempt::Serves,
            // It says nothing about the code that is there now.
            Err(Attempt::Broken(_)) if edits.is_waiting() => Attempt::Newer,
            Err(other) => other,
        }
    }

    /// Starts one worker of each beside those that serve, and lets them take over when all
    /// are ready: one of each is enough to know whether the new code starts.
    async fn renew_beside(
        &self,
        specs: &[&WatcherSpec],
        patience: Duration,
    ) -> Result<(), Attempt> {
        let supervisor = &self.parts.supervisor;
        let first = specs.iter().map(|spec| WatcherSpec { count: 1, ..(*spec).clone() });
        supervisor.prepare(first.collect());
        if let Err(problem) = supervisor.wait(Until::Prepared, names(specs), patience).await {
            supervisor.abandon(names(specs));
            return Err(Attempt::Broken(problem));
        }
        let renewed = supervisor.renew(names(specs), EndReason::FilesChanged).await;
        if renewed.len() < specs.len() { Err(Attempt::GivenUp) } else { Ok(()) }
    }
}

fn names(specs: &[&WatcherSpec]) -> Vec<WatcherName> {
    specs.iter().map(|spec| spec.name.clone()).collect()
}
