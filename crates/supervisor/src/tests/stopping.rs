//! Stop wins, whatever a worker is doing.

use mfserv_core::status::WatcherState;
use mfserv_core::watcher::WatcherSpec;

use super::kit::*;
use super::played::Spawning;

#[tokio::test(start_paused = true)]
async fn a_worker_is_asked_to_stop_when_it_holds_no_request_any_more() {
    let mut node = Node::serving_as(app(1)).await;
    node.is_busy("1.1");
    node.apply([]).await;
    assert!(node.serving().is_empty());
    assert!(node.signals().is_empty());
    assert_eq!(node.state().await, WatcherState::Stopping);
    node.finishes("1.1").await;
    assert_eq!(node.signals(), ["1.1 TERM"]);
    assert!(node.watchers().await.is_empty());
    assert_eq!(node.fronts().forgotten, ["app.p.a.1.1"]);
}

#[tokio::test(start_paused = true)]
async fn requests_that_do_not_end_are_waited_for_up_to_the_drain_limit() {
    let mut node = Node::serving_as(WatcherSpec { drain_timeout_ms: 5_000, ..app(1) }).await;
    node.is_busy("1.1");
    node.apply([]).await;
    node.pass(ms(4_900)).await;
    assert!(node.signals().is_empty());
    node.pass(ms(200)).await;
    assert_eq!(node.signals(), ["1.1 TERM"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_ignores_its_stop_signal_is_killed_with_all_that_it_started() {
    let mut node = Node::serving_as(app(1)).await;
    node.ignores_its_stop_signal("1.1");
    node.apply([]).await;
    node.pass(ms(9_900)).await;
    assert_eq!(node.signals(), ["1.1 TERM"]);
    node.pass(ms(200)).await;
    assert_eq!(node.signals(), ["1.1 TERM", "1.1 KILL tree"]);
    assert_eq!(node.ends(), ["1.1 asked (stop)"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_survives_sigkill_for_a_while_is_killed_again() {
    let mut node = Node::serving_as(WatcherSpec { stop_timeout_ms: 1_000, ..app(1) }).await;
    node.ignores_its_stop_signal("1.1");
    node.cannot_be_killed("1.1");
    node.apply([]).await;
    node.pass(secs(6)).await;
    let kills = node.signals().iter().filter(|s| *s == "1.1 KILL tree").count();
    assert!((2..=3).contains(&kills), "{:?}", node.signals());
    node.keeper().unkillable.clear();
    node.pass(secs(3)).await;
    assert!(node.alive().is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_a_stop_limit_a_worker_has_all_the_time_it_wants() {
    let mut node = Node::serving_as(WatcherSpec { stop_timeout_ms: 0, ..app(1) }).await;
    node.ignores_its_stop_signal("1.1");
    node.apply([]).await;
    node.pass(secs(100_000)).await;
    assert_eq!(node.signals(), ["1.1 TERM"]);
    node.exits("1.1", 0).await;
    assert!(node.watchers().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_stop_signal_is_the_one_of_the_app() {
    let mut node = Node::serving_as(WatcherSpec { stop_signal: 2, ..app(1) }).await;
    node.apply([]).await;
    assert_eq!(node.signals(), ["1.1 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_requests_is_asked_at_once() {
    let spec = WatcherSpec { upstream: None, ..app(1) };
    let mut node = Node::serving_as(spec).await;
    node.apply([]).await;
    assert_eq!(node.signals(), ["1.1 TERM"]);
    assert!(node.fronts().forgotten.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_starting_worker_is_asked_at_once() {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    node.apply([]).await;
    assert_eq!(node.signals(), ["1.1 TERM"]);
    assert!(node.watchers().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_stopped_before_its_start_is_answered_is_asked_when_it_lives() {
    let mut node = Node::start().await;
    node.spawning(Spawning::Late);
    node.apply([app(1)]).await;
    node.apply([]).await;
    assert!(node.signals().is_empty(), "there is nobody to ask yet");
    node.keeper().answers_at_last();
    node.pass(ms(1)).await;
    assert_eq!(node.signals(), ["1.1 TERM"]);
    assert!(node.alive().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_comes_to_life_after_its_worker_was_forgotten_is_killed() {
    let mut node = Node::start().await;
    node.spawning(Spawning::Late);
    node.apply([app(1)]).await;
    node.apply([]).await;
    node.pass(secs(60)).await;
    assert!(node.watchers().await.is_empty());
    node.keeper().answers_at_last();
    node.pass(ms(1)).await;
    assert!(node.alive().is_empty());
    assert_eq!(node.signals(), ["1.1 KILL tree"]);
}

#[tokio::test(start_paused = true)]
async fn old_and_new_worker_go_when_they_are_stopped_during_a_restart() {
    let mut node = Node::serving_as(app(2)).await;
    node.restart().await;
    node.apply([]).await;
    assert!(node.alive().is_empty());
    assert!(node.watchers().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_restart_without_overlap_that_is_stopped_does_not_start_the_next_one() {
    let mut node = Node::serving_as(WatcherSpec { overlap: false, ..app(1) }).await;
    node.is_busy("1.1");
    node.restart().await;
    node.apply([]).await;
    node.finishes("1.1").await;
    assert!(node.alive().is_empty());
    assert_eq!(node.spawned(), ["1.1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_prepared_goes_with_the_watcher() {
    let mut node = Node::serving_as(app(1)).await;
    node.prepare(edited(app(1))).await;
    node.apply([]).await;
    assert!(node.alive().is_empty());
    assert!(node.watchers().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_crashes_while_it_drains_is_not_started_again() {
    let mut node = Node::serving_as(app(1)).await;
    node.is_busy("1.1");
    node.apply([]).await;
    node.crashes("1.1").await;
    assert_eq!(node.spawned(), ["1.1"]);
    assert_eq!(node.ends(), ["1.1 asked (stop)"]);
    assert_eq!(node.restarts_in_ms("1.1"), None);
}

#[tokio::test(start_paused = true)]
async fn wanted_again_while_it_stops_a_new_worker_starts_beside_it() {
    let mut node = Node::serving_as(app(1)).await;
    node.is_busy("1.1");
    node.apply([]).await;
    node.apply([app(1)]).await;
    assert_eq!(node.alive(), ["1.1", "1.2"]);
    node.ready(["1.2"]).await;
    assert_eq!(node.serving(), ["1.2"]);
    node.finishes("1.1").await;
    assert_eq!(node.alive(), ["1.2"]);
}

#[tokio::test(start_paused = true)]
async fn sockets_of_a_worker_go_with_it() {
    let mut node = Node::start().await;
    let socket = node.home().join("a_1.1.socket");
    node.apply([WatcherSpec {
        socket_stem: Some(node.home().join("a")),
        socket_link_stem: Some(node.home().join("link")),
        ..app(1)
    }])
    .await;
    std::fs::write(&socket, "").unwrap();
    node.ready(["1.1"]).await;
    node.apply([]).await;
    assert!(!socket.exists());
}
