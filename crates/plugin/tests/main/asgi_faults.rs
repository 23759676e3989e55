//! The server of mfserv for Python workers, with ASGI apps and clients that misbehave.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::time::Duration;

use mfserv_plugin::base::BaseEnvironment;

use crate::asgi::{log, worker};
use crate::wsgi::End;
use crate::wsgi_client::{connect, get, raw_text as raw, what_is_no_request_is_refused};
use crate::wsgi_cost::{memory_kib, not_in_each_round};
use crate::{Node, until};

/// Each path of this app is one thing that an app must not be able to do, or must be able to.
const APP: &str = r#"
import asyncio, os, signal, sys

kept = {}
state = {"sent": 0, "gone": [], "failed": ""}

async def start(send, *headers, status=200):
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})

async def piece(send, body, more=False):
    await send({"type": "http.response.body", "body": body, "more_body": more})

BAD = {
    "value": (b"X-A", b"a\r\nX-Evil: 1"), "name": (b"X A", b"a"), "empty": (b"", b"a"),
    "negative": (b"Content-Length", b"-1"), "kind": (b"X-A", "text"), "three": (b"X-A", b"a", b"b"),
}

def fork(path):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    if path == "/fork-os-exit":
        os._exit(7)
    if path == "/fork-term":
        os.kill(os.getpid(), signal.SIGTERM)
        signal.pause()
    if path == "/fork-exit":
        sys.exit(7)
    # comes back to the server

async def app(scope, receive, send):
    assert scope["type"] == "http"
    path = scope["path"]
    if path.startswith("/bad/"):
        await start(send, BAD[path[5:]])
        return await piece(send, b"never seen")
    if path == "/status":
        await start(send, status=99)
    if path == "/twice":
        await start(send)
        await start(send)
    if path == "/no-start":
        await piece(send, b"never seen")
    if path == "/unknown":
        await send({"type": "http.response.nonsense"})
    if path == "/silent":
        return
    if path == "/only-start":
        return await start(send)
    if path == "/raise":
        raise ValueError("eels")
    if path == "/exit":
        sys.exit(3)
    if path == "/cancelled":
        raise asyncio.CancelledError()
    if path == "/late":
        await start(send)
        await piece(send, b"some", True)
        raise ValueError("while sending")
    if path == "/cut":
        await start(send)
        return await piece(send, b"some", True)
    if path == "/short":
        await start(send, (b"Content-Length", b"100"))
        return await piece(send, b"some")
    if path == "/long":
        await start(send, (b"Content-Length", b"4"))
        return await piece(send, b"123456")
    if path == "/after":
        await start(send)
        await piece(send, b"whole")
        try:
            await piece(send, b"more")
        except RuntimeError as error:
            state["failed"] = str(error)
        return
    if path == "/keep":
        kept.update(receive=receive, send=send)
    if path == "/use-kept":
        state["failed"] = str(await kept["receive"]())
        try:
            await start(kept["send"])
        except RuntimeError as error:
            state["failed"] += str(error)
    if path == "/stream":
        await start(send)
        for _ in range(3200):
            await piece(send, b"s" * 65536, True)
            state["sent"] += 1
        return await piece(send, b"")
    if path == "/endless":
        await start(send)
        await receive()
        watch = asyncio.ensure_future(receive())
        while not watch.done():
            await piece(send, b"e" * 65536, True)
        state["gone"].append("endless: " + watch.result()["type"])
        return
    if path == "/leaves":
        while (message := await receive())["type"] != "http.disconnect":
            pass
        state["gone"].append(path)
        await start(send)
        return await piece(send, b"to nobody")
    if path == "/count":
        total = 0
        while True:
            message = await receive()
            total += len(message["body"])
            if not message["more_body"]:
                break
        await start(send)
        return await piece(send, str(total).encode())
    if path == "/polls":
        for _ in range(100):
            try:
                await asyncio.wait_for(receive(), 0.001)
            except asyncio.TimeoutError:
                pass
    status = fork(path) if path.startswith("/fork") else None
    await start(send)
    await piece(send, repr(state if status is None else status).encode())
"#;

