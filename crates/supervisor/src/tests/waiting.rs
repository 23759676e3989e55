//! Whoever waits for watchers learns how it ends: well, badly, or too late.

use mfserv_core::event::EndReason;
use mfserv_core::status::WatcherState;
use mfserv_core::{Diagnostic, Kind};

use super::kit::*;
use crate::{Progress, Unmet, Until, View};

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
    let unmet = waiter.fails().await;
    let Unmet::Failed { watcher, end: Some(end) } = &unmet else { panic!("{unmet:?}") };
    assert_eq!((watcher.as_str(), &end.worker), ("app.p.a", &id("1.2")));
    assert_eq!(end.why, EndReason::Exited { code: 1 });
    let text = Diagnostic::from(unmet).to_string();
    assert!(text.contains("app.p.a does not start"), "{text}");
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
    let unmet = waiter.fails().await;
    let Unmet::Failed { end: Some(end), .. } = &unmet else { panic!("{unmet:?}") };
    assert_eq!(end.worker, id("2.4"));
}

#[tokio::test(start_paused = true)]
async fn the_first_preparation_of_an_app_that_fails_is_a_failure_however_late_it_is_waited_for() {
    for waits_first in [true, false] {
        let mut node = Node::start().await;
        node.prepare(app(1)).await;
        let before = match waits_first {
            true => Some(node.waits_for(Until::Prepared, LONG).await),
            false => None,
        };
        node.crashes("1.1").await;
        let waiter = match before {
            Some(waiter) => waiter,
            None => node.waits_for(Until::Prepared, LONG).await,
        };
        let unmet = waiter.fails().await;
        let Unmet::Failed { end: Some(end), .. } = &unmet else { panic!("{unmet:?}") };
        assert_eq!(end.worker, id("1.1"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_prepared_worker_that_is_ready_and_crashes_is_the_end_of_the_waiting() {
    let mut node = Node::start().await;
    node.prepare(app(2)).await;
    node.ready(["1.1"]).await;
    let waiter = node.waits_for(Until::Prepared, LONG).await;
    node.crashes("1.1").await;
    let unmet = waiter.fails().await;
    assert!(matches!(&unmet, Unmet::Failed { .. }), "{unmet:?}");
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
    let unmet = waiter.fails().await;
    let Unmet::TimedOut { late, .. } = &unmet else { panic!("{unmet:?}") };
    assert_eq!(late[0].progress, Progress { done: 1, wanted: 3 });
    assert_eq!(late[0].state, WatcherState::Starting);
    let problem = Diagnostic::from(unmet);
    assert_eq!((problem.what.as_str(), problem.kind), ("timed out after 10 s", Kind::Timeout));
    assert!(problem.to_string().contains("app.p.a: 1 of 3 ready, starting"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn a_late_preparation_says_how_many_are_ready() {
    let mut node = Node::serving_as(app(2)).await;
    node.prepare(edited(app(2))).await;
    node.ready(["1.3"]).await;
    let waiter = node.waits_for(Until::Prepared, secs(1)).await;
    node.pass(secs(2)).await;
    let problem = Diagnostic::from(waiter.fails().await);
    assert!(problem.to_string().contains("app.p.a: 1 of 2 new workers are ready"), "{problem}");
}

#[tokio::test(start_paused = true)]
async fn a_late_stop_says_how_many_still_live() {
    let mut node = Node::serving_as(app(2)).await;
    node.is_busy("1.1");
    node.apply([]).await;
    let waiter = node.waits_for(Until::Gone, secs(1)).await;
    node.pass(secs(2)).await;
    let problem = Diagnostic::from(waiter.fails().await);
    assert!(problem.to_string().contains("app.p.a: 1 workers still live"), "{problem}");
}

fn counts(done: u32, wanted: u32) -> View {
    View { progress: Progress { done, wanted }, elsewhere: String::new() }
}

#[tokio::test(start_paused = true)]
async fn a_restart_can_be_followed_worker_by_worker() {
    let mut node = Node::serving_as(app(3)).await;
    node.restart().await;
    let mut progress = node.follows(Until::Settled).await;
    assert_eq!(*progress.borrow_and_update(), counts(0, 3));
    node.ready(["1.4"]).await;
    assert!(progress.has_changed().unwrap());
    assert_eq!(*progress.borrow_and_update(), counts(1, 3));
    node.ready(["2.5"]).await;
    assert_eq!(*progress.borrow_and_update(), counts(2, 3));
    node.ready(["3.6"]).await;
    assert_eq!(*progress.borrow_and_update(), counts(3, 3));
    node.pass(secs(1)).await;
    assert!(!progress.has_changed().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_preparation_can_be_followed() {
    let mut node = Node::serving_as(app(2)).await;
    node.prepare(edited(app(2))).await;
    let progress = node.follows(Until::Prepared).await;
    assert_eq!(*progress.borrow(), counts(0, 2));
    node.ready(["2.4"]).await;
    assert_eq!(*progress.borrow(), counts(1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_stop_can_be_followed_until_nobody_lives() {
    let mut node = Node::serving_as(app(2)).await;
    node.is_busy("1.1");
    node.is_busy("2.2");
    node.apply([]).await;
    let progress = node.follows(Until::Gone).await;
    assert_eq!(*progress.borrow(), counts(0, 2));
    node.finishes("2.2").await;
    assert_eq!(*progress.borrow(), counts(1, 2));
    node.finishes("1.1").await;
    assert_eq!(*progress.borrow(), counts(2, 2));
}
