//! Workers that pull: nothing stands behind a slow request, nothing is lost with a worker, and
//! nothing that was given up begins.

mod lost;
pub mod puller;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use self::puller::{Act, Puller, pulling};
use crate::world::*;

/// A worker that answers requests with `hold` in them when told.
pub fn holding(world: &World, number: u32) -> (Puller, mpsc::Sender<()>) {
    let (tell, told) = mpsc::channel();
    let told = Mutex::new(told);
    let puller = Puller::start(world, number, move |had| {
        if had.target().contains("hold") {
            let _ = told.lock().unwrap().recv_timeout(PATIENCE);
        }
        Act::Say(had.target().to_string())
    });
    (puller, tell)
}

/// A client whose request a worker holds.
pub fn hold(front: &Front, puller: &Puller) -> Client {
    let mut held = Client::connect(front.address);
    held.send("GET /a/hold HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it is held", || puller.had.lock().unwrap().last().unwrap().target() == "/a/hold");
    held
}

fn load(front: &Front, clients: usize, each: usize) {
    std::thread::scope(|scope| {
        for client in 0..clients {
            scope.spawn(move || {
                let mut one = Client::connect(front.address);
                for number in 0..each {
                    let path = format!("/a/{client}/{number}");
                    let answer = one.get(&path);
                    assert_eq!(answer.status, 200);
                    assert!(["pushed", &format!("{path} false")].contains(&&*answer.text()));
                }
            });
        }
    });
}

#[test]
fn each_request_is_pulled_by_one_worker_and_its_answer_is_its_own() {
    let world = World::new();
    let both = [1, 2].map(|number| Puller::saying(&world, number));
    let front = world.serving(pulling(), &[&both[0].worker, &both[1].worker]);
    both.iter().for_each(|one| one.is_linked(&front));
    let before: usize = both.iter().map(Puller::count).sum();
    load(&front, 16, 100);
    assert_eq!(both.iter().map(Puller::count).sum::<usize>() - before, 1600, "none was pushed");
}

#[test]
fn bodies_streams_and_heads_pass_as_with_any_worker() {
    let world = World::new();
    let puller = Puller::start(&world, 1, |had| {
        let length = had.text.len() - had.text.find("\r\n\r\n").unwrap() - 4;
        match had.target() {
            "/a/stream" => Act::Stream(
                [
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n",
                    "\r\n5\r\nhello\r\n",
                    "0\r\n\r\n",
                ]
                .map(|part| part.as_bytes().to_vec())
                .to_vec(),
            ),
            "/a/large" => {
                let head = b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n".to_vec();
                Act::Stream(vec![head, vec![b'x'; 3_000_000]])
            }
            "/a/short" => {
                Act::Stream(vec![b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec()])
            }
            _ => Act::Say(format!("{length} {}", had.was_turn)),
        }
    });
    let front = world.serving(pulling(), &[&puller.worker]);
    puller.is_linked(&front);
    for _ in 0..3 {
        let mut client = Client::connect(front.address);
        for (length, turn) in [(10, false), (40_000, false), (100_000, true), (1_000_000, true)] {
            let head = format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
            client.send(head + &"b".repeat(length));
            assert_eq!(client.receive().unwrap().text(), format!("{length} {turn}"));
        }
        assert_eq!(client.get("/a/stream").text(), "hello");
        assert_eq!(client.get("/a/large").body.len(), 3_000_000);
        client.send("HEAD /a/head HTTP/1.1\r\nHost: h\r\n\r\n");
    }
}

#[test]
fn no_request_stands_behind_a_slow_one_while_a_worker_is_idle() {
    let world = World::new();
    let ((first, tell_first), (second, tell_second)) = (holding(&world, 1), holding(&world, 2));
    let mut front = world.serving(pulling(), &[&first.worker, &second.worker]);
    [&first, &second].iter().for_each(|one| one.is_linked(&front));
    let mut slow = Client::connect(front.address);
    slow.send("POST /a/hold HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    let busy = |front: &mut Front| {
        let in_flight = &front.daemon.stats().upstreams["p/a"].in_flight;
        in_flight.values().sum::<u64>()
    };
    until("a worker is busy", || busy(&mut front) == 1);
    for n in 0..200 {
        let began = Instant::now();
        assert_eq!(front.get(&format!("/a/{n}")).status, 200);
        assert!(began.elapsed() < Duration::from_secs(2));
    }
    let _ = (tell_first.send(()), tell_second.send(()));
    assert_eq!(slow.receive().unwrap().text(), "/a/hold");
}

#[test]
fn a_worker_that_is_drained_finishes_what_it_has_and_takes_nothing_more() {
    let world = World::new();
    let ((old, tell), new) = (holding(&world, 1), Puller::saying(&world, 2));
    let mut front = world.serving(pulling(), &[&old.worker]);
    old.is_linked(&front);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(front.address)).collect();
    clients[0].send("GET /a/hold HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it is held", || old.had.lock().unwrap().last().unwrap().target() == "/a/hold");
    for client in &mut clients[1..] {
        client.send("POST /a/next HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
    }
    until("they wait", || front.daemon.stats().upstreams["p/a"].waiting == 3);
    let had = old.count();
    front.daemon.drain(&old.worker);
    front.daemon.admit(&new.worker);
    for client in &mut clients[1..] {
        let answer = client.receive().unwrap();
        assert!(["pushed", "/a/next false"].contains(&&*answer.text()), "{}", answer.text());
    }
    let drained = |m: &mfserv_core::wire::front::FromFront| {
        matches!(m, mfserv_core::wire::front::FromFront::Drained { .. })
    };
    assert!(!front.daemon.says(drained, Duration::from_millis(100)), "it still has a request");
    tell.send(()).unwrap();
    assert_eq!(clients[0].receive().unwrap().text(), "/a/hold");
    front.daemon.drained(&old.worker);
    assert_eq!(old.count(), had);
}

