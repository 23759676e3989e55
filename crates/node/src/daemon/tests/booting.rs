//! How a daemon brings a node up, or finds it running.

use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::node_state::NodeState;
use mfserv_core::wire::keeper::Ended;
use tokio::time::Instant;

use super::kit::House;

#[tokio::test(start_paused = true)]
async fn a_node_without_plugins_runs() {
    let house = House::new();
    let daemon = house.running().await;
    let status = daemon.status().await;
    assert_eq!(status.state, NodeState::Running);
    assert_eq!(status.address.as_deref(), Some("http://127.0.0.1:18868"));
    assert_eq!(house.keeper.books().workers("front").len(), 1);
    assert_eq!(daemon.fronts.seen().states, [NodeState::Starting, NodeState::Running]);
}

#[tokio::test(start_paused = true)]
async fn a_node_listens_before_it_starts_anything() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    let books = house.keeper.books();
    assert!(books.asked[0].starts_with("listen "), "{:?}", books.asked);
    assert_eq!(books.spawned[0], "front.1.1", "the front answers while apps start");
    assert_eq!(books.workers("app.hello.main").len(), 2);
    assert_eq!(daemon.fronts.seen().serving.len(), 2);
    assert_eq!(daemon.fronts.seen().published, [1]);
}

#[tokio::test(start_paused = true)]
async fn a_taken_port_is_an_error_that_says_so_until_the_port_is_free() {
    let house = House::new();
    house.keeper.books().taken.insert("127.0.0.1:18868".into());
    let daemon = house.daemon().await;
    let booting = tokio::spawn({
        let node = daemon.node.clone();
        async move { node.boot(false, || ()).await }
    });
    let fronts = daemon.fronts.clone();
    daemon.until("the error", || fronts.seen().states.contains(&NodeState::Error)).await;
    let status = daemon.status().await;
    assert!(status.notes[0].contains("cannot listen on 127.0.0.1:18868"), "{:?}", status.notes);
    assert!(house.keeper.books().spawned.is_empty(), "nothing is started without a port");
    house.keeper.books().taken.clear();
    booting.await.unwrap();
    let status = daemon.status().await;
    assert_eq!((status.state, status.notes.len()), (NodeState::Running, 0));
    let problems = daemon.facts().into_iter().filter(|f| matches!(f, Fact::Problem { .. }));
    assert_eq!(problems.count(), 1, "a problem is recorded once, not at each try");
}

#[tokio::test(start_paused = true)]
async fn an_app_that_never_starts_does_not_make_the_others_look_down() {
    let house = House::new();
    house.plugin("good");
    house.plugin("bad");
    house.keeper.books().broken.insert("bad".into());
    let began = Instant::now();
    let daemon = house.running().await;
    assert!(began.elapsed() <= Duration::from_secs(16), "{:?}", began.elapsed());
    assert_eq!(daemon.status().await.state, NodeState::Running);
    assert_eq!(daemon.watcher("app.good.main").await.ready, 2);
    assert_eq!(daemon.watcher("app.bad.main").await.ready, 0);
}

#[tokio::test(start_paused = true)]
async fn a_node_whose_front_does_not_get_ready_is_in_error() {
    let house = House::new();
    let daemon = house.daemon().await;
    daemon.fronts.seen().stuck = true;
    let node = daemon.node.clone();
    let booting = tokio::spawn(async move { node.boot(false, || ()).await });
    let fronts = daemon.fronts.clone();
    daemon.until("the error", || fronts.seen().states.contains(&NodeState::Error)).await;
    fronts.seen().stuck = false;
    let front = house.keeper.books().workers("front")[0].clone();
    house.keeper.books().ends(&front, Ended::Exited { code: 1 });
    booting.await.unwrap();
    assert_eq!(daemon.status().await.state, NodeState::Running);
}

#[tokio::test(start_paused = true)]
async fn the_next_daemon_takes_over_what_lives_and_starts_nothing() {
    let house = House::new();
    house.plugin("hello");
    house.running().await.dies().await;
    let spawned = house.keeper.books().spawned.clone();
    let daemon = house.daemon().await;
    daemon.come_back().await;
    assert_eq!(house.keeper.books().spawned, spawned);
    assert_eq!(daemon.watcher("app.hello.main").await.ready, 2);
    assert_eq!(daemon.plans().last().unwrap(), "takes over what lives");
    assert!(!daemon.fronts.seen().states.contains(&NodeState::Starting), "it looks up all along");
}

#[tokio::test(start_paused = true)]
async fn the_next_daemon_of_a_broken_configuration_goes_on_as_before() {
    let house = House::new();
    house.plugin("hello");
    house.running().await.dies().await;
    let good = std::fs::read_to_string(house.places().config_file()).unwrap();
    house.configure("this line is no assignment\n");
    let daemon = house.daemon().await;
    let node = daemon.node.clone();
    let booting = tokio::spawn(async move { node.boot(true, || ()).await });
    let fronts = daemon.fronts.clone();
    daemon.until("the last plan is in force", || fronts.seen().table.is_some()).await;
    let killed = house.keeper.books().workers("app.hello.main")[0].clone();
    house.keeper.books().ends(&killed, Ended::Signalled { signal: 9 });
    let books = || house.keeper.books().workers("app.hello.main");
    daemon.until("a killed worker is replaced", || books().len() == 2).await;
    let status = daemon.status().await;
    assert_eq!(status.state, NodeState::Running);
    assert!(status.notes.iter().any(|note| note.contains("config.ini")), "{:?}", status.notes);
    house.configure(&good);
    booting.await.unwrap();
    assert!(daemon.status().await.notes.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_new_node_of_a_broken_configuration_starts_nothing_and_writes_nothing() {
    let house = House::new();
    house.configure("[nginx]\nport = many\n");
    let daemon = house.daemon().await;
    let problem = daemon.node.reconcile().await.unwrap_err();
    assert_eq!(problem.kind, mfserv_core::Kind::BadConfiguration);
    assert!(house.keeper.books().asked.is_empty(), "{:?}", house.keeper.books().asked);
    assert!(daemon.fronts.seen().published.is_empty());
    assert_eq!(house.disk.held().writes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_keeper_is_missing_in_the_status_until_another_one_answers() {
    let mut house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    assert_eq!(daemon.status().await.keeper.unwrap().pid, 1);
    house.keeper_dies();
    let notes = || daemon.notes().iter().any(|note| note.contains("the keeper is gone"));
    daemon.until("it is noted", notes).await;
    assert_eq!(daemon.status().await.keeper, None);
    let _again = house.keeper.listen(&house.places().keep_socket());
    while daemon.status().await.keeper.is_none() {
        // Paused time passes only here: the link to the keeper tries again after a pause.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(daemon.watcher("app.hello.main").await.ready, 2);
}
