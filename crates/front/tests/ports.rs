//! Workers that listen on a port: they have what workers with a socket have.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::Duration;

use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::route::Slots;
use mfserv_core::wire::front::{Address, FromFront, Peer, ToFront, TroubleCause};
use mfserv_platform::loopback::ReservedPort;

use crate::world::*;

const POST: &str = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc";

fn saying(world: &World, number: u32, body: &'static str) -> Worker {
    Worker::on_port(world, number, true, move |stream, _| say(stream, body))
}

#[test]
fn connections_to_a_port_are_kept_and_bodies_of_both_sides_are_whole() {
    let world = World::new();
    let worker = Worker::on_port(&world, 1, true, |stream, received| {
        let body = received.body.repeat(1_000);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body)).is_ok()
    });
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut client = Client::connect(front.address);
    for length in [10, 1_000, 100_000] {
        let body = "x".repeat(length);
        let head = format!("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        client.send(head + &body);
        assert_eq!(client.receive().unwrap().text(), body.repeat(1_000));
    }
    assert_eq!(worker.raw.lock().unwrap().len(), 1);
}

#[test]
fn a_worker_on_a_port_with_one_thread_has_one_connection_at_a_time_and_drains() {
    let world = World::new();
    let worker = Worker::on_port(&world, 1, false, |stream, _| say(stream, "ok"));
    let mut front = world.serving(table(ONE, true), &[&worker]);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut client = Client::connect(front.address);
                (0..20).for_each(|_| assert_eq!(client.get("/a").status, 200));
            });
        }
    });
    assert_eq!(worker.most.load(Ordering::SeqCst), 1);
    front.daemon.drain(&worker);
    front.daemon.drained(&worker);
    until("its connection is closed", || worker.open.load(Ordering::SeqCst) == 0);
    assert_eq!(worker.count(), 320);
}

#[test]
fn what_a_port_refuses_or_ends_without_an_answer_goes_to_another_worker() {
    let world = World::new();
    let (dead, dying) = (saying(&world, 1, "dead"), Worker::on_port(&world, 2, true, |_, _| false));
    let good = saying(&world, 3, "good");
    dead.stop_listening();
    let mut front = world.serving(table(Slots::Unlimited, true), &[&dead, &dying, &good]);
    for _ in 0..20 {
        assert_eq!(get(front.address, "/a").text(), "good");
    }
    let refused = front.daemon.wait_for(
        |m| matches!(m, FromFront::Trouble { cause, .. } if *cause == TroubleCause::Refused),
    );
    let FromFront::Trouble { worker, detail, .. } = refused else { unreachable!() };
    assert_eq!(worker, dead.id);
    assert!(detail.starts_with("127.0.0.1:"), "{detail}");
}

/// A port on which this process listens, and which is said to be another user's.
fn of_another_user(listener: &TcpListener) -> Peer {
    let worker = WorkerId::new(WatcherName::app("p", "a"), 1, 1);
    let port = listener.local_addr().unwrap().port();
    let uid = rustix::process::geteuid().as_raw() + 1;
    Peer { worker, address: Address::Port { port, uid }, dir: None, pid: None }
}

#[test]
fn a_process_of_another_user_that_has_the_port_of_a_worker_gets_no_byte() {
    let world = World::new();
    let port = ReservedPort::new().unwrap();
    let listener = TcpListener::bind(("0.0.0.0", port.number())).unwrap();
    let peer = of_another_user(&listener);
    let good = saying(&world, 2, "good");
    let mut front = world.serving(table(Slots::Unlimited, false), &[&good]);
    front.daemon.say(&ToFront::Admit { upstream: "p/a".into(), peer });
    front.daemon.wait_for(|m| matches!(m, FromFront::Admitted { .. }));
    let thief = std::thread::spawn(move || {
        let mut got = Vec::new();
        listener.accept().unwrap().0.read_to_end(&mut got).unwrap();
        got
    });
    // Each worker has its turn.
    while !thief.is_finished() {
        assert_eq!(ask(front.address, POST).text(), "good");
    }
    assert_eq!(thief.join().unwrap(), b"");
    let trouble = front.daemon.wait_for(|m| matches!(m, FromFront::Trouble { .. }));
    let FromFront::Trouble { cause, detail, .. } = trouble else { unreachable!() };
    assert_eq!(cause, TroubleCause::Refused);
    assert!(detail.contains("where a process of the user"), "{detail}");
}

#[test]
fn a_port_with_a_full_backlog_means_busy_not_dead() {
    let world = World::new();
    let (port, family) = (ReservedPort::new().unwrap(), rustix::net::AddressFamily::INET);
    let listener = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
    let address = std::net::SocketAddrV4::new([127, 0, 0, 1].into(), port.number());
    rustix::net::bind(&listener, &address).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = std::net::TcpStream::connect(address).unwrap();
    let good = saying(&world, 2, "good");
    let mut front = world.serving(table(Slots::Unlimited, false), &[&good]);
    let worker = WorkerId::new(WatcherName::app("p", "a"), 1, 1);
    let uid = rustix::process::geteuid().as_raw();
    let peer =
        Peer { worker, address: Address::Port { port: port.number(), uid }, dir: None, pid: None };
    front.daemon.say(&ToFront::Admit { upstream: "p/a".into(), peer });
    front.daemon.wait_for(|m| matches!(m, FromFront::Admitted { .. }));
    for _ in 0..4 {
        assert_eq!(ask(front.address, POST).text(), "good");
    }
    let heard =
        front.daemon.says(|m| matches!(m, FromFront::Trouble { .. }), Duration::from_millis(100));
    assert!(!heard, "a busy worker is no trouble");
}

#[test]
fn a_connection_to_a_port_can_be_upgraded() {
    let world = World::new();
    let worker = Worker::on_port(&world, 1, true, |stream, _| {
        let _ = stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n",
        );
        let mut room = [0; 64];
        while let Ok(count @ 1..) = stream.read(&mut room) {
            let _ = stream.write_all(&room[..count]);
        }
        false
    });
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("GET /a HTTP/1.1\r\nHost: x\r\nUpgrade: echo\r\nConnection: upgrade\r\n\r\n");
    assert_eq!(client.receive_to(true).unwrap().status, 101);
    client.send("ping");
    assert!(client.read_until(b"ping").ends_with(b"ping"));
}
