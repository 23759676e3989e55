//! A node that does what it is told, with the real store on disk.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::diff::Changes;
use mfserv_core::event::Fact;
use mfserv_core::names::WatcherName;
use mfserv_core::plan::HeldOptions;
use mfserv_core::route::Taken;
use mfserv_plugin::Home;
use mfserv_plugin::store::{self, Owner};
use mfserv_supervisor::{Until, View};
use tokio::sync::watch;

use crate::operations::*;
use crate::places::Places;

/// A node that does what it is told and notes it.
#[derive(Clone)]
pub struct Played(pub Arc<State>);

pub struct State {
    pub places: Places,
    pub _home: tempfile::TempDir,
    pub calls: Mutex<Vec<String>>,
    pub facts: Mutex<Vec<Fact>>,
    /// What is waited for is reached.
    pub ready: watch::Sender<bool>,
    /// The new workers do not start.
    pub broken: AtomicBool,
    /// So often the plan has changed when it is looked at again.
    pub changes: AtomicU32,
    pub progress: watch::Sender<View>,
    /// The routes that whatever is deployed takes from other plugins.
    pub taken: Mutex<Vec<Taken>>,
}

impl Played {
    pub fn new() -> Played {
        let home = tempfile::tempdir().unwrap();
        let places = Places::choose(Some(home.path())).unwrap();
        places.create().unwrap();
        Played(Arc::new(State {
            places,
            _home: home,
            calls: Mutex::default(),
            facts: Mutex::default(),
            ready: watch::Sender::new(true),
            broken: AtomicBool::new(false),
            changes: AtomicU32::new(0),
            progress: watch::Sender::new(View::default()),
            taken: Mutex::default(),
        }))
    }

    pub fn home(&self) -> Home {
        Home::new(self.0.places.home())
    }

    pub fn call(&self, what: &str) {
        self.0.calls.lock().unwrap().push(what.into());
    }

    pub fn calls(&self) -> Vec<String> {
        self.0.calls.lock().unwrap().clone()
    }

    /// Puts a staged release there, as `mfserv install` leaves it.
    pub fn stage(&self, plugin: &str, release: u32, operation: &str) {
        let dir = self.home().release(plugin, release);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.ini"), "[general]\n_version=1\n").unwrap();
        fs::write(dir.join(".layerapi2_label"), format!("plugin_{plugin}@mfserv\n")).unwrap();
        let owner = serde_json::to_value(Owner::this_process(operation)).unwrap();
        let mark = serde_json::json!({
            "owner": owner, "adopted": false, "clean": false, "warnings": [],
        });
        fs::write(dir.join(".mfserv-staged.json"), mark.to_string()).unwrap();
    }

    /// Puts a release there that is current.
    pub fn install(&self, plugin: &str, release: u32) {
        self.stage(plugin, release, "installed");
        self.claim(plugin, "installed").commit(release).unwrap();
    }

    pub fn claim(&self, plugin: &str, operation: &str) -> store::Claim {
        store::claim(&self.home(), plugin, &Owner::this_process(operation)).unwrap()
    }

    pub fn current(&self, plugin: &str) -> Option<u32> {
        store::current_release(&self.home(), plugin)
    }

    pub fn hold(&self) {
        self.0.ready.send_replace(false);
    }

    pub fn let_go(&self) {
        self.0.ready.send_replace(true);
    }
}

impl Node for Played {
    type Turn = ();

    fn places(&self) -> &Places {
        &self.0.places
    }

    async fn turn(&self) -> Result<(), Diagnostic> {
        Ok(())
    }

    async fn start_beside(&self, _: &(), plugin: &str, _: &Path) -> Result<Trial, Diagnostic> {
        self.call(&format!("try {plugin}"));
        Ok(Trial::default())
    }

    async fn fits(&self, _: &(), _: &Trial, _: &str, _: &Path) -> Result<bool, Diagnostic> {
        let left = self.0.changes.load(Ordering::Relaxed);
        self.0.changes.store(left.saturating_sub(1), Ordering::Relaxed);
        Ok(left == 0)
    }

    async fn taken(&self, _: &(), _: &str, _: &Path) -> Result<Vec<Taken>, Diagnostic> {
        Ok(self.0.taken.lock().unwrap().clone())
    }

    fn abandon(&self, _: &Trial) {}

    async fn apply(&self, _: &()) -> Result<Changes, Diagnostic> {
        self.call("apply");
        Ok(Changes { replace: vec![WatcherName::front()], ..Changes::default() })
    }

    fn find(&self, names: &[String]) -> Result<Vec<WatcherName>, Diagnostic> {
        Ok(names.iter().map(|name| WatcherName::app(name, "main")).collect())
    }

    fn find_one(&self, name: &str) -> Result<WatcherName, Diagnostic> {
        Ok(WatcherName::app(name, "main"))
    }

    fn part(&self, name: &str) -> Result<String, Diagnostic> {
        Ok(name.to_string())
    }

