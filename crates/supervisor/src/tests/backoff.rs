//! A slot that keeps crashing waits longer and longer between its starts.

use mfserv_core::backoff::{HALF_LIFE_MS, LONGEST_MS};
use mfserv_core::status::WatcherState;

use super::kit::*;

/// A node whose only worker has exited so often that its slot waits. Returns its number.
async fn waiting() -> (Node, u64) {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    for number in 1.. {
        node.crashes(&format!("1.{number}")).await;
        if node.alive().is_empty() {
            return (node, number);
        }
    }
    unreachable!()
}

#[tokio::test(start_paused = true)]
async fn a_first_crash_is_followed_by_a_start_at_once() {
    let mut node = Node::serving_as(app(2)).await;
    node.crashes("1.1").await;
    assert_eq!(node.alive(), ["1.3", "2.2"]);
    assert_eq!(node.restarts_in_ms("1.1"), Some(0));
    assert_eq!(node.status().await.last_end.unwrap().last_output, "last words\n");
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_told_and_is_as_long_as_was_told() {
    let (mut node, last) = waiting().await;
    assert_eq!(last, 3, "two tries are free");
    let told = node.restarts_in_ms("1.3").unwrap();
    assert!(told > 100, "{told}");
    node.pass(ms(told - 1)).await;
    assert!(node.alive().is_empty());
    assert_eq!(node.state().await, WatcherState::Failing);
    node.pass(ms(2)).await;
    assert_eq!(node.alive(), ["1.4"]);
}

#[tokio::test(start_paused = true)]
async fn waits_grow_up_to_the_longest() {
    let (mut node, last) = waiting().await;
    let mut before = node.restarts_in_ms("1.3").unwrap();
    for number in last + 1..last + 10 {
        node.pass(ms(before + 1)).await;
        let worker = format!("1.{number}");
        node.crashes(&worker).await;
        let told = node.restarts_in_ms(&worker).unwrap();
        assert!(told > before || told == LONGEST_MS, "{told} after {before}");
        before = told;
    }
    assert_eq!(before, LONGEST_MS);
}

#[tokio::test(start_paused = true)]
async fn a_long_good_life_makes_crashes_forgotten() {
    let (mut node, _) = waiting().await;
    node.pass(ms(LONGEST_MS)).await;
    node.ready(["1.4"]).await;
    node.pass(ms(10 * HALF_LIFE_MS)).await;
    node.crashes("1.4").await;
    assert_eq!(node.alive(), ["1.5"]);
}

#[tokio::test(start_paused = true)]
async fn a_short_life_does_not() {
    let (mut node, _) = waiting().await;
    node.pass(ms(LONGEST_MS)).await;
    node.ready(["1.4"]).await;
    node.pass(ms(HALF_LIFE_MS / 10)).await;
    node.crashes("1.4").await;
    assert!(node.alive().is_empty());
}

#[tokio::test(start_paused = true)]
async fn each_slot_waits_for_itself() {
    let mut node = Node::start().await;
    node.apply([app(2)]).await;
    for worker in ["1.1", "1.3", "1.4"] {
        node.crashes(worker).await;
    }
    assert_eq!(node.alive(), ["2.2"]);
    node.crashes("2.2").await;
    assert_eq!(node.alive().len(), 1, "slot 2 starts at once");
}

#[tokio::test(start_paused = true)]
async fn a_changed_configuration_starts_at_once_and_forgets_the_crashes() {
    let (mut node, _) = waiting().await;
    node.apply([edited(app(1))]).await;
    assert_eq!(node.alive(), ["1.4"]);
    let spec = node.keeper().specs[&id("1.4").to_string()].clone();
    assert!(spec.env.contains_key("EDITION_0"), "it starts as what is wanted now");
    node.crashes("1.4").await;
    assert_eq!(node.alive(), ["1.5"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_configuration_again_does_not() {
    let (mut node, _) = waiting().await;
    node.apply([app(1)]).await;
    assert!(node.alive().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restart_starts_what_waits_at_once() {
    let (mut node, _) = waiting().await;
    node.restart().await;
    assert_eq!(node.alive(), ["1.4"]);
    node.ready(["1.4"]).await;
    assert_eq!(node.state().await, WatcherState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_is_stopped_while_it_waits_is_over_at_once() {
    let (mut node, _) = waiting().await;
    node.apply([]).await;
    assert!(node.watchers().await.is_empty());
    node.pass(secs(60)).await;
    assert!(node.alive().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_cannot_be_started_waits_too() {
    let mut node = Node::start().await;
    node.spawning(super::played::Spawning::Refused("no such program".into()));
    node.apply([app(1)]).await;
    assert_eq!(node.ends()[0], "1.1 could not be started (no such program)");
    assert_eq!(node.ends().len(), 3);
    assert!(node.restarts_in_ms("1.3").unwrap() > 0);
    node.spawning(super::played::Spawning::Works);
    node.pass(secs(1)).await;
    assert_eq!(node.alive(), ["1.4"]);
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_asked_for_is_no_crash() {
    let mut node = Node::serving_as(app(1)).await;
    for _ in 0..10 {
        node.restart().await;
        node.everybody_is_ready().await;
    }
    let status = node.status().await;
    assert_eq!((status.crashes, status.last_end), (0, None));
}

#[tokio::test(start_paused = true)]
async fn an_exit_with_code_0_that_nobody_asked_for_is_a_crash() {
    let mut node = Node::serving_as(app(1)).await;
    node.exits("1.1", 0).await;
    assert_eq!(node.alive(), ["1.2"]);
    assert_eq!(node.status().await.crashes, 1);
}
