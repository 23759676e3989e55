//! Stopping in order.

use std::time::Duration;

use mfserv_core::Kind;
use mfserv_core::node_state::NodeState;
use tokio::time::Instant;

use super::kit::House;
use crate::daemon::last_plan;

#[tokio::test(start_paused = true)]
async fn first_new_requests_are_refused_then_the_front_ends_then_the_workers() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    house.keeper.books().asked.clear();
    daemon.stop().await;
    let asked = house.keeper.books().asked.clone();
    let at = |what: &str| {
        let position = asked.iter().position(|ask| ask.starts_with(what));
        position.unwrap_or_else(|| panic!("no {what}: {asked:?}"))
    };
    assert!(at("unlisten ") < at("end app."), "{asked:?}");
    assert!(at("end front.") < at("end app."), "{asked:?}");
    assert!(daemon.fronts.seen().table.as_ref().unwrap().server.stopping);
    assert!(house.keeper.books().alive.is_empty());
    assert_eq!(daemon.fronts.seen().states[2..], [NodeState::Stopping, NodeState::Stopped]);
}

#[tokio::test(start_paused = true)]
async fn later_requests_are_refused_while_some_are_under_way_but_not_for_ever() {
    for (under_way, least, most) in
        [(vec![0, 1, 2, 3], 150, 1_000), (vec![1; 2_000], 19_000, 21_000)]
    {
        let house = House::new();
        house.plugin("hello");
        let daemon = house.running().await;
        daemon.fronts.seen().under_way = under_way;
        let began = Instant::now();
        daemon.stop().await;
        let took = began.elapsed().as_millis();
        assert!((least..most).contains(&took), "{took} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stop_is_three_plans_of_which_none_is_kept_for_the_next_start() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    let before = daemon.plan();
    daemon.stop().await;
    assert_eq!(
        daemon.plans()[1..],
        ["routes", "stop front; close http:127.0.0.1:18868", "stop app.hello.main, telemetry"]
    );
    assert_eq!(daemon.plan().generation, before.generation + 3);
    assert_eq!(last_plan::load(&*house.disk, &house.places()), Some((*before).clone()));
}

#[tokio::test(start_paused = true)]
async fn telegraf_ends_after_those_who_hand_their_last_points_to_it() {
    let house = House::new();
    house.plugin("hello");
    house.configure(
        "[nginx]\nport = 18868\n[front]\nhost = 127.0.0.1\n[influxdb]\nurl = http://127.0.0.1:1\n\
         [telegraf]\nagent = telegraf\nprogram = /bin/true\n",
    );
    let daemon = house.running().await;
    daemon.stop().await;
    assert_eq!(daemon.plans()[3..], ["stop app.hello.main, telemetry", "stop telegraf"]);
    assert!(house.keeper.books().alive.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_health_endpoint_says_stopping_for_a_while_before_anything_is_closed() {
    let house = House::new();
    house.configure("[nginx]\nport = 18868\nsmart_stop_delay = 30\n[front]\nhost = 127.0.0.1\n");
    let daemon = house.running().await;
    let began = Instant::now();
    daemon.stop().await;
    assert!(began.elapsed() >= Duration::from_secs(30), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_stops_takes_no_other_change() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    daemon.stop().await;
    let Err(problem) = daemon.node.take_turn().await else { panic!("it has its turn") };
    assert_eq!(problem.kind, Kind::Refused);
    assert!(house.keeper.books().alive.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ignores_its_stop_signal_is_killed() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    let stubborn = house.keeper.books().workers("app.hello.main")[0].clone();
    house.keeper.books().stubborn.insert(stubborn);
    daemon.stop().await;
    assert!(house.keeper.books().alive.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_has_no_plan_yet_stops_too() {
    let house = House::new();
    house.plugin("hello");
    house.running().await.dies().await;
    let daemon = house.daemon().await;
    daemon.stop().await;
    assert!(house.keeper.books().alive.is_empty());
    assert_eq!(daemon.status().await.state, NodeState::Stopped);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_has_no_plan_yet_ends_the_front_before_the_workers() {
    let house = House::new();
    house.plugin("hello");
    house.running().await.dies().await;
    let daemon = house.daemon().await;
    house.keeper.books().asked.clear();
    daemon.stop().await;
    let asked = house.keeper.books().asked.clone();
    let ended = |what: &str| asked.iter().position(|ask| ask.starts_with(what));
    assert!(ended("end front.") < ended("end app."), "{asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_second_stop_finds_the_node_stopped_and_does_not_say_stopping_again() {
    let house = House::new();
    let daemon = house.running().await;
    daemon.node.stop_in_order().await.unwrap();
    daemon.node.stop_in_order().await.unwrap();
    assert_eq!(daemon.fronts.seen().states[2..], [NodeState::Stopping, NodeState::Stopped]);
}
