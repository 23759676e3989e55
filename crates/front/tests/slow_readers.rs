//! Clients that read slowly, or not at all, take nothing from other requests: the worker of
//! a finite app is let go when it has sent its answer, wherever the answer waits.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mfserv_core::route::{RouteTable, Target};

use crate::heavy::*;
use crate::world::*;

const MB: u64 = 1 << 20;
/// What an ordinary request may take beside clients that do not read.
const PROMPT: Duration = Duration::from_secs(5);

/// A table whose answers go to files below the world.
pub fn spooling(world: &World) -> RouteTable {
    let mut table = table(ONE, true);
    // A client that has read all rests until the others have, on a slow machine for long.
    (table.server.client_timeout_ms, table.server.keepalive_timeout_ms) = (NEVER_MS, NEVER_MS);
    table.server.body_temp_dir = world.path("spool");
    let app = table.upstreams.get_mut("p/a").unwrap();
    (app.timeout_ms, app.queue_timeout_ms) = (NEVER_MS, NEVER_MS);
    table
}

/// A second app, `p/b` behind `/b`, like the first one.
fn with_second(mut table: RouteTable) -> RouteTable {
    let spec = table.upstreams["p/a"].clone();
    table.upstreams.insert("p/b".into(), spec);
    let mut second = route("/b", Target::Upstream { name: "p/b".into() });
    second.app = "b".into();
    table.routes.push(second);
    table
}

/// A client that has asked for a path and reads nothing yet.
pub fn asks(front: &Front, path: &str, version: &str) -> TcpStream {
    let mut client = narrow(front);
    client.write_all(format!("GET {path} HTTP/{version}\r\nHost: h\r\n\r\n").as_bytes()).unwrap();
    client
}

/// A worker that sends `total` bytes of the pattern, framed as the path says: `/length`,
/// `/chunked` or `/close`; `/ok` is answered at once. It takes one request after the other.
fn framer(world: &World, total: u64) -> Worker {
    let mut all = Vec::new();
    send_pattern(&mut all, total);
    Worker::start(world, 1, move |stream, request| {
        let head = match request.target().trim_start_matches("/a/") {
            "length" => format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n"),
            "chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            "close" => "HTTP/1.0 200 OK\r\n\r\n".into(),
            _ => return say(stream, "ok"),
        };
        let sent =
            stream.write_all(head.as_bytes()).and_then(|()| match head.contains("chunked") {
                true => all
                    .chunks(100_000)
                    .try_for_each(|chunk| {
                        stream.write_all(format!("{:x}\r\n", chunk.len()).as_bytes())?;
                        stream.write_all(chunk)?;
                        stream.write_all(b"\r\n")
                    })
                    .and_then(|()| stream.write_all(b"0\r\n\r\n")),
                false => stream.write_all(&all),
            });
        sent.is_ok() && !head.starts_with("HTTP/1.0")
    })
}

#[test]
fn four_clients_that_do_not_read_hold_no_worker_and_get_every_byte_however_it_is_framed() {
    let _alone = alone();
    const TOTAL: u64 = 20 * MB;
    for path in ["/a/length", "/a/chunked", "/a/close"] {
        let world = World::new();
        let worker = framer(&world, TOTAL);
        let front = world.serving(spooling(&world), &[&worker]);
        let mut slow: Vec<TcpStream> = (0..4).map(|_| asks(&front, path, "1.1")).collect();
        until("the worker has given all", || worker.count() == 4);
        let began = Instant::now();
        assert_eq!(front.get("/a/ok").text(), "ok");
        assert!(began.elapsed() < PATIENCE, "{path}: {:?}", began.elapsed());
        let began = Instant::now();
        assert_eq!(front.get("/a/ok").text(), "ok");
        assert!(began.elapsed() < PROMPT, "{path}: {:?}", began.elapsed());
        assert_eq!(spooled(&front), 4, "{path}");
        assert_eq!(std::fs::read_dir(world.path("spool")).unwrap().count(), 0, "without a name");
        for client in &mut slow {
            let head = read_head(client);
            assert_eq!(head.contains("chunked"), path != "/a/length", "{head}");
            match path {
                "/a/length" => assert!(is_pattern(client, TOTAL)),
                _ => assert!(is_pattern(&mut Unchunked { from: client, left: 0 }, TOTAL)),
            }
        }
        // The connection goes on with the next request.
        let client = &mut slow[0];
        client.write_all(b"GET /a/ok HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        if path != "/a/length" {
            let mut end = [0; 5];
            client.read_exact(&mut end).unwrap();
            assert_eq!(&end, b"0\r\n\r\n");
        }
        assert!(read_head(client).starts_with("HTTP/1.1 200"), "{path}");
        until("files are closed", || spooled(&front) == 0);
    }
}

