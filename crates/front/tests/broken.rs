//! Broken answers of workers never reach another request: a clear 502 or a visible cut.

use std::io::{ErrorKind, Write};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Sender};

use mfserv_core::route::Slots;
use mfserv_core::wire::front::{FromFront, TroubleCause};

use crate::world::*;

/// An answer as a worker writes it, and the cause that the client is told.
const MALFORMED: &[(&str, &str)] = &[
    ("", "reset"),
    ("HTTP/1.1", "early_end"),
    ("HTTP/1.1 200 OK\r\nContent-Le", "early_end"),
    ("hello world\r\n\r\n", "malformed"),
    ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", "malformed"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc", "malformed"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab", "malformed"),
    ("HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nab", "malformed"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 2x\r\n\r\nab", "malformed"),
    ("HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nab", "malformed"),
    (
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "malformed",
    ),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab", "malformed"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\nab", "malformed"),
    ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "malformed"),
    ("HTTP/1.1 999 Odd\r\n\r\n", "malformed"),
    ("HTTP/1.1 000 Odd\r\n\r\n", "malformed"),
    ("HTTP/1.1 20 Odd\r\n\r\n", "malformed"),
    ("HTTP/1.1 xyz Odd\r\n\r\n", "malformed"),
    ("HTTP/3.0 200 OK\r\n\r\n", "malformed"),
    ("HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 0\r\n\r\n", "malformed"),
    ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n", "malformed"),
    ("HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 0\r\n\r\n", "malformed"),
    ("HTTP/1.1 200 OK\r\nX\r\nContent-Length: 0\r\n\r\n", "malformed"),
    ("HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", "malformed"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "malformed"),
    ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n", "malformed"),
];

/// Answers of which a part is right: the client must see that they are not whole.
const CUT: &[&str] = &[
    "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
];

#[test]
fn a_broken_answer_is_a_502_with_its_cause() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, received| {
        let number = received.target().strip_prefix("/a/").unwrap().parse::<usize>();
        let _ = match number {
            Ok(number) => stream.write_all(MALFORMED[number].0.as_bytes()),
            Err(_) => return say(stream, "fine"),
        };
        false
    });
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut client = Client::connect(front.address);
    for (number, (answer, cause)) in MALFORMED.iter().enumerate() {
        client.send(format!("POST /a/{number} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"));
        let got = client.receive().unwrap_or_else(|| panic!("nothing for {answer:?}"));
        assert_eq!(got.status, 502, "{answer:?}: {}", got.head);
        assert_eq!(got.field("x-mfserv-cause"), [*cause], "{answer:?}");
        assert_eq!(client.get("/a/fine").text(), "fine", "after {answer:?}");
    }
}

/// What a worker sends after a part of its answer is to come apart from that part: it waits at the
/// gate until the client has seen the part.
fn gate() -> (Sender<()>, impl Fn() + Send + Sync) {
    let (go_on, may_go_on) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    (go_on, move || may_go_on.lock().unwrap().recv_timeout(PATIENCE).expect("the client's word"))
}

/// Waits for the first byte of an answer, or for the end of the connection.
fn until_it_has_begun(client: &Client) {
    if let Err(why) = client.stream.peek(&mut [0]) {
        assert_eq!(why.kind(), ErrorKind::ConnectionReset, "no answer begins");
    }
}

#[test]
fn an_answer_that_breaks_off_is_never_taken_for_a_whole_one() {
    for slots in [ONE, Slots::Unlimited] {
        let Some(world) = World::where_holds("old_clients") else { return };
        let (go_on, may_go_on) = gate();
        let worker = Worker::start(&world, 1, move |stream, received| {
            let number = received.target().strip_prefix("/a/").unwrap().parse::<usize>();
            let _ = stream.write_all(CUT[number.unwrap()].as_bytes());
            may_go_on();
            false
        });
        let front = world.serving(table(slots, true), &[&worker]);
        for (number, answer) in CUT.iter().enumerate() {
            let mut new = Client::connect(front.address);
            new.send(format!("GET /a/{number} HTTP/1.1\r\nHost: h\r\n\r\n"));
            until_it_has_begun(&new);
            go_on.send(()).unwrap();
            let got = new.receive().expect("a part of an answer");
            assert!(got.status == 502 || !got.whole, "{answer:?}: {got:?}");
            let mut old = Client::connect(front.address);
            old.send(format!("GET /a/{number} HTTP/1.0\r\n\r\n"));
            until_it_has_begun(&old);
            go_on.send(()).unwrap();
            let mut bytes = Vec::new();
            let end = std::io::Read::read_to_end(&mut old.stream, &mut bytes);
            let text = String::from_utf8_lossy(&bytes);
            let short = text.contains("Content-Length: 10") && !text.contains("0123");
            assert!(end.is_err() || text.contains(" 502 ") || short, "{answer:?}: {text}");
        }
    }
}

