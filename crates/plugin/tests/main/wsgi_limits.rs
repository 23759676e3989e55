//! The server of mfserv for Python workers where something runs out: time, descriptors, the
//! patience of a client that sends requests without reading answers, a file.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use mfserv_plugin::base::BaseEnvironment;

use crate::wsgi::{End, HASTY, PATIENT, THREADS, worker};
use crate::wsgi_client::{answer, connect, get, raw_text as raw};
use crate::wsgi_cost::{memory_kib, peak_kib};
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
            time.sleep(0.2)
            state["closed"] = "whole"
        except BaseException as error:
            state["closed"] = repr(error)

def reader(name, body):
    def read():
        try:
            state[name] = body.read()
        except Exception as error:
            state[name] = repr(error)
    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread

def few_files():
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def shrinking():
    with open("shrinks", "wb") as file:
        file.write(b"z" * 5000000)
    return open("shrinks", "rb")

def nap():
    open("napping", "w").close()
    while not os.path.exists("wake"):
        time.sleep(0.02)
    os.remove("napping")
    os.remove("wake")

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
        thread = reader(path, body)
        time.sleep(0.2)
        start_response("200 OK", [])
        open("answering", "w").close()
        thread.join()
        return [state[path]]
    if path == "/thread-slow":
        reader(path, body)
        time.sleep(30)
    if path == "/thread-left":
        reader(path, body)
        time.sleep(0.2)
    if path == "/nap":
        nap()
    if path == "/mark":
        state["marked"] = state.get("marked", "") + environ["QUERY_STRING"]
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

/// Logging that takes a while at first, as on a busy machine.
const SLOW_LOG: &str = r#"
import logging, time
time.sleep(1.5)
get_logger = logging.getLogger
"#;

/// Called by the test that has made a base environment.
pub fn what_runs_out_harms_nobody_else(node: &Node, base: (&BaseEnvironment, &str)) {
    std::thread::scope(|scope| {
        if base.1 != THREADS {
            // `sleep` is not interrupted there.
            scope.spawn(|| the_time_of_a_request_is_the_apps(node, base));
        }
        what_is_no_matter_of_time_harms_nobody_else(node, base);
    });
}

fn the_time_of_a_request_is_the_apps(node: &Node, base: (&BaseEnvironment, &str)) {
    let dir = node.plugin("python3_raw_wsgi", "late");
    fs::write(dir.join("main/wsgi.py"), APP).unwrap();
    fs::write(dir.join("mflog.py"), SLOW_LOG).unwrap();
    let socket = node.work().join("lh");
    let arguments = [HASTY, "main.wsgi:application"];
    let mut app = worker(&node.home, base, &dir, &arguments, &socket);
    get(&socket, "/", "");

    what_another_thread_waits_for_counts(&socket);
    a_late_iterable_cleans_up(&socket);

    app.signal("TERM");
    assert_eq!(app.ended().code(), Some(0));
}

fn what_is_no_matter_of_time_harms_nobody_else(node: &Node, base: (&BaseEnvironment, &str)) {
    let dir = node.plugin("python3_raw_wsgi", &format!("limits_{}", base.1));
    fs::write(dir.join("main/wsgi.py"), APP).unwrap();
    let socket = node.work().join(format!("lp{}", &base.1[..1]));
    let arguments = [PATIENT, "main.wsgi:application"];
    let mut app = worker(&node.home, base, &dir, &arguments, &socket);
    get(&socket, "/", "");

    a_large_body_is_kept_once(&app, &socket);
    a_body_that_streams_is_a_file(&socket);
    a_thread_may_read_the_body(&dir, &socket);
    nothing_is_said_in_the_middle_of_an_answer(&socket);
    requests_without_a_pause_are_all_answered(&dir, &socket);
    if base.1 != THREADS {
        // Another thread begins it at once.
        a_request_whose_client_has_left_is_not_begun(&dir, &socket);
    }
    nothing_is_read_ahead_of_a_client_that_does_not_wait(&app, &socket);
    every_field_arrives_whatever_its_letters(&socket);
    an_answer_that_is_cut_is_logged_once(&dir, &socket);
    assert!(get(&socket, "/interim", "").0.starts_with("HTTP/1.1 500"), "no answer ends there");
    clients_are_accepted_again_under_load(&socket);

    app.signal("TERM");
    assert_eq!(app.ended().code(), Some(0));
}

fn a_large_body_is_kept_once(app: &End, socket: &Path) {
    let size = 40_000_000;
    let before = peak_kib(app);
    let mut request = b"POST /size HTTP/1.1\r\nHost: h\r\nConnection: close\r\n".to_vec();
    request.extend_from_slice(format!("Content-Length: {size}\r\n\r\n").as_bytes());
    request.resize(request.len() + size, b'x');
    assert!(raw(socket, &request).ends_with("\r\n\r\n40000000"));
    let after = peak_kib(app);
    assert!(after < before + size as u64 * 3 / 2 / 1024, "{after} KiB, {before} before");
}

const CHUNKED: &str = "HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n";

fn a_body_that_streams_is_a_file(socket: &Path) {
    let head = format!("POST /as-file {CHUNKED}Connection: close\r\n\r\n");
    let answer = raw(socket, format!("{head}8\r\nabcdef\ng\r\n1\r\nh\r\n0\r\n\r\n").as_bytes());
    let seen = "['Input', True, False, False, False, 3, b'abc', b'de', b'f', '";
    assert!(answer.contains(seen), "{answer}");
}

/// A request whose body is not whole.
fn begin(socket: &Path, path: &str) -> UnixStream {
    let mut stream = connect(socket);
    write!(stream, "POST {path} {CHUNKED}\r\n2\r\n12\r\n").unwrap();
    stream
}

