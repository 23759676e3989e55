//! A worker is ready when it was seen to be, and has a limited time for it.

use std::os::unix::net::UnixDatagram;

use mfserv_core::event::EndReason;
use mfserv_core::names::WatcherName;
use mfserv_core::watcher::{Probe, WatcherSpec};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

use super::kit::*;

/// The app, with its socket below the node's home.
fn on_a_socket(node: &Node, probe: Probe) -> WatcherSpec {
    WatcherSpec {
        probe,
        socket_stem: Some(node.home().join("a")),
        socket_link_stem: Some(node.home().join("link")),
        ..app(1)
    }
}

#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_asked_a_worker_is_ready_once_it_has_lived_a_while() {
    let mut node = Node::start().await;
    node.apply([WatcherSpec { probe: Probe::Alive { for_ms: 500 }, ..app(1) }]).await;
    node.pass(ms(499)).await;
    assert!(node.serving().is_empty());
    node.pass(ms(2)).await;
    assert_eq!(node.serving(), ["1.1"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_within_that_while_was_never_ready() {
    let mut node = Node::start().await;
    node.apply([WatcherSpec { probe: Probe::Alive { for_ms: 500 }, ..app(1) }]).await;
    node.pass(ms(400)).await;
    node.crashes("1.1").await;
    node.pass(ms(200)).await;
    assert!(node.serving().is_empty());
    assert_eq!(node.times_ready("1.1"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_worker_can_say_by_itself_that_it_is_ready() {
    let mut node = Node::start().await;
    node.apply([WatcherSpec { probe: Probe::Notify, ..app(1) }]).await;
    let socket = node.keeper().specs["app.p.a.1.1"].env["NOTIFY_SOCKET"].clone();
    let worker = UnixDatagram::unbound().unwrap();
    worker.send_to(b"STATUS=warming up", &socket).unwrap();
    node.pass(ms(1)).await;
    assert_eq!(node.status().await.workers[0].probe.as_deref(), Some("warming up"));
    assert!(node.serving().is_empty());
    worker.send_to(b"READY=1", &socket).unwrap();
    node.pass(ms(1)).await;
    assert_eq!(node.serving(), ["1.1"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_ready_when_its_socket_accepts() {
    let mut node = Node::start().await;
    let spec = on_a_socket(&node, Probe::Connect);
    node.apply([spec]).await;
    node.pass(ms(50)).await;
    assert!(node.serving().is_empty());
    let saw = node.status().await.workers[0].probe.clone().unwrap();
    assert!(saw.contains("not listening on its socket"), "{saw}");
    let _listener = UnixListener::bind(node.home().join("a_1.1.socket")).unwrap();
    node.pass(ms(50)).await;
    assert_eq!(node.serving(), ["1.1"]);
}

#[tokio::test(start_paused = true)]
async fn a_worker_is_ready_when_it_answers_a_request_whatever_the_status() {
    let mut node = Node::start().await;
    let spec = on_a_socket(&node, Probe::Http { path: "/p/a".into(), named: false });
    node.apply([spec]).await;
    let listener = UnixListener::bind(node.home().join("a_1.1.socket")).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 1024];
        let n = stream.read(&mut request).await.unwrap();
        stream.write_all(b"HTTP/1.1 503 Busy\r\n\r\n").await.unwrap();
        String::from_utf8_lossy(&request[..n]).into_owned()
    });
    node.pass(ms(50)).await;
    assert_eq!(node.serving(), ["1.1"]);
    assert!(server.await.unwrap().starts_with("HEAD /p/a HTTP/1.1\r\n"));
}

#[tokio::test(start_paused = true)]
async fn the_link_that_people_know_leads_to_the_worker_that_serves() {
    let mut node = Node::start().await;
    let spec = on_a_socket(&node, Probe::Told);
    let link = node.home().join("link_1.socket");
    node.apply([spec]).await;
    assert!(!link.is_symlink());
    node.ready(["1.1"]).await;
    assert_eq!(std::fs::read_link(&link).unwrap(), node.home().join("a_1.1.socket"));
    node.restart().await;
    node.ready(["1.2"]).await;
    assert_eq!(std::fs::read_link(&link).unwrap(), node.home().join("a_1.2.socket"));
    node.apply([]).await;
    assert!(!link.is_symlink());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_not_ready_in_time_is_killed_with_what_its_probe_saw_and_tried_again() {
    let mut node = Node::start().await;
    let spec = on_a_socket(&node, Probe::Connect);
    node.apply([WatcherSpec { start_timeout_ms: 2_000, ..spec }]).await;
    node.pass(ms(1_900)).await;
    assert_eq!(node.alive(), ["1.1"]);
    node.pass(ms(200)).await;
    assert_eq!(node.signals(), ["1.1 KILL tree"]);
    assert_eq!(node.alive(), ["1.2"]);
    let status = node.status().await;
    let Some(EndReason::FailedProbe { saw }) = status.last_end.map(|end| end.why) else {
        panic!("{:?}", node.ends())
    };
    assert!(saw.starts_with("not ready within _start_timeout=2: not listening on its"), "{saw}");
}

#[tokio::test(start_paused = true)]
async fn ready_a_second_time_is_nothing_new() {
    let mut node = Node::serving_as(app(1)).await;
    node.ready(["1.1"]).await;
    assert_eq!(node.times_ready("1.1"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_has_ended_cannot_become_ready() {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    node.crashes("1.1").await;
    node.ready(["1.1"]).await;
    assert!(node.serving().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_being_stopped_does_not_become_ready() {
    let mut node = Node::start().await;
    node.apply([app(1)]).await;
    node.ignores_its_stop_signal("1.1");
    node.apply([]).await;
    node.ready(["1.1"]).await;
    assert!(node.serving().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_notify_socket_that_cannot_be_made_is_told_when_patience_ends() {
    let mut node = Node::start().await;
    // A directory stands where the socket would be.
    let number = mfserv_core::fingerprint::of(b"app.p.a.1.1");
    std::fs::create_dir(node.home().join(format!("{number:016x}.notify"))).unwrap();
    node.apply([WatcherSpec { probe: Probe::Notify, ..app(1) }]).await;
    node.pass(secs(31)).await;
    let ends = node.ends();
    assert!(ends[0].contains("cannot be made"), "{ends:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_a_worker_is_in_its_command_and_environment() {
    let mut node = Node::start().await;
    let mut spec = on_a_socket(&node, Probe::Told);
    spec.env.insert("PLACE".into(), "{worker_slot}.{worker_incarnation}".into());
    spec.argv.push("$(circus.wid)".into());
    node.apply([WatcherSpec { count: 2, ..spec }]).await;
    let process = node.keeper().specs["app.p.a.2.2"].clone();
    let socket = node.home().join("a_2.2.socket").to_string_lossy().into_owned();
    assert_eq!(process.argv, ["/bin/app".to_owned(), socket, "2".into()]);
    assert_eq!(process.env["PLACE"], "2.2");
}

#[tokio::test(start_paused = true)]
async fn a_watcher_without_requests_is_ready_without_traffic() {
    let mut node = Node::start().await;
    node.apply([WatcherSpec { upstream: None, socket_stem: None, ..app(1) }]).await;
    node.ready(["1.1"]).await;
    assert!(node.serving().is_empty());
    assert_eq!(node.status().await.ready, 1);
    assert_eq!(node.status().await.name, WatcherName::app("p", "a"));
}