/// The content of a chunked body.
struct Unchunked<'a> {
    from: &'a mut TcpStream,
    /// What is left of the chunk.
    left: usize,
}

impl Read for Unchunked<'_> {
    fn read(&mut self, room: &mut [u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            let (mut line, mut byte) = (Vec::new(), [0]);
            while !line.ends_with(b"\r\n") {
                self.from.read_exact(&mut byte)?;
                line.push(byte[0]);
            }
            let text = String::from_utf8_lossy(&line);
            self.left = usize::from_str_radix(text.trim_end(), 16).expect(&text);
        }
        let most = room.len().min(self.left);
        let count = self.from.read(&mut room[..most])?;
        self.left -= count;
        if self.left == 0 && count > 0 {
            self.from.read_exact(&mut [0; 2])?;
        }
        Ok(count)
    }
}

#[test]
fn twenty_slow_clients_hold_neither_a_worker_nor_much_memory() {
    let _alone = alone();
    const CLIENTS: u64 = 20;
    let world = World::new();
    let worker = framer(&world, 8 * MB);
    let other = Worker::start_of(&world, "p/b", 1, true, |stream, _| say(stream, "other"));
    let front = world.serving(with_second(spooling(&world)), &[&worker, &other]);
    let before = memory(&front).0;
    let mut slow: Vec<TcpStream> = (0..CLIENTS).map(|_| asks(&front, "/a/length", "1.1")).collect();
    until("the worker has given all", || worker.count() as u64 == CLIENTS);
    until("answers are in files", || spooled(&front) as u64 == CLIENTS);
    for (path, answer) in [("/a/ok", "ok"), ("/b", "other")] {
        let began = Instant::now();
        assert_eq!(front.get(path).text(), answer);
        assert!(began.elapsed() < PROMPT, "{path}: {:?}", began.elapsed());
    }
    let each = memory(&front).1.saturating_sub(before) / CLIENTS;
    println!("{each} kB for a client that does not read");
    assert!(each <= 640, "{each} kB");
    for client in &mut slow {
        read_head(client);
        assert!(is_pattern(client, 8 * MB));
    }
}

#[test]
fn a_worker_that_dies_after_its_answer_takes_nothing_from_a_slow_client() {
    let _alone = alone();
    let world = World::new();
    let worker = Worker::unread(&world, 1, |stream| {
        read_head(stream);
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 8 * MB);
        let _ = stream.write_all(head.as_bytes());
        send_pattern(stream, 8 * MB);
    });
    let mut front = world.serving(spooling(&world), &[&worker]);
    let mut slow = asks(&front, "/a", "1.1");
    until("it has given all", || spooled(&front) == 1 && worker.open.load(Ordering::SeqCst) == 0);
    worker.stop_listening();
    front.daemon.forget(&worker);
    front.daemon.stats();
    read_head(&mut slow);
    assert!(is_pattern(&mut slow, 8 * MB));
}

#[test]
fn what_came_before_a_worker_broke_off_reaches_a_slow_client_in_order_and_visibly_cut() {
    let _alone = alone();
    let world = World::new();
    let worker = Worker::unread(&world, 1, |stream| {
        let head = read_head(stream);
        let framing = match head.contains("/close") {
            true => "HTTP/1.0 200 OK\r\n\r\n".to_string(),
            false => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 20 * MB),
        };
        let _ = stream.write_all(framing.as_bytes());
        send_pattern(stream, 16 * MB);
    });
    let front = world.serving(spooling(&world), &[&worker]);
    let mut slow = asks(&front, "/a", "1.1");
    until("it has broken off", || spooled(&front) == 1 && worker.open.load(Ordering::SeqCst) == 0);
    read_head(&mut slow);
    assert!(is_pattern(&mut slow, 16 * MB));
    assert_eq!(slow.read(&mut [0]).unwrap_or(0), 0, "nothing follows");
}

#[test]
fn clients_that_go_free_the_files_of_their_answers() {
    let _alone = alone();
    let world = World::new();
    let worker = framer(&world, 20 * MB);
    let front = world.serving(spooling(&world), &[&worker]);
    for version in ["1.1", "1.0"] {
        let slow: Vec<TcpStream> = (0..3).map(|_| asks(&front, "/a/chunked", version)).collect();
        until("answers are in files", || spooled(&front) == 3);
        drop(slow);
        until("the files are closed", || spooled(&front) == 0);
        assert_eq!(front.get("/a/ok").text(), "ok");
    }
}

