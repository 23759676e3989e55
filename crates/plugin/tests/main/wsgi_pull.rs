//! The server of mfserv for Python workers where a front offers requests, and the worker takes
//! them by itself.

use std::collections::VecDeque;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mfserv_plugin::base::BaseEnvironment;
use mfserv_pull::{FrameKind, LINES, MessageKind, Offer, Page, now_ns, queue};

use crate::templates::with_base;
use crate::wsgi::{End, HASTY, PATIENT};
use crate::wsgi_client::{answer, connect, get};
use crate::wsgi_pull_ends::{
    a_worker_that_dies_takes_no_other_request_with_it, what_a_worker_leaves_others_receive,
};
use crate::wsgi_pull_front::{Front, Link, Workers, cpu_ns, log_of};
use crate::{Node, until};

/// One test, as the base environment takes a while to make.
#[test]
fn a_worker_takes_requests_from_the_queues_that_fronts_offer() {
    let node = Node::new();
    let shared = with_base(&node);
    let (node, base) = (&node, &shared.environment);
    std::thread::scope(|scope| {
        scope.spawn(|| requests_are_answered_by_frames(node, base));
        scope.spawn(|| a_worker_serves_all_who_ask(node, base));
        scope.spawn(|| the_app_may_be_late_or_fork(node, base));
        scope.spawn(|| what_a_worker_leaves_others_receive(node, base));
        scope.spawn(|| a_worker_that_dies_takes_no_other_request_with_it(node, base));
    });
}

fn requests_are_answered_by_frames(node: &Node, base: &BaseEnvironment) {
    let workers = Workers::new(node, base, "pa");
    let (mut worker, socket) = workers.start(1, PATIENT);
    let mut front = Front::new();
    let mut link = front.link(&socket, 7);
    a_whole_answer_is_one_frame(&mut front, &mut link);
    other_answers_end_as_http_says(&mut front, &mut link);
    a_long_request_has_its_turn(&mut front, &mut link);
    what_was_given_up_does_not_begin(&workers, &mut front, &mut link);
    a_cut_answer_ends_the_link(&mut front, link, &socket);
    what_is_no_request_is_refused(&mut front, &socket);
    a_turn_that_is_not_used_ends_the_link(&workers, &mut front, &socket);
    a_wrong_offer_is_refused_and_logged(&socket);
    worker.signal("TERM");
    assert_eq!(worker.ended().code(), Some(0));
}

