//! Workers of the next release start beside those that serve, and take over all at once.

use mfserv_core::status::WatcherState;
use mfserv_core::watcher::WatcherSpec;

use super::kit::*;

#[tokio::test(start_paused = true)]
async fn prepared_workers_get_no_request_before_their_plan_is_in_force() {
    let mut node = Node::serving_as(app(2)).await;
    node.prepare(edited(app(2))).await;
    assert_eq!(node.alive(), ["1.1", "1.3", "2.2", "2.4"]);
    node.ready(["1.3", "2.4"]).await;
    assert_eq!(node.serving(), ["1.1", "2.2"]);
    assert_eq!(node.times_ready("1.3"), 0);
    assert_eq!(node.state().await, WatcherState::Ready);
}

#[tokio::test(start_paused = true)]
async fn prepared_workers_take_over_in_one_step_when_their_plan_comes() {
    let mut node = Node::serving_as(app(2)).await;
    node.prepare(edited(app(2))).await;
    node.ready(["1.3", "2.4"]).await;
    node.count_from_here();
    node.apply([edited(app(2))]).await;
    assert_eq!(node.serving(), ["1.3", "2.4"]);
    assert_eq!(node.alive(), ["1.3", "2.4"]);
    assert_eq!((node.fewest_serving(), node.most_serving()), (2, 4));
    assert_eq!(node.spawned().len(), 4, "nobody else was started");
    assert_eq!(node.ends(), ["1.1 asked (new release)", "2.2 asked (new release)"]);
    assert_eq!(node.times_ready("1.3"), 1);
}

#[tokio::test(start_paused = true)]
async fn the_release_before_finishes_its_requests() {
    let mut node = Node::serving_as(app(1)).await;
    node.is_busy("1.1");
    node.prepare(edited(app(1))).await;
    node.ready(["1.2"]).await;
    node.apply([edited(app(1))]).await;
    assert_eq!(
        (node.serving(), node.alive()),
        (vec!["1.2".into()], vec!["1.1".into(), "1.2".into()])
    );
    node.finishes("1.1").await;
    assert_eq!(node.alive(), ["1.2"]);
}

#[tokio::test(start_paused = true)]
async fn without_a_ready_worker_in_each_slot_nobody_takes_over_and_the_plan_rolls() {
    let mut node = Node::serving_as(app(2)).await;
    node.prepare(edited(app(2))).await;
    node.ready(["1.3"]).await;
    node.count_from_here();
    node.apply([edited(app(2))]).await;
    assert_eq!(node.serving(), ["1.1", "2.2"]);
    assert_eq!(node.alive(), ["1.1", "1.5", "2.2"]);
    node.everybody_is_ready().await;
    assert_eq!((node.fewest_serving(), node.most_serving()), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn what_was_prepared_for_another_configuration_is_given_up() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(1))).await;
    node.ready(["1.2"]).await;
    node.apply([edited(edited(app(1)))]).await;
    assert_eq!(node.alive(), ["1.1", "1.3"]);
    assert_eq!(node.serving(), ["1.1"]);
}

#[tokio::test(start_paused = true)]
async fn a_plan_with_more_workers_than_were_prepared_rolls() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(1))).await;
    node.ready(["1.2"]).await;
    node.apply([edited(app(2))]).await;
    assert_eq!(node.serving(), ["1.1"]);
    node.everybody_is_ready().await;
    assert_eq!(node.serving().len(), 2);
    assert_eq!(node.state().await, WatcherState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_plan_with_fewer_workers_than_were_prepared_takes_what_it_needs() {
    let mut node = Node::serving_as(app(3)).await;
    node.prepare(edited(app(3))).await;
    node.ready(["1.4", "2.5", "3.6"]).await;
    node.apply([edited(app(2))]).await;
    assert_eq!(node.serving(), ["1.4", "2.5"]);
    assert_eq!(node.alive(), ["1.4", "2.5"]);
}

#[tokio::test(start_paused = true)]
async fn the_same_plan_again_leaves_what_is_being_prepared_alone() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(1))).await;
    node.apply([app(1)]).await;
    assert_eq!(node.alive(), ["1.1", "1.2"]);
}

#[tokio::test(start_paused = true)]
async fn given_up_while_they_start_they_are_killed_and_once_ready_they_are_stopped() {
    let mut node = Node::serving_as(app(2)).await;
    node.prepare(edited(app(2))).await;
    node.ready(["2.4"]).await;
    node.abandon().await;
    assert_eq!(node.alive(), ["1.1", "2.2"]);
    assert_eq!(node.signals(), ["1.3 KILL tree", "2.4 TERM"]);
    assert_eq!(node.ends(), ["1.3 asked (not needed)", "2.4 asked (not needed)"]);
    assert_eq!(node.status().await.crashes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_second_preparation_takes_the_place_of_the_first() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(1))).await;
    node.prepare(edited(edited(app(1)))).await;
    assert_eq!(node.alive(), ["1.1", "1.3"]);
    node.ready(["1.3"]).await;
    node.apply([edited(edited(app(1)))]).await;
    assert_eq!(node.serving(), ["1.3"]);
}

#[tokio::test(start_paused = true)]
async fn a_prepared_worker_that_crashes_is_not_started_again() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(1))).await;
    node.crashes("1.2").await;
    node.pass(secs(60)).await;
    assert_eq!(node.alive(), ["1.1"]);
    assert_eq!(node.restarts_in_ms("1.2"), None);
    assert_eq!(node.status().await.crashes, 1);
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_a_prepared_worker_delays_no_start_of_those_that_serve() {
    let mut node = Node::serving_as(app(1)).await;
    for prepared in ["1.2", "1.3", "1.4", "1.5"] {
        node.prepare(edited(app(1))).await;
        node.crashes(prepared).await;
    }
    node.crashes("1.1").await;
    assert_eq!(node.alive(), ["1.6"]);
}