    async fn older(&self, watchers: Vec<WatcherName>, _: u64) -> Vec<WatcherName> {
        self.call("only what is older");
        watchers
    }

    async fn down(&self) -> Vec<WatcherName> {
        Vec::new()
    }

    async fn living(&self, _: &str) -> Vec<WatcherName> {
        Vec::new()
    }

    fn restart(&self, watchers: Vec<WatcherName>) {
        self.call(&format!("restart {}", watchers.len()));
    }

    fn hold_count(&self, _: &WatcherName, count: Option<u32>) -> Result<(), Diagnostic> {
        self.call(&format!("count {count:?}"));
        Ok(())
    }

    fn start_stopped(&self, _: &[WatcherName]) -> Result<(), Diagnostic> {
        Ok(())
    }

    fn hold_options(&self, _: &WatcherName, options: HeldOptions) -> Result<(), Diagnostic> {
        self.call(&format!("options {options}"));
        Ok(())
    }

    async fn write_count(&self, _: &WatcherName, count: Option<u32>) -> Result<String, Diagnostic> {
        self.call(&format!("write count {count:?}"));
        Ok(String::new())
    }

    fn forget_counts(&self) -> Result<Counts, Diagnostic> {
        self.call("forget counts");
        Ok(Counts::new())
    }

    fn restore_counts(&self, _: &Counts) -> Result<(), Diagnostic> {
        self.call("restore counts");
        Ok(())
    }

    async fn wait(&self, until: Until, _: Vec<WatcherName>, _: Duration) -> Result<(), Diagnostic> {
        self.call(&format!("wait {until:?}"));
        let _ = self.0.ready.subscribe().wait_for(|ready| *ready).await;
        match self.0.broken.load(Ordering::Relaxed) && until == Until::Prepared {
            true => Err(Diagnostic::error("it does not start")),
            false => Ok(()),
        }
    }

    fn progress(&self, _: Until, _: Vec<WatcherName>) -> watch::Receiver<View> {
        self.0.progress.subscribe()
    }

    async fn requests_done(&self, _: &str, _: Duration) -> u64 {
        0
    }

    async fn jobs_gone(&self, _: &str, _: Duration) {}

    fn applied(&self, changes: &Changes) -> Option<Applied> {
        Some(Applied { changes: changes.to_string(), ..Applied::default() })
    }

    async fn left_out_by_fronts(&self) -> Vec<Diagnostic> {
        Vec::new()
    }

    fn record(&self, fact: Fact) {
        self.0.facts.lock().unwrap().push(fact);
    }

    async fn stop(&self) -> Result<(), Diagnostic> {
        self.call("stop");
        Ok(())
    }

    fn end(&self) {
        self.call("end");
    }

    async fn stage(&self, id: &OperationId, staging: Staging) -> Result<(String, u32), Diagnostic> {
        self.call("stage");
        match staging {
            Staging::Package { .. } => {
                Played::stage(self, "foo", 1, id.as_str());
                Ok(("foo".into(), 1))
            }
            Staging::Release { plugin, release, .. } => Ok((plugin, release.unwrap_or(0))),
        }
    }
}

pub async fn operations(node: &Played) -> Operations<Played> {
    let operations = Operations::new(node.clone(), FinishedBy::Daemon);
    operations.recover().await;
    operations
}

pub fn submission(id: &str, request: Request) -> Submission {
    Submission { id: Some(id.parse().unwrap()), request, who: Who::default(), patience_s: 60 }
}

pub fn deploy(plugin: &str, release: u32) -> Request {
    Request::Deploy { plugin: plugin.into(), release, clean: false, take_route: false }
}

pub fn uninstall(plugin: &str) -> Request {
    Request::Uninstall { plugin: plugin.into(), clean: false }
}

/// Submits, and waits for the outcome.
pub async fn done(operations: &Operations<Played>, id: &str, request: Request) -> Outcome {
    let id = operations.submit(submission(id, request)).await.unwrap();
    outcome(operations, &id).await
}

pub async fn outcome(operations: &Operations<Played>, id: &OperationId) -> Outcome {
    let mut events = operations.follow(id).await.unwrap();
    let mut last = None;
    while let Some(event) = events.recv().await {
        last = Some(event);
    }
    match last {
        Some(Event::Outcome(outcome)) => *outcome,
        other => panic!("{other:?}"),
    }
}

/// Waits until an operation has reported this.
pub async fn until(operations: &Operations<Played>, id: &str, what: impl Fn(&Event) -> bool) {
    let mut events = operations.follow(&id.parse().unwrap()).await.unwrap();
    while let Some(event) = events.recv().await {
        if what(&event) {
            return;
        }
    }
    panic!("{id} has ended");
}

/// Waits until an operation waits for the new workers.
pub async fn until_trying(node: &Played) {
    while !node.calls().iter().any(|call| call == "wait Prepared") {
        // The pause between two looks.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
