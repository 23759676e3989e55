//! Many clients that are idle or slow. What takes long is run as `heavy.rs` says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mfserv_core::route::Slots;

use crate::descriptors::descriptors;
use crate::heavy::{alone, memory, read_head};
use crate::kind;
use crate::world::*;

/// As many descriptors as this machine allows this process and those it starts.
fn raise_descriptors(wanted: u64) -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let wanted_limit = Rlimit { current: Some(wanted), maximum: Some(wanted) };
    if setrlimit(Resource::Nofile, wanted_limit).is_err() {
        let maximum = getrlimit(Resource::Nofile).maximum;
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(wanted)
}

/// Connections from many loopback addresses: one has only 28,000 ports.
fn crowd(front: &Front, count: usize, first: &[u8]) -> Vec<TcpStream> {
    let connect = |number: usize| {
        let address = std::net::SocketAddrV4::new(
            std::net::Ipv4Addr::new(127, 0, 1, (number / 10_000) as u8 + 1),
            0,
        );
        let socket = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )
        .unwrap();
        rustix::net::bind(&socket, &address).unwrap();
        rustix::net::connect(&socket, &front.address).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.write_all(first).unwrap();
        stream
    };
    (0..count).map(connect).collect()
}

/// Milliseconds: the 99th percentile of requests by one client with pauses.
fn p99(front: &Front) -> f64 {
    let mut client = Client::connect(front.address);
    let mut times: Vec<Duration> = (0..300)
        .map(|_| {
            let began = Instant::now();
            assert_eq!(client.get("/a").text(), "ok");
            let took = began.elapsed();
            // The pause of the client between two requests.
            std::thread::sleep(Duration::from_millis(1));
            took
        })
        .collect();
    times.sort();
    times[times.len() * 99 / 100].as_secs_f64() * 1000.0
}

const GET: &[u8] = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n";

/// Clients that have an answer. They come a few at a time: what is measured are connections that
/// are idle, and not what so many requests at once take.
fn asleep(front: &Front, count: usize) -> Vec<TcpStream> {
    let mut sleeping = Vec::new();
    while sleeping.len() < count {
        let mut some = crowd(front, (count - sleeping.len()).min(50), GET);
        for stream in &mut some {
            read_head(stream);
            stream.read_exact(&mut [0; 2]).unwrap();
        }
        sleeping.append(&mut some);
    }
    sleeping
}

/// Idle clients, then slow ones; fewer than asked where there are not enough descriptors.
fn flood(idle: usize, slow: usize) {
    let _alone = alone();
    let room = raise_descriptors(idle.max(slow) as u64 + 2000) as usize - 1500;
    let (idle, slow) = (idle.min(room), slow.min(room));
    let world = World::new();
    let worker = Worker::saying(&world, 1, "ok");
    let mut table = table(Slots::Unlimited, true);
    table.server.max_connections = idle.max(slow) as u32 + 1000;
    table.server.header_timeout_ms = NEVER_MS;
    table.server.keepalive_timeout_ms = NEVER_MS;
    let front = world.serving(table, &[&worker]);
    let quiet = p99(&front);
    let open = descriptors(&front);
    // What is kept for requests, however many connections there are, is there after some.
    let mut sleeping = asleep(&front, idle / 4);
    let before = memory(&front).0;
    sleeping.extend(asleep(&front, idle - idle / 4));
    // nginx holds them itself: what is looked at then is what the front behind it has for them.
    // nginx keeps its connections to that front for a minute.
    let (is_nginx, now) = (kind::under_test().0 == "nginx", descriptors(&front));
    assert!(is_nginx || now >= open + idle, "they are connected");
    let open = if is_nginx { now } else { open };
    let more = (idle - idle / 4) as f64;
    let each = (memory(&front).0.saturating_sub(before)) as f64 / more;
    let with_idle = p99(&front);
    println!(
        "{idle} idle: {each:.2} kB each; p99 {quiet:.2} ms alone, {with_idle:.2} ms beside them"
    );
    // What a task needs is not the same in a build for tests.
    let most = if cfg!(debug_assertions) { 6.0 } else { 4.0 };
    assert!(each <= most, "{each:.2} kB for an idle connection");
    drop(sleeping);
    until("all descriptors are closed", || descriptors(&front) <= open + 2);
    // Heads that come byte by byte.
    let mut crawling = crowd(&front, slow, &GET[..3]);
    let ended = AtomicBool::new(false);
    let steps = AtomicU64::new(0);
    let with_slow = std::thread::scope(|scope| {
        scope.spawn(|| {
            for at in 3..GET.len() - 1 {
                for stream in &mut crawling {
                    if ended.load(Ordering::Relaxed) {
                        return;
                    }
                    let _ = stream.write(&GET[at..=at]);
                    steps.fetch_add(1, Ordering::Relaxed);
                    // The pace of the bytes.
                    std::thread::sleep(Duration::from_micros(100));
                }
            }
        });
        let with_slow = p99(&front);
        ended.store(true, Ordering::Relaxed);
        with_slow
    });
    let steps = steps.into_inner();
    println!("{slow} slow: p99 {with_slow:.2} ms beside them ({steps} bytes came meanwhile)");
    drop(crawling);
    until("all descriptors are closed", || descriptors(&front) <= open + 2);
}

#[test]
fn idle_and_slow_clients_cost_little_and_leave_nothing() {
    flood(2000, 1000);
}

#[test]
#[ignore = "needs 31,000 descriptors"]
fn floods_of_twenty_thousand_idle_and_ten_thousand_slow_clients() {
    flood(20_000, 10_000);
}
