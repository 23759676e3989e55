//! Apps whose workers all wait for their next start after crashes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mfserv_core::node_state::NodeState;
use mfserv_core::wire::front::ToFront;
use mfserv_platform::clock::now_ms;

use crate::world::*;

/// The daemon says that the app starts again in so many milliseconds.
fn rests(front: &mut Front, ms: Option<u64>) {
    let backing_off: BTreeMap<String, u64> =
        ms.map(|ms| ("p/a".to_string(), now_ms() + ms)).into_iter().collect();
    front.daemon.say(&ToFront::State {
        node: NodeState::Running,
        broken: BTreeMap::new(),
        backing_off,
    });
    front.daemon.stats();
}

fn retry_after(answer: &Answer) -> u64 {
    assert_eq!((answer.status, answer.field("x-mfserv-cause")), (503, vec!["crashing".into()]));
    let fields = answer.field("retry-after");
    assert_eq!(fields.len(), 1, "{}", answer.head);
    fields[0].parse().unwrap()
}

#[test]
fn a_request_for_an_app_that_starts_later_is_answered_at_once_with_the_time_of_its_start() {
    for slots in [ONE, mfserv_core::route::Slots::Unlimited] {
        let world = World::new();
        let mut front = world.serving(table(slots, true), &[]);
        for (ms, least, most) in [(30_000, 28, 30), (2_500, 1, 3)] {
            rests(&mut front, Some(ms));
            let began = Instant::now();
            let wait = retry_after(&front.get("/a"));
            assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
            assert!((least..=most).contains(&wait), "{wait} s of {ms} ms");
        }
    }
}

#[test]
fn requests_that_wait_are_answered_when_the_last_worker_crashes() {
    let world = World::new();
    let mut front = world.serving(table(ONE, true), &[]);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(front.address)).collect();
    clients.iter_mut().for_each(|client| client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
    until("they wait", || front.daemon.stats().upstreams["p/a"].waiting == 3);
    rests(&mut front, Some(20_000));
    for client in &mut clients {
        let wait = retry_after(&client.receive().unwrap());
        assert!((18..=20).contains(&wait), "{wait}");
    }
    assert_eq!(front.daemon.stats().upstreams["p/a"].waiting, 0);
}

#[test]
fn a_worker_that_starts_soon_or_that_is_starting_is_waited_for() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    // Soon, in the past, and not at all: each time the worker comes while the request waits.
    for ms in [Some(300), Some(0), None] {
        let mut front = world.serving(table(ONE, true), &[]);
        rests(&mut front, ms);
        let mut client = Client::connect(front.address);
        client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
        until("it waits", || front.daemon.stats().upstreams["p/a"].waiting == 1);
        front.daemon.admit(&worker);
        assert_eq!(client.receive().unwrap().text(), "ok", "{ms:?}");
    }
}

#[test]
fn an_app_with_a_worker_is_served_whatever_is_said_of_its_rest() {
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut front = world.serving(table(ONE, true), &[&worker]);
    rests(&mut front, Some(30_000));
    assert_eq!(front.get("/a").text(), "ok");
    front.daemon.forget(&worker);
    front.daemon.stats();
    retry_after(&front.get("/a"));
    rests(&mut front, None);
    front.daemon.admit(&worker);
    assert_eq!(front.get("/a").text(), "ok");
}
