//! The server of mfserv for Python workers where something runs out: time, descriptors, the
//! patience of a client that sends requests without reading answers, a file.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mfserv_plugin::base::BaseEnvironment;

use crate::wsgi::{End, get, worker};
use crate::wsgi_cost::memory_kib;
use crate::wsgi_faults::{connect, raw};
use crate::{Node, until};

const APP: &str = r#"
import io, os, resource, threading, time

state = {}

class Late:
    def __iter__(self):
        return self
    def __next__(self):
        time.sleep(30)
    def close(self):
        try:
            time.sleep(0.4)
            state["closed"] = "whole"
        except BaseException as error:
            state["closed"] = repr(error)

def reader(body):
    def read():
        try:
            state["read"] = body.read()
        except Exception as error:
            state["read"] = repr(error)
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread

def few_files():
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def shrinking():
    with open("shrinks", "wb") as file:
        file.write(b"z" * 5000000)
    threading.Timer(0.2, os.truncate, ("shrinks", 1000)).start()
    return open("shrinks", "rb")

def as_file(body):
    space = bytearray(3)
    seen = [type(body).__name__, body.readable(), body.writable(), body.seekable(), body.closed,
            body.readinto(space), bytes(space), body.read1(2)]
    return seen + [io.BufferedReader(body).read(1), io.TextIOWrapper(body).read()]

def short():
    yield b"a"
    raise ValueError("no more")

def application(environ, start_response):
    path, body = environ["PATH_INFO"], environ["wsgi.input"]
    headers = [("Content-Length", "10")] if path == "/short" else []
    if path == "/interim":
        start_response("100 Continue", [])
    if path == "/thread":
        thread = reader(body)
        time.sleep(0.2)
        start_response("200 OK", [])
        open("answering", "w").close()
        thread.join()
        return [state["read"]]
    if path == "/thread-slow":
        reader(body)
        time.sleep(30)
    if path == "/thread-left":
        reader(body)
        time.sleep(0.2)
    if path == "/nap":
        time.sleep(0.5)
    if path == "/few-files":
        few_files()
    write = start_response("200 OK", headers)
    if path == "/late":
        return Late()
    if path == "/short":
        return short()
    if path == "/shrink":
        return environ["wsgi.file_wrapper"](shrinking())
    if path == "/asks-late":
        write(b"first")
        return [body.read()]
    if path == "/iterable":
        return iter([b"no", b"pe"])
    if path == "/size":
        return [str(len(body.read())).encode()]
    if path == "/as-file":
        return [repr(as_file(body)).encode()]
    if path == "/state":
        return [repr(state).encode()]
    if path == "/field":
        return [environ["HTTP_X_FOO"].encode()]
    if path == "/large":
        return [b"l" * 3000000]
    return [b"fine"]
"#;

/// Called by the test that has made a base environment.
pub fn what_runs_out_harms_nobody_else(node: &Node, base: &BaseEnvironment) {
    let dir = node.plugin("python3_raw_wsgi", "limits");
    fs::write(dir.join("main/wsgi.py"), APP).unwrap();
    let socket = node.work().join("l");
    let arguments = ["--timeout=2", "main.wsgi:application"];
    let mut app = worker(&node.home, (base, "mfserv"), &dir, &arguments, &socket);
    get(&socket, "/", "");

    a_large_body_is_kept_once(&app, &socket);
    a_body_that_streams_is_a_file(&socket);
    a_thread_may_read_the_body(&dir, &socket);
    nothing_is_said_in_the_middle_of_an_answer(&socket);
    requests_without_a_pause_are_all_answered(&app, &socket);
    every_field_arrives_whatever_its_letters(&socket);
    a_late_iterable_cleans_up(&socket);
    an_answer_that_is_cut_is_logged_once(&dir, &socket);
    assert!(get(&socket, "/interim", "").0.starts_with("HTTP/1.1 500"), "no answer ends there");
    clients_are_accepted_again_under_load(&socket);

    app.signal("TERM");
    assert_eq!(app.0.wait().unwrap().code(), Some(0));
}

fn a_large_body_is_kept_once(app: &End, socket: &Path) {
    let size = 40_000_000;
    let peak = "VmHWM:";
    let before = memory_kib(app, peak);
    let mut request = b"POST /size HTTP/1.1\r\nHost: h\r\nConnection: close\r\n".to_vec();
    request.extend_from_slice(format!("Content-Length: {size}\r\n\r\n").as_bytes());
    request.resize(request.len() + size, b'x');
    assert!(raw(socket, &request).ends_with("\r\n\r\n40000000"));
    let after = memory_kib(app, peak);
    assert!(after < before + 50_000, "{after} KiB, {before} before");
}

const CHUNKED: &str = "HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n";

fn a_body_that_streams_is_a_file(socket: &Path) {
    let head = format!("POST /as-file {CHUNKED}Connection: close\r\n\r\n");
    let answer = raw(socket, format!("{head}8\r\nabcdef\ng\r\n1\r\nh\r\n0\r\n\r\n").as_bytes());
    let seen = "['Input', True, False, False, False, 3, b'abc', b'de', b'f', '";
    assert!(answer.contains(seen), "{answer}");
}

