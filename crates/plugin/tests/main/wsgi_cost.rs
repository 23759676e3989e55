//! What the server of mfserv for Python workers costs: memory, and time of an idle worker.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::until;
use crate::wsgi::End;
use crate::wsgi_client::{answer, connect};

/// What the process itself has made in memory, KiB: exact, and not less under pressure, as what
/// is resident is.
pub fn memory_kib(app: &End) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", app.0.id())).unwrap();
    kib(&text, "Anonymous:") + kib(&text, "Swap:")
}

/// The most memory that was ever resident, KiB.
pub fn peak_kib(app: &End) -> u64 {
    kib(&fs::read_to_string(format!("/proc/{}/status", app.0.id())).unwrap(), "VmHWM:")
}

fn kib(text: &str, key: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// Reads to the end of the connection. Returns how many bytes there were, and the last five.
fn read_all(stream: &mut UnixStream, mut each: impl FnMut()) -> (usize, Vec<u8>) {
    let (mut total, mut last) = (0, Vec::new());
    let mut space = vec![0; 1 << 20];
    loop {
        let count = stream.read(&mut space).unwrap();
        if count == 0 {
            return (total, last);
        }
        total += count;
        last.extend_from_slice(&space[..count]);
        last.drain(..last.len().saturating_sub(5));
        each();
    }
}

/// 200 MiB both ways: a quarter of it is a bound that nothing else reaches.
pub fn bodies_are_kept_nowhere(app: &End, socket: &Path) {
    let before = memory_kib(app);
    let is_flat = || {
        let now = memory_kib(app);
        assert!(now < before + 50 * 1024, "{now} KiB, {before} before");
    };
    let mut slow = connect(socket);
    slow.write_all(b"GET /stream?3200 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    let (total, last) = read_all(&mut slow, is_flat);
    assert!(total > 3200 * 65536 && last == b"0\r\n\r\n", "whole: {total}, {last:?}");

    let mut upload = connect(socket);
    let size = 200_u64 << 20;
    write!(upload, "POST /count HTTP/1.1\r\nHost: h\r\nConnection: close\r\n").unwrap();
    write!(upload, "Content-Length: {size}\r\n\r\n").unwrap();
    let space = vec![0; 1 << 20];
    for _ in 0..200 {
        upload.write_all(&space).unwrap();
        is_flat();
    }
    let mut answer = String::new();
    upload.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(&size.to_string()), "{answer}");
    is_flat();
}

/// Asked of a worker with a limit of two seconds.
pub fn a_slow_reader_stops_the_app_and_is_not_timed_out(socket: &Path) {
    let mut slow = connect(socket);
    slow.write_all(b"GET /stream?100 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    slow.read_exact(&mut [0; 1000]).unwrap();
    // Longer than the soft and the hard limit: the app has no part in it.
    std::thread::sleep(Duration::from_secs(4));
    let (total, last) = read_all(&mut slow, || {});
    assert!(1000 + total > 100 * 65536 && last == b"0\r\n\r\n", "whole: {total}, {last:?}");
}

/// Clients may send any names.
pub fn long_names_are_not_kept(app: &End, socket: &Path) {
    let mut stream = connect(socket);
    let before = memory_kib(app);
    for number in 0..300 {
        let name = format!("X{number}{}", "a".repeat(40_000));
        write!(stream, "GET / HTTP/1.1\r\nHost: h\r\n{name}: 1\r\n\r\n").unwrap();
        assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
    }
    let after = memory_kib(app);
    assert!(after < before + 5 * 1024, "{after} KiB, {before} before");
}

/// What a request leaves behind shows in every round; what Python or the kernel keep for once,
/// in one of them.
pub fn many_requests_need_no_more_memory(app: &End, socket: &Path) {
    let mut stream = connect(socket);
    let mut grown_kib = |count: usize| {
        let before = memory_kib(app);
        for _ in 0..count {
            let request = b"POST /lines HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\na\nbc";
            stream.write_all(request).unwrap();
            assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
        }
        memory_kib(app).saturating_sub(before)
    };
    grown_kib(2000);
    // 16 bytes for each request
    not_in_each_round(80, || grown_kib(5000));
}

/// In one of some rounds the memory grows by less than so many KiB.
pub fn not_in_each_round(least: u64, mut grown_kib: impl FnMut() -> u64) {
    let mut rounds = Vec::new();
    while rounds.last().is_none_or(|&grown| grown >= least) {
        assert!(rounds.len() < 5, "each round needs more KiB: {rounds:?}");
        rounds.push(grown_kib());
    }
}

pub fn an_idle_worker_sleeps(app: &End) {
    let switches = || -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", app.0.id())).unwrap();
        // A thread may end meanwhile.
        let texts: Vec<String> = threads
            .flatten()
            .filter_map(|thread| fs::read_to_string(thread.path().join("status")).ok())
            .collect();
        let lines = texts.iter().flat_map(|text| text.lines());
        lines
            .filter_map(|line| {
                line.strip_prefix("voluntary_ctxt_switches:")?.trim().parse::<u64>().ok()
            })
            .sum()
    };
    // The thread that watches the clock finds no request, and sleeps for good.
    until("nothing happens for a second", || {
        let before = switches();
        // A look at the same numbers a second later.
        std::thread::sleep(Duration::from_secs(1));
        switches() == before
    });
}
