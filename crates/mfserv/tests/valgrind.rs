//! Python workers whose memory valgrind watches: the module of the server reads and writes no
//! memory that is not its own, and loses none. Only with `MFSERV_LONG`, where there is a valgrind.

use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::time::Duration;

use mfserv_testkit::websocket::{
    BINARY, CLOSE, PING, PONG, TEXT, closed, frame, next, read_head, request,
};
use mfserv_testkit::{Load, Node, Plugin, skipped, until};

use crate::{PATIENCE, Turn, node};

/// The module, by the name of its file.
const MODULE: &str = "_mfserv_worker.abi3.so";

/// What is lost so many times is lost by requests, not once by the interpreter.
const OFTEN: u32 = 50;

/// Starts the interpreter of the worker under valgrind; it has the name of the worker, by which the
/// node knows how many requests it takes, and that it can pull them. Python takes each object from malloc
/// then: else valgrind sees pools of objects only.
const UNDER_VALGRIND: &str = r#"#!/bin/sh
worker=$(command -v mfserv_worker)
python=$(sed -n '1s/^#!//p' "$worker")
here=$(dirname "$0")/..
export PYTHONMALLOC=malloc
exec valgrind --quiet --leak-check=full --show-leak-kinds=definite --num-callers=40 --xml=yes \
    --xml-file="$here/found.%p.xml" "$python" "$worker" "$@"
"#;

const WSGI: &str = r#"
PIECE = b"p" * 70000


def pieces():
    yield b"one "
    yield PIECE


def fails():
    yield PIECE
    raise ValueError("eels")


def application(environ, start_response):
    path = environ["PATH_INFO"].rsplit("/", 1)[1]
    body = environ["wsgi.input"].read() if path != "unread" else b""
    if path == "early":
        raise ValueError("eels")
    write = start_response("200 OK", [("Content-Type", "text/plain"), ("X-Own", "1")])
    if path == "written":
        write(b"written ")
    if path == "file":
        return environ["wsgi.file_wrapper"](open(__file__, "rb"))
    answers = {"pieces": pieces, "late": fails}
    return answers[path]() if path in answers else [body or b"hello"]
"#;

const ASGI: &str = r#"
import asyncio

PIECE = b"p" * 70000


