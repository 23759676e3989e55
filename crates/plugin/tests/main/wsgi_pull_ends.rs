//! The ends of workers and fronts, where workers take requests by themselves: each request is
//! answered once, or it is known who had it.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use mfserv_plugin::base::BaseEnvironment;
use mfserv_pull::MessageKind;

use crate::wsgi::PATIENT;
use crate::wsgi_client::{answer, connect};
use crate::wsgi_pull_front::{Front, Link, Workers};
use crate::{Node, until};

/// Called by the test that has made a base environment.
pub fn what_a_worker_leaves_others_receive(node: &Node, base: &BaseEnvironment) {
    let workers = Workers::new(node, base, "pd");
    a_front_takes_its_queue_back(&workers);
    a_worker_is_told_to_stop(&workers);
    the_front_has_gone(&workers);
}

fn a_front_takes_its_queue_back(workers: &Workers<'_>) {
    let (_first, first_socket) = workers.start(1, PATIENT);
    let (_second, second_socket) = workers.start(2, PATIENT);
    let mut front = Front::new();
    let mut link = front.link(&first_socket, 1);
    let running = front.get("/nap?drain");
    workers.naps("drain");
    let others: BTreeSet<u64> = (0..60).map(|_| front.get("/")).collect();
    link.drain();
    workers.wake("drain");
    let mut answered = link.answered();
    assert!(answered.remove(&running), "what it held is answered");
    assert!(answered.len() <= 16, "it is noticed: {} more were served", answered.len());
    front.until_free(1);
    let left = front.unread();
    assert!(left > 0);

    // The worker serves on, also this queue, if it is offered once more.
    let mut again = front.link(&second_socket, 2);
    let mut by_second = BTreeSet::new();
    for &id in others.difference(&answered) {
        again.answer(id);
        by_second.insert(id);
    }
    again.drain();
    again.ends();
    assert!(answered.is_disjoint(&by_second));
    let mut link = front.link(&first_socket, 1);
    let id = front.get("/?again");
    assert!(link.answer(id).ends_with("again"));
}

fn a_worker_is_told_to_stop(workers: &Workers<'_>) {
    let (mut first, first_socket) = workers.start(3, PATIENT);
    let (_second, second_socket) = workers.start(4, PATIENT);
    let mut front = Front::new();
    let mut link = front.link(&first_socket, 1);
    let running = front.get("/nap?stop");
    workers.naps("stop");
    let others: Vec<u64> = (0..20).map(|_| front.get("/")).collect();
    first.signal("TERM");
    workers.wake("stop");
    assert_eq!(link.answered(), BTreeSet::from([running]), "no message is received any more");
    assert_eq!(first.ended().code(), Some(0));
    assert_eq!(front.page.running(1), None);
    let mut link = front.link(&second_socket, 2);
    others.iter().for_each(|&id| drop(link.answer(id)));

    // A large answer leaves, though it is read late.
    let (mut large, socket) = workers.start(5, PATIENT);
    let mut front = Front::new();
    let mut link = front.link(&socket, 1);
    let id = front.get("/large");
    until("the answer begins", || front.page.running(1).is_some());
    large.signal("TERM");
    until("the worker stops", || !socket.exists());
    assert_eq!(link.stream(id).1.len(), 3_000_000);
    link.ends();
    assert_eq!(large.ended().code(), Some(0));
}

