//! Plans: what a change of files does, and what it leaves alone.

use mfserv_core::Kind;
use mfserv_core::names::WatcherName;
use mfserv_core::plan::PluginState;

use super::kit::{Daemon, House};

fn spawned_of(house: &House, plugin: &str) -> usize {
    let app = format!("app.{plugin}.");
    house.keeper.books().spawned.iter().filter(|id| id.starts_with(&app)).count()
}

fn state(daemon: &Daemon, plugin: &str) -> PluginState {
    daemon.plan().plugins.iter().find(|one| one.name == plugin).unwrap().state
}

#[tokio::test(start_paused = true)]
async fn the_same_configuration_twice_does_nothing() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    let asked = house.keeper.books().asked.len();
    let changes = daemon.reload().await.unwrap();
    assert!(changes.is_empty(), "{changes}");
    assert_eq!(spawned_of(&house, "hello"), 2);
    assert_eq!(house.keeper.books().asked.len(), asked);
    assert_eq!(daemon.fronts.seen().published, [1], "the fronts are left alone");
    assert_eq!(daemon.plan().generation, 2);
}

#[tokio::test(start_paused = true)]
async fn another_plugin_touches_no_worker_of_the_first() {
    let house = House::new();
    house.plugin("first");
    let daemon = house.running().await;
    let before = house.keeper.books().workers("app.first.main");
    house.plugin("second");
    let changes = daemon.reload().await.unwrap();
    assert_eq!(changes.touched(), [WatcherName::app("second", "main")]);
    assert_eq!(house.keeper.books().workers("app.first.main"), before);
    assert_eq!(house.keeper.books().workers("app.second.main").len(), 2);
    assert_eq!(daemon.fronts.seen().published, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_app_is_replaced_worker_by_worker() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    let before = house.keeper.books().workers("app.hello.main");
    house.plugin_with("hello", "numprocesses = 2\n_start_timeout = 7\n");
    daemon.reload().await.unwrap();
    let after = house.keeper.books().workers("app.hello.main");
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|worker| !before.contains(worker)), "{before:?} {after:?}");
    let serving: Vec<String> = daemon.fronts.seen().serving.iter().cloned().collect();
    assert_eq!(serving, after);
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_has_gone_is_stopped_and_its_count_forgotten() {
    let house = House::new();
    house.plugin("stays");
    house.plugin("goes");
    let daemon = house.running().await;
    daemon.node.hold_count(&WatcherName::app("goes", "main"), Some(3)).unwrap();
    daemon.node.hold_count(&WatcherName::app("stays", "main"), Some(1)).unwrap();
    std::fs::remove_file(house.link("goes")).unwrap();
    daemon.reload().await.unwrap();
    assert!(house.keeper.books().workers("app.goes.main").is_empty());
    assert_eq!(house.keeper.books().workers("app.stays.main").len(), 1);
    house.plugin("goes");
    daemon.reload().await.unwrap();
    assert_eq!(house.keeper.books().workers("app.goes.main").len(), 2, "as configured");
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_is_broken_from_the_start_is_refused_alone() {
    let house = House::new();
    house.plugin("good");
    house.plugin_with("bad", "numproceses = 2\n");
    let daemon = house.running().await;
    assert_eq!(state(&daemon, "bad"), PluginState::Refused);
    assert_eq!(state(&daemon, "good"), PluginState::Active);
    assert_eq!(spawned_of(&house, "bad"), 0);
    let problems = daemon.status().await.problems;
    assert!(problems.iter().any(|problem| problem.is_about("bad")), "{problems:?}");
}

#[tokio::test(start_paused = true)]
async fn a_plugin_that_breaks_later_goes_on_also_with_the_next_daemon() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    house.plugin_with("hello", "numproceses = 2\n");
    daemon.reload().await.unwrap();
    assert_eq!(state(&daemon, "hello"), PluginState::LastGood);
    daemon.dies().await;
    let daemon = house.daemon().await;
    daemon.come_back().await;
    assert_eq!(state(&daemon, "hello"), PluginState::LastGood);
    assert_eq!(house.keeper.books().workers("app.hello.main").len(), 2);
    assert_eq!(spawned_of(&house, "hello"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_the_fronts_refuse_changes_nothing() {
    let house = House::new();
    house.plugin("first");
    let daemon = house.running().await;
    house.plugin("second");
    daemon.fronts.seen().refuse = Some("no such thing".into());
    let problem = daemon.node.reconcile().await.unwrap_err();
    assert_eq!(problem.what, "no such thing");
    assert_eq!(daemon.plan().generation, 1);
    assert_eq!(spawned_of(&house, "second"), 0);
    daemon.reload().await.unwrap();
    assert_eq!(spawned_of(&house, "second"), 2, "the next try succeeds");
}

#[tokio::test(start_paused = true)]
async fn a_new_port_is_listened_on_before_the_old_one_is_closed() {
    let house = House::new();
    let daemon = house.running().await;
    let old: Vec<String> = house.keeper.books().listening.keys().cloned().collect();
    house.keeper.books().asked.clear();
    house.configure("[nginx]\nport = 18869\n[front]\nhost = 127.0.0.1\n");
    daemon.reload().await.unwrap();
    let asked = house.keeper.books().asked.clone();
    let listen = asked.iter().position(|ask| ask.starts_with("listen ")).unwrap();
    let unlisten = asked.iter().position(|ask| *ask == format!("unlisten {}", old[0])).unwrap();
    assert!(listen < unlisten, "{asked:?}");
    assert_eq!(house.keeper.books().listening.values().next().unwrap(), "127.0.0.1:18869");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_taken_refuses_the_reload_and_the_old_port_stays() {
    let house = House::new();
    let daemon = house.running().await;
    house.keeper.books().taken.insert("127.0.0.1:18869".into());
    house.configure("[nginx]\nport = 18869\n[front]\nhost = 127.0.0.1\n");
    let problem = daemon.node.reconcile().await.unwrap_err();
    assert_eq!(problem.kind, Kind::Refused);
    assert_eq!(daemon.plan().generation, 1);
    assert!(house.keeper.books().listening.values().any(|it| it == "127.0.0.1:18868"));
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_no_daemon_remembers_is_closed() {
    let house = House::new();
    house.keeper.books().listening.insert("old".into(), "127.0.0.1:1".into());
    house.running().await;
    assert!(house.keeper.books().asked.contains(&"unlisten old".into()));
}

#[tokio::test(start_paused = true)]
async fn an_app_that_is_scaled_to_nothing_is_shown_and_comes_back() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    let app = WatcherName::app("hello", "main");
    daemon.node.hold_count(&app, Some(0)).unwrap();
    daemon.reload().await.unwrap();
    let watcher = daemon.watcher("app.hello.main").await;
    assert_eq!((watcher.wanted, watcher.ready), (0, 0));
    assert_eq!(watcher.path.as_deref(), Some("/hello"));
    daemon.node.hold_count(&app, None).unwrap();
    daemon.reload().await.unwrap();
    assert_eq!(daemon.watcher("app.hello.main").await.ready, 2);
}
