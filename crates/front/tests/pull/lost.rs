//! Workers die, stand still and go: nothing is lost that has not begun, nothing begins twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::puller::{Act, Had, Puller, pulling};
use super::{hold, holding};
use crate::world::*;

const GET: &str = "GET /a/die HTTP/1.1\r\nHost: h\r\n\r\n";
const POST: &str = "POST /a/die HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\nhi";

/// Workers that die of a request of `die` in its path, each time once.
fn dying(world: &World, dies_first: bool) -> ([Puller; 2], Arc<AtomicUsize>) {
    let deaths = Arc::new(AtomicUsize::new(0));
    let dies = |text: &str, deaths: &AtomicUsize| {
        text.contains("/die") && deaths.fetch_add(1, Ordering::SeqCst) % 2 == 0
    };
    let pullers = [1, 2].map(|number| {
        let (named, unnamed) = (deaths.clone(), deaths.clone());
        Puller::with(
            world,
            number,
            move |had: &Had| match !dies_first && dies(&had.text, &named) {
                true => Act::Die,
                false => Act::Say("ok".into()),
            },
            move |text| dies_first && dies(text, &unnamed),
        )
    });
    (pullers, deaths)
}

#[test]
fn a_request_that_a_worker_dies_of_is_asked_again_if_it_is_safe() {
    let world = World::new();
    let (both, _) = dying(&world, false);
    let front = world.serving(pulling(), &[&both[0].worker, &both[1].worker]);
    both.iter().for_each(|one| one.is_linked(&front));
    for (request, status) in [(GET, 200), (POST, 502), (POST, 200)] {
        let mut client = Client::connect(front.address);
        client.send(request);
        assert_eq!(client.receive().unwrap().status, status, "{request}");
        both.iter().for_each(|one| one.is_linked(&front));
    }
}

#[test]
fn a_request_that_a_worker_took_and_had_not_begun_when_it_died_is_begun_once() {
    let world = World::new();
    let (both, deaths) = dying(&world, true);
    let front = world.serving(pulling(), &[&both[0].worker, &both[1].worker]);
    both.iter().for_each(|one| one.is_linked(&front));
    let mut client = Client::connect(front.address);
    for n in 0..10 {
        client.send(POST);
        assert_eq!(client.receive().unwrap().status, 200);
        let had = both.iter().map(|one| one.had.lock().unwrap());
        let begun: usize =
            had.map(|had| had.iter().filter(|one| one.text.contains("/die")).count()).sum();
        assert_eq!(begun, n + 1);
        both.iter().for_each(|one| one.is_linked(&front));
    }
    assert_eq!(deaths.load(Ordering::SeqCst), 20);
}

#[test]
fn what_was_given_up_does_not_begin() {
    let world = World::new();
    let (puller, tell) = holding(&world, 1);
    let mut routes = pulling();
    routes.upstreams.get_mut("p/a").unwrap().queue_timeout_ms = 300;
    let mut front = world.serving(routes, &[&puller.worker]);
    puller.is_linked(&front);
    let mut holder = hold(&front, &puller);
    let mut left = Client::connect(front.address);
    left.send(POST);
    until("it waits", || front.daemon.stats().upstreams["p/a"].waiting == 1);
    drop(left);
    let mut late = Client::connect(front.address);
    late.send(POST);
    let refused = late.receive().unwrap();
    assert_eq!(
        (refused.status, refused.field("x-mfserv-cause")),
        (503, vec!["queue_timeout".into()])
    );
    tell.send(()).unwrap();
    assert_eq!(holder.receive().unwrap().status, 200);
    assert_eq!(late.get("/a/then").status, 200);
    let had = puller.had.lock().unwrap();
    assert!(had.iter().all(|had| !had.text.contains("/die")), "{had:?}");
    assert_eq!(puller.dropped.lock().unwrap().len(), 2);
    drop(had);
    let stats = &front.daemon.stats().upstreams["p/a"];
    assert_eq!((stats.waiting, stats.in_flight.values().sum::<u64>()), (0, 0));
}

#[test]
fn with_the_connection_of_an_answer_that_nobody_wants_no_other_request_is_lost() {
    let world = World::new();
    // It fits into the socket: the worker has sent all of it when its client leaves.
    let puller = Puller::start(&world, 1, |had| match had.target() {
        "/a/large" => {
            let head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n".to_vec();
            Act::Stream(vec![head, vec![b'x'; 99_990]])
        }
        target => Act::Say(target.to_string()),
    });
    let front = world.serving(pulling(), &[&puller.worker]);
    for n in 0..10 {
        puller.is_linked(&front);
        let mut leaves = Client::connect(front.address);
        leaves.send("GET /a/large HTTP/1.1\r\nHost: h\r\n\r\n");
        leaves.read_until(b"xxx");
        let mut others: Vec<Client> = (0..6).map(|_| Client::connect(front.address)).collect();
        for (at, other) in others.iter_mut().enumerate() {
            let body = "Content-Length: 2\r\n\r\nhi";
            other.send(format!("POST /a/{n}/{at} HTTP/1.1\r\nHost: h\r\n{body}"));
        }
        drop(leaves);
        for other in &mut others {
            assert_eq!(other.receive().unwrap().status, 200);
        }
    }
    let had = puller.had.lock().unwrap();
    let mut posts: Vec<&str> =
        had.iter().filter(|had| had.text.starts_with("POST")).map(Had::target).collect();
    let count = posts.len();
    posts.sort_unstable();
    posts.dedup();
    assert_eq!(posts.len(), count, "one was begun twice");
}

