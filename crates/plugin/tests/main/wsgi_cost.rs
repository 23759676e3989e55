//! What the server of mfserv for Python workers costs: memory, and time of an idle worker.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use crate::until;
use crate::wsgi::End;
use crate::wsgi_faults::connect;

/// The memory of a process that is resident now.
pub const NOW: &str = "VmRSS:";

pub fn memory_kib(app: &End, which: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", app.0.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(which)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// 200 MB both ways: kept anywhere, they would be seen.
pub fn a_slow_reader_stops_the_app_and_is_not_timed_out(app: &End, socket: &Path) {
    let before = memory_kib(app, NOW);
    let mut slow = connect(socket);
    slow.write_all(b"GET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    slow.read_exact(&mut [0; 1000]).unwrap();
    // Longer than the soft and the hard limit: the app has no part in it.
    std::thread::sleep(Duration::from_millis(2500));
    let mut total = 1000;
    let mut space = vec![0; 1 << 20];
    loop {
        match slow.read(&mut space).unwrap() {
            0 => break,
            count => total += count,
        }
        assert!(
            memory_kib(app, NOW) < before + 16 * 1024,
            "{} KiB, {before} before",
            memory_kib(app, NOW)
        );
    }
    assert!(total > 3200 * 65536 && space.len() > 5, "whole: {total}");

    let mut upload = connect(socket);
    let size = 200_u64 << 20;
    write!(upload, "POST /count HTTP/1.1\r\nHost: h\r\nConnection: close\r\n").unwrap();
    write!(upload, "Content-Length: {size}\r\n\r\n").unwrap();
    for _ in 0..200 {
        upload.write_all(&space).unwrap();
    }
    let mut answer = String::new();
    upload.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with(&size.to_string()), "{answer}");
    assert!(
        memory_kib(app, NOW) < before + 16 * 1024,
        "{} KiB, {before} before",
        memory_kib(app, NOW)
    );
}

pub fn many_requests_need_no_more_memory(app: &End, socket: &Path) {
    let mut stream = connect(socket);
    let mut ask = |count: usize| {
        let request = b"POST /lines HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\na\nbc";
        let mut space = [0; 4096];
        for _ in 0..count {
            stream.write_all(request).unwrap();
            let length = stream.read(&mut space).unwrap();
            assert!(space[..length].starts_with(b"HTTP/1.1 200"));
        }
    };
    ask(2000);
    let before = memory_kib(app, NOW);
    ask(20_000);
    assert!(memory_kib(app, NOW) < before + 256, "{} KiB, {before} before", memory_kib(app, NOW));
}

pub fn an_idle_worker_sleeps(app: &End) {
    let switches = || -> u64 {
        let threads = fs::read_dir(format!("/proc/{}/task", app.0.id())).unwrap();
        let status =
            |thread: fs::DirEntry| fs::read_to_string(thread.path().join("status")).unwrap();
        let texts: Vec<String> = threads.map(|thread| status(thread.unwrap())).collect();
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
