//! A request takes a slot, then a connection; who waits is served in order.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use mfserv_core::route::Slots;

use crate::world::*;

/// `clients` keep-alive clients with `each` requests; all must succeed.
fn keep_alive_load(front: &Front, clients: usize, each: usize) {
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut client = Client::connect(front.address);
                for _ in 0..each {
                    assert_eq!(client.get("/a").status, 200);
                }
            });
        }
    });
}

#[test]
fn a_single_threaded_worker_never_waits_on_an_idle_connection() {
    let world = World::new();
    let worker = Worker::start_of(&world, "p/a", 1, false, |stream, _| say(stream, "ok"));
    let front = world.serving(table(ONE, true), &[&worker]);
    keep_alive_load(&front, 64, 10);
    assert_eq!(worker.count(), 640);
}

#[test]
fn a_worker_never_has_more_connections_than_slots() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let two = Slots::Finite { per_worker: 2 };
    let front = world.serving(table(two, true), &[&worker]);
    keep_alive_load(&front, 16, 20);
    assert!(worker.most.load(Ordering::SeqCst) <= 2);
}

/// A worker that answers a path with `wait` in it only when told.
fn patient(world: &World, number: u32) -> (Worker, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let told = Arc::new(Mutex::new(told));
    let worker = Worker::start(world, number, move |stream, received| {
        if received.target().contains("wait") {
            let _ = told.lock().unwrap().recv_timeout(PATIENCE);
        }
        say(stream, received.target())
    });
    (worker, tell)
}