#[test]
fn a_request_that_a_worker_takes_and_does_not_begin_for_long_is_begun_once() {
    let world = World::new();
    // As one that is stopped between the two.
    let slow = |number| {
        let count = AtomicUsize::new(0);
        let stands_still = move |text: &str| {
            if text.contains("POST") && count.fetch_add(1, Ordering::SeqCst) % 3 == 0 {
                // It stands still for longer than the front waits for it.
                std::thread::sleep(Duration::from_millis(150));
            }
            false
        };
        Puller::with(&world, number, |had| Act::Say(had.target().into()), stands_still)
    };
    let both = [slow(1), slow(2)];
    let front = world.serving(pulling(), &[&both[0].worker, &both[1].worker]);
    both.iter().for_each(|one| one.is_linked(&front));
    std::thread::scope(|scope| {
        for client in 0..4 {
            let address = front.address;
            scope.spawn(move || {
                let mut one = Client::connect(address);
                for n in 0..10 {
                    let body = "Content-Length: 2\r\n\r\nhi";
                    one.send(format!("POST /a/{client}/{n} HTTP/1.1\r\nHost: h\r\n{body}"));
                    assert_eq!(one.receive().unwrap().status, 200);
                }
            });
        }
    });
    let posts = |one: &Puller| {
        let had = one.had.lock().unwrap();
        had.iter().filter(|had| had.text.starts_with("POST")).count()
    };
    assert_eq!(both.iter().map(posts).sum::<usize>(), 40);
    let dropped: usize = both.iter().map(|one| one.dropped.lock().unwrap().len()).sum();
    assert!(dropped > 0, "none was taken back");
}

#[test]
fn what_stands_in_the_queue_when_nobody_pulls_any_more_waits_for_other_workers() {
    let world = World::new();
    let (old, _tell) = holding(&world, 1);
    let mut front = world.serving(pulling(), &[&old.worker]);
    old.is_linked(&front);
    let mut clients: Vec<Client> = (0..6).map(|_| Client::connect(front.address)).collect();
    clients[0].send("POST /a/hold HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    until("it is held", || old.had.lock().unwrap().last().unwrap().target() == "/a/hold");
    for client in &mut clients[1..] {
        client.send(POST);
    }
    until("they wait", || front.daemon.stats().upstreams["p/a"].waiting == 5);
    old.worker.stop_listening();
    front.daemon.forget(&old.worker);
    let answer = clients[0].receive().unwrap();
    assert_eq!((answer.status, answer.field("x-mfserv-cause")), (502, vec!["reset".into()]));
    let pushed = Worker::saying(&world, 2, "by another");
    front.daemon.admit(&pushed);
    for client in &mut clients[1..] {
        assert_eq!(client.receive().unwrap().text(), "by another");
    }
    let requests = pushed.requests.lock().unwrap();
    assert_eq!(requests.iter().filter(|received| received.target() == "/a/die").count(), 5);
}

#[test]
fn workers_that_shall_pull_no_more_finish_what_they_have_and_are_given_the_rest() {
    let world = World::new();
    let (puller, tell) = holding(&world, 1);
    let mut front = world.serving(pulling(), &[&puller.worker]);
    puller.is_linked(&front);
    let mut held = hold(&front, &puller);
    let mut others: Vec<Client> = (0..3).map(|_| Client::connect(front.address)).collect();
    others.iter_mut().for_each(|other| other.send(POST));
    until("they wait", || front.daemon.stats().upstreams["p/a"].waiting == 3);
    let pushing = table(ONE, true);
    front.daemon.publish(2, pushing.clone(), &[&puller.worker]);
    front.daemon.publish(3, pulling(), &[&puller.worker]);
    front.daemon.publish(4, pushing, &[&puller.worker]);
    for _ in 0..20 {
        assert_eq!(front.get("/nothing").status, 404, "the front serves others meanwhile");
    }
    tell.send(()).unwrap();
    assert_eq!(held.receive().unwrap().text(), "/a/hold");
    for other in &mut others {
        assert_eq!(other.receive().unwrap().text(), "pushed");
    }
    front.daemon.publish(5, pulling(), &[&puller.worker]);
    puller.is_linked(&front);
}
