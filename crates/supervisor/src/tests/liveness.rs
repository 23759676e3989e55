//! A worker that does not answer any more is replaced; one that answers, or is debugged, is not.

use std::path::PathBuf;

use mfserv_core::watcher::{Probe, WatcherSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::kit::*;

/// The app, with sockets below the node's home, asked by connecting or by a request.
fn on_sockets(node: &Node, count: u32, probe: Probe) -> WatcherSpec {
    let socket_stem = Some(node.home().join("a"));
    WatcherSpec {
        probe,
        socket_stem,
        socket_link_stem: Some(node.home().join("link")),
        ..app(count)
    }
}

fn socket(node: &Node, worker: &str) -> PathBuf {
    node.home().join(format!("a_{}.socket", worker))
}

fn listen(node: &Node, worker: &str) -> UnixListener {
    UnixListener::bind(socket(node, worker)).unwrap()
}

fn http() -> Probe {
    Probe::Http { path: "/p/a".into(), named: false }
}

/// Workers that listen and never answer. They are ready because the test says so.
async fn hanging(spec: impl Fn(&Node) -> WatcherSpec) -> (Node, Vec<UnixListener>) {
    let mut node = Node::start().await;
    let spec = spec(&node);
    let count = spec.count;
    node.apply([spec]).await;
    let listeners = (1..=count).map(|slot| listen(&node, &format!("{slot}.{slot}"))).collect();
    node.everybody_is_ready().await;
    assert_eq!(node.serving().len() as u32, count);
    (node, listeners)
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_socket_was_removed_is_replaced_within_5_s_without_any_request() {
    let mut node = Node::start().await;
    let spec = on_sockets(&node, 1, Probe::Connect);
    node.apply([spec]).await;
    let _first = listen(&node, "1.1");
    node.pass(ms(50)).await;
    assert_eq!(node.serving(), ["1.1"]);
    std::fs::remove_file(socket(&node, "1.1")).unwrap();
    node.pass(secs(4)).await;
    assert_eq!(node.alive(), ["1.1", "1.2"]);
    assert_eq!(node.serving(), ["1.1"], "the last one goes on until there is another");
    let _second = listen(&node, "1.2");
    node.pass(ms(200)).await;
    assert_eq!((node.serving(), node.alive()), (vec!["1.2".into()], vec!["1.2".to_string()]));
    assert_eq!(node.signals(), ["1.1 KILL tree"], "it obeys nothing");
    let ends = node.ends();
    assert!(ends[0].starts_with("1.1 does not answer any more (not listening"), "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_hangs_is_asked_what_it_does_before_it_is_replaced() {
    let with_signal = |node: &Node| {
        let spec = on_sockets(node, 1, http());
        WatcherSpec { stack_signal: Some(60), ..spec }
    };
    let (mut node, _sockets) = hanging(with_signal).await;
    node.handle().suspect(id("1.1"));
    node.pass(ms(3100)).await;
    assert_eq!(node.signals(), ["1.1 60"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_hangs_is_replaced_after_3_s_and_status_says_so_meanwhile() {
    let (mut node, _sockets) = hanging(|node| on_sockets(node, 2, http())).await;
    node.handle().suspect(id("2.2"));
    node.pass(ms(1500)).await;
    let seen: Vec<_> = node.status().await.workers.into_iter().map(|w| w.probe).collect();
    assert_eq!(seen, [None, Some("connected, but no answer within 1 s".into())]);
    assert_eq!(node.alive(), ["1.1", "2.2"]);
    node.pass(ms(1600)).await;
    assert_eq!(node.alive(), ["1.1", "2.2", "2.3"]);
    node.ready(["2.3"]).await;
    assert_eq!(node.serving(), ["1.1", "2.3"]);
    assert_eq!(node.ends(), ["2.2 does not answer any more (connected, but no answer within 3 s)"]);
}

#[tokio::test(start_paused = true)]
async fn of_several_that_hang_one_is_replaced_at_a_time_and_none_before_its_successor() {
    let (mut node, _sockets) = hanging(|node| on_sockets(node, 3, http())).await;
    node.count_from_here();
    for worker in ["1.1", "2.2", "3.3"] {
        node.handle().suspect(id(worker));
    }
    node.pass(ms(3500)).await;
    assert_eq!(node.spawned().len(), 4, "{:?}", node.spawned());
    node.everybody_is_ready().await;
    assert_eq!(node.serving(), ["1.4", "2.5", "3.6"]);
    assert_eq!(node.fewest_serving(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_answers_and_one_that_is_debugged_are_left_alone() {
    let (mut node, _sockets) = hanging(|node| on_sockets(node, 1, Probe::Connect)).await;
    node.handle().suspect(id("1.1"));
    node.pass(secs(5)).await;
    assert_eq!(node.spawned(), ["1.1"]);
    let (mut node, _sockets) = hanging(|node| {
        let mut spec = on_sockets(node, 1, http());
        spec.env.insert("MFSERV_CURRENT_APP_DEBUG".into(), "1".into());
        spec
    })
    .await;
    node.handle().suspect(id("1.1"));
    node.pass(secs(5)).await;
    assert_eq!(node.spawned(), ["1.1"]);
}

/// Answers each request until the task is aborted.
async fn answer(listener: UnixListener) {
    while let Ok((mut stream, _)) = listener.accept().await {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_that_hangs_on_its_own_socket_is_replaced_without_any_request() {
    let mut node = Node::start().await;
    let socket = node.home().join("role.sock");
    let probe = Probe::HttpAt { socket: socket.clone() };
    let (upstream, socket_stem) = (None, None);
    let spec = WatcherSpec { probe, upstream, socket_stem, overlap: false, ..app(1) };
    node.apply([WatcherSpec { answer_timeout_ms: 5_000, ..spec }]).await;
    node.pass(secs(1)).await;
    assert_eq!(node.status().await.ready, 0, "nobody listens yet");
    let answers = tokio::spawn(answer(UnixListener::bind(&socket).unwrap()));
    node.pass(secs(60)).await;
    assert_eq!((node.status().await.ready, node.spawned()), (1, vec!["1.1".to_string()]));
    answers.abort();
    std::fs::remove_file(&socket).unwrap();
    let _never_answers = UnixListener::bind(&socket).unwrap();
    node.pass(secs(20)).await;
    assert_eq!(node.ends(), ["1.1 does not answer any more (connected, but no answer within 5 s)"]);
    assert_eq!(node.spawned(), ["1.1", "1.2"]);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_people_know_is_made_again() {
    let (mut node, _sockets) = hanging(|node| on_sockets(node, 1, Probe::Connect)).await;
    let link = node.home().join("link_1.socket");
    std::fs::remove_file(&link).unwrap();
    node.pass(secs(3)).await;
    assert_eq!(std::fs::read_link(&link).unwrap(), socket(&node, "1.1"));
}