#[test]
fn no_request_stands_behind_a_slow_one_while_a_worker_is_idle() {
    let world = World::new();
    let (first, tell_first) = patient(&world, 1);
    let (second, tell_second) = patient(&world, 2);
    let front = world.serving(table(ONE, true), &[&first, &second]);
    let mut slow = Client::connect(front.address);
    slow.send("GET /a/wait HTTP/1.1\r\nHost: h\r\n\r\n");
    until("a worker is busy", || first.count() + second.count() == 1);
    let mut fast = Client::connect(front.address);
    for n in 0..50 {
        let began = Instant::now();
        assert_eq!(fast.get(&format!("/a/{n}")).status, 200);
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    let _ = (tell_first.send(()), tell_second.send(()));
    assert_eq!(slow.receive().unwrap().text(), "/a/wait");
}

#[test]
fn the_queue_is_first_come_first_served() {
    let world = World::new();
    let (worker, tell) = patient(&world, 1);
    let mut front = world.serving(table(ONE, true), &[&worker]);
    let mut clients = vec![Client::connect(front.address)];
    clients[0].send("GET /a/wait HTTP/1.1\r\nHost: h\r\n\r\n");
    until("the worker is busy", || worker.count() == 1);
    for n in 1..8 {
        let mut client = Client::connect(front.address);
        client.send(format!("GET /a/{n} HTTP/1.1\r\nHost: h\r\n\r\n"));
        clients.push(client);
        until("it waits", || front.daemon.stats().upstreams["p/a"].waiting == n);
    }
    tell.send(()).unwrap();
    clients.iter_mut().for_each(|client| assert_eq!(client.receive().unwrap().status, 200));
    let order: Vec<String> =
        worker.requests.lock().unwrap().iter().map(|r| r.target().to_string()).collect();
    assert_eq!(order[1..], (1..8).map(|n| format!("/a/{n}")).collect::<Vec<_>>());
}

#[test]
fn the_queue_is_bounded_in_number_and_in_time() {
    let world = World::new();
    let (worker, tell) = patient(&world, 1);
    let mut short = table(ONE, true);
    let spec = short.upstreams.get_mut("p/a").unwrap();
    (spec.queue_max, spec.queue_timeout_ms) = (1, 3000);
    let mut front = world.serving(short, &[&worker]);
    let mut holder = Client::connect(front.address);
    holder.send("GET /a/wait HTTP/1.1\r\nHost: h\r\n\r\n");
    until("the worker is busy", || worker.count() == 1);
    let mut waiting = Client::connect(front.address);
    waiting.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it waits", || front.daemon.stats().upstreams["p/a"].waiting == 1);
    let refused = front.get("/a");
    assert_eq!((refused.status, refused.field("x-mfserv-cause")), (503, vec!["queue_full".into()]));
    let late = waiting.receive().unwrap();
    assert_eq!((late.status, late.field("x-mfserv-cause")), (503, vec!["queue_timeout".into()]));
    assert_eq!(late.field("retry-after"), ["1"]);
    tell.send(()).unwrap();
    assert_eq!(holder.receive().unwrap().status, 200);
    assert_eq!(waiting.get("/a").status, 200);
}

#[test]
fn a_client_that_leaves_the_queue_costs_no_worker() {
    let world = World::new();
    let (worker, tell) = patient(&world, 1);
    let mut front = world.serving(table(ONE, true), &[&worker]);
    let mut holder = Client::connect(front.address);
    holder.send("GET /a/wait HTTP/1.1\r\nHost: h\r\n\r\n");
    until("the worker is busy", || worker.count() == 1);
    let mut leaving = Client::connect(front.address);
    leaving.send("GET /a/left HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it waits", || front.daemon.stats().upstreams["p/a"].waiting == 1);
    drop(leaving);
    until("it has left", || front.daemon.stats().upstreams["p/a"].waiting == 0);
    tell.send(()).unwrap();
    assert_eq!(holder.receive().unwrap().status, 200);
    assert_eq!(front.get("/a").status, 200);
    assert_eq!(worker.count(), 2);
    assert_eq!(world.logged("uri", "/a/left")["status"], 499);
}

#[test]
fn a_client_that_does_not_read_holds_no_worker() {
    let world = World::new();
    let large = "x".repeat(900_000);
    let worker = Worker::start_of(&world, "p/a", 1, false, move |stream, received| {
        say(stream, if received.target().ends_with("large") { &large } else { "small" })
    });
    let front = world.serving(table(ONE, true), &[&worker]);
    let mut lazy: Vec<Client> = (0..8).map(|_| Client::connect(front.address)).collect();
    for client in &mut lazy {
        client.send("GET /a/large HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    assert_eq!(front.get("/a/small").text(), "small");
    for client in &mut lazy {
        let answer = client.receive().unwrap();
        assert_eq!((answer.body.len(), answer.whole), (900_000, true));
    }
}

#[test]
fn a_client_that_uploads_slowly_holds_no_worker() {
    let world = World::new();
    let worker = Worker::start_of(&world, "p/a", 1, false, |stream, _| say(stream, "ok"));
    let front = world.serving(table(ONE, true), &[&worker]);
    let mut stuck: Vec<Client> = (0..20).map(|_| Client::connect(front.address)).collect();
    for client in &mut stuck {
        client.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n");
        client.send(vec![b'x'; 100_000]);
    }
    for _ in 0..5 {
        assert_eq!(front.get("/a").text(), "ok");
    }
    stuck[0].send(vec![b'x'; 100_000]);
    assert_eq!(stuck[0].receive().unwrap().text(), "ok");
    assert_eq!(worker.last().body.len(), 200_000);
}

#[test]
fn unlimited_workers_share_what_is_in_flight() {
    let world = World::new();
    let (first, tell_first) = patient(&world, 1);
    let (second, tell_second) = patient(&world, 2);
    let front = world.serving(table(Slots::Unlimited, true), &[&first, &second]);
    let mut clients: Vec<Client> = (0..10).map(|_| Client::connect(front.address)).collect();
    for client in &mut clients {
        client.send("GET /a/wait HTTP/1.1\r\nHost: h\r\n\r\n");
    }
    until("all are in flight", || first.count() + second.count() == 10);
    assert_eq!(first.count(), 5);
    for _ in 0..5 {
        let _ = (tell_first.send(()), tell_second.send(()));
    }
    clients.iter_mut().for_each(|client| assert_eq!(client.receive().unwrap().status, 200));
}
