//! How long a worker is waited for: its app's timeout between two things that it does.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mfserv_core::route::{RouteTable, Slots};

use crate::world::*;

const TIMEOUT: Duration = Duration::from_millis(800);

/// Asks once more after a timeout: the machine may have been slower than the limit of the app.
pub fn in_time(mut ask: impl FnMut() -> Option<Answer>) -> Option<Answer> {
    (0..10).find_map(|_| ask().filter(|answer| answer.status != 504)).or_else(ask)
}

fn impatient(slots: Slots) -> RouteTable {
    let mut table = table(slots, true);
    table.upstreams.get_mut("p/a").unwrap().timeout_ms = TIMEOUT.as_millis() as u64;
    table
}

fn read_head(stream: &mut UnixStream) -> bool {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return false,
        }
    }
    true
}

/// Waits until the front has closed the connection, reading nothing of it.
fn wait_for_the_end(stream: &UnixStream) {
    use rustix::event::{PollFd, PollFlags, poll};
    let _ = poll(&mut [PollFd::new(stream, PollFlags::RDHUP)], None);
}

fn post(framing: &str, body: &[u8]) -> Vec<u8> {
    let (field, body) = match framing {
        "length" => (format!("Content-Length: {}", body.len()), body.to_vec()),
        _ => {
            let size = format!("{:x}\r\n", body.len());
            let chunks = [size.as_bytes(), body, b"\r\n0\r\n\r\n"].concat();
            ("Transfer-Encoding: chunked".into(), chunks)
        }
    };
    let head = format!("POST /a HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n");
    [head.as_bytes(), &body].concat()
}

#[test]
fn a_worker_that_stops_reading_the_body_is_a_timeout_and_gives_its_slot_back() {
    for slots in [ONE, Slots::Unlimited] {
        for framing in ["length", "chunked"] {
            let world = World::new();
            let worker = Worker::unread(&world, 1, |stream| {
                read_head(stream);
                wait_for_the_end(stream);
            });
            let front = world.serving(impatient(slots), &[&worker]);
            let mut client = Client::connect(front.address);
            // An unlimited app streams it: the front takes no more than the worker.
            let mut sending = client.stream.try_clone().unwrap();
            let request = post(framing, &vec![b'z'; 3_000_000]);
            let began = Instant::now();
            let sender = std::thread::spawn(move || drop(sending.write_all(&request)));
            let answer = client.receive().expect("no answer");
            let cause = answer.field("x-mfserv-cause");
            assert_eq!((answer.status, cause), (504, vec!["timeout".into()]), "{slots:?}");
            assert!(began.elapsed() >= TIMEOUT, "{:?}", began.elapsed());
            until("the slot is free", || worker.open.load(Ordering::SeqCst) == 0);
            drop(client);
            sender.join().unwrap();
        }
    }
}

#[test]
fn requests_that_go_on_without_their_clients_do_not_hold_a_worker_that_stops_reading() {
    let world = World::new();
    let worker = Worker::unread(&world, 1, |stream| {
        read_head(stream);
        wait_for_the_end(stream);
    });
    let mut table = impatient(ONE);
    table.server.ignore_client_abort = true;
    let front = world.serving(table, &[&worker]);
    let mut client = Client::connect(front.address);
    client.send(post("length", &vec![b'z'; 3_000_000]));
    until("the worker has it", || worker.open.load(Ordering::SeqCst) == 1);
    drop(client);
    until("the slot is free", || worker.open.load(Ordering::SeqCst) == 0);
    assert_eq!(world.access_log(1)[0]["status"], 504);
}

#[test]
fn a_body_may_take_longer_than_the_timeout_as_long_as_it_moves() {
    for slots in [ONE, Slots::Unlimited] {
        let world = World::new();
        // It takes a part now and then: slower than the front expects, and each time in time.
        let worker = Worker::unread(&world, 1, |stream| {
            read_head(stream);
            let mut left = 1_600_000;
            while left > 0 {
                // The slowness of the worker is the subject.
                std::thread::sleep(TIMEOUT / 4);
                let mut part = vec![0; 200_000.min(left)];
                if stream.read_exact(&mut part).is_err() {
                    return;
                }
                left -= part.len();
            }
            // It ends the connection, and says so: nobody is to send into that.
            let head = "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n";
            let _ = stream.write_all(format!("{head}all").as_bytes());
        });
        let front = world.serving(impatient(slots), &[&worker]);
        let request = post("length", &vec![b'z'; 1_600_000]);
        let at_once = || {
            let mut client = Client::connect(front.address);
            let _ = client.stream.write_all(&request);
            client.receive()
        };
        assert_eq!(in_time(at_once).unwrap().text(), "all");
        // And so may the client, with the same pauses.
        let in_parts = || {
            let mut client = Client::connect(front.address);
            for part in request.chunks(160_000) {
                // A front that was late has given its answer already.
                let _ = client.stream.write_all(part);
                // The slowness of the client is the subject.
                std::thread::sleep(TIMEOUT / 6);
            }
            client.receive()
        };
        assert_eq!(in_time(in_parts).unwrap().text(), "all");
    }
}

#[test]
fn a_worker_that_says_that_it_is_still_at_work_is_waited_for() {
    let world = World::new();
    let worker = Worker::start(&world, 1, |stream, _| {
        for _ in 0..8 {
            // Longer than the timeout in all, and each time in time.
            std::thread::sleep(TIMEOUT / 4);
            if stream.write_all(b"HTTP/1.1 102 Processing\r\n\r\n").is_err() {
                return false;
            }
        }
        say(stream, "done")
    });
    let front = world.serving(impatient(ONE), &[&worker]);
    assert_eq!(in_time(|| Some(front.get("/a"))).unwrap().text(), "done");
}
