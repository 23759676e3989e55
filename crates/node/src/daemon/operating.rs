//! The running node, as operations see it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::diff::Changes;
use mfserv_core::event::{EndReason, Fact};
use mfserv_core::maintenance::is_part;
use mfserv_core::names::WatcherName;
use mfserv_core::plan::{HeldOptions, Plan, PluginState};
use mfserv_core::route::Taken;
use mfserv_core::status::WatcherState;
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::{Diagnostic, Kind};
use mfserv_supervisor::{Until, View};
use tokio::sync::{OwnedMutexGuard, watch};
use tokio::time::Instant;

use super::held;
use super::node::Node;
use super::reconcile::make;
use crate::operations::{self, Applied, Counts, OperationId, Staging, Trial};
use crate::places::Places;
use crate::{maintenance, override_files};

/// How often it is looked whether requests are answered.
const LOOK: Duration = Duration::from_millis(50);

impl operations::Node for Node {
    type Turn = OwnedMutexGuard<()>;

    fn places(&self) -> &Places {
        &self.parts.options.places
    }

    async fn turn(&self) -> Result<Self::Turn, Diagnostic> {
        self.take_turn().await
    }

    async fn start_beside(
        &self,
        _: &Self::Turn,
        plugin: &str,
        dir: &Path,
    ) -> Result<Trial, Diagnostic> {
        let specs = self.what_would_run(plugin, dir).await?;
        self.parts.supervisor.prepare(specs.clone());
        Ok(Trial { specs })
    }

    async fn fits(
        &self,
        _: &Self::Turn,
        trial: &Trial,
        plugin: &str,
        dir: &Path,
    ) -> Result<bool, Diagnostic> {
        let now = self.what_would_run(plugin, dir).await?;
        let of = |specs: &[WatcherSpec]| -> Vec<(WatcherName, u32, u64)> {
            specs.iter().map(|spec| (spec.name.clone(), spec.count, spec.fingerprint())).collect()
        };
        Ok(of(&now) == of(&trial.specs))
    }

    async fn taken(
        &self,
        _: &Self::Turn,
        plugin: &str,
        dir: &Path,
    ) -> Result<Vec<Taken>, Diagnostic> {
        let current = self.shown_plan()?;
        let next = self.plan_with(plugin, dir, current.clone()).await?;
        Ok(current.newly_taken(plugin, &next))
    }

    fn abandon(&self, trial: &Trial) {
        if !trial.specs.is_empty() {
            self.parts.supervisor.abandon(trial.watchers());
        }
    }

    async fn apply(&self, _: &Self::Turn) -> Result<Changes, Diagnostic> {
        self.reconcile_in_turn().await
    }

    fn find(&self, names: &[String]) -> Result<Vec<WatcherName>, Diagnostic> {
        let plan = self.shown_plan()?;
        let own = || plan.watchers.keys().filter(|watcher| watcher.plugin().is_some());
        if names.is_empty() {
            return Ok(own().cloned().collect());
        }
        let mut found = Vec::new();
        for name in names {
            let before = found.len();
            found.extend(plan.watchers.keys().filter(|watcher| is_meant(watcher, name)).cloned());
            if found.len() == before {
                return Err(maintenance::unknown_app(
                    name,
                    &Vec::from_iter(own().map(WatcherName::to_string)),
                ));
            }
        }
        Ok(found)
    }

    fn find_one(&self, name: &str) -> Result<WatcherName, Diagnostic> {
        let mut found = operations::Node::find(self, &[name.to_string()])?;
        if found.len() > 1 {
            found.retain(|watcher| watcher.as_str().starts_with("app."));
        }
        match &found[..] {
            [one] if one.plugin().is_some() => Ok(one.clone()),
            [] | [_] => Err(Diagnostic::error(format!("{name} cannot be scaled"))
                .kind(Kind::Usage)
                .help("apps and extra daemons of plugins can be")),
            several => Err(Diagnostic::error(format!("{name} has several apps"))
                .kind(Kind::Usage)
                .because(several.iter().map(|w| w.as_str()).collect::<Vec<_>>().join(", "))
                .help("say which one: PLUGIN.APP")),
        }
    }

