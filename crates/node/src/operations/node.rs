//! The node that serves, as operations see it: the daemon's, or one that does not run.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::diff::Changes;
use mfserv_core::event::Fact;
use mfserv_core::names::WatcherName;
use mfserv_core::plan::{Held, HeldOptions};
use mfserv_core::route::Taken;
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::{Diagnostic, Kind};
use mfserv_supervisor::{Until, View};
use tokio::sync::watch;

use super::running::blocking;
use super::{Applied, OperationId};
use crate::places::Places;
use crate::{maintenance, taking};

/// Worker counts and options that were asked for and are in no configuration.
pub type Counts = BTreeMap<WatcherName, Held>;

/// Workers of a release that is not current, started beside those that serve.
#[derive(Debug, Clone, Default)]
pub struct Trial {
    /// What was started.
    pub specs: Vec<WatcherSpec>,
}

impl Trial {
    /// The watchers of these workers.
    pub fn watchers(&self) -> Vec<WatcherName> {
        self.specs.iter().map(|spec| spec.name.clone()).collect()
    }

    /// How many workers there are.
    pub fn workers(&self) -> u32 {
        self.specs.iter().map(|spec| spec.count).sum()
    }
}

/// What is staged in a process of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Staging {
    /// A package.
    Package {
        /// The file.
        file: PathBuf,
        /// Install it under this name instead of its own.
        new_name: Option<String>,
        /// Remove the oldest releases even if the app has left files in them.
        clean: bool,
        /// Accept that a packed plugin of that name is installed.
        replace: bool,
        /// Accept that it takes routes from other plugins.
        take_route: bool,
    },
    /// An earlier release: its configuration is checked, its environment made again if needed.
    Release {
        /// The plugin.
        plugin: String,
        /// The release; `None` = the last one before the current.
        release: Option<u32>,
        /// Accept that it takes routes from other plugins.
        take_route: bool,
    },
}

/// A node, as operations see it.
pub trait Node: Clone + Send + Sync + 'static {
    /// The right to change the plan. One operation has it at a time, and only briefly.
    type Turn: Send + Sync;

    /// Where the node is.
    fn places(&self) -> &Places;

    /// Waits for the right to change the plan. Refused once the node is stopping.
    fn turn(&self) -> impl Future<Output = Result<Self::Turn, Diagnostic>> + Send;

    /// Starts what the node would run if this directory were current, beside what serves.
    fn start_beside(
        &self,
        turn: &Self::Turn,
        plugin: &str,
        dir: &Path,
    ) -> impl Future<Output = Result<Trial, Diagnostic>> + Send;

    /// Whether the node would still run exactly what is being tried.
    fn fits(
        &self,
        turn: &Self::Turn,
        trial: &Trial,
        plugin: &str,
        dir: &Path,
    ) -> impl Future<Output = Result<bool, Diagnostic>> + Send;

    /// The routes that the plugin would take from others if this directory were current.
    fn taken(
        &self,
        turn: &Self::Turn,
        plugin: &str,
        dir: &Path,
    ) -> impl Future<Output = Result<Vec<Taken>, Diagnostic>> + Send;

    /// Ends the workers of a trial that did not become current.
    fn abandon(&self, trial: &Trial);

    /// Reads what should be, makes a plan and applies the difference.
    fn apply(&self, turn: &Self::Turn) -> impl Future<Output = Result<Changes, Diagnostic>> + Send;

    /// The watchers that people mean by these names; every app and extra daemon by none.
    fn find(&self, names: &[String]) -> Result<Vec<WatcherName>, Diagnostic>;

    /// The one app or extra daemon that is meant.
    fn find_one(&self, name: &str) -> Result<WatcherName, Diagnostic>;

    /// The plugin (`PLUGIN`) or the app (`PLUGIN.APP`) that is meant, also one without workers.
    fn part(&self, name: &str) -> Result<String, Diagnostic>;

    /// Those of these watchers that have a worker which was started before this time,
    /// milliseconds since the Unix epoch.
    fn older(
        &self,
        watchers: Vec<WatcherName>,
        than_ms: u64,
    ) -> impl Future<Output = Vec<WatcherName>> + Send;

    /// The watchers whose last start has failed.
    fn down(&self) -> impl Future<Output = Vec<WatcherName>> + Send;

    /// The watchers of a plugin of which something lives.
    fn living(&self, plugin: &str) -> impl Future<Output = Vec<WatcherName>> + Send;

    /// Replaces every worker of these watchers, one after the other.
    fn restart(&self, watchers: Vec<WatcherName>);

    /// Keeps this many workers of an app until its configuration changes or is reloaded; `None` =
    /// as its configuration says.
    fn hold_count(&self, app: &WatcherName, count: Option<u32>) -> Result<(), Diagnostic>;

    /// Those of these apps that somebody has stopped run again, from the next plan on.
    fn start_stopped(&self, apps: &[WatcherName]) -> Result<(), Diagnostic>;

    /// Lets an app run with these options until its configuration changes or is reloaded.
    fn hold_options(&self, app: &WatcherName, options: HeldOptions) -> Result<(), Diagnostic>;

    /// Writes how many workers an app has into the override file of its plugin; `None` takes that
    /// back. Returns what was done, a sentence.
    fn write_count(
        &self,
        app: &WatcherName,
        count: Option<u32>,
    ) -> impl Future<Output = Result<String, Diagnostic>> + Send;

    /// Ends what [`Node::hold_count`] and [`Node::hold_options`] hold; returns what was held.
    fn forget_counts(&self) -> Result<Counts, Diagnostic>;

    /// Holds this again.
    fn restore_counts(&self, counts: &Counts) -> Result<(), Diagnostic>;

    /// Waits until watchers are where they should be.
    fn wait(
        &self,
        until: Until,
        watchers: Vec<WatcherName>,
        at_most: Duration,
    ) -> impl Future<Output = Result<(), Diagnostic>> + Send;

    /// Waits until workers have no request to this part of the node (`*`, `PLUGIN`, `PLUGIN.APP`), at
    /// most so long. Returns how many there are still.
    fn requests_done(&self, part: &str, at_most: Duration) -> impl Future<Output = u64> + Send;

    /// Waits until no run of a job of this plugin lives, at most so long.
    fn jobs_gone(&self, plugin: &str, at_most: Duration) -> impl Future<Output = ()> + Send;

    /// What the node did; `None` when it does not run.
    fn applied(&self, changes: &Changes) -> Option<Applied>;

    /// What the fronts do not do of what they are told, such as a fragment that nginx refuses.
    fn left_out_by_fronts(&self) -> impl Future<Output = Vec<Diagnostic>> + Send;

    /// Follows how far watchers have come.
    fn progress(&self, until: Until, watchers: Vec<WatcherName>) -> watch::Receiver<View>;

    /// Records a fact.
    fn record(&self, fact: Fact);

    /// Stops everything in order; keeper and daemon are left.
    fn stop(&self) -> impl Future<Output = Result<(), Diagnostic>> + Send;

    /// Ends keeper and daemon.
    fn end(&self);

    /// Stages something in a process of its own, and returns the plugin and the number of the
    /// release. Given up when it is dropped.
    fn stage(
        &self,
        operation: &OperationId,
        staging: Staging,
    ) -> impl Future<Output = Result<(String, u32), Diagnostic>> + Send;
}

