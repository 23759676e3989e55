//! The server of mfserv with ASGI apps where something runs out: descriptors, the time of a stop,
//! the patience of a client that sends requests without reading answers, a file.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mfserv_plugin::base::BaseEnvironment;

use crate::asgi::{log, worker};
use crate::wsgi::End;
use crate::wsgi_client::{TERMINATED, connect, get, raw_text as raw};
use crate::wsgi_cost::peak_kib;
use crate::{Node, until};

const APP: &str = r#"
import asyncio, os, resource, signal, sys, time

together, go = [], asyncio.Event()

async def start(send, *headers):
    await send({"type": "http.response.start", "status": 200, "headers": list(headers)})

async def piece(send, body, more=False):
    await send({"type": "http.response.body", "body": body, "more_body": more})

def few_files():
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def lose_wakeup():
    other = asyncio.new_event_loop()
    other.add_signal_handler(signal.SIGUSR1, lambda: None)
    other.close()

def outcome(coroutine):
    try:
        coroutine.send(None)
    except RuntimeError as error:
        return 7 if "only it can" in str(error) else 1
    except BaseException:
        return 1
    return 0

async def child_answers(receive, send):
    child = os.fork()
    if child == 0:
        message = {"type": "http.response.body", "body": b"child!"}
        async def sends():
            await send(message)
        async def receives():
            await receive()
        os._exit(outcome(sends()) + outcome(receives()))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

async def app(scope, receive, send):
    assert scope["type"] == "http"
    path = scope["path"]
    if path == "/asks-late":
        await start(send)
        await piece(send, b"first", True)
        return await piece(send, (await receive())["body"])
    if path == "/unread":
        await start(send)
        await piece(send, b"no", True)
        return await piece(send, b"pe")
    if path == "/shrink":
        await start(send)
        return await send({"type": "http.response.pathsend", "path": os.path.abspath("shrinks")})
    if path == "/child":
        status = await child_answers(receive, send)
        body = (await receive())["body"]
        await start(send)
        return await piece(send, b"%d %s" % (status, body))
    if path == "/terminate":
        await start(send)
        return await piece(send, terminated())
    if path == "/few-files":
        few_files()
    if path == "/wakeup":
        lose_wakeup()
    if path == "/together":
        together.append(path)
        await go.wait()
    if path == "/waiting":
        await start(send)
        return await piece(send, str(len(together)).encode())
    if path == "/go":
        go.set()
    if path == "/long":
        open("napping", "w").close()
        await asyncio.sleep(5.5)
        await start(send)
        return await piece(send, b"l" * 3000000)
    await start(send)
    await piece(send, b"l" * 3000000 if path == "/large" else b"fine")

async def exits(scope, receive, send):
    sys.exit(3)
"#;

/// Called by the test that has made a base environment.
pub fn what_runs_out_harms_no_other_request(node: &Node, base: &BaseEnvironment) {
    let dir = node.plugin("python3_raw_asgi", "limits");
    fs::write(dir.join("main/application.py"), TERMINATED.to_owned() + APP).unwrap();
    let start = |name: &str, app: &str| {
        let socket = node.work().join(name);
        let app = format!("main.application:{app}");
        let end = worker(node, base, &dir, &["--asgi", "--timeout=10", &app], &socket);
        (end, socket)
    };
    let (mut app, socket) = start("n", "app");
    let (mut stopped, stopped_socket) = start("s", "app");
    std::thread::scope(|scope| {
        // It takes a while, of which most is sleep.
        scope.spawn(|| a_long_request_is_finished(&mut stopped, &dir, &stopped_socket));
        get(&socket, "/", "");
        nothing_is_said_in_the_middle_of_an_answer(&socket);
        requests_without_a_pause_are_all_answered(&app, &socket);
        a_cut_answer_is_logged(&dir, &socket);
        a_child_leaves_the_connection_alone(&socket);
        clients_are_accepted_again_under_load(&socket);
        who_waits_to_be_accepted_is_served_at_a_stop(&mut app, &socket);
    });
    let (mut exits, _) = start("e", "exits");
    assert_eq!(exits.ended().code(), Some(3), "an app may refuse to start by its exit");
}

fn a_long_request_is_finished(app: &mut End, dir: &Path, socket: &Path) {
    get(socket, "/wakeup", "");
    let mut running = connect(socket);
    running.write_all(b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    until("the app naps", || dir.join("napping").exists());
    app.signal("TERM");
    until("nobody else can connect", || !socket.exists());
    let mut first = [0; 12];
    running.read_exact(&mut first).unwrap();
    // The rest of the answer waits in the worker, which was told to stop more than 5 s ago.
    std::thread::sleep(Duration::from_millis(500));
    let mut rest = Vec::new();
    running.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > 3_000_000, "{} bytes, {}", rest.len(), log(socket));
    let head = String::from_utf8_lossy(&rest[..100]).into_owned();
    assert!(head.contains("Connection: close"), "no other request is served: {head}");
    assert_eq!(app.ended().code(), Some(0), "{}", log(socket));
}

