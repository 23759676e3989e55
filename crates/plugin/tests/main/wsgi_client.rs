//! Clients of a Python worker. They take whatever a server may do on a busy machine: it sends an
//! answer in any number of pieces, and closes a connection before all of a request has arrived.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::becomes;

/// Python for an app: the exit code of a child that a request forks and ends by SIGTERM.
pub const TERMINATED: &str = r#"
import multiprocessing, time

def terminated():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    child.start()
    child.terminate()
    child.join(10)
    code = child.exitcode
    child.kill()
    return str(code).encode()
"#;

/// Waits until a worker listens. Its log says why it does not.
#[track_caller]
pub fn until_it_listens(socket: &Path) {
    let listens = becomes(|| UnixStream::connect(socket).is_ok());
    let log = fs::read_to_string(socket.with_extension("log")).unwrap_or_default();
    assert!(listens, "never: the app listens on {}; its log: {log}", socket.display());
}

/// A connection to a worker that listens.
#[track_caller]
pub fn connect(socket: &Path) -> UnixStream {
    let stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

/// One GET on a unix socket, once it answers: the head and the body.
#[track_caller]
pub fn get(socket: &Path, path: &str, headers: &str) -> (String, String) {
    until_it_listens(socket);
    let mut stream = connect(socket);
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.to_string(), body.to_string())
}

/// Sends bytes, and reads until the server closes the connection.
#[track_caller]
pub fn raw(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(socket);
    if let Err(error) = stream.write_all(bytes) {
        // The server has answered already, and closed: what it has said is read all the same.
        let is_closed = matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
        assert!(is_closed, "{error}");
    }
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer) {
        // A connection that is closed with bytes unread is reset after what was sent.
        assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    }
    answer
}

/// The same, as text.
#[track_caller]
pub fn raw_text(socket: &Path, bytes: &[u8]) -> String {
    String::from_utf8_lossy(&raw(socket, bytes)).into_owned()
}

/// What a worker answers to a request for `path` whose body, `abc`, is sent once the worker has said
/// that it may come.
#[track_caller]
pub fn told_to_go_on(socket: &Path, path: &str) -> String {
    let mut stream = connect(socket);
    write!(stream, "POST {path} HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n").unwrap();
    stream.write_all(b"Connection: close\r\nContent-Length: 3\r\n\r\n").unwrap();
    let mut told = [0; 25];
    stream.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Bytes that are no request, or might be taken for two, are answered with 400.
#[track_caller]
pub fn what_is_no_request_is_refused(socket: &Path) {
    for bytes in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"nonsense\r\n\r\n",
    ] {
        let answer = raw_text(socket, bytes);
        assert!(answer.starts_with("HTTP/1.1 400 Bad Request"), "{answer}");
    }
}

/// The next answer on a connection, which says its length.
#[track_caller]
pub fn answer(stream: &mut UnixStream) -> String {
    let mut text = String::new();
    let mut space = [0; 4096];
    while !is_whole(&text) {
        let count = stream.read(&mut space).unwrap();
        assert!(count > 0, "the connection is closed after {text:?}");
        text.push_str(std::str::from_utf8(&space[..count]).unwrap());
    }
    text
}

fn is_whole(answer: &str) -> bool {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let length: usize = length.unwrap_or_else(|| panic!("no length: {answer}")).parse().unwrap();
    body.len() >= length
}
