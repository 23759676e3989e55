//! WebSockets of ASGI apps on the server of mfserv, byte by byte.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mfserv_plugin::base::BaseEnvironment;
use mfserv_testkit::websocket::{
    self, BINARY, CLOSE, PING, PONG, TEXT, closed, frame, next, read_head,
};

use crate::asgi::{log, worker};
use crate::wsgi::End;
use crate::wsgi_client::{connect, get, raw_text as raw};
use crate::wsgi_cost::memory_kib;
use crate::{Node, until};

/// Each path of this app is one thing that apps do.
const APP: &str = r#"
import asyncio, json

state = {"ended": [], "sent": 0, "received": 0, "failed": []}

async def told(path, receive):
    message = await receive()
    if message["type"] == "websocket.disconnect":
        state["ended"].append([path, message["code"], message["reason"]])
        return None
    return message

async def echo(path, receive, send):
    while message := await told(path, receive):
        await send({**message, "type": "websocket.send"})

async def app(scope, receive, send):
    path = scope["path"]
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        return await send({"type": "http.response.body", "body": json.dumps(state).encode()})
    assert scope["type"] == "websocket" and (await receive()) == {"type": "websocket.connect"}
    if path == "/never":
        return
    if path == "/early":
        raise ValueError("eels")
    if path == "/close":
        return await send({"type": "websocket.close"})
    if path == "/deny":
        await send({"type": "websocket.http.response.start", "status": 418, "headers": [(b"x-own", b"1")]})
        await send({"type": "websocket.http.response.body", "body": b"short ", "more_body": True})
        return await send({"type": "websocket.http.response.body", "body": b"and stout"})
    if path == "/list":
        return await send({"type": "websocket.close", "code": 1006, "reason": ["eels"]})
    if path == "/twice":
        await send({"type": "websocket.http.response.start", "status": 418})
        return await send({"type": "websocket.http.response.start", "status": 418})
    if path == "/scope":
        shown = [scope["scheme"], scope["subprotocols"], "method" in scope, list(scope["extensions"])]
        headers = [(b"X-Own", b"2"), (b"Sec-WebSocket-Extensions", b"none"), (b"Content-Length", b"9")]
        await send({"type": "websocket.accept", "subprotocol": "two", "headers": headers})
        return await send({"type": "websocket.send", "text": json.dumps(shown)})
    await send({"type": "websocket.accept"})
    if path == "/late":
        raise ValueError("late eels")
    if path == "/bye":
        await send({"type": "websocket.close", "code": 4000, "reason": "enough"})
        try:
            await send({"type": "websocket.send", "text": "after"})
        except RuntimeError as error:
            state["failed"].append(str(error))
        return await told(path, receive)
    if path == "/flood":
        try:
            while True:
                await send({"type": "websocket.send", "bytes": b"f" * 65536})
                state["sent"] += 1
        except OSError as error:
            state["failed"].append(str(error))
        return await told(path, receive)
    if path == "/deaf":
        await asyncio.sleep(1)
        while message := await told(path, receive):
            state["received"] += len(message["bytes"])
        return
    await echo(path, receive, send)
"#;

/// The same app in a worker that asks more often for signs of life.
const HASTY: &str = r#"
import mfserv_worker.asgi
from main.application import app
mfserv_worker.asgi.PING_SECONDS = 3.0
"#;

fn request(path: &str, fields: &str) -> String {
    websocket::request("h", path, fields)
}

/// A WebSocket, and the head of the answer.
fn open(socket: &Path, path: &str, fields: &str) -> (UnixStream, String) {
    let mut stream = connect(socket);
    stream.write_all(request(path, fields).as_bytes()).unwrap();
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
    (stream, head)
}

fn is_over(stream: &mut UnixStream) {
    // What was not read of the client resets the connection.
    assert_eq!(stream.read(&mut [0; 9]).unwrap_or(0), 0, "the server closes the connection");
}

fn state(socket: &Path) -> serde_json::Value {
    serde_json::from_str(&get(socket, "/", "").1).unwrap()
}

fn until_ended(socket: &Path, path: &str, code: u16, reason: &str) {
    let end = serde_json::json!([path, code, reason]);
    until("the app is told why", || state(socket)["ended"].as_array().unwrap().contains(&end));
}