fn nothing_is_said_in_the_middle_of_an_answer(socket: &Path) {
    let mut stream = connect(socket);
    let head = "POST /asks-late HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4";
    write!(stream, "{head}\r\n\r\n").unwrap();
    let mut answer = String::new();
    while !answer.contains("first\r\n") {
        let mut space = [0; 1000];
        let count = stream.read(&mut space).unwrap();
        assert!(count > 0, "{answer}");
        answer += std::str::from_utf8(&space[..count]).unwrap();
    }
    stream.write_all(b"body").unwrap();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("Connection: close"), "{answer}");
    assert!(answer.ends_with("5\r\nfirst\r\n4\r\nbody\r\n0\r\n\r\n"), "{answer}");

    // The client is told at once that no other request of its connection is read.
    let answer =
        raw(socket, b"POST /unread HTTP/1.1\r\nHost: h\r\nContent-Length: 5000000\r\n\r\n");
    assert!(answer.contains("Connection: close") && answer.contains("pe\r\n0\r\n"), "{answer}");
}

fn requests_without_a_pause_are_all_answered(app: &End, socket: &Path) {
    let ask = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    // More of them than are begun in a turn of the event loop, and all at once. The clients wait:
    // an event of theirs would begin what was left.
    let streams: Vec<_> = (0..100).map(|_| connect(socket)).collect();
    for mut stream in &streams {
        stream.write_all((ask("/together") + &ask("/")).as_bytes()).unwrap();
    }
    until("all have begun", || get(socket, "/waiting", "").1 == "100");
    let mut go = connect(socket);
    go.write_all(ask("/go").as_bytes()).unwrap();
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine";
    for mut stream in &streams {
        let mut answers = vec![0; answer.len() * 2];
        stream.read_exact(&mut answers).unwrap();
        assert_eq!(String::from_utf8_lossy(&answers), answer.repeat(2));
    }

    // More arrives while the last answer waits for its client: it is whole all the same.
    let mut stream = connect(socket);
    let last = "GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    stream.write_all((ask("/") + last).as_bytes()).unwrap();
    stream.read_exact(&mut [0; 100]).unwrap();
    stream.write_all(b"G").unwrap();
    let mut bytes = Vec::new();
    // What was not read of the client resets the connection after the answer.
    let _ = stream.read_to_end(&mut bytes);
    assert!(bytes.len() > 3_000_000 && bytes.ends_with(b"l"), "{} bytes", bytes.len());

    // Clients that send faster than they are served wait; nothing is read ahead for them.
    let before = peak_kib(app);
    let streams: Vec<_> = (0..80).map(|_| connect(socket)).collect();
    let padding = "p".repeat(2000);
    let blob = format!("GET / HTTP/1.1\r\nHost: h\r\nX-Padding: {padding}\r\n\r\n").repeat(50);
    std::thread::scope(|scope| {
        for mut stream in &streams {
            scope.spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
        }
        for mut stream in &streams {
            let blob = &blob;
            scope.spawn(move || {
                let began = Instant::now();
                while began.elapsed() < Duration::from_secs(1) {
                    stream.write_all(blob.as_bytes()).unwrap();
                }
                stream.shutdown(Shutdown::Both).unwrap();
            });
        }
    });
    let after = peak_kib(app);
    assert!(after < before + 80 * 256, "{after} KiB, {before} before");
}

fn a_cut_answer_is_logged(dir: &Path, socket: &Path) {
    let file = dir.join("shrinks");
    fs::write(&file, vec![b'z'; 5_000_000]).unwrap();
    let mut slow = connect(socket);
    slow.write_all(b"GET /shrink HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    slow.read_exact(&mut [0; 100]).unwrap();
    fs::File::options().write(true).open(&file).unwrap().set_len(1000).unwrap();
    let mut answer = Vec::new();
    let _ = slow.read_to_end(&mut answer);
    assert!(answer.len() < 5_000_000, "cut");
    until("it is logged", || log(socket).contains("the file has become shorter"));
}

fn a_child_leaves_the_connection_alone(socket: &Path) {
    let post =
        "POST /child HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 4\r\n\r\nbody";
    let answer = raw(socket, post.as_bytes());
    assert!(answer.ends_with("\r\n\r\n14 body"), "it neither sends nor receives: {answer}");
    assert_eq!(get(socket, "/terminate", "").1, "-15", "SIGTERM ends a child");
}

fn clients_are_accepted_again_under_load(socket: &Path) {
    let began = Instant::now();
    let mut busy = connect(socket);
    let mut space = [0; 4096];
    busy.write_all(b"GET /few-files HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    assert!(busy.read(&mut space).unwrap() > 0);
    let idle: Vec<_> = (0..12).map(|_| connect(socket)).collect();
    until("no descriptor is left", || log(socket).contains("no connection is accepted for a"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                busy.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
                assert!(busy.read(&mut space).unwrap() > 0);
            }
        });
        // Long enough for several tries, of which one is logged.
        std::thread::sleep(Duration::from_millis(500));
        drop(idle);
        let mut stream = connect(socket);
        stream.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        let outcome = stream.read_to_string(&mut answer);
        is_over.store(true, SeqCst);
        assert!(outcome.is_ok() && answer.ends_with("fine"), "{outcome:?} {answer}");
    });
    let lines = log(socket).matches("no connection is accepted").count() as u64;
    assert!(lines <= 1 + began.elapsed().as_secs() / 10, "{}", log(socket));
}

/// The app has no descriptor left for it before the idle connections are closed, several times.
fn who_waits_to_be_accepted_is_served_at_a_stop(app: &mut End, socket: &Path) {
    let _idle: Vec<_> = (0..40).map(|_| connect(socket)).collect();
    let mut waits = connect(socket);
    waits.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    app.signal("TERM");
    let mut answer = String::new();
    let outcome = waits.read_to_string(&mut answer);
    assert!(answer.ends_with("fine"), "{outcome:?} {answer} {}", log(socket));
    assert_eq!(app.ended().code(), Some(0), "{}", log(socket));
}
