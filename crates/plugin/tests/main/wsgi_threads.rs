//! The server of mfserv for Python workers with several threads: `mfserv_worker --threads=N`.
//! What it promises besides is tested where that of the one with one thread is.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use mfserv_plugin::base::BaseEnvironment;

use crate::asgi;
use crate::templates::with_base;
use crate::wsgi::{End, HASTY, PATIENT};
use crate::wsgi_client::{answer, connect, get, raw_text, until_it_listens};
use crate::wsgi_cost::{memory_kib, not_in_each_round};
use crate::{Node, until};

const APP: &str = r#"
import atexit, contextvars, os, threading, time
from mfserv_worker import request_id

variable = contextvars.ContextVar("variable", default="unset")
variable.set("of the import")
eight = threading.Barrier(8, timeout=60)
inside = []

def left():
    with open("left", "w") as file:
        file.write(" ".join(thread.name for thread in threading.enumerate()))

atexit.register(left)

def endless():
    # Bytecode only: the soft limit can interrupt it.
    while True:
        pass

def nap():
    inside.append(1)
    with open("napping", "w") as file:
        file.write(str(len(inside)))
    while not os.path.exists("wake"):
        time.sleep(0.02)

def fork(how):
    child = os.fork()
    if child == 0:
        if how == "raises":
            raise ValueError("of the child")
        if how == "exits":
            raise SystemExit(7)
        return "child"
    return "parent %d" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def body_of(environ):
    path, query = environ["PATH_INFO"], environ["QUERY_STRING"]
    if path == "/eight":
        eight.wait()
    if path == "/about":
        before = variable.get()
        variable.set("of a request")
        return "%s %s %s %s" % (environ["wsgi.multithread"], before, request_id.get(),
                                threading.current_thread() is threading.main_thread())
    if path == "/endless":
        endless()
    if path == "/edge":
        until = time.monotonic() + float(query)
        while time.monotonic() < until:
            pass
    if path == "/hangs":
        open("hanging", "w").close()
        time.sleep(1000)
    if path == "/after-hang":
        while os.path.exists(query):
            time.sleep(0.02)
    if path == "/nap":
        nap()
    if path == "/mark":
        with open("marked", "a") as file:
            file.write(query)
    if path == "/fork":
        return fork(query)
    if path == "/pid":
        return str(os.getpid())
    return environ["wsgi.input"].read().decode() or "fine"

def application(environ, start_response):
    body = body_of(environ).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"#;

struct Place<'n> {
    node: &'n Node,
    base: &'n BaseEnvironment,
    dir: PathBuf,
    socket: PathBuf,
}

impl<'n> Place<'n> {
    fn new(node: &'n Node, base: &'n BaseEnvironment, name: &str) -> Self {
        let dir = node.plugin("python3_raw_wsgi", name);
        fs::write(dir.join("main/wsgi.py"), APP).unwrap();
        Self { node, base, dir, socket: node.work().join(format!("{name}.s")) }
    }

    fn start(&self, limit: &str) -> End {
        let arguments = ["--threads=8", limit, "main.wsgi:application"];
        let worker = asgi::worker(self.node, self.base, &self.dir, &arguments, &self.socket);
        until_it_listens(&self.socket);
        worker
    }

    fn ask(&self, path: &str) -> String {
        let (head, body) = get(&self.socket, path, "X-Request-Id: the-id\r\n");
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        body
    }

    fn log(&self) -> String {
        asgi::log(&self.socket)
    }
}

