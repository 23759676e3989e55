//! Operations on a played node.

mod played;
mod recovery;

use std::sync::atomic::Ordering;

use mfserv_core::Kind;
use mfserv_supervisor::{Progress, View};

use super::*;
use played::*;

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
    let scale = |app: &str| Request::Scale { app: app.into(), count: Some(2), keep: false };
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
        let progress = Progress { done, wanted: 1000 };
        node.0.progress.send_replace(View { progress, ..View::default() });
        tokio::task::yield_now().await;
    }
    let last = |event: &Event| matches!(event, Event::Step { text, .. } if text == "1000 of 1000 workers are ready");
    until(&operations, "one", last).await;
    node.let_go();
    assert!(outcome(&operations, &id).await.ok);
    assert!(operations.find(&id).await.unwrap().steps.len() < 10);
    drop(slow);
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
        take_route: false,
    };
    assert!(done(&operations, "one", request).await.ok);
    assert_eq!(node.calls()[..2], ["stage", "try foo"]);
    assert_eq!(node.current("foo"), Some(1));
}

#[tokio::test]
async fn a_release_that_takes_a_route_is_refused_until_the_asker_insists() {
    let node = Played::new();
    let operations = operations(&node).await;
    let (route, plugin, app) = ("/".into(), "shop".into(), "main".into());
    node.0.taken.lock().unwrap().push(mfserv_core::route::Taken { route, plugin, app });
    node.stage("foo", 1, "one");
    let refused = done(&operations, "one", deploy("foo", 1)).await.problem.unwrap();
    assert_eq!(refused.kind, mfserv_core::Kind::Refused);
    assert!(refused.because[0].contains("requests of / go to shop/main"), "{refused}");
    assert_eq!(node.current("foo"), None);
    assert!(!node.calls().contains(&"apply".into()), "{:?}", node.calls());
    assert!(!node.0.places.takers_file().exists());
    node.stage("foo", 2, "two");
    let (plugin, take_route) = ("foo".into(), true);
    let insists = Request::Deploy { plugin, release: 2, clean: false, take_route };
    assert!(done(&operations, "two", insists).await.ok);
    assert_eq!(node.current("foo"), Some(2));
    let takers = crate::taking::read(&mfserv_platform::disk::RealDisk, &node.0.places);
    assert_eq!(takers, [("/".to_string(), "foo".to_string())].into());
}

#[tokio::test]
async fn a_release_that_the_node_chooses_is_checked_whatever_the_asker_has_checked() {
    for (release, is_checked) in [(None, false), (Some(1), true)] {
        let node = Played::new();
        let operations = operations(&node).await;
        [1, 2].iter().for_each(|release| node.install("foo", *release));
        let (plugin, take_route) = ("foo".into(), false);
        let back = Request::Rollback { plugin, release, checked: true, take_route };
        assert!(done(&operations, "back", back).await.ok);
        assert_eq!(node.current("foo"), Some(1));
        assert_eq!(!node.calls().contains(&"stage".into()), is_checked, "{:?}", node.calls());
    }
}
