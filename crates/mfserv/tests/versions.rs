//! A command line and a daemon of different versions: `status`, `stop` and `upgrade` work, every
//! other command is refused with the advice to upgrade.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mfserv_node::control::client::Connection;
use mfserv_node::control::protocol::Version;
use mfserv_testkit::{Node, Plugin, programs, until};

use crate::{PATIENCE, Turn, node};

fn serving() -> Node {
    let node = node();
    node.add(&Plugin::python("hello", programs::SERVES));
    node.start();
    node
}

fn other() -> Version {
    Version { version: "9.9.9".into(), protocol: 99 }
}

/// Runs what a program of another version would ask.
fn asks<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(work)
}

/// One request as the programs before the HTTP API sent it.
fn ask_as_before(socket: &Path, ask: &str) -> (u16, serde_json::Value) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let length = ask.len();
    let head = format!(
        "POST /v1/ask HTTP/1.1\r\nhost: mfserv\r\ncontent-length: {length}\r\n\
         connection: close\r\n\r\n{ask}"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head[9..12].parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[test]
fn a_command_of_another_version_sees_a_node_and_stops_it_and_is_refused_everything_else() {
    let _turn = Turn::cheap();
    let node = serving();
    let socket = node.path("var/run/control.sock");
    let hash = node.hash();
    asks(async {
        let mut connection = Connection::open(&socket, other()).await.unwrap();
        let status = connection.status().await.unwrap();
        assert_eq!(status.watchers.len(), 3);
        let refused = connection.recent(1).await.unwrap_err();
        assert!(refused.help.unwrap().contains("mfserv upgrade"));
        connection.stop("mfserv stop").await.unwrap();
    });
    until("nothing lives", PATIENCE, || node.processes(hash.as_deref()).is_empty());
    node.stop();
}

#[test]
fn a_command_from_before_the_api_sees_a_node_and_stops_it() {
    let _turn = Turn::cheap();
    let node = serving();
    let socket = node.path("var/run/control.sock");
    let hash = node.hash();
    let (code, status) = ask_as_before(&socket, r#"{"ask":"status"}"#);
    assert_eq!((code, &status["state"]), (200, &"RUNNING".into()));
    let (code, refused) = ask_as_before(&socket, r#"{"ask":"reload","wait_s":0}"#);
    assert_eq!((code, &refused["kind"]), (409, &"refused".into()));
    assert!(refused["help"].as_str().unwrap().contains("mfserv upgrade"), "{refused}");
    let (code, stopped) = ask_as_before(&socket, r#"{"ask":"stop"}"#);
    assert_eq!((code, &stopped["generation"]), (200, &0.into()));
    until("nothing lives", PATIENCE, || node.processes(hash.as_deref()).is_empty());
    node.stop();
}

/// A daemon of an older version takes the place of the real one at the control socket: it answers
/// `{"ask":"status"}` with this status and `{"ask":"stop"}` with what a stop said. Returns how
/// often it was asked to stop.
fn play_an_older_daemon(socket: &Path, status: String) -> Arc<AtomicUsize> {
    std::fs::remove_file(socket).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    let stops = Arc::new(AtomicUsize::new(0));
    let counted = stops.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (status, stops) = (status.clone(), counted.clone());
            std::thread::spawn(move || answer_as_before(stream, &status, &stops));
        }
    });
    stops
}

fn answer_as_before(mut stream: UnixStream, status: &str, stops: &AtomicUsize) {
    let mut seen = Vec::new();
    let mut bytes = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut bytes) {
        seen.extend_from_slice(&bytes[..n]);
        let text = String::from_utf8_lossy(&seen).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        if body.len() < length.map_or(0, |length| length.parse().unwrap()) {
            continue;
        }
        seen.clear();
        let (code, answer) = match body {
            r#"{"ask":"status"}"# => (200, status),
            r#"{"ask":"stop"}"# => {
                stops.fetch_add(1, Ordering::SeqCst);
                (200, r#"{"generation":0,"changes":"","problems":[]}"#)
            }
            _ => (
                400,
                r#"{"severity":"error","kind":"usage","what":"the request is not understood"}"#,
            ),
        };
        let length = answer.len();
        let text = format!("HTTP/1.1 {code} X\r\ncontent-length: {length}\r\n\r\n{answer}");
        if stream.write_all(text.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn commands_see_an_older_daemon_and_upgrade_it_and_nothing_else() {
    let _turn = Turn::cheap();
    let node = serving();
    let socket = node.path("var/run/control.sock");
    let workers = node.worker_pids();
    let before = node.status();
    play_an_older_daemon(&socket, serde_json::to_string(&before).unwrap());
    assert_eq!(node.status().generation, before.generation);
    for command in [&["reload"][..], &["restart"], &["scale", "hello", "2"]] {
        let ran = node.mfserv(command).code(5);
        assert!(ran.stderr.contains("mfserv upgrade"), "{command:?}: {}", ran.stderr);
    }
    node.mfserv(&["upgrade"]).code(0);
    let after = node.status();
    assert_ne!(after.daemon.pid, before.daemon.pid, "a new daemon has taken the socket");
    assert_eq!(node.worker_pids(), workers);
    node.mfserv(&["reload"]).code(0);
    node.stop();
}

#[test]
fn an_older_daemon_is_asked_to_stop_as_it_understands() {
    let _turn = Turn::cheap();
    let node = serving();
    let socket = node.path("var/run/control.sock");
    let stops = play_an_older_daemon(&socket, serde_json::to_string(&node.status()).unwrap());
    node.stop();
    assert_eq!(stops.load(Ordering::SeqCst), 1);
}
