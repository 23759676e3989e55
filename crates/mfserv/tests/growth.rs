//! Memory of whole requests: neither many of them nor large bodies make a process grow.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mfserv_testkit::{Load, Node, Plugin};

use crate::{PATIENCE, Turn, node};

const MIB: u64 = 1 << 20;

/// Counts what it reads and says how much that was; `/down?N`: makes N bytes.
const COUNTS: &str = r#"
PIECE = bytes(range(256)) * 256


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"].endswith("/down"):
        pieces, rest = divmod(int(environ["QUERY_STRING"]), len(PIECE))
        return (PIECE[: rest if n == pieces else None] for n in range(pieces + 1))
    stream, count = environ["wsgi.input"], 0
    while piece := stream.read(65536):
        is_up = environ["PATH_INFO"].endswith("/up")
        assert not is_up or PIECE[count % 256 :].startswith(piece[:256]), "another body"
        count += len(piece)
    return [b"%d" % count]
"#;

/// The same for ASGI.
const COUNTS_ASGI: &str = r#"
PIECE = bytes(range(256)) * 256


async def application(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"].endswith("/down"):
        pieces, rest = divmod(int(scope["query_string"]), len(PIECE))
        for n in range(pieces):
            await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        return await send({"type": "http.response.body", "body": PIECE[:rest]})
    count, has_more = 0, True
    while has_more:
        message = await receive()
        piece, has_more = message["body"], message["more_body"]
        is_up = scope["path"].endswith("/up")
        assert not is_up or PIECE[count % 256 :].startswith(piece[:256]), "another body"
        count += len(piece)
    await send({"type": "http.response.body", "body": b"%d" % count})
"#;

/// How requests reach the worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// It pulls them from a queue.
    Queue,
    /// The front sends them, several at a time.
    Http,
    /// The same, to an ASGI app.
    Asgi,
}

/// Starts a node with one worker of this app.
fn serving(over: Over) -> Node {
    let node = node();
    node.set("nginx.upload_max_body_size", "2000");
    let (app, interface) = match over {
        Over::Queue | Over::Http => (COUNTS, "--wsgi"),
        Over::Asgi => (COUNTS_ASGI, "--asgi"),
    };
    let command = format!(
        "mfserv_worker {interface} --timeout={{timeout}} main:application {{unix_socket_path}}"
    );
    let plugin = Plugin::new("grows").file("main.py", app).app("main", &command);
    node.add(&match over {
        Over::Http => plugin.key("app_main", "_requests_per_worker", "2"),
        Over::Queue | Over::Asgi => plugin,
    });
    node.start();
    let worker = processes(&node)[1].1;
    let pulls = || {
        let maps = fs::read_to_string(format!("/proc/{worker}/maps")).unwrap();
        maps.contains("mfserv-requests")
    };
    // The first request offers the queue.
    assert_eq!(node.get("/grows/x").status, 200);
    assert_eq!(pulls(), over == Over::Queue, "it pulls, or it does not");
    node
}

