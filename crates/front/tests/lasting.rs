//! Upgraded connections, and the end of a front.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mfserv_core::route::Slots;
use rustix::process::Signal;

use crate::world::*;

const UPGRADE: &str = "GET /a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\n\
                       Upgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n";

/// Upgrades, then sends everything back.
pub fn parrot(world: &World, number: u32) -> Worker {
    Worker::start(world, number, |stream, received| {
        if received.field("upgrade") != ["websocket"] {
            return say(stream, "plain");
        }
        assert_eq!(received.field("connection"), ["upgrade"]);
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade\r\nSec-WebSocket-Accept: y\r\n\r\nhello";
        stream.write_all(head.as_bytes()).unwrap();
        let mut room = [0; 65536];
        while let Ok(count @ 1..) = stream.read(&mut room) {
            stream.write_all(&room[..count]).unwrap();
        }
        false
    })
}

fn upgraded(front: &Front) -> Client {
    upgraded_at(front.address, "/a")
}

pub fn upgraded_at(address: std::net::SocketAddr, path: &str) -> Client {
    let mut client = Client::connect(address);
    client.send(UPGRADE.replace("/a", path));
    let answer = client.receive().unwrap();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.field("upgrade"), ["websocket"]);
    assert_eq!(answer.field("connection"), ["upgrade"]);
    assert_eq!(answer.field("sec-websocket-accept"), ["y"]);
    client.read_until(b"hello");
    client
}

pub fn echoes(client: &mut Client, text: &str) {
    client.send(text);
    client.read_until(text.as_bytes());
}

#[test]
fn an_upgraded_connection_carries_bytes_both_ways_and_survives_a_publish() {
    let world = World::new();
    let worker = parrot(&world, 1);
    let mut front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut client = upgraded(&front);
    echoes(&mut client, "one");
    let other = Worker::saying(&world, 2, "plain");
    front.daemon.publish(2, table(Slots::Unlimited, true), &[&worker, &other]);
    echoes(&mut client, "two");
    echoes(&mut client, &"large ".repeat(100_000));
    assert_eq!(front.get("/a").text(), "plain");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(client.is_closed());
    // Lines of two connections may change places.
    assert!(world.access_log(2).iter().any(|line| line["status"] == 101));
}

#[test]
fn bytes_that_follow_the_upgrade_request_at_once_are_passed_on() {
    let world = World::new();
    let worker = parrot(&world, 1);
    let front = world.serving(table(ONE, true), &[&worker]);
    let mut client = Client::connect(front.address);
    client.send(format!("{UPGRADE}early"));
    client.receive().unwrap();
    client.read_until(b"early");
}

#[test]
fn an_upgrade_before_the_end_of_the_request_is_refused_and_one_after_it_is_not() {
    let Some(world) = World::where_holds("connection_end") else { return };
    let worker = Worker::unread(&world, 1, |stream| {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
            head.push(byte[0]);
        }
        if head.starts_with(b"POST /a/after") {
            let _ = stream.read_exact(&mut vec![0; 200_000]);
        }
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n";
        let _ = stream.write_all(switch.as_bytes());
        let mut room = [0; 65536];
        while let Ok(count @ 1..) = stream.read(&mut room) {
            if stream.write_all(&room[..count]).is_err() {
                return;
            }
        }
    });
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let post = |path: &str| {
        let mut client = Client::connect(front.address);
        client.send(format!(
            "POST {path} HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\
             Content-Length: 200000\r\n\r\n"
        ));
        client.send(vec![b'z'; 100_000]);
        client
    };
    let mut early = post("/a/early");
    let answer = early.receive().unwrap();
    assert_eq!((answer.status, answer.field("x-mfserv-cause")), (502, vec!["malformed".into()]));
    assert_eq!(answer.field("connection"), ["close"]);
    let mut late = post("/a/after");
    late.send(vec![b'z'; 100_000]);
    assert_eq!(late.receive().unwrap().status, 101);
    echoes(&mut late, "the new protocol");
    until("the early one is let go", || worker.open.load(Ordering::SeqCst) == 1);
}

#[test]
fn a_worker_may_decline_an_upgrade() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "no");
    let front = world.serving(table(ONE, true), &[&worker]);
    let mut client = Client::connect(front.address);
    client.send(UPGRADE);
    assert_eq!(client.receive().unwrap().text(), "no");
    assert_eq!(client.get("/a").text(), "no");
}

#[test]
fn a_front_that_is_asked_to_end_finishes_what_it_has_begun() {
    let Some(world) = World::where_holds("idle_connections") else { return };
    let may_end = Arc::new(AtomicBool::new(false));
    let gate = may_end.clone();
    let worker = Worker::start(&world, 1, move |stream, received| {
        if received.target().contains("slow") {
            until("the request may end", || gate.load(Ordering::SeqCst));
        }
        say(stream, "whole")
    });
    let mut front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut slow = Client::connect(front.address);
    slow.send("GET /a/slow HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut idle = Client::connect(front.address);
    idle.get("/a");
    until("the worker has the request", || worker.count() == 2);
    front.signal(Signal::TERM);
    // A kept connection may bring one more request, which is its last.
    until("the last answer", || {
        let answer = idle.get("/a");
        assert_eq!(answer.text(), "whole");
        answer.field("connection") == ["close"]
    });
    assert!(idle.is_closed());
    may_end.store(true, Ordering::SeqCst);
    let answer = slow.receive().unwrap();
    assert_eq!(
        (answer.text().as_str(), answer.field("connection")),
        ("whole", vec!["close".into()])
    );
    assert!(front.ended().success());
    assert!(world.access_log(3).iter().all(|line| line["status"] == 200));
}

#[test]
fn upgraded_connections_of_a_worker_that_is_to_go_have_a_limit_of_their_own() {
    let world = World::new();
    let (first, second) = (parrot(&world, 1), parrot(&world, 2));
    let mut table = table(Slots::Unlimited, true);
    table.server.upgrade_drain_timeout_ms = 2000;
    let mut front = world.serving(table.clone(), &[&first]);
    let mut client = upgraded(&front);
    front.daemon.admit(&second);
    front.daemon.drain(&first);
    // Taken back in time: nothing happens.
    front.daemon.admit(&first);
    // Nothing must happen for longer than the limit.
    std::thread::sleep(Duration::from_millis(2500));
    echoes(&mut client, "still here");
    let mut other = loop {
        let other = upgraded(&front);
        if second.open.load(Ordering::SeqCst) > 0 {
            break other;
        }
    };
    let began = std::time::Instant::now();
    front.daemon.publish(2, table, &[&second]);
    front.daemon.drain(&first);
    while began.elapsed() < Duration::from_millis(300) {
        echoes(&mut client, "busy until the end");
    }
    front.daemon.drained(&first);
    assert!(began.elapsed() >= Duration::from_millis(2000));
    assert!(client.is_closed());
    echoes(&mut other, "of the other worker");
}

#[test]
fn upgraded_connections_are_cut_at_the_end_of_the_grace() {
    let world = World::new();
    let worker = parrot(&world, 1);
    let mut front = world.front_with_grace(1, Duration::from_secs(3));
    front.daemon.publish(1, table(Slots::Unlimited, true), &[&worker]);
    let mut client = upgraded(&front);
    front.signal(Signal::TERM);
    echoes(&mut client, "still here");
    assert!(!front.has_ended());
    assert!(front.ended().success());
    assert!(client.is_closed());
}
