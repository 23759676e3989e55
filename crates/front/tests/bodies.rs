//! Bodies both ways: whole, in time, and bounded.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use mfserv_core::route::{Route, RouteTable, Slots, Target, UpstreamSpec};

use crate::world::*;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|n| (n * 7 + n / 251) as u8).collect()
}

fn echo(world: &World) -> Worker {
    Worker::start(world, 1, |stream, received| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", received.body.len());
        let whole = [head.as_bytes(), &received.body].concat();
        stream.write_all(&whole).is_ok()
    })
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in body.chunks(size) {
        out.extend_from_slice(format!("{:x};ext=1\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
    out
}

#[test]
fn bodies_of_all_sizes_and_framings_arrive_whole() {
    for slots in [ONE, Slots::Unlimited] {
        let world = World::new();
        let worker = echo(&world);
        let mut table = table(slots, true);
        table.server.body_temp_dir = world.path("spool");
        let front = world.serving(table, &[&worker]);
        let mut client = Client::connect(front.address);
        for size in [0, 1, 4095, 32 * 1024, 65_535, 65_536, 65_537, 1_000_000] {
            let body = pattern(size);
            let head = format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n");
            client.send([head.as_bytes(), &body].concat());
            assert_eq!(client.receive().unwrap().body, body, "{slots:?} {size}");
            client.send("PUT /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
            client.send(chunked(&body, 10_000));
            assert_eq!(client.receive().unwrap().body, body, "{slots:?} {size} in chunks");
        }
        if slots == ONE {
            assert_eq!(std::fs::read_dir(world.path("spool")).unwrap().count(), 0);
        }
    }
}

#[test]
fn a_body_that_is_too_large_is_refused_before_a_worker_sees_it() {
    let world = World::new();
    let worker = echo(&world);
    let mut small = table(ONE, true);
    small.server.max_body_bytes = 1000;
    let front = world.serving(small, &[&worker]);
    let announced = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n";
    assert_eq!(ask(front.address, announced).status, 413);
    let expecting =
        "POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 1001\r\n\r\n";
    assert_eq!(ask(front.address, expecting).status, 413);
    let mut client = Client::connect(front.address);
    client.send("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(chunked(&pattern(1001), 100));
    let answer = client.receive().unwrap();
    assert_eq!((answer.status, answer.field("connection")), (413, vec!["close".into()]));
    assert_eq!(worker.bytes(), 0);
}

/// Behind `/b` an app with another limit than the node's, which is that of `/a`.
fn with_limits(slots: Slots, of_node: u64, of_app: u64) -> RouteTable {
    let mut table = table(slots, true);
    table.server.max_body_bytes = of_node;
    let spec = UpstreamSpec { max_body_bytes: Some(of_app), ..table.upstreams["p/a"].clone() };
    table.upstreams.insert("p/b".into(), spec);
    let target = Target::Upstream { name: "p/b".into() };
    table.routes.push(Route { app: "b".into(), ..route("/b", target) });
    table
}

#[test]
fn an_app_has_a_limit_of_its_own_smaller_or_larger_than_that_of_the_node() {
    let sized =
        |stream: &mut UnixStream, received: Received| say(stream, &received.body.len().to_string());
    const MIB: usize = 1 << 20;
    for slots in [ONE, Slots::Unlimited] {
        let world = World::new();
        let of = |app: &str, number| Worker::start_of(&world, app, number, true, sized);
        let (a, b) = (of("p/a", 1), of("p/b", 2));
        let mut front = world.front(1);
        let post = |path: &str, length: usize, in_chunks: bool| {
            let body = pattern(length);
            let head = format!("POST {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n");
            let bytes = match in_chunks {
                true => {
                    let head = format!("{head}Transfer-Encoding: chunked\r\n\r\n");
                    [head.as_bytes(), &chunked(&body, 100_000)].concat()
                }
                false => {
                    let head = format!("{head}Content-Length: {length}\r\n\r\n");
                    [head.as_bytes(), &body].concat()
                }
            };
            let mut client = Client::connect(world.address);
            // A client that is refused is not read to its end.
            let _ = client.stream.write_all(&bytes);
            let answer = client.receive().expect("an answer");
            let cause = answer.field("x-mfserv-cause").join(" ");
            (answer.status, if answer.status == 200 { answer.text() } else { cause })
        };
        let refused = || (413, "too_large".to_string());
        let taken = |length: usize| (200, length.to_string());
        front.daemon.publish(1, with_limits(slots, 3 * MIB as u64, 1000), &[&a, &b]);
        for in_chunks in [false, true] {
            assert_eq!(post("/b", 1000, in_chunks), taken(1000), "{slots:?} {in_chunks}");
            assert_eq!(post("/b", 1001, in_chunks), refused(), "{slots:?} {in_chunks}");
            assert_eq!(post("/b", 2 * MIB, in_chunks), refused(), "{slots:?} {in_chunks}");
            assert_eq!(post("/a", 2 * MIB, in_chunks), taken(2 * MIB), "{slots:?} {in_chunks}");
        }
        front.daemon.publish(2, with_limits(slots, 1000, 2 * MIB as u64), &[&a, &b]);
        for in_chunks in [false, true] {
            assert_eq!(post("/b", 2 * MIB, in_chunks), taken(2 * MIB), "{slots:?} {in_chunks}");
            assert_eq!(post("/b", 2 * MIB + 1, in_chunks), refused(), "{slots:?} {in_chunks}");
            assert_eq!(post("/a", 1001, in_chunks), refused(), "{slots:?} {in_chunks}");
        }
        front.daemon.publish(3, with_limits(slots, 1000, u64::MAX), &[&a, &b]);
        assert_eq!(post("/b", 5 * MIB, true), taken(5 * MIB), "{slots:?}: no limit");
        assert_eq!(post("/a", 1001, false), refused(), "{slots:?}");
    }
}

#[test]
fn the_page_of_a_refused_body_says_how_much_is_let_in() {
    let world = World::new();
    let front = world.serving(with_limits(ONE, 4 << 20, 10 << 10), &[]);
    let fields = "Host: h\r\nConnection: close\r\nContent-Length: 10241";
    let page = ask(front.address, format!("POST /b HTTP/1.1\r\n{fields}\r\n\r\n"));
    let said = "<p>the body of a request has at most 10 KiB here</p>";
    assert!(page.status == 413 && page.text().contains(said), "{}", page.text());
}

#[test]
fn a_client_that_expects_100_continue_is_told_by_the_front() {
    let world = World::new();
    let worker = echo(&world);
    let front = world.serving(table(ONE, true), &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n");
    assert_eq!(client.read_until(b"\r\n\r\n"), b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("abc");
    assert_eq!(client.receive().unwrap().text(), "abc");
    assert_eq!(worker.last().field("expect"), [""; 0]);
}

#[test]
fn a_large_body_of_an_unlimited_app_is_streamed() {
    let world = World::new();
    let worker = echo(&world);
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let body = pattern(400_000);
    for head in ["Content-Length: 400000", "Transfer-Encoding: chunked"] {
        let before = worker.bytes();
        let sent = if head.starts_with('C') { body.clone() } else { chunked(&body, 5000) };
        let mut client = Client::connect(front.address);
        client.send(format!("POST /a HTTP/1.1\r\nHost: h\r\n{head}\r\n\r\n"));
        client.send(&sent[..200_000]);
        until("the worker receives a part", || worker.bytes() - before > 100_000);
        client.send(&sent[200_000..]);
        assert_eq!(client.receive().unwrap().body, body);
    }
}

#[test]
fn a_worker_may_answer_before_it_has_read_the_body() {
    let Some(world) = World::where_holds("connection_end") else { return };
    let worker = Worker::start(&world, 1, |_, _| true);
    worker.stop_listening();
    let listener = std::os::unix::net::UnixListener::bind(&worker.socket).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1000]);
        let _ = stream.write_all(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno");
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let front = world.serving(table(Slots::Unlimited, true), &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\n");
    client.send(pattern(200_000));
    let answer = client.receive().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (403, "no"));
    assert_eq!(answer.field("connection"), ["close"]);
}

#[test]
fn an_answer_before_the_end_of_a_large_body_reaches_clients_that_send_first_and_read_later() {
    let Some(world) = World::where_holds("connection_end") else { return };
    let worker = Worker::unread(&world, 1, |stream| {
        let _ = stream.read(&mut [0; 1000]);
        let _ = stream.write_all(b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno");
    });
    std::fs::create_dir(world.path("files")).unwrap();
    std::fs::write(world.path("files/file.txt"), "file").unwrap();
    let mut table = table(Slots::Unlimited, true);
    table.server.max_body_bytes = 30 << 20;
    let root = world.path("files");
    table.routes.push(route("/files", mfserv_core::route::Target::Static { root }));
    let mut front = world.serving(table, &[&worker]);
    let cases = [("/a", 40, 413), ("/a", 20, 401), ("/nowhere", 20, 404), ("/__health", 20, 405)];
    for (path, megabytes, status) in cases.into_iter().chain([("/files/file.txt", 20, 405)]) {
        let mut client = Client::connect(front.address);
        let length = megabytes << 20;
        client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n"));
        let block = vec![b'z'; 1 << 20];
        (0..megabytes).for_each(|_| client.send(&block));
        assert_eq!(client.receive().map(|answer| answer.status), Some(status), "{path}");
        assert_eq!(front.daemon.stats().connections, 1, "it counts until it has gone");
        drop(client);
        until("it has gone", || front.daemon.stats().connections == 0);
    }
    // One that neither goes nor sends is not waited for long.
    let mut client = Client::connect(front.address);
    client.send("POST /nowhere HTTP/1.1\r\nHost: h\r\nContent-Length: 50\r\n\r\n");
    assert_eq!(client.receive().unwrap().status, 404);
    let began = Instant::now();
    until("it is let go", || front.daemon.stats().connections == 0);
    // One that sends on has 30 s.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn event_streams_are_never_held_back() {
    for slots in [ONE, Slots::Unlimited] {
        let world = World::new();
        let (tell, told) = mpsc::channel::<()>();
        let told = Arc::new(Mutex::new(told));
        let worker = Worker::start(&world, 1, move |stream, _| {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                        Transfer-Encoding: chunked\r\n\r\n";
            stream.write_all(head.as_bytes()).unwrap();
            for n in 0..5 {
                told.lock().unwrap().recv_timeout(PATIENCE).unwrap();
                stream.write_all(format!("9\r\ndata: {n}\n\n\r\n").as_bytes()).unwrap();
            }
            stream.write_all(b"0\r\n\r\n").is_ok()
        });
        let front = world.serving(table(slots, true), &[&worker]);
        let mut client = Client::connect(front.address);
        client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
        client.read_until(b"\r\n\r\n");
        for n in 0..5 {
            tell.send(()).unwrap();
            client.read_until(format!("data: {n}\n\n").as_bytes());
        }
        client.read_until(b"0\r\n\r\n");
    }
}

#[test]
fn large_answers_of_every_framing_arrive_whole() {
    for slots in [ONE, Slots::Unlimited] {
        let world = World::new();
        let body = Arc::new(pattern(8_000_000));
        let theirs = body.clone();
        let worker = Worker::start(&world, 1, move |stream, received| {
            let (head, end) = match received.target() {
                "/a/length" => ("Content-Length: 8000000\r\n\r\n", &b""[..]),
                "/a/chunked" => {
                    ("Transfer-Encoding: chunked\r\n\r\n7a1200\r\n", &b"\r\n0\r\n\r\n"[..])
                }
                _ => ("\r\n", &b""[..]),
            };
            let whole = [b"HTTP/1.1 200 OK\r\n", head.as_bytes(), &theirs[..], end].concat();
            stream.write_all(&whole).is_ok() && received.target() != "/a/close"
        });
        let front = world.serving(table(slots, true), &[&worker]);
        let mut client = Client::connect(front.address);
        for path in ["/a/length", "/a/chunked", "/a/close", "/a/length"] {
            let answer = client.get(path);
            assert!(answer.whole && answer.body == *body, "{path} {}", answer.body.len());
        }
    }
}

/// A worker that waits for the end of the connection, or answers after this time.
fn slow(world: &World, time: Duration) -> Worker {
    Worker::start(world, 1, move |stream, _| {
        stream.set_read_timeout(Some(time)).unwrap();
        match stream.read(&mut [0]) {
            Ok(0) => false,
            _ => say(stream, "done"),
        }
    })
}

#[test]
fn a_client_that_goes_away_takes_its_request_with_it() {
    let world = World::new();
    let worker = slow(&world, PATIENCE);
    let mut table = table(ONE, true);
    table.upstreams.get_mut("p/a").unwrap().timeout_ms = NEVER_MS;
    let front = world.serving(table, &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    until("the worker has it", || worker.count() == 1);
    drop(client);
    assert_eq!(world.access_log(1)[0]["status"], 499);
    assert_eq!(front.get("/__health").status, 503);
}

#[test]
fn unless_the_request_shall_go_on_without_its_client() {
    let world = World::new();
    let worker = slow(&world, Duration::from_millis(300));
    let mut table = table(ONE, true);
    table.server.ignore_client_abort = true;
    let front = world.serving(table, &[&worker]);
    let mut client = Client::connect(front.address);
    client.send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n");
    until("the worker has it", || worker.count() == 1);
    drop(client);
    assert_eq!(world.access_log(1)[0]["status"], 200);
    drop(front);
}
