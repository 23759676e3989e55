//! What a daemon keeps on disk, and a disk that cannot take it.

use mfserv_core::names::WatcherName;
use mfserv_core::node_state::NodeState;

use super::kit::{House, text};
use super::played::BEGINNING_MS;
use crate::daemon::last_plan;

#[tokio::test(start_paused = true)]
async fn the_plan_in_force_is_kept_and_only_its_owner_may_read_it() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    let kept = last_plan::load(&*house.disk, &house.places()).unwrap();
    assert_eq!(kept, *daemon.plan());
    assert_eq!(house.disk.held().modes[&house.places().run().join("plan.json")], 0o600);
}

#[tokio::test(start_paused = true)]
async fn a_kept_plan_of_another_version_or_half_of_one_is_ignored() {
    let house = House::new();
    house.running().await;
    let path = house.places().run().join("plan.json");
    let good = text(&house.disk, &path).unwrap();
    for bad in [good.replacen("\"version\":1", "\"version\":2", 1), good[..50].into(), "".into()] {
        assert_ne!(bad, good);
        house.disk.held().files.insert(path.clone(), bad.into_bytes());
        assert_eq!(last_plan::load(&*house.disk, &house.places()), None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_on_a_full_disk_runs_and_says_what_it_cannot_keep() {
    let house = House::new();
    house.plugin("hello");
    house.disk.held().files.insert(house.places().var().join("uuid"), "u\n".into());
    house.disk.held().full = true;
    let daemon = house.running().await;
    assert_eq!(daemon.status().await.state, NodeState::Running);
    assert_eq!(daemon.watcher("app.hello.main").await.ready, 2);
    let notes = daemon.notes();
    assert!(notes.iter().any(|note| note.contains("the plan cannot be remembered")), "{notes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_count_that_cannot_be_remembered_is_refused() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    house.disk.held().full = true;
    let app = WatcherName::app("hello", "main");
    daemon.node.hold_count(&app, Some(5)).unwrap_err();
    house.disk.held().full = false;
    daemon.reload().await.unwrap();
    assert_eq!(house.keeper.books().workers("app.hello.main").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_count_is_kept_for_the_next_daemon() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    daemon.node.hold_count(&WatcherName::app("hello", "main"), Some(3)).unwrap();
    daemon.dies().await;
    let daemon = house.daemon().await;
    daemon.come_back().await;
    daemon.reload().await.unwrap();
    assert_eq!(house.keeper.books().workers("app.hello.main").len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_held_count_ends_with_a_change_of_its_app_and_with_a_start_of_the_node() {
    let house = House::new();
    house.plugin("hello");
    house.plugin("other");
    let daemon = house.running().await;
    let ready = || house.keeper.books().workers("app.hello.main").len();
    let app = WatcherName::app("hello", "main");
    daemon.node.hold_count(&app, Some(3)).unwrap();
    daemon.reload().await.unwrap();
    let scaled = daemon.watcher("app.hello.main").await.scaled.unwrap();
    assert_eq!((scaled.wanted, scaled.configured, scaled.held), (3, 2, true));
    assert_eq!(daemon.watcher("app.other.main").await.scaled, None);
    house.plugin_with("other", "numprocesses = 1\n");
    daemon.reload().await.unwrap();
    assert_eq!(ready(), 3, "another app has changed");
    house.plugin_with("hello", "numprocesses = 1\n");
    daemon.reload().await.unwrap();
    assert_eq!(ready(), 1, "its configuration has changed");
    daemon.node.hold_count(&app, Some(0)).unwrap();
    daemon.reload().await.unwrap();
    house.plugin_with("hello", "numprocesses = 1\ndebug = 1\n");
    daemon.reload().await.unwrap();
    assert_eq!(ready(), 0, "what was stopped stays so with a new configuration, and when reloaded");
    daemon.node.hold_count(&app, None).unwrap();
    daemon.reload().await.unwrap();
    assert_eq!(ready(), 1, "it was started");
    daemon.node.hold_count(&app, Some(0)).unwrap();
    daemon.reload().await.unwrap();
    daemon.stop().await;
    daemon.dies().await;
    house.running().await;
    assert_eq!(ready(), 1, "a node that starts is as it is configured");
}

#[tokio::test(start_paused = true)]
async fn the_identifier_of_a_node_is_made_once() {
    let house = House::new();
    house.running().await.dies().await;
    let path = house.places().var().join("uuid");
    let first = text(&house.disk, &path).unwrap();
    assert_eq!(first.trim().len(), 32);
    house.running().await;
    assert_eq!(text(&house.disk, &path).unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn the_state_is_in_a_file_for_monitoring() {
    let house = House::new();
    let daemon = house.running().await;
    let path = house.places().status_file();
    assert_eq!(text(&house.disk, &path).as_deref(), Some("RUNNING\n"));
    assert_eq!(daemon.status().await.daemon.since_ms, BEGINNING_MS, "the time is the world's");
}