#[test]
fn the_timeout_of_an_app_counts_from_when_a_worker_has_begun() {
    let world = World::new();
    let (puller, tell) = holding(&world, 1);
    let mut routes = pulling();
    let spec = routes.upstreams.get_mut("p/a").unwrap();
    (spec.timeout_ms, spec.queue_timeout_ms) = (1_000, NEVER_MS);
    let front = world.serving(routes, &[&puller.worker]);
    puller.is_linked(&front);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(front.address)).collect();
    let began = Instant::now();
    clients[0].send("GET /a/hold HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it is held", || puller.had.lock().unwrap().last().unwrap().target() == "/a/hold");
    clients[1].send("GET /a/hold HTTP/1.1\r\nHost: h\r\n\r\n");
    let is_late = |answer: Answer| {
        assert_eq!((answer.status, answer.field("x-mfserv-cause")), (504, vec!["timeout".into()]));
    };
    is_late(clients[0].receive().unwrap());
    assert!(began.elapsed() >= Duration::from_secs(1));
    // The second one begins now, and has as long.
    let began = Instant::now();
    tell.send(()).unwrap();
    is_late(clients[1].receive().unwrap());
    assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < PATIENCE / 2);
    clients[2].send("GET /a/next HTTP/1.1\r\nHost: h\r\n\r\n");
    tell.send(()).unwrap();
    assert_eq!(clients[2].receive().unwrap().status, 200);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_a_stream_costs_no_other_one_anything() {
    let world = World::new();
    let puller = Puller::start(&world, 1, |had| match had.target() {
        "/a/large" => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n".to_vec();
            Act::Stream(vec![head, vec![b'x'; 30_000_000]])
        }
        target => Act::Say(format!("{target} {}", had.was_turn)),
    });
    let front = world.serving(pulling(), &[&puller.worker]);
    for _ in 0..5 {
        puller.is_linked(&front);
        let mut client = Client::connect(front.address);
        client.send("GET /a/large HTTP/1.1\r\nHost: h\r\n\r\n");
        client.read_until(b"xxx");
        drop(client);
        load(&front, 2, 10);
    }
    puller.is_linked(&front);
}

#[test]
fn no_request_stands_in_the_queue_while_a_worker_that_does_not_pull_is_free() {
    let world = World::new();
    let ((puller, tell), pushed) = (holding(&world, 1), Worker::saying(&world, 2, "pushed"));
    let mut front = world.serving(pulling(), &[&puller.worker, &pushed]);
    puller.is_linked(&front);
    let mut held = Client::connect(front.address);
    until("it is held", || {
        held.send("GET /a/hold HTTP/1.1\r\nHost: h\r\n\r\n");
        let is_held = || puller.had.lock().unwrap().last().unwrap().target() == "/a/hold";
        let end = Instant::now() + Duration::from_secs(1);
        while !is_held() && Instant::now() < end {
            std::thread::yield_now();
        }
        is_held() || held.receive().is_none()
    });
    for n in 0..20 {
        assert_eq!(front.get(&format!("/a/{n}")).text(), "pushed");
    }
    assert_eq!(front.daemon.stats().upstreams["p/a"].waiting, 0);
    tell.send(()).unwrap();
    assert_eq!(held.receive().unwrap().text(), "/a/hold");
}

#[test]
fn a_worker_that_is_admitted_again_while_it_drains_goes_on_when_it_is_done() {
    let world = World::new();
    let (puller, tell) = holding(&world, 1);
    let mut front = world.serving(pulling(), &[&puller.worker]);
    puller.is_linked(&front);
    let mut held = hold(&front, &puller);
    front.daemon.drain(&puller.worker);
    front.daemon.admit(&puller.worker);
    let mut next = Client::connect(front.address);
    next.send("GET /a/next HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it waits", || front.daemon.stats().upstreams["p/a"].waiting == 1);
    tell.send(()).unwrap();
    assert_eq!(held.receive().unwrap().text(), "/a/hold");
    assert_eq!(next.receive().unwrap().status, 200);
    puller.is_linked(&front);
}

#[test]
fn requests_go_on_while_workers_come_and_go() {
    let world = World::new();
    let stays = Puller::saying(&world, 1);
    let mut front = world.serving(pulling(), &[&stays.worker]);
    let is_over = AtomicBool::new(false);
    let address = front.address;
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = Client::connect(address);
                while !is_over.load(Ordering::SeqCst) {
                    client.send("POST /a/x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi");
                    assert_eq!(client.receive().unwrap().status, 200);
                }
            });
        }
        for number in 2..20 {
            let comes = Puller::saying(&world, number);
            front.daemon.admit(&comes.worker);
            until("it has had some", || comes.count() > 20);
            front.daemon.drain(&comes.worker);
            front.daemon.drained(&comes.worker);
            let had = comes.count();
            front.daemon.stats();
            assert_eq!(comes.count(), had, "it was drained");
        }
        is_over.store(true, Ordering::SeqCst);
    });
    assert_eq!(front.daemon.stats().upstreams["p/a"].retried, 0);
}

#[test]
fn a_worker_that_does_not_know_offers_is_given_its_requests() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let front = world.serving(pulling(), &[&worker]);
    let mut client = Client::connect(front.address);
    for _ in 0..50 {
        assert_eq!(client.get("/a").text(), "ok");
    }
    let requests = worker.requests.lock().unwrap();
    assert_eq!(requests.iter().filter(|received| received.target() == "/a").count(), 50);
}