fn a_thread_may_read_the_body(dir: &Path, socket: &Path) {
    // The app has begun its answer before the rest of the body comes.
    let mut whole = begin(socket, "/thread");
    until("the app answers", || dir.join("answering").exists());
    whole.write_all(b"2\r\n34\r\n0\r\n\r\n").unwrap();
    let text = answer(&mut whole);
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("1234"), "{text}");

    assert!(answer(&mut begin(socket, "/thread-left")).starts_with("HTTP/1.1 200"));
    until("the thread is told", || get(socket, "/state", "").1.contains("the request is over"));
}

/// It is not the time of the client. Nor is the time to log that the request was late.
fn what_another_thread_waits_for_counts(socket: &Path) {
    assert!(answer(&mut begin(socket, "/thread-slow")).starts_with("HTTP/1.1 504"));
    assert!(get(socket, "/", "").0.starts_with("HTTP/1.1 200"), "the worker lives on");
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

fn ask(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n")
}

fn requests_without_a_pause_are_all_answered(dir: &Path, socket: &Path) {
    let until_it_naps = || until("the app naps", || dir.join("napping").exists());
    let wake = || fs::write(dir.join("wake"), "").unwrap();
    let mut stream = connect(socket);
    stream.write_all((ask("/nap") + &ask("/").repeat(3)).as_bytes()).unwrap();
    until_it_naps();
    stream.shutdown(Shutdown::Write).unwrap();
    wake();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 4, "{answers}");

    // More arrives while the first requests run: the last answer is whole all the same.
    let mut stream = connect(socket);
    let last = "GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.write_all((ask("/nap") + &ask("/") + last).as_bytes()).unwrap();
    until_it_naps();
    stream.write_all(b"G").unwrap();
    wake();
    until("the server fills the socket", || {
        rustix::io::ioctl_fionread(&stream).is_ok_and(|count| count > 10_000)
    });
    let mut bytes = Vec::new();
    // What was not read of the client resets the connection after the answer.
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.len() > 3_000_000 && bytes.ends_with(b"l"), "{} bytes", bytes.len());
}

/// A request comes to a worker that is still busy when the front has given up the one before it, and
/// may be given up there itself.
fn a_request_whose_client_has_left_is_not_begun(dir: &Path, socket: &Path) {
    let send =
        |stream: &mut UnixStream, path: &str| stream.write_all(ask(path).as_bytes()).unwrap();
    let [mut kept, mut naps, new, mut stays, mut ends] = std::array::from_fn(|_| connect(socket));
    send(&mut kept, "/");
    answer(&mut kept);
    send(&mut naps, "/nap");
    until("the app naps", || dir.join("napping").exists());
    for (stream, path) in [(kept, "/mark?kept,"), (new, "/mark?new,")] {
        let mut stream = stream;
        send(&mut stream, path);
    }
    send(&mut stays, "/mark?stays,");
    // It has said all that it will say, and waits for the answer.
    send(&mut ends, "/mark?ends,");
    ends.shutdown(Shutdown::Write).unwrap();
    fs::write(dir.join("wake"), "").unwrap();
    assert!(answer(&mut stays).starts_with("HTTP/1.1 200"));
    assert!(answer(&mut ends).starts_with("HTTP/1.1 200"));
    let state = get(socket, "/state", "").1;
    assert!(state.contains("stays,") && state.contains("ends,"), "{state}");
    assert!(!state.contains("kept,") && !state.contains("new,"), "{state}");
}

/// A client that sends faster than it is served waits: with 64 KiB read for each request, the
/// 2000 of them would show.
fn nothing_is_read_ahead_of_a_client_that_does_not_wait(app: &End, socket: &Path) {
    let mut stream = connect(socket);
    stream.write_all(ask("/").as_bytes()).unwrap();
    let length = answer(&mut stream).len();
    let before = memory_kib(app);
    std::thread::scope(|scope| {
        let blob = ask("/").repeat(500);
        let mut sender = &stream;
        scope.spawn(move || while sender.write_all(blob.as_bytes()).is_ok() {});
        let outcome = (&stream).read_exact(&mut vec![0; 2000 * length]);
        let after = memory_kib(app);
        // Ends the thread, too.
        stream.shutdown(Shutdown::Both).unwrap();
        outcome.unwrap();
        assert!(after < before + 8192, "{after} KiB, {before} before");
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
    // The server has looked how long the file is, and waits until more of it can be sent.
    slow.read_exact(&mut [0; 1]).unwrap();
    let file = fs::OpenOptions::new().write(true).open(dir.join("shrinks")).unwrap();
    file.set_len(1000).unwrap();
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    assert!(answer.len() < 5_000_000, "cut");
    until("it is logged", || log().contains("the file has become shorter"));
}

fn clients_are_accepted_again_under_load(socket: &Path) {
    let log = || fs::read_to_string(socket.with_extension("log")).unwrap();
    let mut busy = connect(socket);
    busy.write_all(ask("/few-files").as_bytes()).unwrap();
    answer(&mut busy);
    let idle: Vec<_> = (0..12).map(|_| connect(socket)).collect();
    until("no descriptor is left", || log().contains("no connection is accepted for a while"));
    let mut stream = connect(socket);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let is_over = &is_over;
        scope.spawn(move || {
            while !is_over.load(SeqCst) {
                busy.write_all(ask("/").as_bytes()).unwrap();
                answer(&mut busy);
            }
        });
        drop(idle);
        let mut text = String::new();
        let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
        let outcome = stream.write_all(request).and_then(|()| stream.read_to_string(&mut text));
        is_over.store(true, SeqCst);
        assert!(outcome.is_ok() && text.ends_with("fine"), "{outcome:?} {text}");
    });
}
