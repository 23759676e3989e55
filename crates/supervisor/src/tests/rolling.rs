//! Workers are replaced one after the other, never below the wanted number of ready ones.

use mfserv_core::status::WatcherState;
use mfserv_core::watcher::WatcherSpec;

use super::kit::*;

#[tokio::test(start_paused = true)]
async fn every_slot_gets_a_worker_and_serves_once_it_is_ready() {
    let mut node = Node::start().await;
    node.apply([app(3)]).await;
    assert_eq!(node.alive(), ["1.1", "2.2", "3.3"]);
    assert!(node.serving().is_empty());
    node.ready(["2.2"]).await;
    assert_eq!(node.serving(), ["2.2"]);
    assert_eq!(node.state().await, WatcherState::Starting);
    node.ready(["1.1", "3.3"]).await;
    assert_eq!(node.serving(), ["1.1", "2.2", "3.3"]);
    assert_eq!(node.state().await, WatcherState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_restart_never_has_fewer_ready_workers_than_wanted() {
    let mut node = Node::serving_as(app(3)).await;
    node.count_from_here();
    node.restart().await;
    assert_eq!(node.state().await, WatcherState::Restarting);
    node.everybody_is_ready().await;
    assert_eq!(node.alive(), ["1.4", "2.5", "3.6"]);
    assert_eq!((node.fewest_serving(), node.most_serving()), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_named_is_replaced_alone_and_before_it_ends() {
    let mut node = Node::serving_as(app(3)).await;
    node.count_from_here();
    node.handle().replace(vec![id("2.2")], asked("kill"));
    turns().await;
    assert_eq!(node.alive(), ["1.1", "2.2", "2.4", "3.3"]);
    node.everybody_is_ready().await;
    assert_eq!(node.alive(), ["1.1", "2.4", "3.3"]);
    assert_eq!((node.fewest_serving(), node.most_serving()), (3, 4));
}

#[tokio::test(start_paused = true)]
async fn one_worker_of_three_is_replaced_at_a_time_the_lowest_slot_first() {
    let mut node = Node::serving_as(app(3)).await;
    node.restart().await;
    assert_eq!(node.alive(), ["1.1", "1.4", "2.2", "3.3"]);
    node.ready(["1.4"]).await;
    assert_eq!(node.alive(), ["1.4", "2.2", "2.5", "3.3"]);
    node.ready(["2.5"]).await;
    assert_eq!(node.alive(), ["1.4", "2.5", "3.3", "3.6"]);
}

#[tokio::test(start_paused = true)]
async fn a_quarter_of_the_workers_is_replaced_at_a_time() {
    let mut node = Node::serving_as(app(8)).await;
    node.restart().await;
    assert_eq!(node.spawned()[8..], ["1.9", "2.10"]);
    node.ready(["2.10"]).await;
    assert_eq!(node.spawned()[10..], ["3.11"]);
}

#[tokio::test(start_paused = true)]
async fn without_overlap_the_old_worker_goes_first() {
    let mut node = Node::serving_as(WatcherSpec { overlap: false, ..app(2) }).await;
    node.is_busy("1.1");
    node.restart().await;
    assert_eq!(node.alive(), ["1.1", "2.2"], "it finishes what it holds");
    node.finishes("1.1").await;
    assert_eq!(node.alive(), ["1.3", "2.2"]);
    assert_eq!(node.ends(), ["1.1 asked (restart)"]);
    node.ready(["1.3"]).await;
    assert_eq!(node.alive(), ["1.3", "2.4"], "the next slot follows when this one is ready");
}

#[tokio::test(start_paused = true)]
async fn a_replacement_that_fails_leaves_the_old_worker_serving_and_is_tried_again() {
    let mut node = Node::serving_as(app(2)).await;
    node.restart().await;
    node.crashes("1.3").await;
    assert_eq!(node.serving(), ["1.1", "2.2"]);
    assert_eq!(node.alive(), ["1.1", "1.4", "2.2"], "slot 2 waits until slot 1 is replaced");
    node.ready(["1.4"]).await;
    assert_eq!(node.alive(), ["1.4", "2.2", "2.5"]);
}

#[tokio::test(start_paused = true)]
async fn an_old_worker_that_crashes_while_its_replacement_starts_gets_no_second_one() {
    let mut node = Node::serving_as(app(1)).await;
    node.restart().await;
    node.crashes("1.1").await;
    assert_eq!(node.alive(), ["1.2"]);
    node.ready(["1.2"]).await;
    assert_eq!(node.serving(), ["1.2"]);
    assert_eq!(node.ends(), ["1.1 exited with code 1"]);
    assert_eq!(node.status().await.crashes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_restart_during_a_restart_leaves_nobody_from_before_it() {
    let mut node = Node::serving_as(app(2)).await;
    node.restart().await;
    node.ready(["1.3"]).await;
    node.restart().await;
    let before: Vec<String> = node.alive();
    node.count_from_here();
    node.everybody_is_ready().await;
    assert_eq!(node.fewest_serving(), 2);
    assert_eq!(before, ["1.3", "2.2", "2.4"]);
    assert!(!node.alive().contains(&"1.3".into()), "{:?}", node.alive());
    assert_eq!(node.alive().len(), 2);
    assert_eq!(node.state().await, WatcherState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_configuration_that_changes_during_a_restart_is_what_all_run_in_the_end() {
    let mut node = Node::serving_as(app(2)).await;
    node.restart().await;
    node.count_from_here();
    node.apply([edited(app(2))]).await;
    node.everybody_is_ready().await;
    assert_eq!(node.fewest_serving(), 2);
    assert_eq!(node.alive().len(), 2);
    for worker in node.alive() {
        let spec = node.keeper().specs[&id(&worker).to_string()].clone();
        assert!(spec.env.contains_key("EDITION_0"), "{worker}");
    }
    assert_eq!(node.state().await, WatcherState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_changed_configuration_replaces_the_workers_one_after_the_other() {
    let mut node = Node::serving_as(app(3)).await;
    node.count_from_here();
    node.apply([edited(app(3))]).await;
    assert_eq!(node.alive(), ["1.1", "1.4", "2.2", "3.3"]);
    node.everybody_is_ready().await;
    assert_eq!(node.alive(), ["1.4", "2.5", "3.6"]);
    assert_eq!((node.fewest_serving(), node.most_serving()), (3, 4));
    assert_eq!(node.ends()[0], "1.1 asked (configuration changed)");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_worker_finishes_its_requests_while_the_next_slots_go_on() {
    let mut node = Node::serving_as(app(2)).await;
    node.is_busy("1.1");
    node.restart().await;
    node.ready(["1.3"]).await;
    assert!(node.signals().is_empty());
    assert_eq!(node.alive(), ["1.1", "1.3", "2.2", "2.4"]);
    node.finishes("1.1").await;
    assert_eq!(node.signals(), ["1.1 TERM"]);
}

#[tokio::test(start_paused = true)]
async fn more_workers_start_beside_those_that_serve_and_fewer_are_drained() {
    let mut node = Node::serving_as(app(1)).await;
    node.apply([app(3)]).await;
    assert_eq!(node.alive(), ["1.1", "2.2", "3.3"]);
    node.everybody_is_ready().await;
    node.is_busy("3.3");
    node.apply([app(1)]).await;
    assert_eq!(node.serving(), ["1.1"]);
    assert_eq!(node.alive(), ["1.1", "3.3"]);
    node.finishes("3.3").await;
    assert_eq!(node.alive(), ["1.1"]);
    assert_eq!(node.ends(), ["2.2 asked (stop)", "3.3 asked (stop)"]);
}

#[tokio::test(start_paused = true)]
async fn scaling_down_during_a_restart_does_not_hold_up_the_slots_that_stay() {
    let mut node = Node::serving_as(app(3)).await;
    node.restart().await;
    node.ready(["1.4"]).await;
    node.ready(["2.5"]).await;
    assert_eq!(node.alive(), ["1.4", "2.5", "3.3", "3.6"]);
    // Slot 3 is the one whose replacement is under way.
    node.apply([app(2)]).await;
    assert_eq!(node.alive(), ["1.4", "2.5"]);
    node.restart().await;
    node.everybody_is_ready().await;
    assert_eq!(node.alive().len(), 2);
    assert_eq!(node.state().await, WatcherState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_restart_touches_no_other_watcher() {
    let mut node = Node::start().await;
    node.apply([app(1), named("b", 1)]).await;
    node.everybody_is_ready().await;
    node.restart().await;
    assert_eq!(node.alive(), ["1.1", "1.2", "app.p.b.1.1"]);
    node.everybody_is_ready().await;
    assert_eq!(node.alive(), ["1.2", "app.p.b.1.1"]);
}