fn a_whole_answer_is_one_frame(front: &mut Front, link: &mut Link) {
    let id = front.get("/?first");
    let answer = link.answer(id);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"), "{answer}");
    assert!(answer.ends_with("Content-Length: 5\r\n\r\nfirst"), "{answer}");
    front.until_free(7);
    let id = front.get("/brief");
    let (sent, frame) = (Instant::now(), link.expect(FrameKind::Answer, id));
    let took = Duration::from_micros(frame.took_us.into());
    assert!(took >= Duration::from_millis(1), "it has slept so long: {took:?}");
    assert!(took < sent.elapsed() + Duration::from_secs(1), "{took:?}");
    link.text(frame.length as usize);
    let post = "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc";
    let id = front.send(MessageKind::Request, post);
    assert!(link.answer(id).ends_with("\r\n\r\nabc"));
    let chunked = "HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    let id = front.send(MessageKind::Request, &format!("POST / {chunked}"));
    assert!(link.answer(id).ends_with("\r\n\r\nabc"));
    let waits = chunked.replacen("Host: h", "Host: h\r\nExpect: 100-continue", 1);
    for chunked in [chunked, &waits] {
        let id = front.send(MessageKind::Request, &format!("POST /unread {chunked}"));
        assert!(link.answer(id).ends_with("\r\n\r\nnot read"));
    }
    let id = front.send(MessageKind::Request, "HEAD /two HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(link.answer(id).ends_with("Content-Length: 40000\r\n\r\n"));
    let ids = ["/none", "/two", "/boom"].map(|path| front.get(path));
    assert!(link.answer(ids[0]).starts_with("HTTP/1.1 204 "));
    assert!(link.answer(ids[1]).ends_with(&"y".repeat(20_000)));
    assert!(link.answer(ids[2]).starts_with("HTTP/1.1 500 "));
}

fn other_answers_end_as_http_says(front: &mut Front, link: &mut Link) {
    let paths = ["/large", "/?1", "/pieces", "/file", "/write", "/?2"];
    let ids = paths.map(|path| front.get(path));
    let (head, body) = link.stream(ids[0]);
    assert!(head.contains("Content-Length: 3000000\r\n") && body.ends_with('m'), "{head}");
    assert!(link.answer(ids[1]).ends_with("\r\n\r\n1"));
    assert_eq!(link.stream(ids[2]).1, format!("{}{}", "a".repeat(100), "b".repeat(100)));
    assert_eq!(link.stream(ids[3]).1, "f".repeat(300_000));
    assert_eq!(link.stream(ids[4]).1, "written");
    assert!(link.answer(ids[5]).ends_with("\r\n\r\n2"));
    front.until_free(7);
    // Nothing else is taken before it is said that the answer has come.
    let ids = ["/large", "/closing"].map(|path| front.get(path));
    link.expect(FrameKind::Stream, ids[0]);
    link.untaken();
    assert_eq!(front.page.running(7).map(|(id, _)| id), Some(ids[0]));
    assert!(front.unread() > 0);
    link.say_taken();
    assert!(link.answer(ids[1]).ends_with("\r\n\r\nwhole!"), "a piece that is all of it");
}

fn a_long_request_has_its_turn(front: &mut Front, link: &mut Link) {
    let body = vec![b'x'; 1_000_000];
    let id = front.turn();
    let next = front.get("/?next");
    assert_eq!(link.expect(FrameKind::Turn, id).length, 0);
    assert_eq!(front.page.running(7).map(|(id, _)| id), Some(id));
    link.put(b"POST /size HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
    link.put(&body);
    assert_eq!(link.http().1, "1000000 Input");
    assert!(link.answer(next).ends_with("next"), "it goes on");

    let id = front.turn();
    link.expect(FrameKind::Turn, id);
    link.put(b"POST /size HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in body.chunks(30_000) {
        link.put(format!("{:x}\r\n", piece.len()).as_bytes());
        link.put(&[piece, b"\r\n"].concat());
    }
    link.put(b"0\r\n\r\n");
    assert_eq!(link.http().1, "1000000 Input");

    let id = front.turn();
    link.expect(FrameKind::Turn, id);
    link.put(b"POST /size HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n");
    link.put(b"Content-Length: 100000\r\n\r\n");
    assert_eq!(link.text(25), "HTTP/1.1 100 Continue\r\n\r\n");
    link.put(&body[..100_000]);
    assert_eq!(link.http().1, "100000 Input");

    // A body of the size that is there before the app is called comes late.
    let id = front.turn();
    link.expect(FrameKind::Turn, id);
    link.put(b"POST /size HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1234");
    link.put(b"56789");
    assert_eq!(link.http().1, "9 BytesIO");
    // What the app does not read is dropped, if it is there.
    let id = front.turn();
    link.expect(FrameKind::Turn, id);
    let head = "POST /unread HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    link.put(format!("{head}3\r\nabc\r\n0\r\n\r\n").as_bytes());
    assert_eq!(link.http().1, "not read");
    let id = front.get("/?after");
    assert!(link.answer(id).ends_with("after"));
}

fn what_was_given_up_does_not_begin(workers: &Workers<'_>, front: &mut Front, link: &mut Link) {
    let running = front.get("/nap?busy");
    workers.naps("busy");
    assert_eq!(front.page.running(7).map(|(id, _)| id), Some(running));
    let (given_up, turn) = (front.get("/?given-up"), front.turn());
    let last = front.get("/?last");
    front.page.give_up(given_up);
    front.page.give_up(turn);
    workers.wake("busy");
    link.answer(running);
    assert_eq!(link.expect(FrameKind::Dropped, given_up).length, 0);
    link.expect(FrameKind::Dropped, turn);
    assert!(link.answer(last).ends_with("last"));
    let called = workers.called();
    assert!(called.contains(&"last".into()) && !called.contains(&"given-up".into()), "{called:?}");
}

fn a_cut_answer_ends_the_link(front: &mut Front, mut link: Link, socket: &Path) {
    let id = front.get("/short");
    let answer = link.answer(id);
    assert!(answer.contains("Content-Length: 10\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nshort"), "{answer}");
    link.ends();
    front.until_free(7);
    let next = front.get("/?offered-again");
    assert!(front.link(socket, 7).answer(next).ends_with("offered-again"));
}

fn what_is_no_request_is_refused(front: &mut Front, socket: &Path) {
    for request in [
        "nonsense\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabc",
        "GET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n",
    ] {
        let mut link = front.link(socket, 8);
        let id = front.send(MessageKind::Request, request);
        let answer = link.answer(id);
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{request}: {answer}");
        link.ends();
        front.until_free(8);
    }
    // The app gets no more of it than there is.
    let mut link = front.link(socket, 8);
    let cut = "POST /size HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab";
    front.send(MessageKind::Request, cut);
    link.ends();
    front.until_free(8);
}

fn a_turn_that_is_not_used_ends_the_link(workers: &Workers<'_>, front: &mut Front, socket: &Path) {
    let mut late = front.link(socket, 9);
    let id = front.turn();
    late.expect(FrameKind::Turn, id);
    late.put(b"GET /?late HTTP/1.1\r\n");
    late.ends();
    front.until_free(9);
    let mut large = front.link(socket, 9);
    let id = front.turn();
    large.expect(FrameKind::Turn, id);
    large.put(b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\nabc");
    let (head, body) = large.http();
    assert!(head.contains("Connection: close\r\n") && body == "not read", "{head}");
    large.ends();
    assert!(log_of(socket).contains("a front has not sent a request whose turn it is"));

    let mut gone = front.link(socket, 9);
    let id = front.turn();
    gone.expect(FrameKind::Turn, id);
    drop(gone);
    front.until_free(9);

    let mut hasty = front.link(socket, 9);
    hasty.put(b"GET /?unasked HTTP/1.1\r\nHost: h\r\n\r\n");
    hasty.ends();
    let called = workers.called();
    assert!(!called.contains(&"late".into()) && !called.contains(&"unasked".into()), "{called:?}");
}

fn a_wrong_offer_is_refused_and_logged(socket: &Path) {
    let lines = || log_of(socket).matches("an offer of requests is refused").count();
    let (_sender, receiver) = queue().unwrap();
    let (_page, memory) = Page::create().unwrap();
    let null = fs::File::open("/dev/null").unwrap();
    let ends = [
        (receiver.as_fd(), memory.as_fd(), LINES),
        (receiver.as_fd(), null.as_fd(), 0),
        (null.as_fd(), memory.as_fd(), 0),
    ];
    for (at, (queue, page, line)) in ends.into_iter().enumerate() {
        let stream = connect(socket);
        Offer::send(&stream, (queue, page), line).unwrap();
        Link(stream).ends();
        until("it is logged", || lines() == at + 1);
    }
    let mut stream = connect(socket);
    stream.write_all(b"MFSERV-PULL 2 something new\r\n\r\n").unwrap();
    Link(stream).ends();
    until("it is logged", || lines() == 4);
    assert!(get(socket, "/?well", "").1.ends_with("well"));
}

fn a_worker_serves_all_who_ask(node: &Node, base: &BaseEnvironment) {
    let workers = Workers::new(node, base, "pb");
    let (mut worker, socket) = workers.start(1, PATIENT);
    http_is_served_while_the_queue_is_never_empty(&socket);
    http_does_not_wait_for_many_requests_that_take_long(&workers, &socket);
    each_queue_has_its_turn(&workers, &socket);
    a_front_that_does_not_read_gets_nothing_else(&mut worker, &socket);
    worker.signal("TERM");
    assert_eq!(worker.ended().code(), Some(0));
}

fn http_is_served_while_the_queue_is_never_empty(socket: &Path) {
    let mut front = Front::new();
    let mut link = front.link(socket, 0);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut waiting: VecDeque<u64> = (0..100).map(|_| front.get("/brief")).collect();
            while let Some(id) = waiting.pop_front() {
                link.answer(id);
                if !is_over.load(SeqCst) {
                    waiting.push_back(front.get("/brief"));
                }
            }
        });
        let mut kept = connect(socket);
        for _ in 0..20 {
            kept.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            assert!(answer(&mut kept).starts_with("HTTP/1.1 200"));
            assert!(get(socket, "/", "").0.starts_with("HTTP/1.1 200"));
        }
        let mut second = Front::new();
        let mut second_link = second.link(socket, 0);
        let id = second.get("/?second");
        assert!(second_link.answer(id).ends_with("second"));
        assert!(!busy.is_finished());
        is_over.store(true, SeqCst);
    });
}

