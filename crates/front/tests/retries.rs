//! No request is lost because a worker went away; none is done twice that must not be.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::route::Slots;
use mfserv_core::wire::front::{Address, FromFront, Peer, ToFront, TroubleCause};

use crate::world::*;

const GET: &str = "GET /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
const POST: &str =
    "POST /a HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc";

#[test]
fn a_refused_connection_costs_no_request_of_any_method() {
    let world = World::new();
    let (dead, good) = (Worker::saying(&world, 1, "dead"), Worker::saying(&world, 2, "good"));
    dead.stop_listening();
    let mut front = world.serving(table(Slots::Unlimited, true), &[&dead, &good]);
    for request in [GET, POST].iter().cycle().take(20) {
        assert_eq!(ask(front.address, request).text(), "good");
    }
    front.daemon.wait_for(
        |m| matches!(m, FromFront::Trouble { cause, .. } if *cause == TroubleCause::Refused),
    );
}

#[test]
fn requests_wait_while_the_only_worker_is_replaced() {
    let world = World::new();
    let (old, new) = (Worker::saying(&world, 1, "old"), Worker::saying(&world, 2, "new"));
    old.stop_listening();
    let mut front = world.serving(table(ONE, true), &[&old]);
    let mut client = Client::connect(front.address);
    client.send(POST);
    front.daemon.wait_for(|m| matches!(m, FromFront::Trouble { .. }));
    front.daemon.forget(&old);
    front.daemon.admit(&new);
    assert_eq!(client.receive().unwrap().text(), "new");
}

#[test]
fn a_worker_that_closes_kept_connections_without_a_word_costs_nothing() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, _| {
        say(stream, "ok");
        false
    });
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut client = Client::connect(front.address);
    for _ in 0..300 {
        client.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(client.receive().unwrap().status, 200);
    }
    assert_eq!(worker.count(), 300);
}

#[test]
fn a_worker_that_dies_of_a_request_gets_safe_ones_only_tried_again() {
    let world = World::new();
    let bad = Worker::start(&world, 1, |_, _| false);
    let good = Worker::saying(&world, 2, "good");
    let front = world.serving(table(Slots::Unlimited, true), &[&bad, &good]);
    for _ in 0..10 {
        assert_eq!(ask(front.address, GET).text(), "good");
    }
    let (tried, before) = (bad.count(), good.count());
    assert!(tried > 0);
    let answers: Vec<Answer> = (0..10).map(|_| ask(front.address, POST)).collect();
    let lost = answers.iter().filter(|answer| answer.status == 502).count();
    assert_eq!((lost, 10 - lost), (bad.count() - tried, good.count() - before));
    assert!(lost > 0);
    let answer = answers.iter().find(|answer| answer.status == 502).unwrap();
    assert_eq!(answer.field("x-mfserv-cause"), ["reset"]);
}

#[test]
fn a_deadly_request_kills_two_workers_at_most() {
    let world = World::new();
    let workers: Vec<Worker> = (1..=4).map(|n| Worker::start(&world, n, |_, _| false)).collect();
    let all: Vec<&Worker> = workers.iter().collect();
    let mut front = world.serving(table(ONE, true), &all);
    assert_eq!(ask(front.address, GET).status, 502);
    assert_eq!(workers.iter().map(Worker::count).sum::<usize>(), 2);
    assert_eq!(front.daemon.stats().upstreams["p/a"].retried, 1);
}

/// Closes each connection when there is something to read on it, without reading it.
fn unreading(world: &World, number: u32) -> Peer {
    let worker = WorkerId::new(WatcherName::app("p", "a"), number, 1);
    let socket = world.path(&format!("{worker}.socket"));
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().take(5) {
            let flags = rustix::net::RecvFlags::PEEK;
            let _ = rustix::net::recv(stream.unwrap(), &mut [0; 1], flags);
        }
    });
    Peer { worker, address: Address::Socket(socket), dir: None, pid: None }
}

