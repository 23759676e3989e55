//! A release that is staged but not committed: does it start? Its workers are started
//! beside those that serve; once all are ready the release can be committed, and the
//! next plan lets them take over at once. If one of them fails, nothing has changed.

use std::path::PathBuf;
use std::time::Duration;

use mfserv_core::names::WatcherName;
use mfserv_core::plan::PluginState;
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::{Diagnostic, Kind};
use mfserv_supervisor::{Handle, Until};

use super::node::Node;
use super::reconcile::make;
use crate::control::protocol::Applied;

/// Workers that are being prepared. They are given up if they do not become ready, and if
/// whoever asked for them has gone.
struct Attempt<'a> {
    supervisor: &'a Handle,
    /// `None` when they are ready.
    names: Option<Vec<WatcherName>>,
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if let Some(names) = self.names.take() {
            self.supervisor.abandon(names);
        }
    }
}

impl Node {
    /// Starts what a plan with this release would run, and waits until it is ready.
    pub(super) async fn prepare(
        &self,
        plugin: &str,
        dir: PathBuf,
        wait_s: u64,
    ) -> Result<Applied, Diagnostic> {
        let _turn = self.take_turn().await?;
        let current = self.shown_plan()?;
        let (options, instead) = (self.parts.options.clone(), (plugin.to_string(), dir));
        let disk = self.parts.world.disk.clone();
        let (before, generation) = (current.clone(), current.generation);
        let made = tokio::task::spawn_blocking(move || {
            make(&options, &*disk, Some(&before), generation, Some(instead))
        });
        let plan =
            made.await.map_err(|e| Diagnostic::error("making the plan failed").because(e))??;
        let planned = plan.plugins.iter().find(|p| p.name == plugin);
        if planned.is_none_or(|p| p.state != PluginState::Active) {
            let mut problems = plan.problems.into_iter().filter(Diagnostic::is_error);
            let about = problems.find(|problem| problem.is_about(plugin));
            return Err(about.unwrap_or_else(|| {
                Diagnostic::error(format!("plugin {plugin} is refused"))
                    .kind(Kind::BadConfiguration)
            }));
        }
        // Programs that must not run twice start when the plan is in force.
        let beside = |spec: &&WatcherSpec| {
            spec.name.plugin() == Some(plugin)
                && spec.overlap
                && spec.upstream.is_some()
                && current
                    .watchers
                    .get(&spec.name)
                    .is_none_or(|was| was.fingerprint() != spec.fingerprint())
        };
        let specs: Vec<WatcherSpec> = plan.watchers.values().filter(beside).cloned().collect();
        let names: Vec<WatcherName> = specs.iter().map(|spec| spec.name.clone()).collect();
        let supervisor = &self.parts.supervisor;
        let mut attempt = Attempt { supervisor, names: Some(names.clone()) };
        supervisor.prepare(specs);
        let patience = Duration::from_secs(wait_s);
        supervisor.wait(Until::Prepared, names.clone(), patience).await?;
        attempt.names = None;
        let names: Vec<&str> = names.iter().map(WatcherName::as_str).collect();
        Ok(Applied {
            generation,
            changes: format!("prepare {}", names.join(", ")),
            problems: Vec::new(),
        })
    }
}
