//! The server of mfserv with ASGI apps: requests share one event loop, and none keeps it for itself.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use mfserv_core::watcher::STACK_SIGNAL;
use mfserv_plugin::base::BaseEnvironment;

use crate::asgi::{log, worker};
use crate::wsgi_client::{connect, get, raw_text as raw};
use crate::wsgi_cost::long_names_are_not_kept;
use crate::{Node, until};

/// Each path of this app is one thing that apps do. It holds the event loop until a file is there.
const APP: &str = r#"
import asyncio, contextvars, os, time

mine = contextvars.ContextVar("mine", default="nothing")
noted = []

async def start(send):
    await send({"type": "http.response.start", "status": 200, "headers": []})

async def piece(send, body, more=False):
    await send({"type": "http.response.body", "body": body, "more_body": more})

def hold():
    open("holds", "w").close()
    end = time.monotonic() + 300
    while not os.path.exists("release") and time.monotonic() < end:
        time.sleep(0.01)

async def upload(receive):
    now = {"bytes": 0, "messages": 0}
    most = dict(now)

    async def other():
        while True:
            now.update(bytes=0, messages=0)
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    while (message := await receive())["more_body"]:
        # The client sends meanwhile.
        if len(message["body"]) > 1:
            time.sleep(0.002)
        now["bytes"] += len(message["body"])
        now["messages"] += 1
        most = {key: max(most[key], now[key]) for key in most}
    task.cancel()
    return "{bytes} {messages}".format(**most)

async def positions(send):
    await start(send)
    with open("digits", "rb") as file:
        part = {"type": "http.response.zerocopysend", "file": file, "more_body": True}
        await send({**part, "count": 4})
        await send({**part, "count": 4})
        try:
            await send({**part, "count": 9})
        except ValueError as error:
            return await piece(send, str(error).encode())

async def from_a_thread(send):
    loop = asyncio.get_running_loop()
    await start(send)
    last = {"type": "http.response.body", "body": b"second"}
    sent = await loop.run_in_executor(None, send, last)
    await piece(send, b"first", True)
    await loop.run_in_executor(None, lambda: asyncio.run_coroutine_threadsafe(sent, loop).result(60))

async def app(scope, receive, send):
    assert scope["type"] == "http"
    path, body = scope["path"], b"fine"
    if path == "/upload":
        body = (await upload(receive)).encode()
    if path == "/positions":
        return await positions(send)
    if path == "/thread":
        return await from_a_thread(send)
    if path == "/fifo":
        if not os.path.exists("fifo"):
            os.mkfifo("fifo")
        await start(send)
        return await send({"type": "http.response.pathsend", "path": os.path.abspath("fifo")})
    if path == "/note":
        noted.append("asked")
    if path == "/take":
        total, message = 0, {"more_body": True}
        noted.append("takes")
        while message.get("more_body"):
            message = await receive()
            total += len(message.get("body", b""))
        noted.append(f"took {total}")
    if path == "/noted":
        body = " ".join(noted).encode()
    if path == "/hold":
        mine.set("of another request")
        hold()
    if path == "/context":
        body = mine.get().encode()
    await start(send)
    await piece(send, body)
"#;

/// The answer to most of its requests.
const FINE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";

/// Called by the tests that have made a base environment.
pub fn no_request_keeps_the_event_loop_for_itself(node: &Node, base: &BaseEnvironment) {
    let dir = node.plugin("python3_raw_asgi", "loop");
    fs::write(dir.join("main/application.py"), APP).unwrap();
    fs::write(dir.join("digits"), "0123456789").unwrap();
    let start = |name: &str| {
        let socket = node.work().join(name);
        let app = worker(node, base, &dir, &["--asgi", "main.application:app"], &socket);
        get(&socket, "/", "");
        (app, socket)
    };
    let (mut app, socket) = start("p");
    requests_of_one_connection_wait_for_nothing(&socket);
    an_upload_lets_others_have_their_turn(&socket);
    files_are_sent_from_where_they_are(&socket);
    another_thread_sends_when_it_is_awaited(&socket);
    what_was_sent_before_a_client_left_is_received(&dir, &socket);
    long_names_are_not_kept(&app, &socket);

    // A signal comes while a request runs: what it begins has nothing of that request.
    let held = held(&dir, &socket);
    let mut other = connect(&socket);
    other.write_all(b"GET /context HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    app.signal("TERM");
    fs::write(dir.join("release"), "").unwrap();
    let mut answer = String::new();
    other.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("\r\n\r\nnothing"), "{answer}");
    drop(held);
    assert_eq!(app.ended().code(), Some(0), "{}", log(&socket));

    let (mut blocked, socket) = start("q");
    let _held = self::held(&dir, &socket);
    blocked.signal(&STACK_SIGNAL.to_string());
    until("the log says what holds the loop", || log(&socket).contains("in hold\n"));
    until("a second signal ends a worker whose loop is blocked", || {
        blocked.signal("TERM");
        blocked.0.try_wait().unwrap().is_some()
    });
    assert_eq!(blocked.ended().signal(), Some(15), "{}", log(&socket));
}