#[test]
fn an_old_client_gets_a_whole_502_or_a_reset_and_never_a_502_that_is_reset() {
    let Some(world) = World::where_holds("old_clients") else { return };
    let (go_on, may_go_on) = gate();
    let worker = Worker::start(&world, 1, move |stream, received| {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        if received.target() == "/a/at-once" {
            let _ = stream.write_all(format!("{head}ZZ\r\n").as_bytes());
            return false;
        }
        let _ = stream.write_all(format!("{head}3\r\nabc\r\n").as_bytes());
        may_go_on();
        let _ = stream.write_all(b"ZZ\r\n");
        false
    });
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    for (path, whole) in [("/a/at-once", true), ("/a/later", false)] {
        for body in ["", "Content-Length: 3\r\n\r\nabc"] {
            let mut old = Client::connect(front.address);
            let end = if body.is_empty() { "\r\n" } else { body };
            old.send(format!("POST {path} HTTP/1.0\r\n{end}"));
            if !whole {
                until_it_has_begun(&old);
                go_on.send(()).unwrap();
            }
            let mut bytes = Vec::new();
            let end = std::io::Read::read_to_end(&mut old.stream, &mut bytes);
            let text = String::from_utf8_lossy(&bytes);
            assert_eq!((end.is_ok(), text.contains(" 502 ")), (whole, whole), "{path}: {text}");
        }
    }
}

#[test]
fn junk_after_an_answer_ends_its_connection_and_reaches_nobody() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, _| {
        let junk = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
        stream.write_all(junk.as_bytes()).is_ok()
    });
    let front = world.serving(table(ONE, true), &[&worker]);
    let mut client = Client::connect(front.address);
    for _ in 0..20 {
        assert_eq!(client.get("/a").text(), "ok");
    }
    assert_eq!(worker.raw.lock().unwrap().len(), 20);
}

#[test]
fn a_worker_that_speaks_on_an_idle_connection_is_told_of_and_keeps_none_any_more() {
    for slots in [ONE, Slots::Unlimited] {
        let world = World::new();
        let late = std::time::Duration::from_millis(50);
        let worker = Worker::start(&world, 1, move |stream, received| {
            if !received.target().ends_with("first") {
                return say(stream, "right");
            }
            assert!(say(stream, "first"));
            // By then the connection is idle in the front, which cannot be seen.
            std::thread::sleep(late);
            say(stream, "for nobody")
        });
        let mut front = world.serving(table(slots, true), &[&worker]);
        let mut client = Client::connect(front.address);
        assert_eq!(client.get("/a/first").text(), "first");
        assert_eq!(worker.last().field("connection"), [""; 0]);
        front.daemon.wait_for(
            |m| matches!(m, FromFront::Trouble { cause, .. } if *cause == TroubleCause::Malformed),
        );
        until("its connection is closed", || worker.open.load(Ordering::SeqCst) == 0);
        for count in 2..5 {
            assert_eq!(client.get("/a").text(), "right");
            assert_eq!(worker.last().field("connection"), ["close"]);
            assert_eq!(worker.raw.lock().unwrap().len(), count);
        }
        // The next incarnation is trusted again.
        front.daemon.forget(&worker);
        let next = Worker::saying(&world, 2, "next");
        front.daemon.admit(&next);
        (0..3).for_each(|_| assert_eq!(client.get("/a").text(), "next"));
        assert_eq!(next.raw.lock().unwrap().len(), 1);
    }
}

#[test]
fn a_connection_that_a_worker_closes_while_it_is_idle_is_closed_here_too() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, _| {
        assert!(say(stream, "ok"));
        // By then the connection is idle in the front, which cannot be seen.
        std::thread::sleep(std::time::Duration::from_millis(20));
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        // Until the front has closed it as well.
        let began = std::time::Instant::now();
        let _ = std::io::Read::read(stream, &mut [0]);
        assert!(began.elapsed() < std::time::Duration::from_secs(3), "{:?}", began.elapsed());
        false
    });
    let front = world.serving(table(ONE, true), &[&worker]);
    assert_eq!(front.get("/a").text(), "ok");
    until("it is closed", || worker.open.load(Ordering::SeqCst) == 0);
    assert_eq!(front.get("/a").text(), "ok");
}

#[test]
fn interim_answers_are_passed_on_and_the_unasked_100_is_not() {
    let Some(world) = World::where_holds("interim_answers") else { return };
    let worker = Worker::start(&world, 1, |stream, _| {
        let all = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n\
                   HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(all.as_bytes()).is_ok()
    });
    let front = world.serving(table(ONE, true), &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    let hints = client.read_until(b"\r\n\r\n");
    assert!(hints.starts_with(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n"));
    assert_eq!(client.receive().unwrap().text(), "ok");
}

#[test]
fn a_head_without_end_is_bounded() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, _| {
        let _ =
            stream.write_all(format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(100_000)).as_bytes());
        false
    });
    let front = world.serving(table(ONE, true), &[&worker]);
    assert_eq!(front.get("/a").status, 502);
}
