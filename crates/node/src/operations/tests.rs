//! Operations on a played node, with the real store on disk.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::diff::Changes;
use mfserv_core::event::Fact;
use mfserv_core::names::WatcherName;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::Home;
use mfserv_plugin::store::{self, Owner};
use mfserv_supervisor::{Progress, Until};
use tokio::sync::watch;

use super::*;
use crate::places::Places;

/// A node that does what it is told and notes it.
#[derive(Clone)]
struct Played(Arc<State>);

struct State {
    places: Places,
    _home: tempfile::TempDir,
    calls: Mutex<Vec<String>>,
    facts: Mutex<Vec<Fact>>,
    /// What is waited for is reached.
    ready: watch::Sender<bool>,
    /// The new workers do not start.
    broken: AtomicBool,
    /// So often the plan has changed when it is looked at again.
    changes: AtomicU32,
    progress: watch::Sender<Progress>,
}

impl Played {
    fn new() -> Played {
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
            progress: watch::Sender::new(Progress::default()),
        }))
    }

    fn home(&self) -> Home {
        Home::new(self.0.places.home())
    }

    fn call(&self, what: &str) {
        self.0.calls.lock().unwrap().push(what.into());
    }

    fn calls(&self) -> Vec<String> {
        self.0.calls.lock().unwrap().clone()
    }

    /// Puts a staged release there, as `mfserv install` leaves it.
    fn stage(&self, plugin: &str, release: u32, operation: &str) {
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
    fn install(&self, plugin: &str, release: u32) {
        self.stage(plugin, release, "installed");
        self.claim(plugin, "installed").commit(release).unwrap();
    }

    fn claim(&self, plugin: &str, operation: &str) -> store::Claim {
        store::claim(&self.home(), plugin, &Owner::this_process(operation)).unwrap()
    }

    fn current(&self, plugin: &str) -> Option<u32> {
        store::current_release(&self.home(), plugin)
    }

    fn hold(&self) {
        self.0.ready.send_replace(false);
    }

    fn let_go(&self) {
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

    async fn older(&self, watchers: Vec<WatcherName>, _: u64) -> Vec<WatcherName> {
        self.call("only what is older");
        watchers
    }

    async fn living(&self, _: &str) -> Vec<WatcherName> {
        Vec::new()
    }

    fn restart(&self, watchers: Vec<WatcherName>) {
        self.call(&format!("restart {}", watchers.len()));
    }

    fn remember_count(&self, _: &WatcherName, count: Option<u32>) -> Result<(), Diagnostic> {
        self.call(&format!("count {count:?}"));
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

    fn progress(&self, _: Until, _: Vec<WatcherName>) -> watch::Receiver<Progress> {
        self.0.progress.subscribe()
    }

    fn applied(&self, changes: &Changes) -> Option<Applied> {
        Some(Applied { changes: changes.to_string(), ..Applied::default() })
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
            Staging::Release { plugin, release } => Ok((plugin, release.unwrap_or(0))),
        }
    }
}

async fn operations(node: &Played) -> Operations<Played> {
    let operations = Operations::new(node.clone(), FinishedBy::Daemon);
    operations.recover().await;
    operations
}

fn submission(id: &str, request: Request) -> Submission {
    Submission { id: Some(id.parse().unwrap()), request, who: Who::default(), patience_s: 60 }
}

fn deploy(plugin: &str, release: u32) -> Request {
    Request::Deploy { plugin: plugin.into(), release, clean: false }
}

fn uninstall(plugin: &str) -> Request {
    Request::Uninstall { plugin: plugin.into(), clean: false }
}

/// Submits, and waits for the outcome.
async fn done(operations: &Operations<Played>, id: &str, request: Request) -> Outcome {
    let id = operations.submit(submission(id, request)).await.unwrap();
    outcome(operations, &id).await
}

async fn outcome(operations: &Operations<Played>, id: &OperationId) -> Outcome {
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
async fn until(operations: &Operations<Played>, id: &str, what: impl Fn(&Event) -> bool) {
    let mut events = operations.follow(&id.parse().unwrap()).await.unwrap();
    while let Some(event) = events.recv().await {
        if what(&event) {
            return;
        }
    }
    panic!("{id} has ended");
}

/// Waits until an operation waits for the new workers.
async fn until_trying(node: &Played) {
    while !node.calls().iter().any(|call| call == "wait Prepared") {
        // The pause between two looks.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_deployment_is_tried_committed_and_served_in_this_order() {
    let node = Played::new();
    node.stage("foo", 1, "one");
    let operations = operations(&node).await;
    let outcome = done(&operations, "one", deploy("foo", 1)).await;
    assert!(outcome.ok, "{outcome:?}");
    assert_eq!(node.calls(), ["try foo", "wait Prepared", "apply", "wait Settled"]);
    assert_eq!(node.current("foo"), Some(1));
    let record = &operations.recent(9).await[0];
    assert_eq!((record.id.as_str(), record.outcome.as_ref()), ("one", Some(&outcome)));
}

#[tokio::test]
async fn a_release_that_does_not_start_is_removed_and_nothing_is_applied() {
    let node = Played::new();
    node.install("foo", 1);
    node.stage("foo", 2, "one");
    node.0.broken.store(true, Ordering::Relaxed);
    let operations = operations(&node).await;
    let outcome = done(&operations, "one", deploy("foo", 2)).await;
    assert_eq!(outcome.problem.unwrap().what, "it does not start");
    assert_eq!(node.calls(), ["try foo", "wait Prepared"]);
    assert_eq!(node.current("foo"), Some(1));
    assert!(!node.home().release("foo", 2).exists());
}

#[tokio::test]
async fn what_is_tried_is_tried_again_when_the_node_has_changed_meanwhile_but_not_for_ever() {
    for (changes, ok, tries) in [(2, true, 3), (100, false, 5)] {
        let node = Played::new();
        node.stage("foo", 1, "one");
        node.0.changes.store(changes, Ordering::Relaxed);
        let operations = operations(&node).await;
        let outcome = done(&operations, "one", deploy("foo", 1)).await;
        assert_eq!(outcome.ok, ok, "{outcome:?}");
        assert_eq!(node.calls().iter().filter(|call| *call == "try foo").count(), tries);
    }
}

#[tokio::test]
async fn the_same_id_joins_the_operation_and_does_nothing_twice() {
    let node = Played::new();
    let operations = operations(&node).await;
    for _ in 0..3 {
        assert!(done(&operations, "one", Request::Reload).await.ok);
    }
    // also when the daemon that did it has gone
    let later = self::operations(&node).await;
    assert!(done(&later, "one", Request::Reload).await.ok);
    assert_eq!(node.calls().iter().filter(|call| *call == "apply").count(), 1);
}

#[tokio::test]
async fn it_is_cancelled_before_its_commit_and_refuses_to_be_after_it() {
    let node = Played::new();
    node.stage("foo", 1, "one");
    let operations = operations(&node).await;
    node.hold();
    let one = operations.submit(submission("one", deploy("foo", 1))).await.unwrap();
    until_trying(&node).await;
    operations.cancel(&one).await.unwrap();
    let undone = outcome(&operations, &one).await;
    assert_eq!(undone.problem.unwrap().what, "interrupted: nothing has changed");
    assert!(!node.home().releases_of("foo").exists());

    let two = operations.submit(submission("two", Request::Reload)).await.unwrap();
    until(&operations, "two", |event| *event == Event::Committed).await;
    assert_eq!(operations.cancel(&two).await.unwrap_err().kind, Kind::Refused);
    node.let_go();
    assert!(outcome(&operations, &two).await.ok);
    assert_eq!(operations.cancel(&two).await.unwrap_err().kind, Kind::Refused);
    let unknown = "unknown".parse().unwrap();
    assert_eq!(operations.cancel(&unknown).await.unwrap_err().kind, Kind::NotRunning);
}

#[tokio::test]
async fn on_one_plugin_the_second_waits_for_the_first_and_on_another_one_it_does_not() {
    let node = Played::new();
    node.stage("foo", 1, "one");
    let operations = operations(&node).await;
    node.hold();
    operations.submit(submission("one", deploy("foo", 1))).await.unwrap();
    until_trying(&node).await;
    let scale = |app: &str| Request::Scale { app: app.into(), count: Some(2) };
    operations.submit(submission("two", scale("foo"))).await.unwrap();
    let for_one = |event: &Event| matches!(event, Event::Waiting { for_operation, .. } if for_operation.as_str() == "one");
    until(&operations, "two", for_one).await;
    operations.submit(submission("three", scale("bar"))).await.unwrap();
    until(&operations, "three", |event| *event == Event::Committed).await;
    assert_eq!(node.current("foo"), None, "the first one is still trying");
    node.let_go();
    for id in ["one", "two", "three"] {
        assert!(outcome(&operations, &id.parse().unwrap()).await.ok, "{id}");
    }
}

#[tokio::test]
async fn stopping_is_the_last_operation() {
    let node = Played::new();
    node.stage("foo", 1, "one");
    let operations = operations(&node).await;
    node.hold();
    operations.submit(submission("one", deploy("foo", 1))).await.unwrap();
    until_trying(&node).await;
    operations.submit(submission("two", uninstall("foo"))).await.unwrap();
    let stopped = done(&operations, "stop", Request::Stop).await;
    assert!(stopped.ok, "{stopped:?}");
    for id in ["one", "two"] {
        assert!(!outcome(&operations, &id.parse().unwrap()).await.ok, "{id}");
    }
    let refused = operations.submit(submission("late", Request::Reload)).await.unwrap_err();
    assert_eq!((refused.kind, refused.what.as_str()), (Kind::Refused, "the node is stopping"));
    let calls = node.calls();
    assert_eq!(calls[calls.len() - 2..], ["stop", "end"], "{calls:?}");
    assert!(!calls.contains(&"apply".into()), "{calls:?}");
}

#[tokio::test]
async fn a_slow_follower_gets_the_newest_count_and_memory_does_not_grow() {
    let node = Played::new();
    let operations = operations(&node).await;
    node.hold();
    let id = operations.submit(submission("one", Request::Reload)).await.unwrap();
    let slow = operations.follow(&id).await.unwrap();
    until(&operations, "one", |event| matches!(event, Event::Step { n: 2, .. })).await;
    for done in 0..=1000 {
        node.0.progress.send_replace(Progress { done, wanted: 1000 });
        tokio::task::yield_now().await;
    }
    let last = |event: &Event| matches!(event, Event::Step { text, .. } if text == "1000 of 1000 workers are ready");
    until(&operations, "one", last).await;
    node.let_go();
    assert!(outcome(&operations, &id).await.ok);
    assert!(operations.find(&id).await.unwrap().steps.len() < 10);
    drop(slow);
}

/// What a daemon that died has left: the operation, and what is on disk of it.
struct Left {
    request: Request,
    /// How the disk is.
    disk: fn(&Played),
    /// It is finished by the next daemon.
    finished: bool,
    /// How the disk is then: the release of `foo` that is current.
    current: Option<u32>,
}

#[tokio::test]
async fn what_a_daemon_that_died_has_left_is_finished_or_undone_by_what_is_on_disk() {
    let rollback = |release| Request::Rollback { plugin: "foo".into(), release, checked: true };
    let table = [
        Left {
            request: deploy("foo", 2),
            disk: |node| {
                node.install("foo", 1);
                node.stage("foo", 2, "left");
                store::adopt(&node.home(), "foo", 2, "left").unwrap();
            },
            finished: false,
            current: Some(1),
        },
        Left {
            request: deploy("foo", 2),
            disk: |node| {
                // the link was renamed, and nothing else was done
                node.install("foo", 1);
                node.stage("foo", 2, "left");
                store::adopt(&node.home(), "foo", 2, "left").unwrap();
                fs::remove_file(node.home().link("foo")).unwrap();
                let target = "../releases/foo/2";
                std::os::unix::fs::symlink(target, node.home().link("foo")).unwrap();
            },
            finished: true,
            current: Some(2),
        },
        Left {
            request: rollback(Some(1)),
            disk: |node| {
                node.install("foo", 1);
                node.install("foo", 2);
            },
            finished: false,
            current: Some(2),
        },
        Left {
            request: rollback(Some(1)),
            disk: |node| {
                node.install("foo", 2);
                node.install("foo", 1);
            },
            finished: true,
            current: Some(1),
        },
        Left {
            request: uninstall("foo"),
            disk: |node| node.install("foo", 1),
            finished: false,
            current: Some(1),
        },
        Left {
            request: Request::Uninstall { plugin: "foo".into(), clean: true },
            disk: |node| {
                node.install("foo", 1);
                node.claim("foo", "left").unlink().unwrap();
            },
            finished: true,
            current: None,
        },
        Left {
            request: Request::Scale { app: "foo".into(), count: Some(3) },
            disk: |_| (),
            finished: true,
            current: None,
        },
        Left {
            request: Request::Restart { apps: vec!["foo".into()] },
            disk: |_| (),
            finished: true,
            current: None,
        },
        Left { request: Request::Reload, disk: |_| (), finished: true, current: None },
    ];
    for Left { request, disk, finished, current } in table {
        let node = Played::new();
        disk(&node);
        let what = format!("{request}, finished: {finished}");
        leave_open(&node, &request);
        let operations = operations(&node).await;
        let left: OperationId = "left".parse().unwrap();
        let outcome = outcome(&operations, &left).await;
        assert_eq!(outcome.ok, finished, "{what}: {outcome:?}");
        assert_eq!(outcome.finished_by, FinishedBy::NextDaemon, "{what}");
        assert_eq!(node.current("foo"), current, "{what}");
        let facts = node.0.facts.lock().unwrap().clone();
        let said = |fact: &Fact| matches!(fact, Fact::OperationRecovered { finished: of, .. } if *of == finished);
        assert!(facts.iter().any(said), "{what}: {facts:?}");
        let journal = Journal::new(&node.0.places);
        assert!(journal.running().is_empty(), "{what}");
        assert_eq!(journal.find(&left).unwrap().outcome, Some(outcome), "{what}");
        // Nothing of it is in the way of the next one.
        let next = done(&operations, "next", Request::Scale { app: "foo".into(), count: None });
        assert!(next.await.ok, "{what}");
        if current.is_none() {
            assert!(!node.home().releases_of("foo").exists(), "{what}");
        }
        if matches!(request, Request::Restart { .. }) {
            assert!(node.calls().contains(&"only what is older".into()), "{what}");
        }
    }
}

/// Writes the state of an operation whose daemon has died.
fn leave_open(node: &Played, request: &Request) {
    let dead = Owner { pid: 4_999_999, ..Owner::this_process("left") };
    let record = Record {
        id: "left".parse().unwrap(),
        who: Who::default(),
        request: request.clone(),
        began_ms: 1,
        conductor: Some(dead),
        ended_ms: None,
        steps: Vec::new(),
        outcome: None,
    };
    Journal::new(&node.0.places).open(&record).unwrap();
}

#[tokio::test]
async fn an_operation_that_was_left_open_can_be_followed_before_it_is_gone_on_with() {
    let node = Played::new();
    leave_open(&node, &Request::Reload);
    let operations = Operations::new(node.clone(), FinishedBy::Daemon);
    let left: OperationId = "left".parse().unwrap();
    assert!(operations.find(&left).await.unwrap().outcome.is_none());
    let (outcome, ()) = tokio::join!(outcome(&operations, &left), operations.recover());
    assert!(outcome.ok, "{outcome:?}");
    let again = operations.submit(submission("left", Request::Reload)).await.unwrap();
    assert_eq!((again, node.calls().len()), (left, 2), "it is not done twice");
}

#[tokio::test]
async fn an_operation_that_another_living_process_conducts_is_left_alone() {
    let node = Played::new();
    leave_open(&node, &Request::Reload);
    let journal = Journal::new(&node.0.places);
    let mut record = journal.running().remove(0);
    record.conductor = Some(Owner::this_process("left"));
    journal.open(&record).unwrap();
    operations(&node).await;
    assert_eq!(journal.running().len(), 1);
}

#[tokio::test]
async fn a_stop_that_was_begun_is_finished_by_the_next_daemon_of_the_same_keeper_only() {
    for (keeper_since_ms, must) in [(0, true), (2, false)] {
        let node = Played::new();
        leave_open(&node, &Request::Stop);
        let operations = Operations::new(node.clone(), FinishedBy::Daemon);
        assert_eq!(operations.must_stop(keeper_since_ms).await, must);
        operations.recover().await;
        assert!(outcome(&operations, &"left".parse().unwrap()).await.ok);
        assert_eq!(node.calls().contains(&"stop".into()), must);
    }
}

#[tokio::test]
async fn a_stop_that_comes_while_the_node_is_stopped_joins_the_one_that_goes_on() {
    let node = Played::new();
    leave_open(&node, &Request::Stop);
    let operations = Operations::new(node.clone(), FinishedBy::Daemon);
    let later = operations.clone();
    // Before the operation of the earlier daemon is known.
    let asked = tokio::spawn(async move {
        let stop = Submission { id: None, ..submission("none", Request::Stop) };
        later.submit(stop).await
    });
    tokio::task::yield_now().await;
    operations.recover().await;
    assert_eq!(asked.await.unwrap().unwrap().as_str(), "left");
    assert!(outcome(&operations, &"left".parse().unwrap()).await.ok);
    assert_eq!(node.calls().iter().filter(|call| *call == "stop").count(), 1);
}

#[tokio::test]
async fn a_package_is_staged_first_for_an_asker_without_a_process() {
    let node = Played::new();
    let operations = operations(&node).await;
    let request = Request::DeployPackage {
        file: "/foo.plugin".into(),
        new_name: None,
        clean: false,
        replace: false,
    };
    assert!(done(&operations, "one", request).await.ok);
    assert_eq!(node.calls()[..2], ["stage", "try foo"]);
    assert_eq!(node.current("foo"), Some(1));
}