/// The processes of a whole request, and the daemon.
fn processes(node: &Node) -> [(&'static str, u32); 3] {
    let worker = node.settled("app.grows.main").workers[0].pid.unwrap();
    [("front", node.role_pid("front")), ("worker", worker), ("daemon", node.role_pid("daemon"))]
}

/// The memory of a process that is no page of a file, bytes.
fn anonymous(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn is_long() -> bool {
    std::env::var_os("MFSERV_LONG").is_some()
}

#[test]
fn many_requests_make_neither_front_nor_worker_nor_daemon_grow() {
    many_requests_over(Over::Queue);
}

#[test]
fn many_requests_of_an_asgi_app_make_neither_front_nor_worker_nor_daemon_grow() {
    many_requests_over(Over::Asgi);
}

fn many_requests_over(over: Over) {
    let _turn = Turn::heavy();
    let node = serving(over);
    let processes = processes(&node);
    let (count, step) = if is_long() { (1_000_000, 10_000) } else { (50_000, 5_000) };
    let load = Load::new(node.address(), "/grows/x").connections(20).post_every(2);
    let load = load.pause(Duration::ZERO).start();
    let until_answered = |wanted: u64| {
        while load.answered() < wanted {
            load.answers(step);
        }
    };
    // What is made once is there after a fifth of them.
    until_answered(count / 5);
    let before = processes.map(|(_, pid)| anonymous(pid));
    until_answered(count);
    let after = processes.map(|(_, pid)| anonymous(pid));
    let report = load.stop();
    report.assert_nothing_failed();
    println!("{}", report.sentence());
    for (at, (name, _)) in processes.iter().enumerate() {
        let (before, after) = (before[at], after[at]);
        println!("{name}: {} KiB, then {} KiB", before / 1024, after / 1024);
        assert!(after < before + 2 * MIB, "the {name} grew from {before} to {after} bytes");
    }
    node.stop();
}

/// Watches the memory of front and worker while a body is on its way.
struct Watch {
    pids: [(&'static str, u32); 2],
    before: [u64; 2],
    most: [u64; 2],
}

impl Watch {
    fn of(node: &Node) -> Self {
        let [front, worker, _] = processes(node);
        let pids = [front, worker];
        let before = pids.map(|(_, pid)| anonymous(pid));
        Self { pids, before, most: before }
    }

    fn look(&mut self) {
        for (most, (_, pid)) in self.most.iter_mut().zip(self.pids) {
            *most = anonymous(pid).max(*most);
        }
    }

    fn assert_flat(&self, what: &str) {
        for ((name, _), (before, most)) in self.pids.iter().zip(self.before.iter().zip(self.most)) {
            println!("{what}: {name}: {} KiB, at most {} KiB", before / 1024, most / 1024);
            assert!(most < before + 8 * MIB, "{what}: the {name} grew to {most} bytes");
        }
    }
}

fn connect(node: &Node) -> TcpStream {
    let stream = TcpStream::connect(node.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// A body of so many bytes is read by the app.
fn up(node: &Node, total: u64) -> Watch {
    let mut watch = Watch::of(node);
    let mut stream = connect(node);
    let head = "POST /grows/up HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length:";
    stream.write_all(format!("{head} {total}\r\n\r\n").as_bytes()).unwrap();
    let piece: Vec<u8> = (0..MIB).map(|n| n as u8).collect();
    for _ in 0..total / MIB {
        stream.write_all(&piece).unwrap();
        watch.look();
    }
    // The worker reads on when the client has sent all.
    let (mut answer, mut room) = (Vec::new(), [0; 4096]);
    stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let begun = std::time::Instant::now();
    loop {
        watch.look();
        match stream.read(&mut room) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&room[..count]),
            Err(_) => assert!(begun.elapsed() < PATIENCE, "no answer"),
        }
    }
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 200") && text.contains(&total.to_string()), "{text}");
    watch
}

/// So many bytes are made by the app.
fn down(node: &Node, total: u64) -> Watch {
    let mut watch = Watch::of(node);
    let mut stream = connect(node);
    let ask = format!("GET /grows/down?{total} HTTP/1.0\r\nHost: h\r\n\r\n");
    stream.write_all(ask.as_bytes()).unwrap();
    let (mut room, mut bytes, mut looked) = (vec![0; 1 << 16], Vec::new(), 0);
    let (mut got, mut head_length) = (0, None);
    loop {
        let count = stream.read(&mut room).unwrap();
        if count == 0 {
            break;
        }
        got += count as u64;
        if head_length.is_none() {
            bytes.extend_from_slice(&room[..count]);
            let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
            head_length = end.map(|at| at as u64 + 4);
        }
        if got / MIB > looked {
            looked = got / MIB;
            watch.look();
        }
    }
    assert!(bytes.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&bytes[..200]));
    assert_eq!(got - head_length.unwrap(), total);
    watch
}

#[test]
fn large_bodies_go_up_and_down_with_flat_memory_over_the_queue_and_over_http() {
    let _turn = Turn::heavy();
    let total = if is_long() { 1024 * MIB } else { 64 * MIB };
    for over in [Over::Queue, Over::Http, Over::Asgi] {
        let node = serving(over);
        // What the first ones make once is no growth.
        up(&node, MIB);
        down(&node, MIB);
        up(&node, total).assert_flat(&format!("up, {over:?}"));
        down(&node, total).assert_flat(&format!("down, {over:?}"));
        node.stop();
    }
}
