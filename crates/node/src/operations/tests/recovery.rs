//! Operations whose daemon has died.

use std::fs;

use mfserv_core::event::Fact;
use mfserv_plugin::store::{self, Owner};

use super::played::*;
use crate::operations::*;

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

/// Operations on releases that had changed nothing, and such that had.
fn of_releases() -> Vec<Left> {
    let rollback = |release| Request::Rollback {
        plugin: "foo".into(),
        release,
        checked: true,
        take_route: false,
    };
    vec![
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
    ]
}

/// Changes of variables: one that was staged, and one that was in force.
fn of_variables() -> Vec<Left> {
    fn stage(node: &Played) -> store::Claim {
        node.install("foo", 1);
        let claim = node.claim("foo", "left");
        let variable = store::Variable { value: "1".into(), secret: true };
        let set = store::Variables::from([("A".to_string(), variable)]);
        claim.stage_variables(store::Edit::Set(set), 1).unwrap();
        claim
    }
    let request = || Request::Env { plugin: "foo".into(), what: "set A".into() };
    vec![
        Left {
            request: request(),
            disk: |node| drop(stage(node)),
            finished: false,
            current: Some(1),
        },
        Left {
            request: request(),
            disk: |node| stage(node).commit_variables("left").unwrap(),
            finished: true,
            current: Some(1),
        },
        // Another change has taken its place, or its file is gone: it was never in force.
        Left {
            request: request(),
            disk: |node| stage(node).give_up_variables("left").unwrap(),
            finished: false,
            current: Some(1),
        },
    ]
}

/// The others.
fn of_others() -> Vec<Left> {
    vec![
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
            request: Request::Scale { app: "foo".into(), count: Some(3), keep: false },
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
    ]
}

#[tokio::test]
async fn what_a_daemon_that_died_has_left_is_finished_or_undone_by_what_is_on_disk() {
    for left in of_releases().into_iter().chain(of_others()) {
        check(left).await;
    }
}

#[tokio::test]
async fn a_change_of_variables_of_a_daemon_that_died_is_in_force_or_forgotten() {
    for left in of_variables() {
        let finished = left.finished;
        let node = check(left).await;
        let history = store::History::read(&node.home(), "foo").unwrap();
        let dir = store::current(&node.home(), "foo").unwrap().dir;
        for is_tried in [false, true] {
            let set = history.in_force(&node.home(), "foo", &dir, is_tried);
            assert_eq!(set.contains_key("A"), finished, "{set:?}");
        }
        assert!(!format!("{history:?}").contains("value: \"1\""), "a secret is not shown");
    }
}

async fn check(Left { request, disk, finished, current }: Left) -> Played {
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
    let next =
        done(&operations, "next", Request::Scale { app: "foo".into(), count: None, keep: false });
    assert!(next.await.ok, "{what}");
    if current.is_none() {
        assert!(!node.home().releases_of("foo").exists(), "{what}");
    }
    if matches!(request, Request::Restart { .. }) {
        assert!(node.calls().contains(&"only what is older".into()), "{what}");
    }
    node
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
    assert_eq!((again, node.calls().len()), (left, 3), "it is not done twice");
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