/// A node that does not run: what is committed is served when it starts.
#[derive(Clone)]
pub struct AtRest {
    places: Places,
}

impl AtRest {
    /// The node of this home.
    pub fn new(places: Places) -> AtRest {
        AtRest { places }
    }

    fn not_running(&self) -> Diagnostic {
        Diagnostic::error("the node is not running")
            .kind(Kind::NotRunning)
            .help("start it with `mfserv start`")
    }
}

impl Node for AtRest {
    type Turn = ();

    fn places(&self) -> &Places {
        &self.places
    }

    async fn turn(&self) -> Result<(), Diagnostic> {
        Ok(())
    }

    async fn start_beside(&self, _: &(), _: &str, _: &Path) -> Result<Trial, Diagnostic> {
        Ok(Trial::default())
    }

    async fn fits(&self, _: &(), _: &Trial, _: &str, _: &Path) -> Result<bool, Diagnostic> {
        Ok(true)
    }

    async fn taken(&self, _: &(), plugin: &str, dir: &Path) -> Result<Vec<Taken>, Diagnostic> {
        let (places, instead) = (self.places.clone(), (plugin.to_string(), dir.to_owned()));
        blocking(move || taking::by_disk(&places, instead)).await
    }

    fn abandon(&self, _: &Trial) {}

    async fn apply(&self, _: &()) -> Result<Changes, Diagnostic> {
        Ok(Changes::default())
    }

    fn find(&self, _: &[String]) -> Result<Vec<WatcherName>, Diagnostic> {
        Err(self.not_running())
    }

    fn find_one(&self, _: &str) -> Result<WatcherName, Diagnostic> {
        Err(self.not_running())
    }

    fn part(&self, name: &str) -> Result<String, Diagnostic> {
        maintenance::part(&taking::by_disk_now(&self.places)?, name)
    }

    async fn older(&self, _: Vec<WatcherName>, _: u64) -> Vec<WatcherName> {
        Vec::new()
    }

    async fn down(&self) -> Vec<WatcherName> {
        Vec::new()
    }

    async fn living(&self, _: &str) -> Vec<WatcherName> {
        Vec::new()
    }

    fn restart(&self, _: Vec<WatcherName>) {}

    fn hold_count(&self, _: &WatcherName, _: Option<u32>) -> Result<(), Diagnostic> {
        Err(self.not_running())
    }

    fn start_stopped(&self, _: &[WatcherName]) -> Result<(), Diagnostic> {
        Err(self.not_running())
    }

    fn hold_options(&self, _: &WatcherName, _: HeldOptions) -> Result<(), Diagnostic> {
        Err(self.not_running())
    }

    async fn write_count(&self, _: &WatcherName, _: Option<u32>) -> Result<String, Diagnostic> {
        Err(self.not_running())
    }

    fn forget_counts(&self) -> Result<Counts, Diagnostic> {
        Ok(Counts::new())
    }

    fn restore_counts(&self, _: &Counts) -> Result<(), Diagnostic> {
        Ok(())
    }

    async fn wait(&self, _: Until, _: Vec<WatcherName>, _: Duration) -> Result<(), Diagnostic> {
        Ok(())
    }

    async fn requests_done(&self, _: &str, _: Duration) -> u64 {
        0
    }

    async fn jobs_gone(&self, _: &str, _: Duration) {}

    fn applied(&self, _: &Changes) -> Option<Applied> {
        None
    }

    async fn left_out_by_fronts(&self) -> Vec<Diagnostic> {
        Vec::new()
    }

    fn progress(&self, _: Until, _: Vec<WatcherName>) -> watch::Receiver<View> {
        watch::channel(View::default()).1
    }

    fn record(&self, _: Fact) {}

    async fn stop(&self) -> Result<(), Diagnostic> {
        Err(self.not_running())
    }

    fn end(&self) {}

    async fn stage(&self, _: &OperationId, _: Staging) -> Result<(String, u32), Diagnostic> {
        Err(self.not_running())
    }
}