fn send(socket: &Path, path: &str) -> UnixStream {
    let mut stream = connect(socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn rest(mut stream: UnixStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn several_threads_serve_as_one_does() {
    let node = Node::new();
    let shared = with_base(&node);
    let (node, base) = (&node, &shared.environment);
    std::thread::scope(|scope| {
        scope.spawn(|| eight_requests_run_at_once(&Place::new(node, base, "eight")));
        scope.spawn(|| a_hanging_thread_lets_the_others_end(&Place::new(node, base, "hangs")));
        scope.spawn(|| only_the_late_request_is_interrupted(&Place::new(node, base, "late")));
        scope.spawn(|| no_request_is_lost_at_the_end(&Place::new(node, base, "ends")));
        scope.spawn(|| a_load_meets_no_failure_at_the_end(&Place::new(node, base, "load")));
        scope.spawn(|| fifty_thousand_requests_leave_nothing(&Place::new(node, base, "many")));
        scope.spawn(|| a_wrong_number_of_threads_is_refused(&Place::new(node, base, "wrong")));
    });
}

fn eight_requests_run_at_once(place: &Place<'_>) {
    let mut worker = place.start(PATIENT);
    // None of them is over before all have begun.
    let running: Vec<_> = (0..8).map(|_| send(&place.socket, "/eight")).collect();
    for stream in running {
        assert!(rest(stream).ends_with("fine"));
    }
    for _ in 0..20 {
        assert_eq!(place.ask("/about"), "True of the import the-id False");
    }
    for (how, outcome) in [("returns", "parent 0"), ("raises", "parent 1"), ("exits", "parent 7")] {
        assert_eq!(place.ask(&format!("/fork?{how}")), outcome, "only the parent answers");
    }
    assert!(place.log().contains("ValueError: of the child"), "{}", place.log());
    assert_eq!(place.ask("/pid"), worker.0.id().to_string());
    worker.signal("TERM");
    assert_eq!(worker.ended().code(), Some(0));
    assert_eq!(fs::read_to_string(place.dir.join("left")).unwrap(), "MainThread");
}

/// It ends the worker at the hard limit, when the others have answered.
fn a_hanging_thread_lets_the_others_end(place: &Place<'_>) {
    let mut worker = place.start(HASTY);
    let hanging = send(&place.socket, "/hangs");
    until("the app hangs", || place.dir.join("hanging").exists());
    for _ in 0..20 {
        assert_eq!(place.ask("/"), "fine", "the others serve");
    }
    // It ends when the worker has left its socket: after the hard limit of the other one.
    let path = format!("/after-hang?{}", place.socket.display());
    // Later than the other one, so that it has still time then.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let running = send(&place.socket, &path);
    let text = rest(running);
    assert!(text.ends_with("fine"), "{text} {}", place.log());
    assert_eq!(worker.ended().signal(), Some(9), "{}", place.log());
    let log = place.log();
    assert!(log.contains("hard timeout (3 s) => SIGKILL") && log.contains("in body_of"), "{log}");
    drop(hanging);
}

fn only_the_late_request_is_interrupted(place: &Place<'_>) {
    let mut worker = place.start(HASTY);
    let before = place.ask("/pid");
    let late = send(&place.socket, "/endless");
    let mut kept = connect(&place.socket);
    let text = std::thread::scope(|scope| {
        let late = scope.spawn(|| rest(late));
        while !late.is_finished() {
            kept.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
            assert!(answer(&mut kept).starts_with("HTTP/1.1 200"));
        }
        late.join().unwrap()
    });
    assert!(text.starts_with("HTTP/1.1 504"), "{text}");
    assert!(place.log().contains("request timeout (2 s) => HTTP/504"), "{}", place.log());
    // Four at a time that end about when they are late, and what follows them on their threads.
    for round in 0..2 {
        let edges: Vec<_> = (0..4)
            .map(|at| send(&place.socket, &format!("/edge?{}", 1.97 + f64::from(at) * 0.03)))
            .collect();
        for edge in edges {
            let text = rest(edge);
            let is_one = text.starts_with("HTTP/1.1 200") || text.starts_with("HTTP/1.1 504");
            assert!(is_one, "{round}: {text}");
        }
        for _ in 0..32 {
            assert_eq!(place.ask("/"), "fine");
        }
    }
    assert_eq!(place.ask("/pid"), before, "the process lives on");
    worker.signal("TERM");
    assert_eq!(worker.ended().code(), Some(0));
}

fn no_request_is_lost_at_the_end(place: &Place<'_>) {
    let mut worker = place.start(PATIENT);
    let running: Vec<_> = (0..8).map(|_| send(&place.socket, "/nap")).collect();
    let naps = || fs::read_to_string(place.dir.join("napping")).is_ok_and(|text| text == "8");
    until("eight nap", naps);
    // For these no thread is free.
    let waiting: Vec<_> = (0..20).map(|_| send(&place.socket, "/mark?here,")).collect();
    // Nobody waits for the answers of these: they do not begin.
    for _ in 0..5 {
        send(&place.socket, "/mark?gone,");
    }
    worker.signal("TERM");
    until("nobody else can connect", || !place.socket.exists());
    fs::write(place.dir.join("wake"), "").unwrap();
    for stream in running.into_iter().chain(waiting) {
        let text = rest(stream);
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("fine"), "{text}");
    }
    assert_eq!(worker.ended().code(), Some(0), "{}", place.log());
    assert_eq!(fs::read_to_string(place.dir.join("marked")).unwrap(), "here,".repeat(20));
}

/// Clients on kept connections: each answer is whole, or its request was never read.
fn a_load_meets_no_failure_at_the_end(place: &Place<'_>) {
    let mut worker = place.start(PATIENT);
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..12)
            .map(|_| {
                scope.spawn(|| {
                    let Ok(mut stream) = UnixStream::connect(&place.socket) else { return };
                    let request = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nback";
                    while stream.write_all(request).is_ok() {
                        let mut text = vec![0; 4096];
                        let count = stream.read(&mut text).unwrap_or(0);
                        let text = String::from_utf8_lossy(&text[..count]).into_owned();
                        if count == 0 {
                            return;
                        }
                        assert!(
                            text.starts_with("HTTP/1.1 200") && text.ends_with("back"),
                            "{text}"
                        );
                        served.fetch_add(1, SeqCst);
                        if text.contains("Connection: close") {
                            return;
                        }
                    }
                })
            })
            .collect();
        until("there is load", || served.load(SeqCst) > 2000);
        worker.signal("TERM");
        for client in clients {
            client.join().unwrap();
        }
    });
    assert_eq!(worker.ended().code(), Some(0), "{}", place.log());
    assert_eq!(place.log(), "");
}