/// A request that holds the event loop until `release` is there.
fn held(dir: &Path, socket: &Path) -> std::os::unix::net::UnixStream {
    for name in ["release", "holds"] {
        let _ = fs::remove_file(dir.join(name));
    }
    let mut stream = connect(socket);
    stream.write_all(b"GET /hold HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    until("the request holds the loop", || dir.join("holds").exists());
    stream
}

fn requests_of_one_connection_wait_for_nothing(socket: &Path) {
    let mut stream = connect(socket);
    stream.write_all("GET / HTTP/1.1\r\nHost: h\r\n\r\n".repeat(8).as_bytes()).unwrap();
    let mut answers = vec![0; FINE.len() * 8];
    stream.read_exact(&mut answers).unwrap();
    assert_eq!(String::from_utf8_lossy(&answers), FINE.repeat(8));
}

fn an_upload_lets_others_have_their_turn(socket: &Path) {
    let head = "POST /upload HTTP/1.1\r\nHost: h\r\nConnection: close\r\n";
    let seen = |bytes: &[u8]| -> (usize, usize) {
        let answer = raw(socket, bytes);
        let (_, most) = answer.split_once("\r\n\r\n").unwrap();
        let (bytes, messages) = most.split_once(' ').unwrap_or_else(|| panic!("{answer}"));
        (bytes.parse().unwrap(), messages.parse().unwrap())
    };
    let mut large = format!("{head}Content-Length: {}\r\n\r\n", 16 << 20).into_bytes();
    large.resize(large.len() + (16 << 20), b'u');
    let (bytes, _) = seen(&large);
    assert!(bytes > 0 && bytes <= (1 << 20) + (64 << 10), "{bytes} without a pause");
    let chunks = "1\r\nx\r\n".repeat(1000);
    let (_, messages) =
        seen(format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n").as_bytes());
    assert!(messages > 0 && messages <= 64, "{messages} without a pause");
}

fn files_are_sent_from_where_they_are(socket: &Path) {
    let (head, _) = get(socket, "/fifo", "");
    assert!(head.starts_with("HTTP/1.1 500"), "nobody waits for its other end: {head}");
    let body = get(socket, "/positions", "").1;
    assert!(body.starts_with("4\r\n0123\r\n4\r\n4567\r\n"), "the position moves: {body}");
    assert!(body.contains("the file has only 2 bytes from 8 on, not 9"), "{body}");
}

fn another_thread_sends_when_it_is_awaited(socket: &Path) {
    let body = get(socket, "/thread", "").1;
    assert_eq!(body, "5\r\nfirst\r\n6\r\nsecond\r\n0\r\n\r\n", "{}", log(socket));
}

fn what_was_sent_before_a_client_left_is_received(dir: &Path, socket: &Path) {
    let noted = |text: &str| get(socket, "/noted", "").1.contains(text);
    let mut asks = connect(socket);
    asks.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    asks.read_exact(&mut vec![0; FINE.len()]).unwrap();
    let mut sends = connect(socket);
    sends.write_all(b"POST /take HTTP/1.1\r\nHost: h\r\nContent-Length: 200000\r\n\r\n").unwrap();
    until("the app waits for the body", || noted("takes"));
    let _held = held(dir, socket);
    asks.write_all(b"GET /note HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    drop(asks);
    // As much as the socket keeps.
    sends.set_nonblocking(true).unwrap();
    let sent = sends.write(&[b'b'; 150_000]).unwrap();
    drop(sends);
    fs::write(dir.join("release"), "").unwrap();
    until("the last request of a client is served", || noted("asked"));
    until("the last bytes of a body are received", || noted(&format!("took {sent}")));
}
