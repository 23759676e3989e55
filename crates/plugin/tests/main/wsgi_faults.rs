//! The server of mfserv for Python workers, with apps and clients that misbehave.

use std::fs;
use std::io::{Read, Write};
use std::path::Path;

use mfserv_plugin::base::BaseEnvironment;

use crate::wsgi::{End, HASTY, PATIENT, worker};
use crate::wsgi_client::{
    connect, get, raw_text as raw, told_to_go_on, what_is_no_request_is_refused,
};
use crate::wsgi_cost::{
    a_slow_reader_stops_the_app_and_is_not_timed_out, an_idle_worker_sleeps,
    bodies_are_kept_nowhere, long_names_are_not_kept, many_requests_need_no_more_memory,
};
use crate::{Node, until};

/// Each path of this app is one thing that an app must not be able to do, or must be able to.
const APP: &str = r#"
import gzip, io, itertools, time
from mfserv_worker import request_id

kept = {}
state = {"made": 0, "closed": 0}

class Pieces:
    def __init__(self, pieces):
        self.pieces = iter(pieces)
    def __iter__(self):
        return self
    def __next__(self):
        piece = next(self.pieces)
        state["made"] += 1
        return piece
    def close(self):
        state["closed"] += 1

def failing():
    yield b"some"
    raise ValueError("while sending")

def outcome(code):
    try:
        return "returned %r" % (code(),)
    except Exception as error:
        return "%s: %s" % (type(error).__name__, error)

BAD = {
    "value": [("X-A", "a\r\nX-Evil: 1")], "name": [("X A", "a")], "empty": [("", "a")],
    "coding": [("Transfer-Encoding", "chunked")], "connection": [("Connection", "close")],
    "length": [("Content-Length", "5"), ("Content-Length", "6")],
    "negative": [("Content-Length", "-1")], "kind": [("X-A", 1)], "wide": [("X-A", "\u20ac")],
}

def body_of(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/keep":
        kept.update(start_response=start_response, input=environ["wsgi.input"],
                    write=start_response("200 OK", []))
        return [b"kept"]
    if path == "/use-kept":
        return [repr([
            outcome(lambda: kept["start_response"]("200 OK", [])),
            outcome(lambda: kept["write"](b"stolen")),
            outcome(lambda: kept["input"].read()),
        ]).encode()]
    if path == "/state":
        return [("made %(made)d closed %(closed)d" % state).encode()]
    if path == "/id":
        return [request_id.get().encode()]
    if path.startswith("/bad/"):
        start_response("200 OK", BAD[path[5:]])
        return [b"never seen"]
    if path == "/bad-status":
        start_response("200 OK\r\nX-Evil: 1", [])
        return [b"never seen"]
    if path == "/twice":
        start_response("200 OK", [])
        start_response("201 Created", [])
    if path == "/replaced":
        start_response("200 OK", [("X-First", "1")])
        try:
            raise ValueError()
        except ValueError as error:
            start_response("503 Oh", [], (type(error), error, None))
        return [b"replaced"]
    if path == "/silent":
        return []
    if path == "/text":
        start_response("200 OK", [])
        return ["text"]
    if path == "/write":
        write = start_response("200 OK", [("Content-Length", "6")])
        write(b"one")
        write(b"two")
        return []
    if path == "/long":
        start_response("200 OK", [("Content-Length", "4")])
        return [b"12345", b"6"]
    if path == "/names-file":
        start_response("200 OK", [("X-A", "b"), ("content-length", "10"), ("X-Sendfile", "/f")])
        return []
    if path == "/endless":
        start_response("200 OK", [])
        return Pieces(itertools.repeat(b"p" * 65536))
    if path == "/stream":
        start_response("200 OK", [])
        return Pieces(itertools.repeat(b"s" * 65536, int(environ["QUERY_STRING"])))
    if path == "/failing":
        start_response("200 OK", [])
        return Pieces(failing())
    if path == "/compressed":
        with gzip.open("made.gz", "wb") as file:
            file.write(b"plain" * 1000)
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](gzip.open("made.gz", "rb"), 100)
    if path == "/memory":
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"memory"), 4)
    if path == "/rest-of-file":
        with open("file.txt", "wb") as file:
            file.write(b"0123456789")
        start_response("200 OK", [])
        file = open("file.txt", "rb")
        file.read(4)
        return environ["wsgi.file_wrapper"](file)
    if path == "/lines":
        body = environ["wsgi.input"]
        return [repr([body.readline(), body.readline(2), body.read(3), list(body), body.read(),
                      "CONTENT_LENGTH" in environ]).encode()]
    if path == "/count":
        total = 0
        while block := environ["wsgi.input"].read(1 << 20):
            total += len(block)
        return [str(total).encode()]
    if path == "/exit":
        raise SystemExit(3)
    if path == "/edge":
        time.sleep(float(environ["QUERY_STRING"]))
    return [b"fine"]

