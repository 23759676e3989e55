//! Slow clients beside other requests: paces, parts, streams, and a disk without room.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use mfserv_testkit::SmallDisk;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

use crate::heavy::*;
use crate::slow_readers::{asks, spooling};
use crate::world::*;

const MB: u64 = 1 << 20;
const PROMPT: Duration = Duration::from_secs(5);

/// Answers `/a/ok` at once, `/a/large` with 20 MB and everything else with 4 MB, as a part if
/// the request has a Range.
fn archive(world: &World) -> Worker {
    Worker::start(world, 1, |stream, request| {
        let total = match request.target() {
            "/a/ok" => return say(stream, "ok"),
            "/a/large" => 20 * MB,
            _ => 4 * MB,
        };
        let first = match request.field("range").is_empty() {
            true => "200 OK\r\n".to_string(),
            false => format!("206 Partial\r\nContent-Range: bytes 8-{}/*\r\n", total + 7),
        };
        let head = format!("HTTP/1.1 {first}Content-Length: {total}\r\n\r\n");
        let sent = stream.write_all(head.as_bytes()).is_ok();
        sent && (request.head.starts_with("HEAD") || send_pattern(stream, total))
    })
}

#[test]
fn heads_and_parts_of_a_spooled_answer_come_as_the_app_has_sent_them() {
    let _alone = alone();
    let Some(world) = World::where_holds("spool_files") else { return };
    let worker = archive(&world);
    let front = world.serving(spooling(&world), &[&worker]);
    let mut slow = asks(&front, "/a/all", "1.1");
    let mut part = narrow(&front);
    part.write_all(b"GET /a/part HTTP/1.1\r\nHost: h\r\nRange: bytes=8-\r\n\r\n").unwrap();
    until("both are spooled", || spooled(&front) == 2);
    let mut client = narrow(&front);
    for _ in 0..2 {
        client.write_all(b"HEAD /a/all HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert!(read_head(&mut client).contains(&format!("Content-Length: {}", 4 * MB)));
    }
    client.write_all(b"GET /a/ok HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert!(read_head(&mut client).contains("Content-Length: 2"), "no content was before it");
    let head = read_head(&mut part);
    assert!(head.starts_with("HTTP/1.1 206") && head.contains("Content-Range: bytes 8-"), "{head}");
    assert!(is_pattern(&mut part, 4 * MB));
    read_head(&mut slow);
    assert!(is_pattern(&mut slow, 4 * MB));
}

#[test]
fn clients_that_read_at_20_and_at_5_kilobytes_a_second_delay_no_other_request() {
    let _alone = alone();
    let Some(world) = World::where_holds("spool_files") else { return };
    let worker = archive(&world);
    let front = world.serving(spooling(&world), &[&worker]);
    let mut clients: Vec<(TcpStream, usize)> = Vec::new();
    for (count, a_tenth) in [(4, 2048), (20, 512)] {
        clients.extend((0..count).map(|_| (asks(&front, "/a/all", "1.1"), a_tenth)));
    }
    for _ in 0..10 {
        for (client, a_tenth) in &mut clients {
            client.read_exact(&mut vec![0; *a_tenth]).unwrap();
        }
        let began = Instant::now();
        assert_eq!(front.get("/a/ok").text(), "ok");
        assert!(began.elapsed() < PATIENCE, "{:?}", began.elapsed());
        // the pace of the clients: there is no condition to wait for
        std::thread::sleep(Duration::from_millis(100));
    }
    let began = Instant::now();
    assert_eq!(front.get("/a/ok").text(), "ok");
    assert!(began.elapsed() < PROMPT, "{:?}", began.elapsed());
    assert_eq!(spooled(&front), 24);
}

#[test]
fn a_slow_stream_without_a_length_reaches_its_client_byte_by_byte() {
    let world = World::new();
    let (next, steps) = mpsc::channel::<u8>();
    let steps = Mutex::new(steps);
    let worker = Worker::start(&world, 1, move |stream, _| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        for byte in steps.lock().unwrap().iter() {
            stream.write_all(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").is_ok()
    });
    let front = world.serving(spooling(&world), &[&worker]);
    let mut client = asks(&front, "/a", "1.1");
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    read_head(&mut client);
    for byte in b"byte by byte, and none of it waits" {
        // The next one is not written before this one is here.
        next.send(*byte).unwrap();
        let mut chunk = [0; 6];
        client.read_exact(&mut chunk).unwrap();
        assert_eq!(chunk, [b'1', b'\r', b'\n', *byte, b'\r', b'\n']);
        assert_eq!(spooled(&front), 0);
    }
    drop(next);
    let mut end = [0; 5];
    client.read_exact(&mut end).unwrap();
    assert_eq!(&end, b"0\r\n\r\n");
}

#[test]
fn on_a_disk_without_room_the_worker_waits_and_every_byte_comes() {
    let _alone = alone();
    let world = World::new();
    let disk = SmallDisk::new(world.path("spool"), 2, "slow clients on a small disk");
    if disk.is_none() {
        return;
    }
    slow_clients_get_every_byte(&world, |_| {});
}

#[test]
fn bodies_of_requests_leave_a_twentieth_of_the_disk_free() {
    let _alone = alone();
    let world = World::new();
    let of_bodies = "bodies on a disk that is almost full";
    let Some(disk) = SmallDisk::new(world.path("spool"), 20, of_bodies) else { return };
    let worker =
        Worker::start(&world, 1, |stream, received| say(stream, &received.body.len().to_string()));
    let mut front = world.serving(spooling(&world), &[&worker]);
    let (free, lengths) = (3 * MB, [3 * MB / 2, 5 * MB / 2]);
    disk.fill(free);
    for _ in 0..2 {
        let [taken, refused] = lengths.map(|length| {
            let mut request =
                format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
            request.extend(std::iter::repeat_n('b', usize::try_from(length).unwrap()));
            let mut client = Client::connect(front.address);
            client.send(request);
            let answer = client.receive().unwrap();
            until("nothing is left of it", || disk.free() == free);
            answer
        });
        assert_eq!((taken.status, taken.text()), (200, lengths[0].to_string()));
        // It would have room, and the megabyte that is kept free would not.
        assert_eq!((refused.status, refused.field("x-mfserv-cause")), (500, vec!["disk".into()]));
    }
    until("it is said why", || {
        let warnings = front.daemon.stats().warnings;
        let said = |text: &String| {
            text.contains("app p/a: requests are refused with 500") && text.contains("a twentieth")
        };
        warnings.keys().any(said)
    });
    assert_eq!(worker.count(), 2, "the refused ones have not reached it");
}

#[test]
fn under_a_limit_for_the_size_of_files_the_front_lives_and_every_byte_comes() {
    let _alone = alone();
    let world = World::new();
    slow_clients_get_every_byte(&world, |front| {
        let (soft, hard) = (Some(2 * MB), getrlimit(Resource::Fsize).maximum);
        let limit = Rlimit { current: soft, maximum: hard };
        prlimit(Pid::from_raw(i32::try_from(front.pid()).unwrap()), Resource::Fsize, limit)
            .unwrap();
    });
}

/// There is no room for the spool files that slow clients need, after `limit`.
fn slow_clients_get_every_byte(world: &World, limit: impl Fn(&Front)) {
    let worker = archive(world);
    let mut front = world.serving(spooling(world), &[&worker]);
    limit(&front);
    for _ in 0..2 {
        let mut slow = asks(&front, "/a/large", "1.1");
        until("it is said", || {
            let warnings = front.daemon.stats().warnings;
            warnings.keys().any(|text| text.contains("workers wait for slow clients: temporary"))
        });
        read_head(&mut slow);
        assert!(is_pattern(&mut slow, 20 * MB));
    }
    assert_eq!(front.get("/a/ok").text(), "ok");
    until("the files are closed", || spooled(&front) == 0);
}