#[test]
fn a_request_that_a_dying_worker_has_not_read_goes_to_another() {
    let world = World::new();
    let good = Worker::saying(&world, 2, "good");
    let mut front = world.serving(table(Slots::Unlimited, true), &[&good]);
    let peer = unreading(&world, 1);
    front.daemon.say(&ToFront::Admit { upstream: "p/a".into(), peer });
    front.daemon.wait_for(|m| matches!(m, FromFront::Admitted { .. }));
    for _ in 0..6 {
        assert_eq!(ask(front.address, POST).text(), "good");
    }
    assert!(front.daemon.stats().upstreams["p/a"].retried >= 2);
}

#[test]
fn an_answer_that_has_begun_is_not_asked_for_again() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, _| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-");
        false
    });
    let front = world.serving(table(ONE, true), &[&worker]);
    let answer = ask(front.address, GET);
    assert_eq!((answer.status, answer.field("x-mfserv-cause")), (502, vec!["early_end".into()]));
    assert_eq!(worker.count(), 1);
}

#[test]
fn a_silent_worker_is_a_timeout_and_is_not_asked_again() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, _| {
        let _ = stream.read(&mut [0]);
        false
    });
    let mut quick = table(Slots::Unlimited, true);
    quick.upstreams.get_mut("p/a").unwrap().timeout_ms = 100;
    let mut front = world.serving(quick, &[&worker]);
    let answer = ask(front.address, GET);
    assert_eq!((answer.status, answer.field("x-mfserv-cause")), (504, vec!["timeout".into()]));
    until("the worker has read it", || worker.count() >= 1);
    assert_eq!(worker.count(), 1);
    front.daemon.wait_for(
        |m| matches!(m, FromFront::Trouble { cause, .. } if *cause == TroubleCause::Timeout),
    );
}

#[test]
fn what_a_forgotten_worker_holds_fails_over_although_its_socket_stays_open() {
    let world = World::new();
    let deaf = Worker::start(&world, 1, |stream, _| {
        let _ = stream.read(&mut [0]);
        false
    });
    let good = Worker::saying(&world, 2, "good");
    let mut front = world.serving(table(ONE, true), &[&deaf]);
    let (mut get, mut post) = (Client::connect(front.address), Client::connect(front.address));
    get.send(GET);
    until("the worker has the GET", || deaf.count() == 1);
    front.daemon.admit(&good);
    front.daemon.forget(&deaf);
    assert_eq!(get.receive().unwrap().text(), "good");
    let deaf = Worker::start(&world, 3, |stream, _| {
        let _ = stream.read(&mut [0]);
        false
    });
    front.daemon.drain(&good);
    front.daemon.drained(&good);
    front.daemon.admit(&deaf);
    post.send(POST);
    until("the worker has the POST", || deaf.count() == 1);
    front.daemon.forget(&deaf);
    assert_eq!(post.receive().unwrap().status, 502);
}

#[test]
fn a_full_backlog_means_busy_not_dead() {
    let world = World::new();
    let socket = world.path("busy.socket");
    let family = rustix::net::AddressFamily::UNIX;
    let listener = rustix::net::socket(family, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&listener, &rustix::net::SocketAddrUnix::new(&socket).unwrap()).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let _waiting = UnixStream::connect(&socket).unwrap();
    let good = Worker::saying(&world, 2, "good");
    let mut front = world.serving(table(Slots::Unlimited, false), &[&good]);
    let worker = WorkerId::new(WatcherName::app("p", "a"), 1, 1);
    front.daemon.say(&ToFront::Admit {
        upstream: "p/a".into(),
        peer: Peer { worker, address: Address::Socket(socket), dir: None, pid: None },
    });
    for _ in 0..20 {
        let began = Instant::now();
        assert_eq!(ask(front.address, POST).text(), "good");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    let heard =
        front.daemon.says(|m| matches!(m, FromFront::Trouble { .. }), Duration::from_millis(100));
    assert!(!heard, "a busy worker is no trouble");
}