fn http_does_not_wait_for_many_requests_that_take_long(workers: &Workers<'_>, socket: &Path) {
    let mut front = Front::new();
    let mut link = front.link(socket, 0);
    let long = front.get("/nap?long");
    workers.naps("long");
    let others: Vec<u64> = (0..12).map(|_| front.get("/?queued")).collect();
    let (_, since) = front.page.running(0).unwrap();
    until("it takes long", || now_ns() - since > 10_000_000);
    let mut client = connect(socket);
    client.write_all(b"GET /?http HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    workers.wake("long");
    answer(&mut client);
    link.answer(long);
    others.iter().for_each(|&id| drop(link.answer(id)));
    let called = workers.called();
    let at = called.iter().position(|query| query == "http").unwrap();
    let before = called[..at].iter().filter(|query| *query == "queued").count();
    assert!(before <= 1, "{before} requests of the queue came first");
}

fn each_queue_has_its_turn(workers: &Workers<'_>, socket: &Path) {
    let mut fronts: Vec<Front> = (0..8).map(|_| Front::new()).collect();
    let mut links: Vec<Link> =
        fronts.iter().map(|front| front.link_after_others(socket, 1)).collect();
    fronts[0].offer(socket, 2).ends();
    until("it is logged", || log_of(socket).contains("this worker has 8 queues"));
    // The first ones have many requests, the last one has one.
    let first = fronts[0].get("/nap?turns");
    workers.naps("turns");
    let mut ids: Vec<Vec<u64>> = fronts.iter_mut().map(|_| Vec::new()).collect();
    for (at, front) in fronts.iter_mut().enumerate() {
        let count = if at == 7 { 1 } else { 20 };
        ids[at] = (0..count).map(|number| front.get(&format!("/?{at}.{number}"))).collect();
    }
    workers.wake("turns");
    links[0].answer(first);
    for (link, ids) in links.iter_mut().zip(&ids) {
        ids.iter().for_each(|&id| drop(link.answer(id)));
    }
    let called = workers.called();
    let at = called.iter().position(|query| query == "7.0").unwrap();
    let before = called[..at].iter().filter(|query| query.contains('.')).count();
    assert!(before < 8, "{before} others came first: {called:?}");
}

fn a_front_that_does_not_read_gets_nothing_else(worker: &mut End, socket: &Path) {
    let (mut front, mut other) = (Front::new(), Front::new());
    let (mut link, mut other_link) = (front.link(socket, 4), other.link(socket, 4));
    let large = front.get("/large");
    until("the answer begins", || front.page.running(4).is_some());
    // An HTTP client is served once the answer waits for its socket.
    let mut kept = connect(socket);
    let mut ask = || {
        kept.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert!(answer(&mut kept).starts_with("HTTP/1.1 200"));
    };
    ask();
    let (next, of_other) = (front.get("/?next"), other.get("/?other"));
    ask();
    let before = cpu_ns(worker);
    kept_is_silent(socket);
    let spent = cpu_ns(worker) - before;
    assert!(spent < 100_000_000, "it does not turn in a circle: {spent} ns");
    assert!(other_link.answer(of_other).ends_with("other"), "another front is served");
    assert!(front.unread() > 0, "it stays for other workers");
    assert_eq!(front.page.running(4).map(|(id, _)| id), Some(large));
    assert_eq!(link.stream(large).1.len(), 3_000_000);
    assert!(link.answer(next).ends_with("next"));
    front.until_free(4);
}

/// Nothing comes on an idle connection for a while.
fn kept_is_silent(socket: &Path) {
    let mut idle = connect(socket);
    idle.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    assert_eq!(idle.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
}

fn the_app_may_be_late_or_fork(node: &Node, base: &BaseEnvironment) {
    let workers = Workers::new(node, base, "pc");
    let (mut worker, socket) = workers.start(1, HASTY);
    let mut front = Front::new();
    let mut link = front.link(&socket, 0);
    let (slow, next) = (front.get("/slow"), front.get("/?next"));
    assert!(link.answer(slow).starts_with("HTTP/1.1 504 Gateway Time-out\r\n"));
    assert!(link.answer(next).ends_with("next"));

    let fork = |lasts: &str| format!("GET /fork HTTP/1.1\r\nHost: h\r\nLasts: {lasts}\r\n\r\n");
    let returns = front.send(MessageKind::Request, &fork(""));
    let next = front.get("/?after-fork");
    assert!(link.answer(returns).contains("\r\n\r\nparent "), "the child does not answer");
    assert!(link.answer(next).ends_with("after-fork"));
    let lasts = front.send(MessageKind::Request, &fork("1"));
    let answer = link.answer(lasts);
    let child = answer.rsplit_once("parent ").unwrap().1;
    worker.signal("TERM");
    link.ends();
    assert_eq!(worker.ended().code(), Some(0));
    assert!(Path::new("/proc").join(child).exists(), "it has the descriptors, and lives");
    let id = front.get("/?nobody");
    assert!(front.unread() > 0 && front.page.running(0).is_none(), "{id} is not received");
    assert!(Command::new("kill").arg(child).status().unwrap().success());
}