    fn part(&self, name: &str) -> Result<String, Diagnostic> {
        maintenance::part(&*self.shown_plan()?, name)
    }

    async fn older(&self, watchers: Vec<WatcherName>, than_ms: u64) -> Vec<WatcherName> {
        let all = self.parts.supervisor.status().await;
        let is_older = |name: &WatcherName| {
            let found = all.iter().find(|one| one.name == *name);
            found.is_some_and(|one| one.workers.iter().any(|w| w.started_ms < than_ms))
        };
        watchers.into_iter().filter(is_older).collect()
    }

    async fn down(&self) -> Vec<WatcherName> {
        let all = self.parts.supervisor.status().await.into_iter();
        // One that starts has not failed: who changes it meanwhile answers for it.
        let down = all.filter(|one| one.state == WatcherState::Failing);
        down.map(|watcher| watcher.name).collect()
    }

    async fn living(&self, plugin: &str) -> Vec<WatcherName> {
        let all = self.parts.supervisor.status().await;
        let own = all.into_iter().filter(|one| one.plugin.as_deref() == Some(plugin));
        own.map(|watcher| watcher.name).collect()
    }

    fn restart(&self, watchers: Vec<WatcherName>) {
        let why = EndReason::Asked { what: "restart".into() };
        self.parts.supervisor.restart(watchers, why);
    }

    fn hold_count(&self, app: &WatcherName, count: Option<u32>) -> Result<(), Diagnostic> {
        Node::hold_count(self, app, count)?;
        self.record_count(app, count);
        Ok(())
    }

    fn start_stopped(&self, apps: &[WatcherName]) -> Result<(), Diagnostic> {
        let stopped = held::stopped(&self.held_counts());
        let mut meant = apps.iter().filter(|app| stopped.contains_key(*app));
        meant.try_for_each(|app| operations::Node::hold_count(self, app, None))
    }

    fn hold_options(&self, app: &WatcherName, options: HeldOptions) -> Result<(), Diagnostic> {
        Node::hold_options(self, app, options)
    }

    async fn write_count(
        &self,
        app: &WatcherName,
        count: Option<u32>,
    ) -> Result<String, Diagnostic> {
        let plan = self.shown_plan()?;
        let dir = plan.plugins.iter().find(|one| Some(one.name.as_str()) == app.plugin());
        let dir = dir.map(|one| one.dir.clone()).unwrap_or_default();
        let (places, watcher) = (self.parts.options.places.clone(), app.clone());
        let write = move || override_files::write(&places, &dir, &watcher, count);
        let written = tokio::task::spawn_blocking(write).await;
        let said = written.map_err(|e| Diagnostic::error("writing failed").because(e))??;
        Node::hold_count(self, app, None)?;
        self.record_count(app, count);
        Ok(said)
    }

    fn forget_counts(&self) -> Result<Counts, Diagnostic> {
        Node::forget_counts(self)
    }

    fn restore_counts(&self, counts: &Counts) -> Result<(), Diagnostic> {
        Node::restore_counts(self, counts)
    }

    async fn wait(
        &self,
        until: Until,
        watchers: Vec<WatcherName>,
        at_most: Duration,
    ) -> Result<(), Diagnostic> {
        self.parts.supervisor.wait(until, watchers, at_most).await?;
        self.fronts_have_obeyed().await;
        Ok(())
    }

