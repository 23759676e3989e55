//! FastCGI workers that misbehave: a clear 502 or a visible cut, and the next request is served.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use mfserv_core::route::RouteTable;
use mfserv_core::wire::front::{FromFront, Peer, ToFront};

use crate::world::*;

pub const STDOUT: u8 = 6;
const STDERR: u8 = 7;
const END: u8 = 3;

/// A record of a responder.
pub fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[1, kind, 0, 1, length[0], length[1], 0, 0][..], content].concat()
}

pub fn ended() -> Vec<u8> {
    record(END, &[0; 8])
}

/// Reads a request to its end: the empty record of its content.
fn read_request(stream: &mut UnixStream) -> Option<String> {
    let mut text = Vec::new();
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head).ok()?;
        let length = usize::from(u16::from_be_bytes([head[4], head[5]]));
        let mut content = vec![0; length + usize::from(head[6])];
        stream.read_exact(&mut content).ok()?;
        text.extend_from_slice(&content[..length]);
        if head[1] == 5 && length == 0 {
            return Some(String::from_utf8_lossy(&text).into_owned());
        }
    }
}

/// A responder that answers `fine` in its paths well, and everything else by `talk`.
pub fn responder(
    world: &World,
    talk: impl Fn(&mut UnixStream, &str) + Send + Sync + 'static,
) -> Worker {
    Worker::unread(world, 1, move |stream| {
        let Some(request) = read_request(stream) else { return };
        if request.contains("/a/fine") {
            let all = [record(STDOUT, b"A: b\r\n\r\nfine"), ended()].concat();
            let _ = stream.write_all(&all);
            return;
        }
        talk(stream, &request);
    })
}

pub fn fastcgi() -> RouteTable {
    let mut routes = table(ONE, false);
    routes.upstreams.get_mut("p/a").unwrap().fastcgi = Some(PathBuf::from("/scripts"));
    routes
}

/// What a responder sends, and the cause that the client of it is told.
fn malformed() -> Vec<(Vec<u8>, &'static str)> {
    let of = |document: &str| [record(STDOUT, document.as_bytes()), ended()].concat();
    vec![
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(), "malformed"),
        (vec![0; 100], "malformed"),
        (vec![0xff; 100_000], "malformed"),
        // Of another request, an end of the wrong length, an end before the head.
        (vec![1, STDOUT, 0, 2, 0, 0, 0, 0], "malformed"),
        (record(END, &[0; 3]), "malformed"),
        (ended(), "malformed"),
        // No responder.
        (record(END, &[0, 0, 0, 0, 3, 0, 0, 0]), "malformed"),
        (of("Status: 101 Switching\r\n\r\n"), "malformed"),
        (of("Status: no\r\n\r\n"), "malformed"),
        (of("X : a\r\n\r\n"), "malformed"),
        (of("X: a\0b\r\n\r\n"), "malformed"),
        (of("no field\r\n\r\n"), "malformed"),
        (of("Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"), "malformed"),
        (of("Content-Length: -1\r\n\r\n"), "malformed"),
        // A head that has no end.
        ([b'x'; 20].map(|byte| record(STDOUT, &[byte; 65_000])).concat(), "malformed"),
        // Cut before any of the answer could be understood.
        (Vec::new(), "reset"),
        (vec![1, STDOUT, 0], "reset"),
        (record(STDOUT, b"Content-Type: text/ht"), "reset"),
        (record(STDERR, b"PHP Fatal error: gone"), "reset"),
    ]
}

