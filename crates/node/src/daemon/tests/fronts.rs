//! Several fronts as one: tables, draining, and fronts that die, hang or refuse.

use std::collections::BTreeMap;
use std::time::Duration;

use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::node_state::NodeState;
use mfserv_core::wire::front::{self, Address, Peer, ToFront, UpstreamStats, Warned};
use mfserv_core::wire::keeper::Ended;
use tokio::time::Instant;

use super::front_process::FrontProcess;
use super::kit::{Daemon, House};

async fn running(house: &House) -> Daemon {
    let daemon = house.daemon_with_fronts().await;
    daemon.boot().await;
    daemon
}

/// The living front.
fn front(house: &House) -> FrontProcess {
    let books = house.keeper.books();
    let ids = books.workers("front");
    assert_eq!(ids.len(), 1, "{ids:?}");
    books.fronts[&ids[0]].clone()
}

/// The fronts that were started.
fn started(house: &House) -> usize {
    house.keeper.books().spawned.iter().filter(|id| id.starts_with("front.")).count()
}

#[tokio::test(start_paused = true)]
async fn a_front_is_ready_when_it_routes_by_the_table() {
    let house = House::new();
    house.plugin("hello");
    let daemon = running(&house).await;
    assert_eq!(daemon.status().await.state, NodeState::Running);
    assert_eq!(daemon.watcher("front").await.ready, 1);
    let front = front(&house);
    assert_eq!(front.tables(), ["publish 1"]);
    let admitted =
        front.state().received.iter().filter(|m| matches!(m, ToFront::Admit { .. })).count();
    assert_eq!(admitted, 2);
}

#[tokio::test(start_paused = true)]
async fn a_change_is_sent_to_a_front_as_what_differs() {
    let house = House::new();
    house.plugin("first");
    let daemon = running(&house).await;
    house.plugin("second");
    daemon.reload().await.unwrap();
    let front = front(&house);
    assert_eq!(front.tables(), ["publish 1", "amend 2"]);
    let state = front.state();
    let amend = state.received.iter().find_map(|message| match message {
        ToFront::Amend { base, amendment, .. } => Some((*base, amendment.sections.len())),
        _ => None,
    });
    assert_eq!(amend, Some((1, 1)), "only the plugin that changed");
}

