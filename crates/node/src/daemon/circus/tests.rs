//! Commands and endpoints of a node in a played world.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mfserv_core::circus::Endpoint;
use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::wire::keeper::Ended;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::Instant;

use super::clients::{answer_client, serve_subscriber};
use super::endpoint::Endpoints;
use super::events::Publisher;
use super::{Access, Circus, Fields};
use crate::daemon::tests::kit::{Daemon, House};
use crate::operations::{FinishedBy, Node as _, Operations, Who};

/// Longer than a client of Circus is ever kept waiting.
const LONG: Duration = Duration::from_secs(310);

/// Lets time pass: that nothing happens in it is what is looked at, so there is no condition.
async fn passes(time: Duration) {
    tokio::time::sleep(time).await; // Only time can pass here.
}

async fn circus(daemon: &Daemon) -> Circus {
    let operations = Operations::new(daemon.node.clone(), FinishedBy::Daemon);
    operations.recover().await;
    Circus::new(daemon.node.clone(), operations)
}

/// Sends a command that succeeds; its answer.
async fn says(circus: &Circus, command: &str, properties: Value) -> Fields {
    let message = json!({"command": command, "id": 1, "properties": properties});
    let text = serde_json::to_vec(&message).unwrap();
    let answer = circus.answer(text, Access::Full(Who::default())).await.unwrap();
    assert_eq!(answer["status"], "ok", "{command}: {answer:?}");
    answer
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_successor_never_becomes_ready_is_killed_by_no_kill() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    let circus = circus(&daemon).await;
    let serving = house.keeper.books().workers("app.hello.main");
    assert_eq!(serving.len(), 2);
    house.keeper.books().broken.insert("hello".into());
    let killed = json!({"name": "app.hello.main"});
    let limited = json!({"name": "app.hello.main", "graceful_timeout": 1});
    for (properties, time) in [(killed, LONG), (limited, Duration::from_secs(10))] {
        says(&circus, "kill", properties.clone()).await;
        passes(time).await;
        let now = house.keeper.books().workers("app.hello.main");
        assert!(serving.iter().all(|id| now.contains(id)), "{properties}: {serving:?} {now:?}");
    }
    // Its time begins when it receives no new request.
    house.keeper.books().broken.clear();
    house.keeper.books().stubborn.extend(serving.clone());
    daemon
        .until("they are replaced and killed", || {
            let now = house.keeper.books().workers("app.hello.main");
            now.len() == 2 && !serving.iter().any(|id| now.contains(id))
        })
        .await;
    let places = circus.node.commands.available_permits();
    assert_eq!(places, super::MOST_COMMANDS, "a kill that is not waited for holds no place");
}

#[tokio::test(start_paused = true)]
async fn a_signal_kills_nobody_who_is_never_killed_unless_the_client_says_when() {
    let house = House::new();
    let extra = "[extra_daemon_queue]\n_cmd_and_args = /bin/queue\nnumprocesses = 1\n\
                 graceful_timeout = 0\n";
    house.plugin_with("hello", extra);
    let daemon = house.running().await;
    let circus = circus(&daemon).await;
    let queue = || house.keeper.books().workers("extra.hello.queue");
    let found = queue();
    let [worker] = &found[..] else { panic!("{found:?}") };
    house.keeper.books().stubborn.insert(worker.clone());
    let usr1 = json!({"name": "extra.hello.queue", "signum": "USR1"});
    says(&circus, "kill", usr1.clone()).await;
    passes(LONG).await;
    assert_eq!(queue(), found, "it is never killed");
    let mut limited = usr1;
    limited["graceful_timeout"] = json!(2);
    limited["waiting"] = json!(true);
    let began = Instant::now();
    says(&circus, "kill", limited).await;
    let took = began.elapsed();
    assert!(Duration::from_secs(2) <= took && took < Duration::from_secs(4), "{took:?}");
    assert!(!queue().contains(worker), "it was killed when the client said");
}

#[tokio::test(start_paused = true)]
async fn of_two_incr_none_is_lost_while_another_change_is_waited_for() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    let circus = circus(&daemon).await;
    let turn = daemon.node.turn().await.unwrap();
    let app = json!({"name": "app.hello.main"});
    for (command, count) in [("incr", 3), ("incr", 4), ("decr", 3), ("incr", 4)] {
        assert_eq!(says(&circus, command, app.clone()).await["numprocesses"], count, "{command}");
    }
    assert_eq!(daemon.watcher("app.hello.main").await.wanted, 2, "nothing is carried out yet");
    drop(turn);
    let count = || house.keeper.books().workers("app.hello.main").len();
    daemon.until("all four run", || count() == 4).await;
    passes(LONG).await;
    assert_eq!(count(), 4, "the last one is carried out last");
    assert_eq!(says(&circus, "incr", app).await["numprocesses"], 5);
}