def application(environ, start_response):
    called = []
    def note(*arguments):
        called.append(1)
        return start_response(*arguments)
    # what is kept is the real one
    body = body_of(environ, start_response if environ["PATH_INFO"] == "/keep" else note)
    if not called and environ["PATH_INFO"] not in ("/keep", "/silent"):
        start_response("200 OK", [])
    return body
"#;

/// Called by the test that has made a base environment.
pub fn apps_and_clients_that_misbehave_harm_nobody_else(
    node: &Node,
    base: (&BaseEnvironment, &str),
) {
    let dir = node.plugin("python3_raw_wsgi", &format!("faults_{}", base.1));
    fs::write(dir.join("main/wsgi.py"), APP).unwrap();
    let start = |limit: &str, socket: &Path| {
        let arguments = [limit, "main.wsgi:application"];
        let app = worker(&node.home, base, &dir, &arguments, socket);
        get(socket, "/", "");
        app
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let socket = node.work().join(format!("mh{}", &base.1[..1]));
            let _app = start(HASTY, &socket);
            a_slow_reader_stops_the_app_and_is_not_timed_out(&socket);
            a_late_request_is_the_only_one_that_is_interrupted(&socket);
        });
        let socket = node.work().join(format!("mp{}", &base.1[..1]));
        let mut app = start(PATIENT, &socket);
        what_is_no_matter_of_time_harms_nobody_else(&app, &socket);
        app.signal("TERM");
        assert_eq!(app.ended().code(), Some(0));
    });
}

fn what_is_no_matter_of_time_harms_nobody_else(app: &End, socket: &Path) {
    nothing_of_a_request_is_reached_after_it(socket);
    a_head_that_would_deceive_is_refused(socket);
    the_app_answers_in_each_way_that_wsgi_has(socket);
    bodies_are_read_as_they_come(socket);
    what_is_not_read_of_a_body_is_no_request(socket);
    an_iterable_is_closed_once(socket);
    bodies_are_kept_nowhere(app, socket);
    many_requests_need_no_more_memory(app, socket);
    long_names_are_not_kept(app, socket);
    an_idle_worker_sleeps(app);

    assert!(get(socket, "/exit", "").0.starts_with("HTTP/1.1 500"));
    assert_eq!(get(socket, "/id", "X-Request-Id: the-id\r\n").1, "the-id");
    assert_eq!(get(socket, "/id", "").1, "", "not that of the request before");
}

