//! How a Python worker ends: by a signal, whatever the app has done to signals, and at the hard
//! limit.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use mfserv_plugin::base::BaseEnvironment;

use crate::wsgi::{End, HASTY, PATIENT, worker};
use crate::wsgi_client::{connect, get, until_it_listens};
use crate::{Node, until};

const APP: &str = r#"
import asyncio, os, resource, signal, threading, time

def leave_no_wakeup():
    async def main():
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, lambda: None)
    asyncio.run(main())

def nobody_reads_errors():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    try:
        while True:
            os.write(writer, b"x" * 4096)
    except BlockingIOError:
        pass
    os.set_blocking(writer, True)
    os.dup2(writer, 2)
    catch_all()

def few_files():
    used = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (used + 4, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

def catch_all():
    while True:
        try:
            time.sleep(1000)
        except BaseException:
            pass

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/catch":
        threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
        catch_all()
    if path == "/wakeup":
        leave_no_wakeup()
    if path == "/few-files":
        few_files()
    if path == "/errors":
        nobody_reads_errors()
    if path == "/long":
        open("napping", "w").close()
        while not os.path.exists("wake"):
            time.sleep(0.02)
    body = b"x" * (3000000 if path == "/long" else 1)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"#;

/// Called by the test that has made a base environment.
pub fn a_worker_ends_as_it_should(node: &Node, base: (&BaseEnvironment, &str)) {
    let dir = node.plugin("python3_raw_wsgi", &format!("stop_{}", base.1));
    fs::write(dir.join("main/wsgi.py"), APP).unwrap();
    let socket = node.work().join(format!("t{}", &base.1[..1]));
    let start = |timeout: &str| {
        let arguments = [timeout, "main.wsgi:application"];
        worker(&node.home, base, &dir, &arguments, &socket)
    };
    a_long_request_is_finished(&mut start(PATIENT), &dir, &socket);
    a_signal_is_not_lost(&mut start(PATIENT), &socket);
    who_waits_to_be_accepted_is_served(&mut start(PATIENT), &socket);
    nothing_delays_the_hard_limit(&mut start(HASTY), &socket);
    the_log_says_what_was_done_at_the_hard_limit(&mut start(HASTY), &socket);
}

fn send(socket: &Path, path: &str) -> UnixStream {
    let mut stream = connect(socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").unwrap();
    stream
}

fn a_long_request_is_finished(app: &mut End, dir: &Path, socket: &Path) {
    get(socket, "/wakeup", "");
    let mut running = send(socket, "/long");
    until("the app naps", || dir.join("napping").exists());
    let mut waiting = send(socket, "/");
    app.signal("TERM");
    // Longer than a worker that was told to stop serves its clients.
    std::thread::sleep(Duration::from_millis(5500));
    fs::write(dir.join("wake"), "").unwrap();
    let mut answer = String::new();
    // All of its answer leaves, though it is read late.
    until("the request is over", || !socket.exists());
    running.read_to_string(&mut answer).unwrap();
    assert!(answer.len() > 3_000_000 && answer.ends_with('x'), "{} bytes", answer.len());
    answer.clear();
    waiting.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "who had connected: {answer}");
    assert_eq!(app.ended().code(), Some(0));
}

/// `asyncio.run` has switched off what wakes the main thread.
fn a_signal_is_not_lost(app: &mut End, socket: &Path) {
    get(socket, "/wakeup", "");
    app.signal("TERM");
    assert_eq!(app.ended().code(), Some(0));
}

fn nothing_delays_the_hard_limit(app: &mut End, socket: &Path) {
    until_it_listens(socket);
    let _stream = send(socket, "/errors");
    assert_eq!(app.ended().signal(), Some(9));
}

fn the_log_says_what_was_done_at_the_hard_limit(app: &mut End, socket: &Path) {
    until_it_listens(socket);
    let _stream = send(socket, "/catch");
    assert_eq!(app.ended().signal(), Some(9));
    let log = fs::read_to_string(socket.with_extension("log")).unwrap();
    let (_, stacks) = log.split_once("hard timeout (3 s) => SIGKILL").expect(&log);
    assert!(stacks.contains("in catch_all") && stacks.contains("in application"), "{stacks}");
    assert!(stacks.matches("(most recent call first)").count() >= 2, "all threads: {stacks}");
}

/// The worker has no descriptor left for it before the idle connections are closed, several times.
fn who_waits_to_be_accepted_is_served(app: &mut End, socket: &Path) {
    get(socket, "/few-files", "");
    let _idle: Vec<_> = (0..40).map(|_| connect(socket)).collect();
    let mut waits = send(socket, "/");
    app.signal("TERM");
    let mut text = String::new();
    let outcome = waits.read_to_string(&mut text);
    assert!(text.starts_with("HTTP/1.1 200") && text.ends_with('x'), "{outcome:?} {text}");
    assert_eq!(app.ended().code(), Some(0));
}