/// A message that has waited behind a request over HTTP.
fn the_front_has_gone(workers: &Workers<'_>) {
    let (_worker, socket) = workers.start(6, PATIENT);
    let mut front = Front::new();
    let link = front.link(&socket, 1);
    let mut client = connect(&socket);
    client.write_all(b"GET /nap?gone HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    workers.naps("gone");
    front.get("/?of-a-front-that-has-gone");
    drop((front, link));
    workers.wake("gone");
    answer(&mut client);
    let mut front = Front::new();
    let mut link = front.link(&socket, 1);
    let id = front.get("/?of-the-next-front");
    link.answer(id);
    let called = workers.called();
    assert!(called.contains(&"of-the-next-front".into()), "{called:?}");
    assert!(!called.contains(&"of-a-front-that-has-gone".into()), "{called:?}");
}

/// Called by the test that has made a base environment.
pub fn a_worker_that_dies_takes_no_other_request_with_it(node: &Node, base: &BaseEnvironment) {
    let workers = Workers::new(node, base, "pe");
    one_of_two_busy_workers_dies(&workers);
    a_worker_dies_that_was_woken(&workers);
}

const REQUESTS: usize = 2000;
const OUTSTANDING: usize = 16;

fn one_of_two_busy_workers_dies(workers: &Workers<'_>) {
    let (mut first, first_socket) = workers.start(1, PATIENT);
    let (_second, second_socket) = workers.start(2, PATIENT);
    let mut front = Front::new();
    let (one, two) = (front.link(&first_socket, 1), front.link(&second_socket, 2));
    let drained = two.0.try_clone().unwrap();
    let (sender, answers) = channel();
    let (mut waiting, mut sent, mut by_first, mut ends) = (BTreeSet::new(), 0, 0, 0);
    std::thread::scope(|scope| {
        for (at, link) in [one, two].into_iter().enumerate() {
            let sender = sender.clone();
            scope.spawn(move || read_answers(link, at, &sender));
        }
        while ends < 2 {
            while waiting.len() < OUTSTANDING && sent < REQUESTS {
                sent += 1;
                waiting.insert(front.get(&format!("/?{sent}")));
            }
            if sent == REQUESTS && front.unread() == 0 {
                // All was received. The second worker answers what it has, and ends its link.
                drained.shutdown(Shutdown::Write).unwrap();
            }
            match answers.recv_timeout(Duration::from_secs(60)).unwrap() {
                (at, Some(id)) => {
                    assert!(waiting.remove(&id), "{id} is answered once");
                    by_first += usize::from(at == 0);
                    if at == 0 && by_first == 300 {
                        first.signal("KILL");
                    }
                }
                (_, None) => {
                    ends += 1;
                    front.send(MessageKind::Nudge, "");
                }
            }
        }
    });
    assert!(by_first >= 300, "the first one has served {by_first}");
    assert!(waiting.len() <= 1, "a worker has one request at a time: {waiting:?}");
    let called = workers.called();
    let line = front.page.running(1).map(|(id, _)| id);
    for &id in &waiting {
        let has_begun = called.contains(&id.to_string());
        assert!(line == Some(id) || !has_begun, "{id} has begun, the line says {line:?}");
    }
    let once: BTreeSet<&String> = called.iter().collect();
    assert_eq!(once.len(), called.len(), "no request has begun twice");
    assert!(once.len() >= REQUESTS - waiting.len());
}

fn read_answers(mut link: Link, at: usize, sender: &Sender<(usize, Option<u64>)>) {
    while let Some(frame) = link.frame() {
        link.text(frame.length as usize);
        let _ = sender.send((at, Some(frame.id)));
    }
    let _ = sender.send((at, None));
}

/// The wake of a message may die with its worker: a nudge wakes the next one.
fn a_worker_dies_that_was_woken(workers: &Workers<'_>) {
    let (_second, second_socket) = workers.start(3, PATIENT);
    let mut front = Front::new();
    let mut second = front.link(&second_socket, 2);
    for _ in 0..3 {
        let (mut first, first_socket) = workers.start(4, PATIENT);
        let mut link = front.link(&first_socket, 1);
        let id = front.get("/?woken");
        first.signal("KILL");
        let mut is_answered = !link.answered().is_empty();
        front.send(MessageKind::Nudge, "");
        let last = front.get("/?last");
        loop {
            let frame = second.frame().unwrap();
            second.text(frame.length as usize);
            if frame.id == last {
                break;
            }
            assert!(frame.id == id && !is_answered, "{frame:?}");
            is_answered = true;
        }
        assert_eq!(front.unread(), 0);
        front.page.finish(1);
    }
}