async def echo(receive, send):
    await receive()
    await send({"type": "websocket.accept", "subprotocol": "one"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


async def application(scope, receive, send):
    assert scope["type"] != "lifespan"
    if scope["type"] == "websocket":
        return await echo(receive, send)
    path = scope["path"].rsplit("/", 1)[1]
    body, has_more = b"", path != "unread"
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, has_more = body + message["body"], message["more_body"]
    if path == "early":
        raise ValueError("eels")
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-own", b"1")]})
    if path == "file":
        return await send({"type": "http.response.pathsend", "path": __file__})
    if path in ("pieces", "late"):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
        await asyncio.sleep(0)
    if path == "late":
        raise ValueError("eels")
    await send({"type": "http.response.body", "body": body or b"hello"})
"#;

/// The plugins: one pulls from a queue, one has threads, one is of ASGI.
const PLUGINS: [(&str, &str, &str); 3] =
    [("pulls", WSGI, "--wsgi"), ("threads", WSGI, "--wsgi"), ("asgi", ASGI, "--asgi")];

fn plugin((name, app, interface): (&str, &str, &str)) -> Plugin {
    let command = format!(
        "{{plugin_dir}}/watched/mfserv_worker {interface} main:application {{unix_socket_path}}"
    );
    let plugin =
        Plugin::new(name).file("main.py", app).file("watched/mfserv_worker", UNDER_VALGRIND);
    let plugin = plugin.app("main", &command);
    // Everything takes thirty times as long.
    let plugin = plugin.key("app_main", "_start_timeout", "300");
    let plugin = plugin.key("app_main", "smart_stop_delay", "300");
    match name {
        "threads" => plugin.key("app_main", "_python_threads", "4"),
        _ => plugin,
    }
}

/// Requests of each kind, many at a time.
fn ask_much(node: &Node) {
    let loads = PLUGINS.map(|(name, ..)| {
        let load = Load::new(node.address(), &format!("/{name}/plain"));
        let load = ["pieces", "file", "written", "unread"]
            .iter()
            .fold(load, |load, path| load.also(&format!("/{name}/{path}")));
        load.connections(4).post_every(2).pause(Duration::ZERO).start()
    });
    for load in loads {
        until("1,000 answers", PATIENCE * 10, || load.answered() >= 1000);
        let report = load.stop();
        println!("{}", report.sentence());
        report.assert_nothing_failed();
    }
}

/// Apps that fail, and clients that leave.
fn fail(node: &Node) {
    for (name, ..) in PLUGINS {
        for _ in 0..20 {
            assert_eq!(node.get(&format!("/{name}/early")).status, 500);
            let mut late = TcpStream::connect(node.address()).unwrap();
            write!(late, "GET /{name}/late HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            assert!(read_head(&mut late).starts_with("HTTP/1.1 200 "));
            let mut leaves = TcpStream::connect(node.address()).unwrap();
            let head = format!("POST /{name}/plain HTTP/1.1\r\nHost: h\r\nContent-Length: 99999");
            write!(leaves, "{head}\r\n\r\nsome").unwrap();
            leaves.shutdown(Shutdown::Both).unwrap();
        }
        assert_eq!(node.get(&format!("/{name}/plain")).text(), "hello");
    }
}

/// WebSockets that end well, badly, and not at all.
fn talk(node: &Node) {
    for turn in 0..100 {
        let mut stream = TcpStream::connect(node.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let fields = "Sec-WebSocket-Protocol: one\r\n";
        stream.write_all(request("h", "/asgi/talk", fields).as_bytes()).unwrap();
        assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
        for (first, payload) in [(TEXT, &b"text"[..]), (BINARY, &[7; 70000]), (TEXT, b"")] {
            stream.write_all(&frame(first, payload)).unwrap();
            assert_eq!(next(&mut stream), (first, payload.to_vec()));
        }
        let parts = [frame(0x01, b"two "), frame(PING, b"there?"), frame(0x80, b"frames")].concat();
        stream.write_all(&parts).unwrap();
        assert_eq!(next(&mut stream), (PONG, b"there?".to_vec()));
        assert_eq!(next(&mut stream), (TEXT, b"two frames".to_vec()));
        let (last, end) = match turn % 3 {
            0 => (frame(CLOSE, &4001_u16.to_be_bytes()), closed(4001, "")),
            1 => (frame(TEXT, b"\xff"), closed(1007, "")),
            _ => continue,
        };
        stream.write_all(&last).unwrap();
        assert_eq!(next(&mut stream).1[..2], end.1[..2]);
    }
}

/// The errors in a report: of which kind, and the whole text.
fn errors(report: &str) -> Vec<(&str, &str)> {
    let errors = report.split("<error>").skip(1);
    errors.map(|error| (inside(error, "kind").next().unwrap(), error)).collect()
}

/// The texts of all elements of a name.
fn inside<'a>(text: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    text.split(&open as &str)
        .skip(1)
        .map(move |rest| rest.split(&close as &str).next().unwrap())
        .collect::<Vec<_>>()
        .into_iter()
}

/// Whether an error is one of the module. What is read, written or freed that is not there may be
/// its doing wherever it is seen: the interpreter has none of these. So may what is lost below its
/// calls again and again, as an object of Python that each request leaves. Otherwise it is whose function the first one is that is not of libc or valgrind: the interpreter keeps
/// much to its end, and looks at bytes that it does not use.
fn is_of_the_module(kind: &str, error: &str) -> bool {
    let stack = inside(error, "stack").next().unwrap_or_default();
    let of_libc = |object: &&str| {
        ["/libc.so", "/libc-", "/vgpreload_", "/ld-linux", "/libpthread"]
            .iter()
            .any(|name| object.contains(name))
    };
    let first = inside(stack, "obj").find(|object| !of_libc(object));
    let lost = inside(error, "leakedblocks").next().map_or(0, |count| count.parse().unwrap());
    kind.starts_with("Invalid")
        || kind == "MismatchedFree"
        || (lost >= OFTEN && inside(stack, "obj").any(|object| object.ends_with(MODULE)))
        || first.is_some_and(|object| object.ends_with(MODULE))
}

/// Reads the reports of a plugin; how many there are.
fn assert_nothing_was_found(dir: &Path) -> usize {
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let reports: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "xml")).collect();
    for path in &reports {
        let report = fs::read_to_string(path).unwrap();
        assert!(report.contains("</valgrindoutput>"), "{} has no end", path.display());
        let all = errors(&report);
        let (of_module, others): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(kind, error)| is_of_the_module(kind, error));
        println!("{}: {} of others", path.display(), others.len());
        assert!(of_module.is_empty(), "{} of the module: {:?}", of_module.len(), of_module[0]);
    }
    reports.len()
}

#[test]
fn valgrind_finds_no_error_in_the_module_of_python_workers() {
    if std::env::var_os("MFSERV_LONG").is_none() {
        return skipped("Python workers under valgrind: MFSERV_LONG=1 runs them");
    }
    if std::process::Command::new("valgrind").arg("--version").output().is_err() {
        return skipped("Python workers under valgrind: it is not on PATH");
    }
    let _turn = Turn::heavy();
    let node = node();
    let dirs = PLUGINS.map(|one| node.add(&plugin(one)));
    node.start();
    for (name, ..) in PLUGINS {
        node.settled(&format!("app.{name}.main"));
    }
    ask_much(&node);
    let pulling = node.pids("app.pulls.main")[0];
    let maps = fs::read_to_string(format!("/proc/{pulling}/maps")).unwrap();
    let has = |what: &str| maps.lines().any(|line| line.contains(what));
    let log = node.log_lines("app_pulls_main");
    assert!(
        has(MODULE) && has("mfserv-requests"),
        "it does not pull, or not by the module: {log:?}"
    );
    fail(&node);
    talk(&node);
    node.stop();
    for dir in dirs {
        assert_eq!(assert_nothing_was_found(&dir), 1, "one worker in {}", dir.display());
    }
}
