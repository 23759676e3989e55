//! A daemon that comes back finds everything again.

use mfserv_core::event::Fact;
use mfserv_core::status::WatcherState;
use mfserv_core::watcher::{Probe, WatcherSpec};
use mfserv_core::wire::keeper::Ended;
use mfserv_platform::clock::now_ms;

use super::kit::*;

#[tokio::test(start_paused = true)]
async fn workers_that_have_traffic_keep_it_and_the_same_plan_does_nothing() {
    let mut node = Node::serving_as(app(2)).await;
    node.count_from_here();
    node.daemon_dies().await;
    node.daemon_starts().await;
    node.apply([app(2)]).await;
    assert_eq!(node.serving(), ["1.1", "2.2"]);
    assert_eq!(node.fewest_serving(), 2);
    assert_eq!(node.spawned().len(), 2);
    assert!(node.signals().is_empty());
    assert_eq!(node.state().await, WatcherState::Ready);
    let adopted = node.facts().iter().any(|f| matches!(f, Fact::DaemonStarted { adopted: 2, .. }));
    assert!(adopted, "{:?}", node.facts());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_says_only_once_that_it_is_ready_is_believed_after_fronts_died_too() {
    let mut node = Node::serving_as(app(1)).await;
    node.daemon_dies().await;
    node.fronts_die();
    node.daemon_starts().await;
    assert_eq!(node.serving(), ["1.1"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_can_be_asked_again_is_probed_again() {
    let spec = WatcherSpec { probe: Probe::Connect, ..app(1) };
    let mut node = Node::start().await;
    node.apply([spec]).await;
    node.ready(["1.1"]).await;
    node.daemon_dies().await;
    node.fronts_die();
    node.daemon_starts().await;
    assert!(node.serving().is_empty(), "its socket does not answer");
    node.ready(["1.1"]).await;
    assert_eq!(node.serving(), ["1.1"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_starting_goes_on_starting() {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    node.daemon_dies().await;
    node.daemon_starts().await;
    node.apply([app(1)]).await;
    assert!(node.serving().is_empty());
    assert_eq!(node.alive(), ["1.1"]);
    node.ready(["1.1"]).await;
    assert_eq!(node.serving(), ["1.1"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ended_unseen_is_told_with_its_reason_and_started_by_the_plan() {
    let mut node = Node::serving_as(app(1)).await;
    node.daemon_dies().await;
    node.exits("1.1", 3).await;
    node.fronts_die();
    node.daemon_starts().await;
    assert_eq!(node.ends(), ["1.1 exited with code 3"]);
    assert!(node.keeper().exits.is_empty(), "the keeper need not remember it");
    assert!(node.alive().is_empty(), "nothing starts before there is a plan");
    node.apply([app(1)]).await;
    assert_eq!(node.alive(), ["1.2"], "numbers are not used twice");
}

#[tokio::test(start_paused = true)]
async fn how_an_adopted_process_ended_is_told_as_unknown() {
    let mut node = Node::serving_as(app(1)).await;
    node.daemon_dies().await;
    node.keeper().ends(&id("1.1").to_string(), Ended::Unknown, "");
    node.daemon_starts().await;
    assert_eq!(node.ends(), ["1.1 ended (status unknown: adopted)"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_of_an_outdated_configuration_is_replaced_in_order() {
    let mut node = Node::serving_as(app(2)).await;
    node.daemon_dies().await;
    node.daemon_starts().await;
    node.count_from_here();
    node.apply([edited(app(2))]).await;
    assert_eq!(node.alive(), ["1.1", "1.3", "2.2"]);
    node.everybody_is_ready().await;
    assert_eq!(node.alive(), ["1.3", "2.4"]);
    assert_eq!(node.fewest_serving(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_daemon_had_prepared_is_killed() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(1))).await;
    node.ready(["1.2"]).await;
    node.daemon_dies().await;
    node.daemon_starts().await;
    assert_eq!(node.alive(), ["1.1"]);
    assert_eq!(node.signals(), ["1.2 KILL tree"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_prepared_and_has_taken_over_serves_on() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(1))).await;
    node.ready(["1.2"]).await;
    node.apply([edited(app(1))]).await;
    node.daemon_dies().await;
    node.daemon_starts().await;
    node.apply([edited(app(1))]).await;
    assert_eq!(node.serving(), ["1.2"]);
    assert_eq!(node.alive(), ["1.2"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_prepared_and_has_taken_over_lives_on_when_the_fronts_died_too() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(1))).await;
    node.ready(["1.2"]).await;
    node.apply([edited(app(1))]).await;
    node.daemon_dies().await;
    node.fronts_die();
    node.daemon_starts().await;
    assert_eq!(node.serving(), ["1.2"]);
}

#[tokio::test(start_paused = true)]
async fn a_process_that_nobody_can_explain_is_killed() {
    let mut node = Node::serving_as(app(1)).await;
    node.daemon_dies().await;
    let known = id("1.1").to_string();
    node.keeper().alive.get_mut(&known).unwrap().note = "from another version".into();
    node.daemon_starts().await;
    assert!(node.alive().is_empty());
    assert_eq!(node.signals(), ["1.1 KILL tree"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_crashes_before_the_first_plan_is_started_by_the_plan_only() {
    let mut node = Node::serving_as(app(1)).await;
    node.daemon_dies().await;
    node.daemon_starts().await;
    node.crashes("1.1").await;
    assert!(node.alive().is_empty(), "its environment is not known yet");
    node.apply([app(1)]).await;
    assert_eq!(node.alive(), ["1.2"]);
    node.ready(["1.2"]).await;
    node.crashes("1.2").await;
    assert_eq!(node.alive(), ["1.3"]);
}

#[tokio::test(start_paused = true)]
async fn a_replacement_under_way_is_brought_to_its_end() {
    let mut node = Node::serving_as(app(1)).await;
    node.restart().await;
    node.daemon_dies().await;
    node.daemon_starts().await;
    node.apply([app(1)]).await;
    assert_eq!(node.alive(), ["1.1", "1.2"]);
    assert_eq!(node.serving(), ["1.1"]);
    node.ready(["1.2"]).await;
    assert_eq!(node.alive(), ["1.2"]);
    assert_eq!(node.serving(), ["1.2"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_on_its_way_out_drains_again_and_goes() {
    let mut node = Node::serving_as(app(1)).await;
    node.is_busy("1.1");
    node.restart().await;
    node.ready(["1.2"]).await;
    assert_eq!(node.alive(), ["1.1", "1.2"]);
    node.daemon_dies().await;
    node.daemon_starts().await;
    node.apply([app(1)]).await;
    assert_eq!(node.alive(), ["1.1", "1.2"], "it still holds a request");
    node.finishes("1.1").await;
    assert_eq!(node.alive(), ["1.2"]);
}

#[tokio::test(start_paused = true)]
async fn workers_of_a_watcher_that_the_plan_does_not_know_are_stopped() {
    let mut node = Node::serving_as(app(2)).await;
    node.daemon_dies().await;
    node.daemon_starts().await;
    node.apply([named("b", 1)]).await;
    assert_eq!(node.alive(), ["app.p.b.1.1"]);
    assert_eq!(node.signals(), ["1.1 TERM", "2.2 TERM"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_as_old_as_its_process_whoever_looks_at_it() {
    let spec = WatcherSpec { max_age_s: 3600, ..app(1) };
    let mut node = Node::serving_as(spec.clone()).await;
    node.daemon_dies().await;
    let known = id("1.1").to_string();
    node.keeper().alive.get_mut(&known).unwrap().started_ms = now_ms() - 2 * 3_600_000;
    node.daemon_starts().await;
    node.apply([spec]).await;
    node.pass(secs(1)).await;
    node.everybody_is_ready().await;
    assert_eq!(node.ends(), ["1.1 too old"]);
}
