//! A plan says what is wanted; what is so already is left alone.

use mfserv_core::event::Fact;
use mfserv_core::names::WatcherName;

use super::kit::*;

#[tokio::test(start_paused = true)]
async fn the_same_plan_twice_does_nothing() {
    let mut node = Node::serving_as(app(3)).await;
    let facts = node.facts().len();
    node.apply([app(3)]).await;
    node.apply([app(3)]).await;
    assert_eq!(node.spawned().len(), 3);
    assert!(node.signals().is_empty());
    assert_eq!(node.facts().len(), facts);
}

#[tokio::test(start_paused = true)]
async fn the_same_plan_while_workers_start_starts_nobody_twice() {
    let mut node = Node::start().await;
    node.apply([app(2)]).await;
    node.apply([app(2)]).await;
    assert_eq!(node.spawned(), ["1.1", "2.2"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_plan_during_a_restart_does_not_disturb_it() {
    let mut node = Node::serving_as(app(2)).await;
    node.restart().await;
    node.apply([app(2)]).await;
    node.everybody_is_ready().await;
    assert_eq!(node.alive(), ["1.3", "2.4"]);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_one_watcher_touches_no_other() {
    let mut node = Node::start().await;
    node.apply([app(1), named("b", 1), named("c", 1)]).await;
    node.everybody_is_ready().await;
    node.apply([app(1), edited(named("b", 1))]).await;
    node.everybody_is_ready().await;
    assert_eq!(node.alive(), ["1.1", "app.p.b.1.2"]);
}

#[tokio::test(start_paused = true)]
async fn the_front_starts_before_the_apps() {
    let mut node = Node::start().await;
    let front = mfserv_core::watcher::WatcherSpec {
        name: WatcherName::front(),
        upstream: None,
        ..named("x", 1)
    };
    node.apply([app(1), front]).await;
    assert_eq!(node.spawned(), [format!("{}.1.1", WatcherName::front()), "1.1".into()]);
}

#[tokio::test(start_paused = true)]
async fn a_start_and_an_end_are_told_once_each_in_order() {
    let mut node = Node::serving_as(app(1)).await;
    node.apply([]).await;
    let facts = node.facts();
    let words: Vec<&str> = facts
        .iter()
        .map(|fact| match fact {
            Fact::DaemonStarted { .. } => "daemon",
            Fact::WorkerStarted { .. } => "started",
            Fact::WorkerReady { .. } => "ready",
            Fact::WorkerRetiring { .. } => "retiring",
            Fact::WorkerEnded { .. } => "ended",
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(words, ["daemon", "started", "ready", "retiring", "ended"]);
}