#[test]
fn where_no_file_can_be_written_the_worker_waits_and_nothing_is_lost() {
    let _alone = alone();
    let world = World::new();
    let worker = framer(&world, 20 * MB);
    let mut table = spooling(&world);
    std::fs::write(world.path("file"), "").unwrap();
    table.server.body_temp_dir = world.path("file/below");
    let front = world.serving(table, &[&worker]);
    for path in ["/a/length", "/a/chunked"] {
        let mut slow = asks(&front, path, "1.1");
        until("it is said", || {
            let log = std::fs::read_to_string(world.path("log/nginx_error.log"));
            log.is_ok_and(|log| log.contains("app p/a: workers wait for slow clients: temporary"))
        });
        read_head(&mut slow);
        match path {
            "/a/length" => assert!(is_pattern(&mut slow, 20 * MB)),
            _ => assert!(is_pattern(&mut Unchunked { from: &mut slow, left: 0 }, 20 * MB)),
        }
    }
}

#[test]
fn the_readers_of_one_app_leave_room_for_those_of_another() {
    let _alone = alone();
    let Some(world) = World::where_holds("spool_files") else { return };
    let worker = framer(&world, 8 * MB);
    let send_second = |stream: &mut std::os::unix::net::UnixStream, _| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 8 * MB);
        stream.write_all(head.as_bytes()).is_ok() && send_pattern(stream, 8 * MB)
    };
    let other = Worker::start_of(&world, "p/b", 1, true, send_second);
    let mut table = with_second(spooling(&world));
    table.server.spool.all = 24 * MB;
    let mut front = world.serving(table, &[&worker, &other]);
    // One of them is in a file; the second one finds only a part of the room that it wants.
    let slow: Vec<TcpStream> = (0..3).map(|_| asks(&front, "/a/length", "1.1")).collect();
    until("the limit is said", || {
        let log = std::fs::read_to_string(world.path("log/nginx_error.log"));
        log.is_ok_and(|log| log.contains("app p/a") && log.contains("spool_max_per_app"))
    });
    let second = asks(&front, "/b", "1.1");
    until("the other app is let go", || spooled(&front) == 3 && other.count() == 1);
    let began = Instant::now();
    let third = asks(&front, "/b", "1.1");
    until("its worker takes the next request", || other.count() == 2);
    assert!(began.elapsed() < PATIENCE);
    // Counted once for each answer, however often it was tried.
    let warnings = front.daemon.stats().warnings;
    let met = warnings.iter().find(|(text, _)| text.starts_with("app p/a: workers wait for slow"));
    let (text, met) = met.expect("the limit is counted");
    assert!(text.contains("[front] spool_max_per_app") && (1..=3).contains(&met.count), "{text}");
    drop((slow, second, third));
}

#[test]
fn a_long_stream_is_not_put_into_a_file_and_its_worker_waits_for_the_client() {
    let _alone = alone();
    for field in ["Content-Type: text/event-stream", "X-Accel-Buffering: no"] {
        let world = World::new();
        let worker = Worker::unread(&world, 1, move |stream| {
            read_head(stream);
            let head = format!("HTTP/1.1 200 OK\r\n{field}\r\nTransfer-Encoding: chunked\r\n\r\n");
            let mut event = b"8000\r\n".to_vec();
            event.extend_from_slice(&[b'e'; 0x8000]);
            event.extend_from_slice(b"\r\n");
            // It ends when its client has gone.
            let _ = stream.write_all(head.as_bytes());
            while stream.write_all(&event).is_ok() {}
        });
        let front = world.serving(spooling(&world), &[&worker]);
        let slow = asks(&front, "/a", "1.1");
        let memory_now = || memory(&front).0;
        let mut last = 0;
        until("it takes no more", || {
            // Nothing must happen for as long: what has ended growing can only be looked at again.
            std::thread::sleep(Duration::from_millis(200));
            memory_now() == std::mem::replace(&mut last, memory_now())
        });
        assert_eq!((spooled(&front), worker.open.load(Ordering::SeqCst)), (0, 1), "{field}");
        drop(slow);
        until("the stream ends with its client", || worker.open.load(Ordering::SeqCst) == 0);
    }
}

/// Reads a little and pauses, so that what was sent waits in the socket while more is spooled.
struct InSteps(TcpStream);

impl Read for InSteps {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let most = to.len().min(300_000);
        // the pace of a slow client: there is no condition to wait for
        std::thread::sleep(Duration::from_millis(2));
        self.0.read(&mut to[..most])
    }
}

#[test]
fn a_client_that_reads_in_steps_gets_every_byte_as_it_was_sent() {
    let world = World::new();
    let worker = carrier(&world, 1);
    let front = world.serving(spooling(&world), &[&worker]);
    for _ in 0..4 {
        let mut client = InSteps(TcpStream::connect(front.address).unwrap());
        let request = format!("GET /a/down/{} HTTP/1.1\r\nHost: h\r\n\r\n", 48 * MB);
        client.0.write_all(request.as_bytes()).unwrap();
        assert!(read_head(&mut client.0).contains(&format!("Content-Length: {}", 48 * MB)));
        assert!(is_pattern(&mut client, 48 * MB));
    }
}