fn fifty_thousand_requests_leave_nothing(place: &Place<'_>) {
    let worker = place.start(PATIENT);
    let round = |count: usize| {
        let before = memory_kib(&worker);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let mut stream = connect(&place.socket);
                    for _ in 0..count / 8 {
                        let request =
                            b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody";
                        stream.write_all(request).unwrap();
                        assert!(answer(&mut stream).ends_with("body"));
                    }
                });
            }
        });
        memory_kib(&worker).saturating_sub(before)
    };
    round(8000);
    round(22_000);
    // 16 bytes for each request
    not_in_each_round(320, || round(20_000));
}

fn a_wrong_number_of_threads_is_refused(place: &Place<'_>) {
    for (arguments, why) in [
        (&["--threads=0"][..], "'0' is no number of threads: 1 to 256"),
        (&["--threads=many"], "'many' is no number of threads"),
        (&["--threads=4", "--asgi"], "--threads is for WSGI apps"),
    ] {
        let arguments: Vec<_> =
            arguments.iter().chain(&["main.wsgi:application"]).copied().collect();
        let mut worker =
            asgi::worker(place.node, place.base, &place.dir, &arguments, &place.socket);
        assert_ne!(worker.ended().code(), Some(0), "{arguments:?}");
        assert!(place.log().contains(why), "{arguments:?}: {}", place.log());
    }
    let (node, base) = (place.node, place.base);
    let arguments = ["--threads=4", "--server=waitress", "main.wsgi:application"];
    let _worker = asgi::worker(node, base, &place.dir, &arguments, &place.socket);
    assert!(raw_text_when(&place.socket).starts_with("HTTP/1.1 200"));
    let said = "waitress serves one request at a time: 4 threads need the server mfserv";
    assert!(place.log().contains(said), "{}", place.log());
}

fn raw_text_when(socket: &Path) -> String {
    until_it_listens(socket);
    raw_text(socket, b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
}