    async fn requests_done(&self, part: &str, at_most: Duration) -> u64 {
        let began = Instant::now();
        loop {
            let stats = self.parts.world.fronts.stats().await;
            let own = stats.upstreams.iter().filter(|(name, _)| is_part_of(name, part));
            let left = own.flat_map(|(_, of)| of.in_flight.values()).sum();
            if left == 0 || began.elapsed() >= at_most {
                return left;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn jobs_gone(&self, plugin: &str, at_most: Duration) {
        // What lives longer than that goes on being ended.
        let _ = tokio::time::timeout(at_most, self.parts.jobs.gone(plugin)).await;
    }

    fn applied(&self, changes: &Changes) -> Option<Applied> {
        let plan = self.shown_plan().ok()?;
        Some(Applied {
            generation: plan.generation,
            changes: changes.to_string(),
            problems: plan.problems.clone(),
        })
    }

    async fn left_out_by_fronts(&self) -> Vec<Diagnostic> {
        let warnings = self.parts.world.fronts.stats().await.warnings.into_iter();
        // Certificates and limits are no news of this operation.
        let of_routes = warnings.filter(|(_, warned)| warned.is_of_routes);
        of_routes.map(|(sentence, _)| Diagnostic::warning(sentence)).collect()
    }

    fn progress(&self, until: Until, watchers: Vec<WatcherName>) -> watch::Receiver<View> {
        self.parts.supervisor.progress(until, watchers)
    }

    fn record(&self, fact: Fact) {
        self.parts.events.record(fact);
    }

    async fn stop(&self) -> Result<(), Diagnostic> {
        self.stop_in_order().await
    }

    fn end(&self) {
        tokio::spawn(self.clone().end_with_keeper());
    }

    async fn stage(
        &self,
        operation: &OperationId,
        staging: Staging,
    ) -> Result<(String, u32), Diagnostic> {
        self.stage_in_a_process(operation, staging).await
    }
}

impl Node {
    /// Waits until the fronts have done what they were told so far, or do not answer: the next
    /// request goes to the workers that serve now. Each front obeys in order.
    pub(super) async fn fronts_have_obeyed(&self) {
        let _ = self.parts.world.fronts.stats().await;
    }

    fn record_count(&self, app: &WatcherName, count: Option<u32>) {
        if let Some(count) = count {
            self.parts.events.record(Fact::Scaled { watcher: app.clone(), count });
        }
    }

    /// The apps that a plan with this directory would run otherwise than they run now, and of
    /// which two may run at a time. (Other programs start when the plan is in force.)
    async fn what_would_run(
        &self,
        plugin: &str,
        dir: &Path,
    ) -> Result<Vec<WatcherSpec>, Diagnostic> {
        let current = self.shown_plan()?;
        let plan = self.plan_with(plugin, dir, current.clone()).await?;
        let planned = plan.plugins.iter().find(|p| p.name == plugin);
        if planned.is_none_or(|p| p.state != PluginState::Active) {
            return Err(refused(&plan, plugin));
        }
        let beside = |spec: &&WatcherSpec| {
            let was = current.watchers.get(&spec.name);
            spec.name.plugin() == Some(plugin)
                && spec.overlap
                && spec.upstream.is_some()
                && was.is_none_or(|was| was.fingerprint() != spec.fingerprint())
        };
        Ok(plan.watchers.values().filter(beside).cloned().collect())
    }

    async fn plan_with(
        &self,
        plugin: &str,
        dir: &Path,
        current: Arc<Plan>,
    ) -> Result<Plan, Diagnostic> {
        let (options, instead) = (self.parts.options.clone(), (plugin.to_string(), dir.to_owned()));
        let disk = self.parts.world.disk.clone();
        let made = tokio::task::spawn_blocking(move || {
            let basis = (Some(&*current), current.generation);
            make(&options, &*disk, basis, Some(instead)).map(|made| made.plan)
        });
        made.await.map_err(|e| Diagnostic::error("making the plan failed").because(e))?
    }
}

fn refused(plan: &Plan, plugin: &str) -> Diagnostic {
    let mut problems = plan.problems.iter().filter(|problem| problem.is_error());
    let about = problems.find(|problem| problem.is_about(plugin));
    about.cloned().unwrap_or_else(|| {
        Diagnostic::error(format!("plugin {plugin} is refused")).kind(Kind::BadConfiguration)
    })
}

/// A plugin (`foo`), an app (`foo.main`, `foo/main`) or a watcher.
fn is_meant(watcher: &WatcherName, name: &str) -> bool {
    let dotted = name.replace('/', ".");
    watcher.as_str() == dotted
        || watcher.plugin() == Some(name)
        || watcher.as_str().split_once('.').is_some_and(|(_, rest)| rest == dotted)
}

/// Whether the requests of an upstream (`PLUGIN/APP`) are those of a part of the node.
fn is_part_of(upstream: &str, part: &str) -> bool {
    is_part(&upstream.replacen('/', ".", 1), part)
}