fn a_thread_may_read_the_body(dir: &Path, socket: &Path) {
    let begin = |path: &str| {
        let mut stream = connect(socket);
        write!(stream, "POST {path} {CHUNKED}\r\n2\r\n12\r\n").unwrap();
        stream
    };
    let mut answer = [0; 12];
    // The app has begun its answer before the rest of the body comes.
    let mut whole = begin("/thread");
    until("the app answers", || dir.join("answering").exists());
    whole.write_all(b"2\r\n34\r\n0\r\n\r\n").unwrap();
    let mut space = vec![0; 1000];
    let count = whole.read(&mut space).unwrap();
    let text = String::from_utf8_lossy(&space[..count]).into_owned();
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("1234"), "{text}");

    // What another thread waits for is not the time of the client.
    begin("/thread-slow").read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");

    let mut left = begin("/thread-left");
    left.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    until("the thread is told", || get(socket, "/state", "").1.contains("the request is over"));
}

fn nothing_is_said_in_the_middle_of_an_answer(socket: &Path) {
    let mut stream = connect(socket);
    stream
        .write_all(
            b"POST /asks-late HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n\
              Content-Length: 4\r\n\r\n",
        )
        .unwrap();
    let mut first = vec![0; 1000];
    let count = stream.read(&mut first).unwrap();
    stream.write_all(b"body").unwrap();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    let answer = String::from_utf8_lossy(&first[..count]).into_owned() + &rest;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Connection: close"), "{answer}");
    assert!(answer.ends_with("5\r\nfirst\r\n4\r\nbody\r\n0\r\n\r\n"), "{answer}");

    // The client is told at once that no other request of its connection is read.
    let answer =
        raw(socket, b"POST /iterable HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\n");
    assert!(answer.contains("Connection: close") && answer.contains("pe\r\n0\r\n"), "{answer}");
}

fn requests_without_a_pause_are_all_answered(app: &End, socket: &Path) {
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut stream = connect(socket);
    stream.write_all((ask("/nap") + &ask("/").repeat(3)).as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 4, "{answers}");

    // More arrives while the first requests run: the last answer is whole all the same.
    let mut stream = connect(socket);
    let last = "GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.write_all((ask("/nap") + &ask("/") + last).as_bytes()).unwrap();
    // Nothing is seen of the first request, half a second long, while it runs.
    std::thread::sleep(Duration::from_millis(200));
    stream.write_all(b"G").unwrap();
    // The server fills the socket meanwhile, which nothing shows.
    std::thread::sleep(Duration::from_millis(800));
    let mut bytes = Vec::new();
    // What was not read of the client resets the connection after the answer.
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.len() > 3_000_000 && bytes.ends_with(b"l"), "{} bytes", bytes.len());

    // A client that sends faster than it is served waits; nothing is read ahead for it.
    let before = memory_kib(app, "VmRSS:");
    let stream = connect(socket);
    std::thread::scope(|scope| {
        scope.spawn(|| std::io::copy(&mut &stream, &mut std::io::sink()));
        let blob = ask("/").repeat(500);
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(1) {
            (&stream).write_all(blob.as_bytes()).unwrap();
        }
        let after = memory_kib(app, "VmRSS:");
        stream.shutdown(Shutdown::Both).unwrap();
        assert!(after < before + 4096, "{after} KiB, {before} before");
    });
}

fn every_field_arrives_whatever_its_letters(socket: &Path) {
    get(socket, "/field", "X-Foo: 0\r\n");
    let many: String = (0..600).map(|number| format!("X-N{number}: 1\r\n")).collect();
    get(socket, "/", &many);
    assert_eq!(get(socket, "/field", "x-foO: 1\r\nX-Foo: 2\r\n").1, "1, 2");
    assert_eq!(get(socket, "/field", "X-Foo: 1\r\nx-foO: 2\r\n").1, "1, 2");
}

fn a_late_iterable_cleans_up(socket: &Path) {
    assert!(get(socket, "/late", "").0.starts_with("HTTP/1.1 504"));
    let state = get(socket, "/state", "").1;
    assert!(state.contains("'closed': 'whole'"), "{state}");
}

fn an_answer_that_is_cut_is_logged_once(dir: &Path, socket: &Path) {
    let log = || fs::read_to_string(socket.with_extension("log")).unwrap();
    raw(socket, b"GET /short HTTP/1.1\r\nHost: h\r\n\r\n");
    assert!(log().contains("ValueError: no more") && !log().contains("shorter than"), "{}", log());

    let mut slow = connect(socket);
    slow.write_all(b"GET /shrink HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    let file = dir.join("shrinks");
    until("the file is short", || fs::metadata(&file).is_ok_and(|found| found.len() == 1000));
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    assert!(answer.len() < 5_000_000, "cut");
    until("it is logged", || log().contains("the file has become shorter"));
}

fn clients_are_accepted_again_under_load(socket: &Path) {
    let log = || fs::read_to_string(socket.with_extension("log")).unwrap();
    let mut busy = connect(socket);
    let request = b"GET /few-files HTTP/1.1\r\nHost: h\r\n\r\n";
    let mut space = [0; 4096];
    busy.write_all(request).unwrap();
    assert!(busy.read(&mut space).unwrap() > 0);
    let idle: Vec<_> = (0..12).map(|_| connect(socket)).collect();
    until("no descriptor is left", || log().contains("no connection is accepted for a while"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                busy.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
                assert!(busy.read(&mut space).unwrap() > 0);
            }
        });
        drop(idle);
        let mut stream = connect(socket);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let outcome = stream.read_to_string(&mut answer);
        is_over.store(true, SeqCst);
        assert!(outcome.is_ok() && answer.ends_with("fine"), "{outcome:?} {answer}");
    });
}