fn nothing_of_a_request_is_reached_after_it(socket: &Path) {
    let keep = raw(
        socket,
        b"POST /keep HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecret\r\n0\r\n\r\n\
          GET /use-kept HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(keep.matches("ValueError: the request is over").count(), 3, "{keep}");
    assert!(!keep.contains("secret") && !keep.contains("stolen"), "{keep}");
}

fn a_head_that_would_deceive_is_refused(socket: &Path) {
    let kinds =
        ["value", "name", "empty", "coding", "connection", "length", "negative", "kind", "wide"];
    let paths = kinds.map(|kind| format!("/bad/{kind}")).into_iter();
    for path in paths.chain(["/bad-status".into(), "/twice".into(), "/silent".into()]) {
        let (head, body) = get(socket, &path, "");
        assert!(head.starts_with("HTTP/1.1 500"), "{path}: {head}");
        assert!(!head.contains("X-Evil") && body.starts_with("HTTP/500"), "{path}: {head} {body}");
    }
    what_is_no_request_is_refused(socket);
}

fn the_app_answers_in_each_way_that_wsgi_has(socket: &Path) {
    let (head, body) = get(socket, "/replaced", "");
    assert!(head.starts_with("HTTP/1.1 503 Oh") && !head.contains("X-First"), "{head}");
    assert_eq!(body, "replaced");
    assert!(get(socket, "/text", "").0.starts_with("HTTP/1.1 500"));
    assert_eq!(get(socket, "/write", "").1, "onetwo");
    assert_eq!(get(socket, "/rest-of-file", "").1, "456789");
    assert!(get(socket, "/rest-of-file", "").0.contains("Content-Length: 6"));
    assert!(get(socket, "/compressed", "").1.contains("plainplain"), "as it is read");
    let old = raw(socket, b"GET /write HTTP/1.0\r\n\r\n");
    assert!(old.ends_with("onetwo") && old.contains("Connection: close"), "{old}");
    let old = raw(socket, b"GET /memory HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert!(old.ends_with("\r\n\r\nmemory"), "HTTP/1.0 has no chunks: {old}");
    // more than it said: cut there, and the next answer is whole
    let two = raw(
        socket,
        b"GET /long HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    );
    assert!(two.contains("\r\n\r\n1234HTTP/1.1 200 OK") && two.ends_with("fine"), "{two}");
    // The length is that of a file which the front sends.
    let (head, body) = get(socket, "/names-file", "");
    assert!(head.contains("X-A: b\r\nX-Sendfile: /f\r\nContent-Length: 0\r\n"), "{head}");
    assert_eq!(body, "");
}

fn bodies_are_read_as_they_come(socket: &Path) {
    let lines = |framing: &str, body: &str| {
        let head = format!("POST /lines HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{framing}\r\n");
        raw(socket, format!("{head}\r\n{body}").as_bytes())
    };
    let parts = |length| format!(r"[b'a\n', b'bc', b'd\ne', [b'f\n', b'g'], b'', {length}]");
    let answer = lines("Content-Length: 10", "a\nbcd\nef\ng");
    assert!(answer.ends_with(&parts("True")), "{answer}");
    let answer =
        lines("Transfer-Encoding: chunked", "3\r\na\nb\r\n7;x=y\r\ncd\nef\ng\r\n0\r\nT: x\r\n\r\n");
    assert!(answer.ends_with(&parts("False")), "{answer}");

    // told to go on when the app reads, not before
    let answer = told_to_go_on(socket, "/count");
    assert!(answer.ends_with("\r\n\r\n3"), "{answer}");

    // a client that leaves in the middle: the app sees an error, the next one is served
    let mut leaves = connect(socket);
    let head = b"POST /count HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc";
    leaves.write_all(head).unwrap();
    drop(leaves);
    assert_eq!(get(socket, "/", "").1, "fine");
}

fn what_is_not_read_of_a_body_is_no_request(socket: &Path) {
    let unread = |length: usize| {
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
        let body =
            "GET /id HTTP/1.1\r\nHost: h\r\nX-Request-Id: smuggled\r\n\r\n".repeat(length / 50);
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&body.as_bytes()[..length]);
        bytes.extend_from_slice(b"GET /write HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        raw(socket, &bytes)
    };
    let answers = unread(5000);
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 2, "{answers}");
    assert!(answers.ends_with("onetwo") && !answers.contains("smuggled"), "{answers}");
    let answers = unread(150_000);
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    assert!(answers.contains("Connection: close") && !answers.contains("smuggled"), "{answers}");
}

fn state(socket: &Path) -> (u32, u32) {
    let text = get(socket, "/state", "").1;
    let numbers: Vec<u32> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
    (numbers[0], numbers[1])
}

fn an_iterable_is_closed_once(socket: &Path) {
    let before = state(socket).1;
    assert!(raw(socket, b"GET /failing HTTP/1.1\r\nHost: h\r\n\r\n").ends_with("4\r\nsome\r\n"));
    assert_eq!(state(socket).1, before + 1, "after an error");
    raw(socket, b"HEAD /endless HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_eq!(state(socket).1, before + 2, "after HEAD");
    let mut leaves = connect(socket);
    leaves.write_all(b"GET /endless HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    leaves.read_exact(&mut [0; 1000]).unwrap();
    drop(leaves);
    until("the iterable of a client that left is closed", || state(socket).1 == before + 3);
}

/// Requests that end as the limit of two seconds is reached: whichever is first, the next one,
/// which is on its way already, is not the one that is interrupted.
fn a_late_request_is_the_only_one_that_is_interrupted(socket: &Path) {
    for hundredths in [195, 199, 200, 201, 203, 205] {
        let seconds = f64::from(hundredths) / 100.0;
        let two = format!(
            "GET /edge?{seconds} HTTP/1.1\r\nHost: h\r\n\r\n\
             GET /edge?0.2 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        );
        let answers = raw(socket, two.as_bytes());
        let whole = answers.matches("HTTP/1.1 200").count();
        let late = answers.matches("HTTP/1.1 504").count();
        assert!(answers.ends_with("fine") && whole + late == 2, "{seconds}: {answers}");
    }
}