#[tokio::test(start_paused = true)]
async fn a_prepared_worker_that_never_gets_ready_is_killed_in_its_time() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(WatcherSpec { start_timeout_ms: 5_000, ..edited(app(1)) }).await;
    node.pass(ms(4_900)).await;
    assert_eq!(node.alive(), ["1.1", "1.2"]);
    node.pass(ms(200)).await;
    assert_eq!(node.alive(), ["1.1"]);
    assert_eq!(node.ends(), ["1.2 failed its probe (not ready within _start_timeout=5)"]);
}

#[tokio::test(start_paused = true)]
async fn prepared_workers_wait_two_minutes_for_their_plan() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(1))).await;
    node.ready(["1.2"]).await;
    node.pass(secs(119)).await;
    assert_eq!(node.alive(), ["1.1", "1.2"]);
    node.pass(secs(2)).await;
    assert_eq!(node.alive(), ["1.1"]);
    assert_eq!(node.serving(), ["1.1"]);
}

#[tokio::test(start_paused = true)]
async fn a_new_app_is_prepared_before_anything_is_wanted_of_it() {
    let mut node = Node::start().await;
    node.apply([]).await;
    node.prepare(app(2)).await;
    node.ready(["1.1", "2.2"]).await;
    assert!(node.serving().is_empty());
    assert_eq!(node.status().await.wanted, 0);
    node.apply([app(2)]).await;
    assert_eq!(node.serving(), ["1.1", "2.2"]);
    assert_eq!(node.spawned().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_plan_of_another_plugin_leaves_a_new_app_that_is_being_prepared_alone() {
    let mut node = Node::start().await;
    node.prepare(app(2)).await;
    node.ready(["1.1"]).await;
    node.apply([named("b", 1)]).await;
    assert_eq!(node.alive(), ["1.1", "2.2", "app.p.b.1.1"]);
    node.ready(["2.2"]).await;
    node.apply([app(2), named("b", 1)]).await;
    assert_eq!(node.serving(), ["1.1", "2.2"]);
    assert_eq!(node.spawned().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_present_plan_leaves_slots_alone_that_only_the_next_one_has() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(2))).await;
    node.apply([app(1), named("b", 1)]).await;
    node.ready(["1.2", "2.3"]).await;
    node.apply([edited(app(2)), named("b", 1)]).await;
    assert_eq!(node.serving(), ["1.2", "2.3"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_left_of_a_new_app_that_is_given_up() {
    let mut node = Node::start().await;
    node.prepare(app(1)).await;
    node.abandon().await;
    assert!(node.alive().is_empty());
    assert!(node.watchers().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_take_over_ends_a_restart_that_is_under_way() {
    let mut node = Node::serving_as(app(3)).await;
    node.restart().await;
    node.prepare(edited(app(3))).await;
    node.ready(["1.5", "2.6", "3.7"]).await;
    node.apply([edited(app(3))]).await;
    assert_eq!(node.alive(), ["1.5", "2.6", "3.7"]);
    node.pass(secs(60)).await;
    assert_eq!(node.spawned().len(), 7, "nobody is replaced after it");
    assert_eq!(node.state().await, WatcherState::Ready);
}

#[tokio::test(start_paused = true)]
async fn a_prepared_worker_that_ends_after_it_was_ready_is_not_counted_on() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(1))).await;
    node.ready(["1.2"]).await;
    node.crashes("1.2").await;
    node.apply([edited(app(1))]).await;
    assert_eq!(node.serving(), ["1.1"]);
    assert_eq!(node.alive(), ["1.1", "1.3"]);
}

// ---- fresh code on the same plan ----

#[tokio::test(start_paused = true)]
async fn the_first_worker_with_fresh_code_takes_over_from_all_and_the_others_follow() {
    let mut node = Node::serving_as(app(3)).await;
    node.prepare(app(1)).await;
    node.ready(["1.4"]).await;
    assert!(node.renew().await);
    assert_eq!(node.serving(), ["1.4"]);
    assert_eq!(node.alive(), ["1.4", "2.5", "3.6"]);
    node.everybody_is_ready().await;
    assert_eq!(node.serving(), ["1.4", "2.5", "3.6"]);
    assert_eq!(node.ends(), ["1.1 files changed", "2.2 files changed", "3.3 files changed"]);
    assert_eq!(node.status().await.crashes, 0);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_renewed_where_nothing_is_prepared_and_ready() {
    let mut node = Node::serving_as(app(1)).await;
    assert!(!node.renew().await);
    node.prepare(app(1)).await;
    assert!(!node.renew().await);
    assert_eq!(node.serving(), ["1.1"]);
    assert_eq!(node.alive(), ["1.1", "1.2"]);
}

#[tokio::test(start_paused = true)]
async fn an_edit_of_code_that_does_not_start_is_served_at_once_when_it_is_mended() {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    for broken in ["1.1", "1.2", "1.3"] {
        node.crashes(broken).await;
    }
    assert!(node.alive().is_empty(), "its slot waits");
    node.prepare(app(1)).await;
    node.ready(["1.5"]).await;
    assert!(node.renew().await);
    assert_eq!(node.serving(), ["1.5"]);
    node.pass(secs(60)).await;
    assert_eq!(node.alive(), ["1.5"]);
}