/// Called by the test that has made a base environment.
pub fn websockets_are_served_as_they_are_promised(node: &Node, base: &BaseEnvironment) {
    let dir = node.plugin("python3_raw_asgi", "websocket");
    fs::write(dir.join("main/application.py"), APP).unwrap();
    let socket = node.work().join("k");
    let mut app = worker(node, base, &dir, &["--asgi", "main.application:app"], &socket);
    fs::write(dir.join("main/hasty.py"), HASTY).unwrap();
    let hasty = node.work().join("h");
    let _hasty = worker(node, base, &dir, &["--asgi", "main.hasty:app"], &hasty);
    std::thread::scope(|scope| {
        // It takes a while, of which most is sleep.
        scope.spawn(|| a_client_that_gives_no_sign_of_life_is_closed(&hasty));
        get(&socket, "/", "");
        a_handshake_is_that_of_the_rfc(&socket);
        what_is_not_accepted_is_answered(&socket);
        messages_go_both_ways(&socket);
        each_end_has_its_code(&socket);
        neither_side_is_flooded(&app, &socket);
        a_stop_closes_with_1012(&mut app, &socket);
    });
}

fn a_handshake_is_that_of_the_rfc(socket: &Path) {
    let fields = "Sec-WebSocket-Protocol: one, two\r\nX-Forwarded-Proto: https\r\n\
                  Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let (mut stream, head) = open(socket, "/scope", fields);
    for line in [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        "Sec-WebSocket-Protocol: two",
        "X-Own: 2",
    ] {
        assert_eq!(head.lines().filter(|it| *it == line).count(), 1, "{line}: {head}");
    }
    assert!(!head.contains("Extensions") && !head.contains("Length"), "{head}");
    let shown = br#"["wss", ["one", "two"], false, ["websocket.http.response"]]"#;
    assert_eq!(next(&mut stream), (TEXT, shown.to_vec()));
    assert_eq!(next(&mut stream), closed(1000, ""), "the app has returned");
    stream.write_all(&frame(CLOSE, &[3, 232])).unwrap();
    is_over(&mut stream);

    let good = request("/", "");
    for (old, new, status) in [
        ("Version: 13", "Version: 8", "426 Upgrade Required\r\n"),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", "426"),
        ("ZQ==", "ZQ=", "400 Bad Request\r\n"),
        ("Sec-WebSocket-Key", "X-Key", "400"),
        ("GET", "PUT", "400"),
    ] {
        let answer = raw(socket, good.replace(old, new).as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{new}: {answer}");
        assert_eq!(answer.contains("Sec-WebSocket-Version: 13\r\n"), status.starts_with("426"));
    }
    // another protocol is none that the server has to speak
    let other = good.replace("Upgrade: websocket", "Upgrade: other").replace("\r\n\r\n", "\r\n");
    let answer =
        raw(socket, format!("{}\r\n", other.replace("keep-alive, ", "close, ")).as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

fn what_is_not_accepted_is_answered(socket: &Path) {
    for (path, status, body) in [
        ("/close", "403 Forbidden", ""),
        ("/deny", "418 I'm a Teapot", "9\r\nand stout\r\n0\r\n\r\n"),
        ("/list", "403 Forbidden", ""),
        ("/twice", "500 Internal", ""),
        ("/never", "500 Internal", ""),
        ("/early", "500 Internal", ""),
    ] {
        let answer = raw(socket, request(path, "").as_bytes());
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path}: {answer}");
        assert!(answer.ends_with(body) && answer.contains("Connection: close"), "{path}: {answer}");
    }
    for text in ["without an answer to a WebSocket", "ValueError: eels"] {
        until("it is logged, after the answer", || log(socket).contains(text));
    }
}

fn messages_go_both_ways(socket: &Path) {
    // The first message comes with the handshake.
    let mut stream = connect(socket);
    let first = [request("/echo", "").as_bytes(), &frame(TEXT, "eê".as_bytes())].concat();
    stream.write_all(&first).unwrap();
    let mut head = vec![0; 129];
    stream.read_exact(&mut head).unwrap();
    assert!(head.ends_with(b"\r\n\r\n"), "{}", String::from_utf8_lossy(&head));
    assert_eq!(next(&mut stream), (TEXT, "eê".into()));

    let (mut stream, _) = open(socket, "/echo", "");
    let large = vec![0xff; 16 << 20];
    std::thread::scope(|scope| {
        let mut writer = stream.try_clone().unwrap();
        let (small, large) = (&large[..70_000], &large);
        scope.spawn(move || {
            let frames = [frame(BINARY, b""), frame(BINARY, small), frame(BINARY, large)];
            writer.write_all(&frames.concat()).unwrap();
        });
        for length in [0, 70_000, large.len()] {
            let (first, payload) = next(&mut stream);
            assert!(first == BINARY && payload == large[..length], "{length}");
        }
    });
    // a message in parts, and a ping between them
    let parts = [frame(1, b"a"), frame(PING, b"there?"), frame(0, b"b"), frame(0x80, b"c")];
    stream.write_all(&parts.concat()).unwrap();
    assert_eq!(next(&mut stream), (PONG, b"there?".to_vec()));
    assert_eq!(next(&mut stream), (TEXT, b"abc".to_vec()));
}

fn each_end_has_its_code(socket: &Path) {
    for (path, sent, answer, told) in [
        ("/none", frame(CLOSE, b""), (CLOSE, Vec::new()), (1005, "")),
        ("/own", frame(CLOSE, b"\x0f\xa1why"), closed(4001, ""), (4001, "why")),
        ("/mask", b"\x81\x01a".to_vec(), closed(1002, "a frame without a mask"), (1002, "*")),
        ("/utf", frame(TEXT, b"\xff"), closed(1007, "a text that is not UTF-8"), (1007, "*")),
        (
            "/big",
            frame(BINARY, &vec![0; (16 << 20) + 1])[..20].to_vec(),
            closed(1009, "the message is too big"),
            (1009, "*"),
        ),
    ] {
        let (mut stream, _) = open(socket, path, "");
        stream.write_all(&sent).unwrap();
        let found = next(&mut stream);
        assert_eq!(found, answer, "{path}");
        is_over(&mut stream);
        let reason = String::from_utf8_lossy(found.1.get(2..).unwrap_or_default()).into_owned();
        until_ended(socket, path, told.0, if told.1 == "*" { &reason } else { told.1 });
    }
    let (stream, _) = open(socket, "/leaves", "");
    drop(stream);
    until_ended(socket, "/leaves", 1006, "");

    let (mut stream, _) = open(socket, "/late", "");
    assert_eq!(next(&mut stream), closed(1011, ""));
    until("the error is logged", || log(socket).contains("late eels"));

    let (mut stream, _) = open(socket, "/bye", "");
    assert_eq!(next(&mut stream), closed(4000, "enough"));
    until_ended(socket, "/bye", 4000, "enough");
    stream.write_all(&[frame(TEXT, b"too late"), frame(CLOSE, &[0x0f, 0xa0])].concat()).unwrap();
    is_over(&mut stream);
    assert!(state(socket)["failed"][0].as_str().unwrap().contains("that is closed"));
}

/// It is asked every three seconds.
fn a_client_that_gives_no_sign_of_life_is_closed(socket: &Path) {
    get(socket, "/", "");
    let (mut dead, _) = open(socket, "/dead", "");
    let (mut quiet, _) = open(socket, "/quiet", "");
    let mut ping = [0; 2 + 6];
    for _ in 0..2 {
        quiet.read_exact(&mut ping).unwrap();
        assert_eq!(ping[..2], [PING, 6]);
        quiet.write_all(&frame(PONG, &ping[2..])).unwrap();
    }
    quiet.write_all(&frame(TEXT, b"alive")).unwrap();
    assert_eq!(next(&mut quiet), (TEXT, b"alive".to_vec()));
    assert_eq!(next(&mut dead), closed(1011, "keepalive ping timeout"));
    until_ended(socket, "/dead", 1011, "keepalive ping timeout");
}

fn neither_side_is_flooded(app: &End, socket: &Path) {
    let before = memory_kib(app);
    let (mut slow, _) = open(socket, "/flood", "");
    until("the app waits for its client", || {
        let sent = state(socket)["sent"].clone();
        // A look at the same number later.
        std::thread::sleep(Duration::from_millis(300));
        sent != 0 && state(socket)["sent"] == sent
    });
    assert!(state(socket)["sent"].as_u64().unwrap() < 100);
    slow.read_exact(&mut [0; 1000]).unwrap();
    drop(slow);
    until("the app is told", || {
        state(socket)["failed"].to_string().contains("client that is gone")
    });
    until_ended(socket, "/flood", 1006, "");

    // An app that receives nothing for a second, and a client that leaves before.
    let (mut fast, _) = open(socket, "/deaf", "");
    let blob = frame(BINARY, &[7; 1 << 20]);
    for _ in 0..100 {
        fast.write_all(&blob).unwrap();
        let now = memory_kib(app);
        assert!(now < before + 50 * 1024, "{now} KiB, {before} before");
    }
    drop(fast);
    until_ended(socket, "/deaf", 1006, "");
    assert_eq!(state(socket)["received"], 100 << 20, "all of it");
}

fn a_stop_closes_with_1012(app: &mut End, socket: &Path) {
    let mut streams: Vec<_> = (0..3).map(|_| open(socket, "/echo", "").0).collect();
    app.signal("TERM");
    for stream in &mut streams {
        assert_eq!(next(stream), closed(1012, ""));
        stream.write_all(&frame(CLOSE, &[0x03, 0xf4])).unwrap();
        is_over(stream);
    }
    assert_eq!(app.ended().code(), Some(0), "{}", log(socket));
    assert!(!log(socket).contains("1012"), "{}", log(socket));
}