#[test]
fn a_broken_answer_of_a_fastcgi_worker_is_a_502_with_its_cause_and_the_next_request_is_served() {
    let world = World::new();
    let worker = responder(&world, |stream, request| {
        let at = request.find("/a/case-").unwrap() + "/a/case-".len();
        let number: String = request[at..].chars().take_while(char::is_ascii_digit).collect();
        let _ = stream.write_all(&malformed()[number.parse::<usize>().unwrap()].0);
    });
    let front = world.serving(fastcgi(), &[&worker]);
    let mut client = Client::connect(front.address);
    let mut wrong = Vec::new();
    for (number, (bytes, cause)) in malformed().iter().enumerate() {
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let body = "Content-Length: 0\r\n\r\n";
        client.send(format!("POST /a/case-{number} HTTP/1.1\r\nHost: h\r\n{body}"));
        let got = client.receive().unwrap_or_else(|| panic!("nothing for {number} {start:?}"));
        if (got.status, got.field("x-mfserv-cause")) != (502, vec![(*cause).to_string()]) {
            wrong.push((number, start, got.head));
        }
        assert_eq!(client.get("/a/fine").text(), "fine", "after {number}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_answer_that_a_fastcgi_worker_cuts_is_never_taken_for_a_whole_one() {
    let world = World::new();
    let worker = responder(&world, |stream, request| {
        let head: &[u8] = match request.contains("length") {
            true => b"Content-Length: 100000\r\n\r\n",
            false => b"A: b\r\n\r\n",
        };
        let _ = stream.write_all(&record(STDOUT, head));
        let _ = stream.write_all(&record(STDOUT, &[b'x'; 50_000]));
        // Half a record, then nothing: or the end, before all has come that was announced.
        match request.contains("early") {
            true => stream.write_all(&ended()),
            false => stream.write_all(&record(STDOUT, &[b'y'; 50_000])[..30_000]),
        }
        .unwrap_or_default();
    });
    let front = world.serving(fastcgi(), &[&worker]);
    for path in ["/a/length", "/a/stream", "/a/length-early"] {
        let mut client = Client::connect(front.address);
        client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let got = client.receive().expect("a part of an answer, or a 502");
        assert!(got.status == 502 || !got.whole, "{path}: {} {}", got.head, got.body.len());
        assert_eq!(front.get("/a/fine").text(), "fine", "after {path}");
    }
}

#[test]
fn a_fastcgi_worker_that_only_says_errors_is_given_up_in_time_and_fills_no_memory() {
    let world = World::new();
    let worker = responder(&world, |stream, _| {
        let errors = record(STDERR, &[b'e'; 65_000]);
        while stream.write_all(&errors).is_ok() {}
    });
    let mut table = fastcgi();
    table.upstreams.get_mut("p/a").unwrap().timeout_ms = 2000;
    let front = world.serving(table, &[&worker]);
    assert_eq!(front.get("/a/fine").text(), "fine");
    let memory = || {
        let text = std::fs::read_to_string(format!("/proc/{}/status", front.child.id())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
    };
    let (before, began) = (memory(), Instant::now());
    let mut client = Client::connect(front.address);
    client.send("GET /a/errors HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut fine = Client::connect(front.address);
    assert_eq!(fine.get("/nothing").status, 404, "others are served meanwhile");
    let got = client.receive().unwrap();
    assert_eq!((got.status, got.field("x-mfserv-cause")), (504, vec!["timeout".into()]));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(memory() < before + 4096, "{before} KiB, then {} KiB", memory());
    assert_eq!(front.get("/a/fine").text(), "fine");
}

#[test]
fn an_overloaded_fastcgi_worker_is_a_503_with_its_cause_and_other_faults_keep_their_words() {
    let world = World::new();
    let tries = Arc::new(AtomicUsize::new(0));
    let counted = tries.clone();
    let worker = responder(&world, move |stream, request| {
        counted.fetch_add(1, Ordering::SeqCst);
        let status = if request.contains("/a/overloaded") { 2 } else { 3 };
        let _ = stream.write_all(&record(END, &[0, 0, 0, 0, status, 0, 0, 0]));
    });
    let mut front = world.serving(fastcgi(), &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("POST /a/overloaded HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    let got = client.receive().unwrap();
    assert_eq!((got.status, got.field("x-mfserv-cause")), (503, vec!["overloaded".to_string()]));
    assert_eq!(got.field("retry-after"), ["1"]);
    assert_eq!(tries.load(Ordering::SeqCst), 3, "nothing has begun with it: it is tried again");
    assert_eq!(client.get("/a/other").status, 502);
    let said = |words: &'static str| move |from: &FromFront| matches!(from, FromFront::Trouble { detail, .. } if detail.starts_with(words));
    front.daemon.wait_for(said("it refuses the request"));
    front.daemon.wait_for(said("it is no FastCGI responder"));
}

#[test]
fn a_fastcgi_worker_has_its_slot_until_it_ends_the_request() {
    let world = World::new();
    let (may_end, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (ends, counted) = (may_end.clone(), asked.clone());
    let worker = responder(&world, move |stream, _| {
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = stream.write_all(&record(STDOUT, b"Content-Length: 4\r\n\r\ndone"));
        // What is above the length is nobody's.
        let _ = stream.write_all(&record(STDOUT, b"more"));
        until("it may end", || ends.load(Ordering::SeqCst));
        let _ = stream.write_all(&[record(STDERR, b"said late"), ended()].concat());
    });
    let mut front = world.serving(fastcgi(), &[&worker]);
    let mut first = Client::connect(front.address);
    assert_eq!(first.get("/a/x").text(), "done", "the client does not wait for the end");
    let mut second = Client::connect(front.address);
    second.send("GET /a/x HTTP/1.1\r\nHost: h\r\n\r\n");
    until("it waits for a slot", || front.daemon.stats().upstreams["p/a"].waiting == 1);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    may_end.store(true, Ordering::SeqCst);
    assert_eq!(second.receive().unwrap().text(), "done");
    let stats = front.daemon.stats();
    let is_said = |(text, _): (&String, &_)| text.contains("longer than its Content-Length");
    assert!(stats.warnings.iter().any(is_said), "{:?}", stats.warnings);
    let log = || std::fs::read_to_string(world.path("log/nginx_error.log")).unwrap_or_default();
    until("what is said late is logged", || log().contains("said late"));
    assert!(!log().contains("nobody asked for"), "{}", log());
}

#[test]
fn a_fastcgi_worker_that_never_ends_a_request_is_given_up_after_the_timeout() {
    let world = World::new();
    let worker = responder(&world, |stream, _| {
        let _ = stream.write_all(&record(STDOUT, b"Content-Length: 4\r\n\r\ndone"));
        let _ = stream.read(&mut [0]);
    });
    let mut table = fastcgi();
    table.upstreams.get_mut("p/a").unwrap().timeout_ms = 300;
    let mut front = world.serving(table, &[&worker]);
    assert_eq!(front.get("/a/x").text(), "done");
    front.daemon.wait_for(|from| {
        matches!(from, FromFront::Trouble { detail, .. } if detail.contains("does not end the request"))
    });
    assert_eq!(front.get("/a/fine").text(), "fine");
}

#[test]
fn a_fastcgi_worker_runs_the_scripts_of_its_own_release_and_learns_where_the_client_connected() {
    let world = World::new();
    let worker = responder(&world, |stream, request| {
        let head = format!("Content-Length: {}\r\n\r\n{request}", request.len());
        let _ = stream.write_all(&[record(STDOUT, head.as_bytes()), ended()].concat());
    });
    let mut front = world.serving(fastcgi(), &[]);
    let peer = Peer { dir: Some("/releases/1".into()), ..worker.peer() };
    front.daemon.say(&ToFront::Admit { upstream: "p/a".into(), peer });
    front.daemon.wait_for(|from| matches!(from, FromFront::Admitted { .. }));
    let got = ask(front.address, "GET /a/x.php HTTP/1.0\r\n\r\n").text();
    let address = front.address.ip();
    let mut pairs = vec![
        "SCRIPT_FILENAME/releases/1/scripts/x.php".to_string(),
        "DOCUMENT_ROOT/releases/1/scripts".into(),
        format!("SERVER_ADDR{address}"),
    ];
    // nginx speaks HTTP/1.1 with the front behind it, and has a name for a server without one.
    if !crate::start::differs("old_clients") {
        pairs.extend(["SERVER_PROTOCOLHTTP/1.0".into(), format!("SERVER_NAME{address}")]);
    }
    for pair in pairs {
        assert!(got.contains(&pair), "{pair}: {got:?}");
    }
}

#[test]
fn a_field_that_has_no_room_in_a_record_of_fastcgi_is_refused_before_a_worker_is_asked() {
    let world = World::new();
    let worker = responder(&world, |_, _| ());
    let mut table = fastcgi();
    table.server.request_head.bytes = 200_000;
    let front = world.serving(table, &[&worker]);
    let long =
        |length| format!("GET /a/fine HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "x".repeat(length));
    let mut client = Client::connect(front.address);
    client.send(long(65_000));
    assert_eq!(client.receive().unwrap().status, 200);
    client.send(long(66_000));
    let got = client.receive().unwrap();
    assert_eq!((got.status, got.field("x-mfserv-cause")), (431, vec!["bad_request".to_string()]));
    assert_eq!(front.get("/a/fine").text(), "fine");
}

#[test]
fn a_safe_request_waits_for_the_end_of_a_worker_that_is_dying_before_it_is_tried_again() {
    let world = World::new();
    let died = Arc::new(std::sync::Mutex::new(None::<Instant>));
    let worker = responder(&world, move |stream, _| {
        // The last of its processes take connections for a while.
        let since = *died.lock().unwrap().get_or_insert_with(Instant::now);
        if since.elapsed() > Duration::from_millis(50) {
            let all = [record(STDOUT, b"A: b\r\n\r\nafterwards"), ended()].concat();
            let _ = stream.write_all(&all);
        }
    });
    let front = world.serving(fastcgi(), &[&worker]);
    assert_eq!(front.get("/a/x").text(), "afterwards");
}