#[tokio::test(start_paused = true)]
async fn a_front_of_the_first_version_gets_the_whole_table() {
    let house = House::new();
    house.plugin("first");
    let old = FrontProcess::default();
    old.state().version = 1;
    house.keeper.books().next_front = Some(old);
    let daemon = running(&house).await;
    house.plugin("second");
    daemon.reload().await.unwrap();
    assert_eq!(front(&house).tables(), ["publish 1", "publish 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_table_that_a_front_refuses_is_a_problem_of_the_configuration() {
    let house = House::new();
    house.plugin("first");
    let daemon = running(&house).await;
    house.plugin("second");
    front(&house).state().refuse = Some("too many routes".into());
    let problem = daemon.node.reconcile().await.unwrap_err();
    assert_eq!(problem.kind, mfserv_core::Kind::BadConfiguration);
    assert_eq!(problem.because, ["too many routes"]);
    assert_eq!(daemon.plan().generation, 1);
}

#[tokio::test(start_paused = true)]
async fn a_front_that_does_not_take_a_table_in_time_is_replaced() {
    let house = House::new();
    house.plugin("first");
    let daemon = running(&house).await;
    let hanging = front(&house);
    hanging.state().hangs = true;
    house.plugin("second");
    daemon.reload().await.unwrap();
    daemon.until("another front is started", || started(&house) == 2).await;
    let keeper = house.keeper.clone();
    daemon.until("the old one has ended", || keeper.books().workers("front").len() == 1).await;
    let tables = || front(&house).tables();
    daemon.until("it begins with the new table", || tables() == ["publish 2"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_front_that_hangs_is_replaced_without_any_change_and_one_of_an_older_version_is_not() {
    for (version, is_replaced) in [(front::VERSION, true), (2, false)] {
        let house = House::new();
        house.plugin("first");
        let process = FrontProcess::default();
        process.state().version = version;
        house.keeper.books().next_front = Some(process);
        let daemon = running(&house).await;
        let hanging = front(&house);
        // Played time: nothing is to happen in it.
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(started(&house), 1, "it answers");
        hanging.state().hangs = true;
        // Played time: an older front is to be let be in it.
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert_eq!(started(&house) == 2, is_replaced, "version {version}");
        if is_replaced {
            let keeper = house.keeper.clone();
            daemon.until("it has ended", || keeper.books().workers("front").len() == 1).await;
            assert_eq!(front(&house).tables(), ["publish 1"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_ends_only_when_the_front_has_finished_its_requests() {
    let house = House::new();
    house.plugin_with("hello", "numprocesses = 1\n");
    let daemon = running(&house).await;
    let worker = house.keeper.books().workers("app.hello.main")[0].clone();
    front(&house).state().busy.insert(worker.clone());
    house.plugin_with("hello", "numprocesses = 1\n_start_timeout = 7\n");
    daemon.node.reconcile().await.unwrap();
    let drains = |front: &FrontProcess| {
        front.state().received.iter().any(|message| matches!(message, ToFront::Drain { .. }))
    };
    let draining = front(&house);
    daemon.until("it is drained", || drains(&draining)).await;
    assert!(house.keeper.books().alive.contains_key(&worker), "it has requests");
    draining.finish(&worker);
    let keeper = house.keeper.clone();
    daemon.until("it ends", || !keeper.books().alive.contains_key(&worker)).await;
    assert_eq!(daemon.watcher("app.hello.main").await.ready, 1);
}

#[tokio::test(start_paused = true)]
async fn a_front_that_dies_holds_up_no_worker_that_it_was_draining() {
    let house = House::new();
    house.plugin_with("hello", "numprocesses = 1\n");
    let daemon = running(&house).await;
    let worker = house.keeper.books().workers("app.hello.main")[0].clone();
    let dying = front(&house);
    dying.state().busy.insert(worker.clone());
    house.plugin_with("hello", "numprocesses = 1\n_start_timeout = 7\n");
    daemon.node.reconcile().await.unwrap();
    let drains = || dying.state().received.iter().any(|m| matches!(m, ToFront::Drain { .. }));
    daemon.until("it is drained", drains).await;
    let id = house.keeper.books().workers("front")[0].clone();
    house.keeper.books().ends(&id, Ended::Signalled { signal: 9 });
    let keeper = house.keeper.clone();
    daemon.until("the worker ends", || !keeper.books().alive.contains_key(&worker)).await;
    let tables = || {
        let books = keeper.books();
        let next = books.workers("front").first().map(|id| books.fronts[id].clone());
        drop(books);
        next.is_some_and(|front| front.tables() == ["publish 1"])
    };
    daemon.until("the next front has the table in force", tables).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_daemon_learns_from_a_front_whom_it_serves_and_publishes_a_later_table() {
    let house = House::new();
    house.plugin("hello");
    let first = running(&house).await;
    let app = WatcherName::app("hello", "main");
    let upstream = first.plan().watchers[&app].upstream.clone().unwrap();
    first.dies().await;
    let serving = front(&house);
    let worker = house.keeper.books().workers("app.hello.main")[0].parse().unwrap();
    let gone: WorkerId = "app.hello.main.9.9".parse().unwrap();
    let peer =
        |worker| Peer { worker, address: Address::Socket("/s".into()), dir: None, pid: None };
    serving.state().peers.insert(upstream.clone(), vec![peer(worker), peer(gone.clone())]);
    serving.state().generation = 41;
    serving.state().received.clear();
    let daemon = house.daemon_with_fronts().await;
    daemon.come_back().await;
    assert_eq!(daemon.plan().generation, 42);
    assert_eq!(daemon.watcher("app.hello.main").await.ready, 2);
    assert_eq!(serving.tables(), ["publish 42"]);
    let admitted = serving.state().received.iter().find_map(|message| match message {
        ToFront::Publish { peers, .. } => Some(peers[&upstream].clone()),
        _ => None,
    });
    let admitted: Vec<WorkerId> = admitted.unwrap().into_iter().map(|peer| peer.worker).collect();
    assert!(!admitted.is_empty() && !admitted.contains(&gone), "{admitted:?}");
    assert_eq!(house.keeper.books().workers("front").len(), 1, "the front is kept");
}

#[tokio::test(start_paused = true)]
async fn a_front_that_greets_badly_is_asked_more_and_more_seldom_and_taken_when_it_greets() {
    let house = House::new();
    house.plugin("hello");
    let first = running(&house).await;
    // Played time: that the front was ready is remembered in it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.dies().await;
    let bad = front(&house);
    let is_greeting = |message: &&ToFront| matches!(message, ToFront::Hello { .. });
    let greeted = || bad.state().received.iter().filter(is_greeting).count();
    let before = greeted();
    bad.state().greets_badly = true;
    let daemon = house.daemon_with_fronts().await;
    // Played time: connections are counted in it.
    tokio::time::sleep(Duration::from_secs(10)).await;
    let tries = greeted() - before;
    assert!((3..=12).contains(&tries), "{tries} connections in 10 s");
    bad.state().greets_badly = false;
    daemon.come_back().await;
    assert_eq!((daemon.watcher("front").await.ready, started(&house)), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_front_that_hangs_when_a_daemon_comes_back_is_replaced_and_one_that_wakes_up_is_kept() {
    for wakes_up in [false, true] {
        let house = House::new();
        house.plugin("hello");
        let first = running(&house).await;
        house.plugin("other");
        first.reload().await.unwrap();
        // Played time: that the front was ready is remembered in it.
        tokio::time::sleep(Duration::from_secs(1)).await;
        first.dies().await;
        let hanging = front(&house);
        hanging.state().hangs = true;
        let daemon = house.daemon_with_fronts().await;
        if wakes_up {
            hanging.wakes_up();
        }
        let began = Instant::now();
        daemon.come_back().await;
        if wakes_up {
            // Played time: it is to be let be in it.
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(started(&house), 1);
        } else {
            daemon.until("another one is started", || started(&house) == 2).await;
            assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
            let keeper = house.keeper.clone();
            daemon.until("it has ended", || keeper.books().workers("front").len() == 1).await;
        }
        assert_eq!(daemon.watcher("front").await.ready, 1);
        let serving = front(&house);
        assert_eq!(serving.state().generation, daemon.plan().generation);
        assert_eq!(serving.tables().last().unwrap(), "publish 3");
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_lives_while_a_front_that_has_not_answered_may_hold_its_requests() {
    let house = House::new();
    house.plugin_with("hello", "numprocesses = 1\n");
    let first = running(&house).await;
    // Played time: that the front was ready is remembered in it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    first.dies().await;
    let worker = house.keeper.books().workers("app.hello.main")[0].clone();
    let waking = front(&house);
    waking.state().hangs = true;
    waking.state().busy.insert(worker.clone());
    let daemon = house.daemon_with_fronts().await;
    daemon.come_back().await;
    house.plugin_with("hello", "numprocesses = 1\n_start_timeout = 7\n");
    daemon.node.reconcile().await.unwrap();
    let keeper = house.keeper.clone();
    let workers = || keeper.books().workers("app.hello.main");
    daemon.until("its successor is there", || workers().len() == 2).await;
    // Played time: it is to be let be in it.
    tokio::time::sleep(Duration::from_secs(1)).await;
    waking.wakes_up();
    let drains = || waking.state().received.iter().any(|m| matches!(m, ToFront::Drain { .. }));
    daemon.until("the front drains it", drains).await;
    assert!(keeper.books().alive.contains_key(&worker), "it has requests");
    waking.finish(&worker);
    daemon.until("it ends", || workers().len() == 1).await;
    assert_eq!(started(&house), 1, "the front is kept");
}

#[tokio::test(start_paused = true)]
async fn a_front_learns_the_state_of_the_node_with_its_first_message() {
    let house = House::new();
    let daemon = running(&house).await;
    let first = front(&house);
    let states = |front: &FrontProcess| -> Vec<NodeState> {
        let state = |message: &ToFront| match message {
            ToFront::State { node, .. } => Some(*node),
            _ => None,
        };
        front.state().received.iter().filter_map(state).collect()
    };
    let both = [NodeState::Starting, NodeState::Running];
    daemon.until("its states", || states(&first) == both).await;
    let id = house.keeper.books().workers("front")[0].clone();
    house.keeper.books().ends(&id, Ended::Exited { code: 1 });
    let keeper = house.keeper.clone();
    daemon.until("another front", || keeper.books().fronts.len() == 2).await;
    let second = front(&house);
    daemon.until("its state", || states(&second) == [NodeState::Running]).await;
}

#[tokio::test(start_paused = true)]
async fn the_status_has_the_counters_of_the_fronts_and_does_not_wait_for_one_that_hangs() {
    let house = House::new();
    let daemon = running(&house).await;
    let front = front(&house);
    let hello = UpstreamStats {
        queued: 3,
        waiting: 1,
        slow_waiting: 1,
        slow_kinds: vec!["GET /report/*".into()],
        ..UpstreamStats::default()
    };
    front.state().stats.upstreams.insert("hello.main".into(), hello.clone());
    let warned = Warned { count: 2, last_ms: 9, ..Warned::default() };
    front.state().stats.warnings.insert("a limit".into(), warned);
    let status = daemon.status().await;
    assert_eq!(status.requests["hello.main"], hello);
    assert_eq!(status.front_warnings["a limit"], warned);
    let said = "hello.main: 1 slow request waits, since one slot is left to the others ([front] \
                slow_lane_wait); slow are: GET /report/*";
    assert!(status.notes.iter().any(|note| note == said), "{:?}", status.notes);
    front.state().hangs = true;
    let began = Instant::now();
    assert!(daemon.status().await.requests.is_empty());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    front.state().hangs = false;
    assert_eq!(daemon.status().await.requests["hello.main"], hello);
}

#[tokio::test(start_paused = true)]
async fn a_front_learns_when_all_workers_of_an_app_wait_for_their_next_start() {
    let house = House::new();
    house.plugin("hello");
    let daemon = running(&house).await;
    let front = front(&house);
    let backing_off = || -> BTreeMap<String, u64> {
        let told = |message: &ToFront| match message {
            ToFront::State { backing_off, .. } => Some(backing_off.clone()),
            _ => None,
        };
        front.state().received.iter().rev().find_map(told).unwrap_or_default()
    };
    assert!(backing_off().is_empty(), "its workers live");
    let keeper = house.keeper.clone();
    daemon
        .until("all wait", || {
            let workers = keeper.books().workers("app.hello.main");
            // Each worker ends as soon as it was started: the waits grow.
            workers.iter().for_each(|id| keeper.books().ends(id, Ended::Exited { code: 1 }));
            let now = mfserv_platform::clock::now_ms();
            backing_off().get("hello/main").is_some_and(|at| *at > now + 1000)
        })
        .await;
    daemon.until("one starts", || backing_off().is_empty()).await;
    assert!(!keeper.books().workers("app.hello.main").is_empty());
}
