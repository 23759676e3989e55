//! Workers without requests are asked from time to time; busy ones never are.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mfserv_core::watcher::{Probe, WatcherSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use super::kit::*;

/// The app on sockets below the node's home. Its workers are ready because the test says so.
async fn ready(count: u32, edit: impl Fn(WatcherSpec) -> WatcherSpec) -> Node {
    let mut node = Node::start().await;
    let socket_stem = Some(node.home().join("a"));
    let spec = WatcherSpec { probe: Probe::Connect, socket_stem, ..app(count) };
    node.apply([edit(spec)]).await;
    node.everybody_is_ready().await;
    node
}

/// The worker answers from now on.
fn answers(node: &Node, worker: &str) -> UnixListener {
    UnixListener::bind(node.home().join(format!("a_{worker}.socket"))).unwrap()
}

/// Something is at the place of its socket that takes no connection, like a worker that hangs.
fn hangs(node: &Node, worker: &str) {
    std::fs::write(node.home().join(format!("a_{worker}.socket")), "").unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_that_does_not_answer_is_replaced_alone_without_any_request() {
    let mut node = ready(2, |spec| spec).await;
    let _first = answers(&node, "1.1");
    hangs(&node, "2.2");
    node.pass(secs(9)).await;
    assert_eq!(node.alive(), ["1.1", "2.2"]);
    node.pass(secs(6)).await;
    assert_eq!(node.alive(), ["1.1", "2.2", "2.3"]);
    let _third = answers(&node, "2.3");
    node.ready(["2.3"]).await;
    assert_eq!(node.serving(), ["1.1", "2.3"]);
    let ends = node.ends();
    assert!(ends[0].starts_with("2.2 does not answer any more (not listening"), "{ends:?}");
    node.pass(secs(60)).await;
    assert_eq!(node.spawned().len(), 3, "those that answer are left alone");
}

#[tokio::test(start_paused = true)]
async fn a_busy_worker_is_not_asked_and_one_that_gets_a_request_meanwhile_is_not_ended() {
    let mut node = ready(2, |spec| spec).await;
    hangs(&node, "1.1");
    hangs(&node, "2.2");
    node.is_busy("1.1");
    // Whenever the second one has been silent for a moment, it serves something.
    for _ in 0..120 {
        node.has_served("2.2");
        node.pass(ms(500)).await;
    }
    assert_eq!(node.spawned(), ["1.1", "2.2"]);
    assert!(!node.fronts().asked.contains(&1), "nothing was to be made sure of");
    // Its silences are long enough that it is asked, and end while it is.
    for _ in 0..60 {
        node.has_served("2.2");
        node.pass(ms(2300)).await;
    }
    assert_eq!(node.spawned(), ["1.1", "2.2"], "{:?} {:?}", node.ends(), node.fronts().asked);
    assert!(node.fronts().asked.contains(&1), "it was asked, and the fronts were asked again");
    node.pass(secs(15)).await;
    assert_eq!(node.alive(), ["1.1", "2.2", "2.3"], "and now it has nothing in hand");
}

#[tokio::test(start_paused = true)]
async fn of_many_that_hang_one_is_replaced_at_a_time_whatever_the_width_of_a_restart() {
    // Two of eight are replaced at a time in a restart.
    let mut node = ready(8, |spec| spec).await;
    let old: Vec<String> = node.alive();
    old.iter().for_each(|worker| hangs(&node, worker));
    node.count_from_here();
    node.pass(secs(60)).await;
    assert_eq!(node.alive().len(), 9);
    let mut rounds = 0;
    while node.alive().iter().any(|worker| old.contains(worker)) {
        assert!(node.alive().len() <= 9, "{:?}", node.alive());
        let next = node.spawned().pop().unwrap();
        let listener = answers(&node, &next);
        std::mem::forget(listener);
        node.ready([next.as_str()]).await;
        node.pass(secs(1)).await;
        rounds += 1;
        assert!(rounds <= 8);
    }
    assert_eq!((rounds, node.fewest_serving()), (8, 8));
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_several_at_a_time_waits_for_one_that_hangs_and_the_other_way_round() {
    let mut node = ready(8, |spec| spec).await;
    let _others: Vec<_> = (2..=8).map(|n| answers(&node, &format!("{n}.{n}"))).collect();
    hangs(&node, "1.1");
    node.pass(secs(16)).await;
    assert_eq!(node.alive().len(), 9);
    node.restart().await;
    assert_eq!(node.alive().len(), 9, "nothing begins beside it");
    let _first = answers(&node, "1.9");
    node.ready(["1.9"]).await;
    assert_eq!(node.alive().len(), 10, "two of the restart");
}

#[tokio::test(start_paused = true)]
async fn a_debugged_app_and_one_that_cannot_be_asked_are_not_asked() {
    let debugged = |mut spec: WatcherSpec| {
        spec.env.insert("MFSERV_CURRENT_APP_DEBUG".into(), "1".into());
        spec
    };
    for mut node in [
        ready(1, debugged).await,
        ready(1, |spec| WatcherSpec { probe: Probe::Told, ..spec }).await,
        ready(1, |spec| WatcherSpec { probe: Probe::Notify, ..spec }).await,
        ready(1, |spec| WatcherSpec { probe: Probe::Alive { for_ms: 1 }, ..spec }).await,
    ] {
        hangs(&node, "1.1");
        node.pass(secs(40)).await;
        assert_eq!(node.spawned(), ["1.1"]);
        assert!(node.fronts().asked.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn many_workers_are_asked_in_small_groups_and_each_in_its_turn() {
    let mut node = ready(100, |spec| spec).await;
    let all: Vec<_> = (1..=100).map(|n| answers(&node, &format!("{n}.{n}"))).collect();
    node.pass(secs(17)).await;
    assert_eq!(node.fronts().asked, [40, 40, 20]);
    node.pass(secs(10)).await;
    assert_eq!(node.fronts().asked, [40, 40, 20, 40, 40, 20]);
    assert_eq!(node.spawned().len(), all.len());
}

/// What a worker with a page got.
#[derive(Default)]
struct Page {
    connections: AtomicUsize,
    requests: AtomicUsize,
}

impl Page {
    /// The page of worker 1.1, which answers with this status after so long.
    fn serve(node: &Node, status: u16, after: Duration) -> Arc<Page> {
        let (page, listener) = (Arc::new(Page::default()), answers(node, "1.1"));
        let served = page.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                served.connections.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(served.clone().answer(stream, status, after));
            }
        });
        page
    }

    async fn answer(self: Arc<Page>, mut stream: UnixStream, status: u16, after: Duration) {
        if stream.read(&mut [0; 1024]).await.is_ok_and(|n| n > 0) {
            self.requests.fetch_add(1, Ordering::Relaxed);
            // The page takes its time; the clock of the test is paused.
            tokio::time::sleep(after).await;
            let _ = stream.write_all(format!("HTTP/1.1 {status} X\r\n\r\n").as_bytes()).await;
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::Relaxed)
    }
}

/// One worker with a page, which is asked until it is ready.
async fn with_page(named: bool, status: u16, after: Duration) -> (Node, Arc<Page>) {
    let mut node = Node::start().await;
    let socket_stem = Some(node.home().join("a"));
    let probe = Probe::Http { path: "/p/a".into(), named };
    node.apply([WatcherSpec { probe, socket_stem, ..app(1) }]).await;
    let page = Page::serve(&node, status, after);
    passes(&mut node, 4).await;
    assert_eq!((node.serving(), page.requests()), (vec!["1.1".into()], 1));
    (node, page)
}

/// Time passes in small steps, so that programs have theirs.
async fn passes(node: &mut Node, seconds: u32) {
    for _ in 0..seconds {
        node.pass(secs(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_with_a_slow_page_is_never_replaced_and_seldom_asked() {
    let (mut node, page) = with_page(false, 200, secs(2)).await;
    passes(&mut node, 116).await;
    assert_eq!(node.spawned(), ["1.1"], "{:?}", node.ends());
    let requests = page.requests();
    assert!((3..=5).contains(&requests), "at its start, after 10 s, then every 30 s: {requests}");
    // With requests in between it is asked at each of its turns.
    for _ in 0..12 {
        node.has_served("1.1");
        passes(&mut node, 5).await;
    }
    let more = page.requests() - requests;
    assert!((4..=6).contains(&more), "{more}");
    assert_eq!(node.spawned(), ["1.1"], "{:?}", node.ends());
}

#[tokio::test(start_paused = true)]
async fn a_page_that_does_not_exist_is_asked_for_once_and_then_connections_are_enough() {
    for status in [404, 405, 401, 500] {
        let (mut node, page) = with_page(false, status, ms(0)).await;
        passes(&mut node, 50).await;
        assert_eq!(page.requests(), 1, "{status}");
        assert!(page.connections() >= 3, "{status}: {}", page.connections());
        // A suspected worker has to answer a request.
        node.handle().suspect(id("1.1"));
        passes(&mut node, 1).await;
        assert_eq!((page.requests(), node.spawned().len()), (2, 1), "{status}");
    }
    let (mut node, page) = with_page(true, 404, ms(0)).await;
    passes(&mut node, 50).await;
    assert!(page.requests() >= 3, "the configuration names it: {}", page.requests());
}

#[tokio::test(start_paused = true)]
async fn an_idle_worker_has_the_timeout_of_its_app_to_answer_and_less_if_it_is_suspected() {
    let http = |spec| {
        let probe = Probe::Http { path: "/p/a".into(), named: false };
        WatcherSpec { probe, answer_timeout_ms: 7_000, ..spec }
    };
    let mut node = ready(1, http).await;
    let _silent = answers(&node, "1.1");
    passes(&mut node, 16).await;
    assert_eq!(node.spawned(), ["1.1"]);
    passes(&mut node, 3).await;
    assert_eq!(node.spawned(), ["1.1", "1.2"], "{:?}", node.fronts().asked);
    node.ready(["1.2"]).await;
    assert_eq!(node.ends(), ["1.1 does not answer any more (connected, but no answer within 7 s)"]);

    let mut node = ready(1, |spec| WatcherSpec { answer_timeout_ms: 60_000, ..http(spec) }).await;
    let _silent = answers(&node, "1.1");
    passes(&mut node, 20).await;
    assert_eq!(node.spawned(), ["1.1"], "its answer is waited for");
    node.handle().suspect(id("1.1"));
    passes(&mut node, 4).await;
    assert_eq!(node.spawned(), ["1.1", "1.2"]);
}
