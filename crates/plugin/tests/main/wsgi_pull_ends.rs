//! The ends of workers and fronts, where workers take requests by themselves: each request is
//! answered once, or it is known who had it.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::Shutdown;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use mfserv_plugin::base::BaseEnvironment;
use mfserv_pull::{FrameKind, MessageKind, now_ns};
use rustix::process::{Pid, Signal, kill_process};

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
    // Also with the end of a request that was sent on the link.
    let id = front.turn();
    link.expect(FrameKind::Turn, id);
    link.put(b"POST /size HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    link.put(&[b'x'; 100_000]);
    link.drain();
    assert_eq!(link.http().1, "100000 Input");
    link.ends();
}

fn a_worker_is_told_to_stop(workers: &Workers<'_>) {
    let (mut first, first_socket) = workers.start(3, PATIENT);
    let (_second, second_socket) = workers.start(4, PATIENT);
    let mut front = Front::new();
    let mut link = front.link(&first_socket, 1);
    let mut idle = Front::new();
    let mut idle_link = idle.link(&first_socket, 1);
    let running = front.get("/nap?stop");
    workers.naps("stop");
    let others: Vec<u64> = (0..20).map(|_| front.get("/")).collect();
    idle.get("/?of-an-idle-queue");
    let mut client = connect(&first_socket);
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    first.signal("TERM");
    workers.wake("stop");
    assert_eq!(link.answered(), BTreeSet::from([running]), "no message is received any more");
    idle_link.ends();
    assert!(idle.unread() > 0, "nor of another queue");
    // The links have ended at once: who has connected is still served.
    client.write_all(b"Host: h\r\n\r\n").unwrap();
    assert!(answer(&mut client).starts_with("HTTP/1.1 200"));
    assert_eq!(first.ended().code(), Some(0));
    assert_eq!(front.page.running(1), None);
    let mut link = front.link(&second_socket, 2);
    others.iter().for_each(|&id| drop(link.answer(id)));

    a_stop_loses_no_wake(workers);

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

/// The message for which a worker was woken is answered, by itself or by the one that sleeps.
fn a_stop_loses_no_wake(workers: &Workers<'_>) {
    let (_second, second_socket) = workers.start(7, PATIENT);
    for _ in 0..4 {
        let (mut first, first_socket) = workers.start(8, PATIENT);
        let mut front = Front::new();
        let mut link = front.link(&first_socket, 1);
        let mut second = front.link(&second_socket, 2);
        let process = Pid::from_child(&first.0);
        let id = front.get("/");
        // Before it runs, if this is quick.
        kill_process(process, Signal::TERM).unwrap();
        second.drain_when(|| front.unread() == 0);
        let answered: Vec<u64> = link.answered().into_iter().chain(second.answered()).collect();
        assert_eq!(answered, [id]);
        assert_eq!(first.ended().code(), Some(0));
    }
}

/// A message that has waited behind a request over HTTP. The connection of the next front, which
/// waits for the same worker, gets the place of the one that has gone.
fn the_front_has_gone(workers: &Workers<'_>) {
    let (_worker, socket) = workers.start(6, PATIENT);
    let mut front = Front::new();
    let link = front.link(&socket, 1);
    let mut client = connect(&socket);
    let mut asks = client.try_clone().unwrap();
    let mut ask = |path: &str| write!(asks, "GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    // It is accepted before: the worker accepts nobody else while this request runs.
    ask("/");
    answer(&mut client);
    ask("/nap?gone");
    workers.naps("gone");
    let sent = now_ns();
    front.get("/?of-a-front-that-has-gone");
    let mut next = Front::new();
    let mut next_link = next.offer(&socket, 1);
    drop((front, link));
    until("the message is old", || now_ns() - sent > 2_000_000);
    workers.wake("gone");
    answer(&mut client);
    next_link.expect(FrameKind::Ready, 0);
    for _ in 0..2 {
        let id = next.get("/?of-the-next-front");
        next_link.answer(id);
    }
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
    for query in ["woken1", "woken2", "woken3"] {
        let (mut first, first_socket) = workers.start(4, PATIENT);
        let mut front = Front::new();
        // The kernel wakes the one that has waited first.
        let mut link = front.link(&first_socket, 1);
        let mut second = front.link(&second_socket, 2);
        let id = front.get(&format!("/?{query}"));
        first.signal("KILL");
        let mut answered = link.answered();
        front.send(MessageKind::Nudge, "");
        second.drain_when(|| front.unread() == 0);
        for id in second.answered() {
            assert!(answered.insert(id), "{id} is answered once");
        }
        let had = front.page.running(1).map(|(id, _)| id);
        let has_begun = workers.called().iter().any(|called| called == query);
        assert!(answered.contains(&id) || had == Some(id) || !has_begun, "{answered:?} {had:?}");
    }
}
