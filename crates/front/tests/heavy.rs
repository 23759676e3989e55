//! Large bodies. What takes long is run at full size by
//! `cargo test --release -p mfserv-front heavy -- --ignored --nocapture --test-threads=1`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mfserv_core::route::Slots;

use crate::descriptors::descriptors;
use crate::world::*;

const MB: usize = 1 << 20;

/// The tests here are too large to run side by side.
static ALONE: Mutex<()> = Mutex::new(());

pub fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(|e| e.into_inner())
}

/// Bytes that differ from place to place: the number of the 8-byte word.
fn pattern(at: u64, room: &mut [u8]) {
    assert!(at % 8 == 0 && room.len() % 8 == 0);
    for (number, word) in room.chunks_exact_mut(8).enumerate() {
        word.copy_from_slice(
            &(at / 8 + number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes(),
        );
    }
}

const BLOCK: usize = 256 * 1024;

/// Sends `total` bytes of the pattern.
pub fn send_pattern(to: &mut impl Write, total: u64) -> bool {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    while at < total {
        let count = (BLOCK as u64).min(total - at) as usize;
        pattern(at, &mut block[..count]);
        if to.write_all(&block[..count]).is_err() {
            return false;
        }
        at += count as u64;
    }
    true
}

/// Reads `total` bytes; true if they are the pattern.
pub fn is_pattern(from: &mut impl Read, total: u64) -> bool {
    let (mut block, mut expected) = (vec![0; BLOCK], vec![0; BLOCK]);
    let mut at = 0;
    while at < total {
        let count = (BLOCK as u64).min(total - at) as usize;
        if from.read_exact(&mut block[..count]).is_err() {
            return false;
        }
        pattern(at, &mut expected[..count]);
        if block[..count] != expected[..count] {
            return false;
        }
        at += count as u64;
    }
    true
}

/// Reads a head, byte by byte.
pub fn read_head(from: &mut impl Read) -> String {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && from.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    String::from_utf8(head).unwrap()
}

/// A worker for large bodies that keeps nothing: `/a/down/N` sends N bytes, with a POST
/// it says whether it got the pattern.
pub fn carrier(world: &World, number: u32) -> Worker {
    Worker::unread(world, number, |stream| {
        loop {
            let head = read_head(stream);
            let Some(target) = head.split(' ').nth(1) else { return };
            if let Some(total) = target.strip_prefix("/a/down/") {
                let total: u64 = total.parse().unwrap();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {total}\r\n\r\n");
                if stream.write_all(head.as_bytes()).is_err() || !send_pattern(stream, total) {
                    return;
                }
            } else {
                let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
                let right = is_pattern(stream, length.unwrap().parse().unwrap());
                say(stream, if right { "right" } else { "wrong" });
            }
        }
    })
}

/// Kilobytes of resident memory of a front, now and at most.
pub fn memory(front: &Front) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", front.pid())).unwrap();
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    (of("VmRSS:"), of("VmHWM:"))
}

