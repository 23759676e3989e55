//! Whoever waits for watchers learns how it ends: well, badly, or too late.

use mfserv_core::Kind;

use super::kit::*;
use crate::Until;

const LONG: std::time::Duration = std::time::Duration::from_secs(600);

#[tokio::test(start_paused = true)]
async fn settled_is_when_every_slot_is_ready() {
    let mut node = Node::start().await;
    node.apply([app(2)]).await;
    let waiter = node.waits_for(Until::Settled, LONG).await;
    node.ready(["1.1"]).await;
    waiter.waits();
    node.ready(["2.2"]).await;
    waiter.succeeds().await;
}

#[tokio::test(start_paused = true)]
async fn settled_is_at_once_where_nothing_is_to_be_done() {
    let node = Node::serving_as(app(2)).await;
    node.waits_for(Until::Settled, LONG).await.succeeds().await;
}

#[tokio::test(start_paused = true)]
async fn settled_is_when_the_last_worker_has_been_replaced() {
    let mut node = Node::serving_as(app(2)).await;
    node.restart().await;
    let waiter = node.waits_for(Until::Settled, LONG).await;
    node.ready(["1.3"]).await;
    waiter.waits();
    node.ready(["2.4"]).await;
    waiter.succeeds().await;
}

#[tokio::test(start_paused = true)]
async fn settled_fails_when_two_starts_have_failed_and_says_what_the_last_one_said() {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    let waiter = node.waits_for(Until::Settled, LONG).await;
    node.crashes("1.1").await;
    waiter.waits();
    node.crashes("1.2").await;
    let problem = waiter.fails().await;
    assert_eq!(problem.what, "app.p.a does not start");
    let text = problem.to_string();
    assert!(text.contains("app.p.a.1.2: exited with code 1"), "{text}");
    assert!(text.contains("last words"), "{text}");
    assert!(text.contains("mfserv logs p"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn failures_from_before_the_waiting_do_not_count() {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    node.crashes("1.1").await;
    let waiter = node.waits_for(Until::Settled, LONG).await;
    node.crashes("1.2").await;
    waiter.waits();
}

#[tokio::test(start_paused = true)]
async fn a_crash_of_a_worker_that_was_ready_is_no_failed_start() {
    let mut node = Node::serving_as(app(2)).await;
    node.crashes("1.1").await;
    let waiter = node.waits_for(Until::Settled, LONG).await;
    node.crashes("2.2").await;
    waiter.waits();
    node.everybody_is_ready().await;
    waiter.succeeds().await;
}

#[tokio::test(start_paused = true)]
async fn tried_is_also_when_it_is_known_to_fail() {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    let waiter = node.waits_for(Until::Tried, LONG).await;
    node.crashes("1.1").await;
    waiter.waits();
    node.crashes("1.2").await;
    waiter.succeeds().await;
    node.waits_for(Until::Tried, LONG).await.succeeds().await;
}

#[tokio::test(start_paused = true)]
async fn tried_is_when_all_are_ready() {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    let waiter = node.waits_for(Until::Tried, LONG).await;
    waiter.waits();
    node.ready(["1.1"]).await;
    waiter.succeeds().await;
}

#[tokio::test(start_paused = true)]
async fn prepared_is_when_every_prepared_worker_is_ready() {
    let mut node = Node::serving_as(app(2)).await;
    node.prepare(edited(app(2))).await;
    let waiter = node.waits_for(Until::Prepared, LONG).await;
    node.ready(["1.3"]).await;
    waiter.waits();
    node.ready(["2.4"]).await;
    waiter.succeeds().await;
}

#[tokio::test(start_paused = true)]
async fn one_prepared_worker_that_fails_is_the_end_of_the_waiting() {
    let mut node = Node::serving_as(app(2)).await;
    node.prepare(edited(app(2))).await;
    let waiter = node.waits_for(Until::Prepared, LONG).await;
    node.crashes("2.4").await;
    let problem = waiter.fails().await;
    assert!(problem.to_string().contains("app.p.a.2.4: exited with code 1"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_what_is_prepared_is_not_told_of_crashes_of_what_serves() {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    node.prepare(edited(app(1))).await;
    let waiter = node.waits_for(Until::Prepared, LONG).await;
    node.crashes("1.1").await;
    node.crashes("1.3").await;
    waiter.waits();
    node.ready(["1.2"]).await;
    waiter.succeeds().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_what_serves_is_not_told_of_crashes_of_what_is_prepared() {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    let waiter = node.waits_for(Until::Settled, LONG).await;
    for prepared in ["1.2", "1.3", "1.4"] {
        node.prepare(edited(app(1))).await;
        node.crashes(prepared).await;
    }
    waiter.waits();
    node.ready(["1.1"]).await;
    waiter.succeeds().await;
}

#[tokio::test(start_paused = true)]
async fn gone_is_when_the_last_process_has_ended() {
    let mut node = Node::serving_as(app(2)).await;
    node.is_busy("2.2");
    node.apply([]).await;
    let waiter = node.waits_for(Until::Gone, LONG).await;
    waiter.waits();
    node.finishes("2.2").await;
    waiter.succeeds().await;
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_nobody_knows_is_not_waited_for() {
    let node = Node::start().await;
    for until in [Until::Settled, Until::Tried, Until::Prepared, Until::Gone] {
        node.waits_for(until, LONG).await.succeeds().await;
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_at_its_deadline_and_says_how_far_it_came() {
    let mut node = Node::start().await;
    node.apply([app(3)]).await;
    node.ready(["2.2"]).await;
    let waiter = node.waits_for(Until::Settled, secs(10)).await;
    node.pass(ms(9_900)).await;
    waiter.waits();
    node.pass(ms(200)).await;
    let problem = waiter.fails().await;
    assert_eq!(problem.kind, Kind::Timeout);
    assert!(problem.to_string().contains("app.p.a: 1 of 3 ready, starting"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn a_late_preparation_says_how_many_are_ready() {
    let mut node = Node::serving_as(app(2)).await;
    node.prepare(edited(app(2))).await;
    node.ready(["1.3"]).await;
    let waiter = node.waits_for(Until::Prepared, secs(1)).await;
    node.pass(secs(2)).await;
    let problem = waiter.fails().await;
    assert!(problem.to_string().contains("app.p.a: 1 of 2 new workers are ready"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn a_late_stop_says_how_many_still_live() {
    let mut node = Node::serving_as(app(2)).await;
    node.is_busy("1.1");
    node.apply([]).await;
    let waiter = node.waits_for(Until::Gone, secs(1)).await;
    node.pass(secs(2)).await;
    let problem = waiter.fails().await;
    assert!(problem.to_string().contains("app.p.a: 1 workers still live"), "{problem}");
}