#[tokio::test(start_paused = true)]
async fn an_event_costs_no_disk_and_a_full_one_is_tried_again_at_the_next_look() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    let ini = house.places().shown_circus();
    let running = tokio::spawn(super::run(circus(&daemon).await));
    let shown = || house.disk.held().files.contains_key(&ini);
    daemon.until("it is written", shown).await;
    let before = house.disk.held().writes;
    for _ in 0..100 {
        daemon.node.parts.events.record(Fact::Note { text: "nothing of interest".into() });
        passes(Duration::from_millis(10)).await;
    }
    let writes = house.disk.held().writes - before;
    assert!(writes <= 1, "{writes} writes in a second");
    house.disk.held().full = true;
    house.disk.held().files.remove(&ini);
    passes(Duration::from_secs(5)).await;
    house.disk.held().full = false;
    daemon.until("it is written again", shown).await;
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_subscriber_hears_of_the_end_of_a_worker_also_after_a_burst_of_events() {
    let house = House::new();
    house.plugin("hello");
    let daemon = house.running().await;
    let mut publisher = Publisher::new(&daemon.node).await;
    let mut heard = publisher.feed().subscribe();
    for _ in 0..10_000 {
        daemon.node.parts.events.record(Fact::Note { text: "a burst".into() });
    }
    // It is relayed to the last one, which is followed by the end of a worker.
    while tokio::time::timeout(Duration::from_secs(1), publisher.relay()).await.is_ok() {}
    let worker = WorkerId::new(WatcherName::app("hello", "main"), 1, 1);
    daemon.node.parts.events.record(Fact::WorkerEnded {
        worker,
        why: EndReason::Asked { what: "stop".into() },
        ended: Some(Ended::Exited { code: 0 }),
        last_output: String::new(),
        left_behind: 0,
        restart_in_ms: None,
    });
    publisher.relay().await;
    assert_eq!(heard.try_recv().unwrap().topic, "watcher.app.hello.main.reap");
}

#[tokio::test]
async fn endpoints_change_places_and_rights_without_a_moment_of_trouble() {
    let house = House::new();
    let daemon = house.running().await;
    let circus = circus(&daemon).await;
    let publisher = Publisher::new(&daemon.node).await;
    let folder = tempfile::tempdir().unwrap();
    let files = [folder.path().join("a"), folder.path().join("b")];
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unix = |file: &Path| Some(Endpoint::Unix(file.into()));
    let mut endpoints = Endpoints::default();
    let mut plan = (*daemon.plan()).clone();
    for (commands, events) in [
        (unix(&files[0]), unix(&files[1])),
        (unix(&files[1]), unix(&files[0])),
        (Some(Endpoint::Tcp(port)), unix(&files[0])),
        (unix(&files[1]), Some(Endpoint::Tcp(port))),
    ] {
        for tcp_may_change in [false, true] {
            plan.circus.endpoint.clone_from(&commands);
            plan.circus.pubsub.clone_from(&events);
            plan.circus.tcp_may_change = tcp_may_change;
            endpoints.follow(&circus, &publisher, &plan).await;
            assert_eq!(*daemon.node.circus_notes.lock().unwrap(), [""; 0], "{commands:?}");
            for endpoint in [&commands, &events].into_iter().flatten() {
                let is_open = match endpoint {
                    Endpoint::Unix(file) => UnixStream::connect(file).map(drop),
                    Endpoint::Tcp(address) => std::net::TcpStream::connect(address).map(drop),
                };
                assert!(is_open.is_ok(), "{endpoint}: {is_open:?}");
            }
        }
    }
    // Whom an endpoint has let in goes with it.
    let mut client = tokio::net::UnixStream::connect(&files[1]).await.unwrap();
    let mut greeting = [0; 11];
    client.read_exact(&mut greeting).await.unwrap();
    (plan.circus.endpoint, plan.circus.pubsub) = (None, None);
    endpoints.follow(&circus, &publisher, &plan).await;
    let left = client.read_to_end(&mut Vec::new()).await;
    assert!(left.is_ok(), "{left:?}");
    assert!(files.iter().all(|file| !file.exists()), "the files are removed");
}

/// The greeting and the handshake of a client of this kind.
async fn greet(client: &mut DuplexStream, kind: &str) {
    let mut bytes = vec![0xff, 0, 0, 0, 0, 0, 0, 0, 1, 0x7f, 3, 0];
    bytes.extend_from_slice(b"NULL");
    bytes.resize(64, 0);
    bytes.extend([4, (22 + kind.len()) as u8]);
    bytes.extend_from_slice(b"\x05READY\x0bSocket-Type\0\0\0");
    bytes.push(kind.len() as u8);
    bytes.extend_from_slice(kind.as_bytes());
    client.write_all(&bytes).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_client_that_says_nothing_is_let_go_long_before_one_that_has_asked() {
    for (kind, says, at_most_s) in [
        ("DEALER", &b""[..], 30),
        ("SUB", b"", 30),
        ("DEALER", b"\0\x02{}", 700),
        ("SUB", b"\0\x02\x01w", 100_000),
    ] {
        let (mut client, served) = tokio::io::duplex(4096);
        let (feed, heard) = tokio::sync::broadcast::channel(1);
        let serving = tokio::spawn(async move {
            match kind {
                "SUB" => serve_subscriber(Box::new(served), heard).await,
                _ => answer_client(Box::new(served), |_| async { Some(Fields::new()) }).await,
            }
        });
        greet(&mut client, kind).await;
        client.write_all(says).await.unwrap();
        let began = Instant::now();
        let at_most = Duration::from_secs(at_most_s);
        let left = tokio::time::timeout(at_most, client.read_to_end(&mut Vec::new())).await;
        let took = began.elapsed();
        let stays = at_most_s > 700;
        assert_eq!(left.is_err(), stays, "{kind} that says {says:?} was let go after {took:?}");
        if at_most_s > 30 {
            assert!(took >= Duration::from_secs(600), "{kind} that has asked: {took:?}");
        }
        drop((client, feed));
        let _ = serving.await;
    }
}
