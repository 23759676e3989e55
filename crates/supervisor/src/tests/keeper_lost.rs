//! The keeper may go and come back: what it says then is the truth.

use mfserv_core::event::Fact;
use mfserv_core::wire::keeper::{Ended, Notice};

use super::kit::*;

#[tokio::test(start_paused = true)]
async fn workers_serve_on_without_a_keeper_and_nothing_happens_when_it_is_back() {
    let mut node = Node::serving_as(app(2)).await;
    node.keeper_is_lost().await;
    node.pass(secs(5)).await;
    node.keeper_is_found().await;
    assert_eq!(node.serving(), ["1.1", "2.2"]);
    assert_eq!(node.spawned().len(), 2);
    assert!(node.signals().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ended_in_the_meantime_is_started_again() {
    let mut node = Node::serving_as(app(1)).await;
    node.keeper_is_lost().await;
    node.exits("1.1", 7).await;
    assert_eq!(node.serving(), ["1.1"], "nobody has said so yet");
    node.keeper_is_found().await;
    assert_eq!(node.ends(), ["1.1 exited with code 7"]);
    assert_eq!(node.alive(), ["1.2"]);
    assert!(node.keeper().exits.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_the_new_keeper_does_not_know_has_ended() {
    let mut node = Node::serving_as(app(1)).await;
    node.keeper_is_lost().await;
    node.keeper().alive.clear();
    node.keeper_is_found().await;
    assert_eq!(node.ends(), ["1.1 ended (status unknown: adopted)"]);
    assert_eq!(node.alive(), ["1.2"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_nobody_knows_is_killed() {
    let mut node = Node::serving_as(app(1)).await;
    node.keeper_is_lost().await;
    {
        let mut keeper = node.keeper();
        let mut stray = keeper.alive[&id("1.1").to_string()].clone();
        stray.id = id("9.9").to_string();
        keeper.alive.insert(stray.id.clone(), stray);
    }
    node.keeper_is_found().await;
    assert_eq!(node.alive(), ["1.1"]);
    assert_eq!(node.signals(), ["9.9 KILL tree"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_started_meanwhile_starts_when_the_keeper_is_back() {
    let mut node = Node::serving_as(app(1)).await;
    node.keeper_is_lost().await;
    node.apply([app(2)]).await;
    assert_eq!(node.alive(), ["1.1"]);
    node.keeper_is_found().await;
    assert_eq!(node.alive(), ["1.1", "2.2"]);
    assert!(node.ends().is_empty(), "{:?}", node.ends());
}

#[tokio::test(start_paused = true)]
async fn what_is_to_be_stopped_meanwhile_is_stopped_when_the_keeper_is_back() {
    let mut node = Node::serving_as(app(2)).await;
    node.keeper_is_lost().await;
    node.apply([app(1)]).await;
    assert_eq!(node.serving(), ["1.1"], "it gets no request any more");
    assert_eq!(node.alive(), ["1.1", "2.2"]);
    node.keeper_is_found().await;
    assert_eq!(node.alive(), ["1.1"]);
    assert_eq!(node.ends(), ["2.2 asked (stop)"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_was_being_killed_is_killed_when_the_keeper_is_back() {
    let mut node = Node::serving_as(app(1)).await;
    node.ignores_its_stop_signal("1.1");
    node.apply([]).await;
    node.keeper_is_lost().await;
    node.pass(secs(15)).await;
    assert_eq!(node.signals(), ["1.1 TERM"]);
    node.keeper_is_found().await;
    assert!(node.alive().is_empty());
    assert_eq!(node.signals()[1], "1.1 KILL tree");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_not_possible_for_long_runs_out_of_patience_and_is_tried_again() {
    let mut node = Node::start().await;
    node.keeper_is_lost().await;
    node.apply([app(1)]).await;
    node.pass(secs(31)).await;
    assert_eq!(node.ends(), ["1.1 failed its probe (not ready within _start_timeout=30)"]);
    node.keeper_is_found().await;
    assert_eq!(node.alive(), ["1.2"]);
}

#[tokio::test(start_paused = true)]
async fn it_can_go_and_come_back_several_times() {
    let mut node = Node::serving_as(app(1)).await;
    for round in 1..5 {
        node.keeper_is_lost().await;
        let worker = format!("1.{round}");
        node.keeper().ends(&id(&worker).to_string(), Ended::Signalled { signal: 9 }, "");
        node.keeper_is_found().await;
        let next = format!("1.{}", round + 1);
        assert_eq!(node.alive(), std::slice::from_ref(&next));
        node.ready([next.as_str()]).await;
    }
    assert_eq!(node.status().await.crashes, 4);
}

#[tokio::test(start_paused = true)]
async fn lost_output_and_logs_that_cannot_be_written_are_told() {
    let mut node = Node::serving_as(app(1)).await;
    node.keeper().notify(Notice::Dropped { id: "app.p.a.1.1".into(), bytes: 7 });
    let reason = "no space left".to_owned();
    node.keeper().notify(Notice::LogTrouble { file: "/log/a".into(), reason });
    node.pass(ms(1)).await;
    let facts = node.facts();
    assert!(facts.contains(&Fact::OutputDropped { id: "app.p.a.1.1".into(), bytes: 7 }));
    let (file, reason) = ("/log/a".into(), "no space left".into());
    assert!(facts.contains(&Fact::LogTrouble { file, reason }));
}