/// Called by the test that has made a base environment.
pub fn asgi_apps_and_clients_that_misbehave_harm_nobody_else(node: &Node, base: &BaseEnvironment) {
    let dir = node.plugin("python3_raw_asgi", "faults");
    fs::write(dir.join("main/application.py"), APP).unwrap();
    let socket = node.work().join("m");
    let arguments = ["--asgi", "--timeout=2", "main.application:app"];
    let mut app = worker(node, base, &dir, &arguments, &socket);
    get(&socket, "/", "");

    an_answer_that_would_deceive_is_refused(&socket);
    an_answer_that_breaks_off_is_seen_to_be_cut(&socket);
    nothing_of_a_request_is_reached_after_it(&socket);
    an_app_is_told_that_its_client_is_gone(&socket);
    a_slow_reader_stops_the_app(&app, &socket);
    a_large_body_is_received_as_it_is_read(&app, &socket);
    a_forked_child_takes_nothing_with_it(&socket);
    many_requests_need_no_more_memory(&app, &socket);

    // a request that never ends, at the end of the worker
    let mut forever = connect(&socket);
    forever.write_all(b"GET /leaves HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert!(get(&socket, "/", "").0.starts_with("HTTP/1.1 200"));
    app.signal("TERM");
    assert_eq!(app.ended().code(), Some(0), "after the time that one may take");
}

fn an_answer_that_would_deceive_is_refused(socket: &Path) {
    let bad = ["value", "name", "empty", "negative", "kind", "three"];
    let paths = bad.map(|kind| format!("/bad/{kind}"));
    let others = ["/status", "/twice", "/no-start", "/unknown", "/silent", "/only-start"];
    let failing = ["/raise", "/exit", "/cancelled"];
    let paths = paths.into_iter().chain(others.map(String::from)).chain(failing.map(String::from));
    for path in paths {
        let (head, body) = get(socket, &path, "");
        assert!(head.starts_with("HTTP/1.1 500"), "{path}: {head}");
        assert!(!head.contains("X-Evil") && body.starts_with("HTTP/500"), "{path}: {head} {body}");
    }
    for text in ["ValueError: eels", "SystemExit: 3", "returned without a response"] {
        assert!(log(socket).contains(text), "{text}: {}", log(socket));
    }
    what_is_no_request_is_refused(socket);
}

fn an_answer_that_breaks_off_is_seen_to_be_cut(socket: &Path) {
    let ask =
        |path: &str| raw(socket, format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes());
    for path in ["/late", "/cut"] {
        assert!(ask(path).ends_with("\r\n\r\n4\r\nsome\r\n"), "{path}: no last chunk");
    }
    assert!(ask("/short").ends_with("Content-Length: 100\r\n\r\nsome"));
    let two = b"GET /long HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answers = raw(socket, two);
    assert!(answers.contains("\r\n\r\n1234HTTP/1.1 200 OK"), "{answers}");
    let log = log(socket);
    for text in ["while sending", "before the end of its response", "shorter", "longer"] {
        assert!(log.contains(text), "{text}: {log}");
    }
}

fn nothing_of_a_request_is_reached_after_it(socket: &Path) {
    assert_eq!(get(socket, "/after", "").1, "whole");
    assert!(get(socket, "/", "").1.contains("was sent after the end of the response"));
    let post =
        "POST /keep HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 6\r\n\r\nsecret";
    raw(socket, post.as_bytes());
    let said = get(socket, "/use-kept", "").1;
    assert!(said.contains("http.disconnect") && said.contains("after the end"), "{said}");
    assert!(!said.contains("secret"), "{said}");
    // what is not read of a body is no request
    let body = "GET /exit HTTP/1.1\r\nHost: h\r\n\r\n".repeat(150);
    let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    let next = "GET /after HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    let answers = raw(socket, format!("{head}{body}{next}").as_bytes());
    assert_eq!(answers.matches("HTTP/1.1 ").count(), 2, "{answers}");
    assert!(answers.ends_with("whole"), "{answers}");
}

fn an_app_is_told_that_its_client_is_gone(socket: &Path) {
    for start in [
        "GET /leaves HTTP/1.1\r\nHost: h\r\n\r\n",
        "POST /leaves HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc",
    ] {
        let mut leaves = connect(socket);
        leaves.write_all(start.as_bytes()).unwrap();
        get(socket, "/polls", "");
        drop(leaves);
    }
    until("both are told", || get(socket, "/", "").1.matches("/leaves").count() == 2);
    // half closed: it still reads
    let half = connect(socket);
    (&half).write_all(b"GET /polls HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    half.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    (&half).read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
}

fn sent(socket: &Path) -> u32 {
    let text = get(socket, "/", "").1;
    let (_, rest) = text.split_once("'sent': ").unwrap();
    rest.split(',').next().unwrap().parse().unwrap()
}

/// 200 MiB: a quarter of it is a bound that nothing else reaches.
fn a_slow_reader_stops_the_app(app: &End, socket: &Path) {
    let before = memory_kib(app);
    let mut slow = connect(socket);
    slow.write_all(b"GET /stream HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    slow.read_exact(&mut [0; 1000]).unwrap();
    until("the app waits for its client", || {
        let pieces = sent(socket);
        // A look at the same number later.
        std::thread::sleep(Duration::from_millis(300));
        pieces > 0 && sent(socket) == pieces
    });
    assert!(sent(socket) < 100, "{} pieces for a client that does not read", sent(socket));
    let (mut total, mut space) = (1000, vec![0; 1 << 20]);
    loop {
        match slow.read(&mut space).unwrap() {
            0 => break,
            count => total += count,
        }
        assert!(memory_kib(app) < before + 50 * 1024, "{} KiB, {before} before", memory_kib(app));
    }
    assert!(total > 3200 * 65536, "whole: {total}");
    assert_eq!(sent(socket), 3200);
    let mut leaves = connect(socket);
    leaves.write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    leaves.read_exact(&mut [0; 1000]).unwrap();
    drop(leaves);
    until("a stream to nobody stops nobody", || {
        get(socket, "/", "").1.contains("endless: http.disconnect")
    });
}

fn a_large_body_is_received_as_it_is_read(app: &End, socket: &Path) {
    let before = memory_kib(app);
    let space = vec![b'u'; 1 << 20];
    for is_chunked in [false, true] {
        let mut upload = connect(socket);
        write!(upload, "POST /count HTTP/1.1\r\nHost: h\r\nConnection: close\r\n").unwrap();
        match is_chunked {
            true => write!(upload, "Transfer-Encoding: chunked\r\n\r\n").unwrap(),
            false => write!(upload, "Content-Length: {}\r\n\r\n", 100 << 20).unwrap(),
        }
        for _ in 0..100 {
            if is_chunked {
                write!(upload, "{:x}\r\n", space.len()).unwrap();
            }
            upload.write_all(&space).unwrap();
            if is_chunked {
                write!(upload, "\r\n").unwrap();
            }
        }
        if is_chunked {
            write!(upload, "0\r\n\r\n").unwrap();
        }
        let mut answer = String::new();
        upload.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(&(100 << 20).to_string()), "{answer}");
        assert!(memory_kib(app) < before + 50 * 1024, "{} KiB, {before} before", memory_kib(app));
    }
}

fn a_forked_child_takes_nothing_with_it(socket: &Path) {
    for (end, status) in [("exit", "1792"), ("os-exit", "1792"), ("term", "15"), ("back", "256")] {
        assert_eq!(get(socket, &format!("/fork-{end}"), "").1, status, "{end}");
        assert!(socket.exists() && get(socket, "/", "").0.starts_with("HTTP/1.1 200"), "{end}");
    }
}

fn many_requests_need_no_more_memory(app: &End, socket: &Path) {
    let mut stream = connect(socket);
    let one = "POST /count HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nabcdGET /after HTTP/1.1\r\nHost: h\r\n\r\n";
    let many = one.repeat(50);
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n4\
                  HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwhole";
    let mut space = vec![0; answer.len() * 50];
    let mut ask = |count: usize| {
        for _ in 0..count / 100 {
            stream.write_all(many.as_bytes()).unwrap();
            stream.read_exact(&mut space).unwrap();
            assert!(space.ends_with(answer.as_bytes()));
        }
    };
    ask(5000);
    // 8 bytes for each request
    not_in_each_round(160, || {
        let before = memory_kib(app);
        ask(20_000);
        memory_kib(app).saturating_sub(before)
    });
}