pub fn download(front: &Front, total: u64, patience: Duration) -> bool {
    let mut stream = TcpStream::connect(front.address).unwrap();
    stream.set_read_timeout(Some(patience)).unwrap();
    let request = format!("GET /a/down/{total} HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.contains(&format!("Content-Length: {total}\r\n")), "{head}");
    is_pattern(&mut stream, total)
}

fn upload(front: &Front, total: u64) -> String {
    let mut stream = TcpStream::connect(front.address).unwrap();
    let request = format!("POST /a/up HTTP/1.1\r\nHost: h\r\nContent-Length: {total}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    assert!(send_pattern(&mut stream, total));
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let head = read_head(&mut stream);
    let mut said = [0; 5];
    stream.read_exact(&mut said).unwrap_or_else(|why| panic!("{why}: {head}"));
    String::from_utf8_lossy(&said).into_owned()
}

fn large_bodies(total: u64) {
    let _alone = alone();
    for slots in [Slots::Unlimited, ONE] {
        let world = World::new();
        let worker = carrier(&world, 1);
        let mut table = table(slots, true);
        table.server.max_body_bytes = u64::MAX;
        table.server.body_temp_dir = world.path("spool");
        table.upstreams.get_mut("p/a").unwrap().timeout_ms = NEVER_MS;
        let mut front = world.serving(table, &[&worker]);
        assert!(download(&front, MB as u64, PATIENCE));
        assert_eq!(upload(&front, MB as u64), "right");
        let before = memory(&front).0;
        let began = Instant::now();
        assert!(download(&front, total, PATIENCE));
        let down = began.elapsed();
        assert_eq!(upload(&front, total), "right");
        let up = began.elapsed() - down;
        let (after, most) = memory(&front);
        println!(
            "{total} bytes {slots:?}: down {down:?}, up {up:?}, memory {before} to {after} kB, at most {most}"
        );
        assert!(most < before + 8 * 1024, "memory grew from {before} to {most} kB");
        front.daemon.stats();
        assert_eq!(std::fs::read_dir(world.path("spool")).map_or(0, Iterator::count), 0);
    }
}

#[test]
fn large_bodies_arrive_as_they_were_sent_and_take_no_memory() {
    large_bodies(64 * MB as u64 + 8);
}

#[test]
#[ignore = "1 GB each way, twice"]
fn large_bodies_of_a_gigabyte() {
    large_bodies(1 << 30);
}

#[test]
fn a_slow_client_of_a_finite_app_gets_all_and_does_not_hold_the_worker() {
    let _alone = alone();
    let world = World::new();
    let worker = carrier(&world, 1);
    let front = world.serving(table(ONE, true), &[&worker]);
    // What the sockets hold by themselves, plus what the front absorbs, is more than this.
    let total = 1000 * 1024;
    let mut slow = TcpStream::connect(front.address).unwrap();
    let request = format!("GET /a/down/{total} HTTP/1.1\r\nHost: h\r\n\r\n");
    slow.write_all(request.as_bytes()).unwrap();
    let other = "GET /a/down/8 HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut quick = Client::connect(front.address);
    quick.send(other);
    assert_eq!(quick.receive().unwrap().body.len(), 8);
    slow.set_read_timeout(Some(PATIENCE)).unwrap();
    read_head(&mut slow);
    assert!(is_pattern(&mut slow, total));
}

#[test]
fn a_large_body_whose_worker_breaks_off_is_visibly_cut_and_one_whose_client_leaves_ends() {
    let _alone = alone();
    for slots in [Slots::Unlimited, ONE] {
        let world = World::new();
        let worker = Worker::unread(&world, 1, |stream| {
            let head = read_head(stream);
            let announced = "HTTP/1.1 200 OK\r\nContent-Length: 8000000\r\n\r\n";
            let _ = stream.write_all(announced.as_bytes());
            let all = head.contains("/a/all");
            send_pattern(stream, if all { 8_000_000 } else { 3_000_000 });
        });
        let front = world.serving(table(slots, true), &[&worker]);
        let open = descriptors(&front);
        for _ in 0..3 {
            let answer = front.get("/a/cut");
            assert!(!answer.whole && answer.body.len() <= 3_000_000, "{}", answer.body.len());
        }
        for _ in 0..3 {
            let mut client = Client::connect(front.address);
            client.send("GET /a/all HTTP/1.1\r\nHost: h\r\n\r\n");
            client.read_until(b"\r\n\r\n");
        }
        until("the worker is let go", || worker.open.load(Ordering::SeqCst) == 0);
        let answer = front.get("/a/all");
        assert!(answer.whole && answer.body.len() == 8_000_000);
        // Pipes stay in the pool: two descriptors each.
        until("descriptors are closed", || descriptors(&front) <= open + 2 * 8);
    }
}

#[test]
fn an_upload_that_stops_or_whose_worker_leaves_ends_with_a_clear_answer() {
    let _alone = alone();
    let world = World::new();
    let worker = Worker::unread(&world, 1, |stream| {
        let head = read_head(stream);
        if head.contains("/a/leave") {
            let mut some = vec![0; 200_000];
            let _ = stream.read_exact(&mut some);
            return;
        }
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    });
    let mut table = table(Slots::Unlimited, true);
    table.server.client_timeout_ms = 3000;
    let front = world.serving(table, &[&worker]);
    for (path, sent, status) in [("/a/leave", 4_000_000, 502), ("/a/stop", 1_000_000, 408)] {
        let mut client = Client::connect(front.address);
        client.send(format!("POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n"));
        // The front may have given its answer before all is sent.
        let _ = client.stream.write_all(&vec![7; sent]);
        assert_eq!(client.receive().map(|answer| answer.status), Some(status), "{path}");
    }
    let mut client = Client::connect(front.address);
    client.send("POST /a/stop HTTP/1.1\r\nHost: h\r\nContent-Length: 4000000\r\n\r\n");
    client.send(vec![7; 1_000_000]);
    drop(client);
    until("the workers are let go", || worker.open.load(Ordering::SeqCst) == 0);
}

/// Files without a name that a front has: bodies of requests, and answers to slow clients.
pub fn spooled(front: &Front) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", front.pid())).unwrap();
    let targets = open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    targets.filter(|target| target.to_string_lossy().ends_with(" (deleted)")).count()
}

#[test]
fn hundreds_of_stuck_uploads_hold_no_worker_and_little_memory() {
    let _alone = alone();
    const STUCK: usize = 300;
    // Of a finite app's body all is awaited, beyond 64 KiB in a file.
    for (slots, length, sent) in [(ONE, 1_000_000, 319 * 1024), (Slots::Unlimited, 60_000, 4)] {
        let world = World::new();
        let worker = Worker::saying(&world, 1, "ok");
        let mut table = table(slots, true);
        table.server.client_timeout_ms = NEVER_MS;
        table.server.body_temp_dir = world.path("spool");
        let front = world.serving(table, &[&worker]);
        let open = descriptors(&front);
        let before = memory(&front).0;
        let stuck: Vec<Client> = (0..STUCK)
            .map(|_| {
                let mut client = Client::connect(front.address);
                let head =
                    format!("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
                client.send([head.into_bytes(), vec![b'a'; sent]].concat());
                client
            })
            .collect();
        let large = if sent > 65536 { STUCK } else { 0 };
        until("the large ones are in files", || spooled(&front) == large);
        let began = Instant::now();
        for _ in 0..100 {
            assert_eq!(front.get("/a").text(), "ok");
        }
        assert!(began.elapsed() < PATIENCE);
        assert_eq!(worker.count(), 100);
        let each = memory(&front).0.saturating_sub(before) / STUCK as u64;
        println!("{each} kB for a stuck upload of {length} bytes, {sent} of them sent");
        // 64 KiB each, and what the allocator keeps of larger pieces.
        assert!(each <= 128, "{each} kB");
        drop(stuck);
        until("all files are closed", || descriptors(&front) <= open + 2);
    }
}

/// A client that takes little ahead.
pub fn narrow(front: &Front) -> TcpStream {
    use rustix::net::{AddressFamily, SocketType, sockopt};
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    sockopt::set_socket_recv_buffer_size(&socket, 16 * 1024).unwrap();
    rustix::net::connect(&socket, &front.address).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn what_all_clients_of_finite_apps_leave_unread_is_bounded_and_nobody_else_is_held_up() {
    let _alone = alone();
    const CLIENTS: usize = 150;
    const TOTAL: u64 = 8 << 20;
    let world = World::new();
    let worker = carrier(&world, 1);
    let mut table = table(Slots::Finite { per_worker: CLIENTS as u32 + 1 }, true);
    table.server.client_timeout_ms = NEVER_MS;
    table.server.spool.per_answer = 0;
    table.upstreams.get_mut("p/a").unwrap().timeout_ms = NEVER_MS;
    let front = world.serving(table, &[&worker]);
    let before = memory(&front).0;
    let request = format!("GET /a/down/{TOTAL} HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut slow: Vec<TcpStream> = (0..CLIENTS).map(|_| narrow(&front)).collect();
    slow.iter_mut().for_each(|client| client.write_all(request.as_bytes()).unwrap());
    // First the sockets are full.
    let grown = || memory(&front).0.saturating_sub(before) / 1024;
    until("it absorbs", || grown() > 30);
    let mut last = 0;
    until("it takes no more", || {
        // Nothing must happen for as long: what has ended growing can only be looked at again.
        std::thread::sleep(Duration::from_millis(500));
        grown() == std::mem::replace(&mut last, grown())
    });
    let grown = memory(&front).1.saturating_sub(before) / 1024;
    println!("{grown} MB for {CLIENTS} clients that do not read");
    assert!(grown <= 115, "{grown} MB");
    assert!(download(&front, 3 << 20, PATIENCE));
    for client in [0, CLIENTS / 2, CLIENTS - 1] {
        read_head(&mut slow[client]);
        assert!(is_pattern(&mut slow[client], TOTAL), "client {client}");
    }
    drop(slow);
    until("the workers are let go", || worker.open.load(Ordering::SeqCst) <= 1);
}
