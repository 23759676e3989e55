//! A small front that offers requests to workers, and the app that they serve.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use mfserv_plugin::base::BaseEnvironment;
use mfserv_pull::{
    FRAME_LEN, Frame, FrameKind, Message, MessageKind, Offer, Page, TAKEN, now_ns, queue, send,
    unread,
};

use crate::wsgi::{End, worker};
use crate::wsgi_client::{connect, until_it_listens};
use crate::{Node, until};

/// Each call is a line of the file `called`: the query string of the request.
const APP: &str = r#"
import os, time

called = os.open("called", os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def nap(name):
    open("napping" + name, "w").close()
    while not os.path.exists("wake" + name):
        time.sleep(0.005)

def pieces():
    yield b"a" * 100
    yield b"b" * 100

def fork(lasts):
    child = os.fork()
    if child == 0 and lasts:
        time.sleep(120)
        os._exit(0)
    if child and not lasts:
        os.waitpid(child, 0)
    return b"child" if child == 0 else b"parent %d" % child

def application(environ, start_response):
    path, query, body = environ["PATH_INFO"], environ["QUERY_STRING"], environ["wsgi.input"]
    if query:
        os.write(called, query.encode() + b"\n")
    if path == "/nap":
        nap(query)
    if path == "/brief":
        time.sleep(0.001)
    if path == "/slow":
        time.sleep(60)
    if path == "/boom":
        raise ValueError("no")
    if path == "/none":
        start_response("204 No Content", [])
        return []
    if path == "/file":
        with open("file", "wb") as file:
            file.write(b"f" * 300000)
        start_response("200 OK", [("Content-Length", "300000")])
        return environ["wsgi.file_wrapper"](open("file", "rb"))
    if path == "/short":
        start_response("200 OK", [("Content-Length", "10")])
        return [b"short"]
    if path == "/closing":
        start_response("200 OK", [("Content-Length", "6")])
        return iter([b"whole!"])
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/write":
        write(b"written")
        return []
    if path == "/pieces":
        return pieces()
    if path == "/large":
        return [b"l" * 1000000, b"m" * 2000000]
    if path == "/two":
        return [b"x" * 20000, b"y" * 20000]
    if path == "/fork":
        return [fork(bool(environ["HTTP_LASTS"]))]
    if path == "/unread":
        return [b"not read"]
    if path == "/size":
        kind = type(body).__name__
        return [b"%d %s" % (len(body.read()), kind.encode())]
    return [query.encode() + body.read()]
"#;

/// A plugin with that app, and workers of it.
pub struct Workers<'n> {
    node: &'n Node,
    base: &'n BaseEnvironment,
    name: &'static str,
    pub dir: PathBuf,
}

impl<'n> Workers<'n> {
    pub fn new(node: &'n Node, base: &'n BaseEnvironment, name: &'static str) -> Self {
        let dir = node.plugin("python3_raw_wsgi", name);
        fs::write(dir.join("main/wsgi.py"), APP).unwrap();
        Self { node, base, name, dir }
    }

    /// Starts a worker with this time limit, which listens.
    pub fn start(&self, number: usize, limit: &str) -> (End, PathBuf) {
        let socket = self.node.work().join(format!("{}{number}", self.name));
        let arguments = [limit, "main.wsgi:application"];
        let base = (self.base, "mfserv");
        let worker = worker(&self.node.home, base, &self.dir, &arguments, &socket);
        until_it_listens(&socket);
        (worker, socket)
    }

    /// Waits until a request of `/nap?NAME` runs.
    #[track_caller]
    pub fn naps(&self, name: &str) {
        until("the app naps", || self.dir.join(format!("napping{name}")).exists());
    }

    /// Ends it.
    pub fn wake(&self, name: &str) {
        fs::write(self.dir.join(format!("wake{name}")), "").unwrap();
    }

    /// The query strings of the requests that have begun, in their order.
    pub fn called(&self) -> Vec<String> {
        let called = fs::read_to_string(self.dir.join("called")).unwrap_or_default();
        called.lines().map(String::from).collect()
    }
}

/// The CPU time of a worker's main thread.
pub fn cpu_ns(worker: &End) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/schedstat", worker.0.id())).unwrap();
    text.split_whitespace().next().unwrap().parse().unwrap()
}

/// The log of a worker.
pub fn log_of(socket: &Path) -> String {
    fs::read_to_string(socket.with_extension("log")).unwrap()
}

/// One queue with its page.
pub struct Front {
    queue: OwnedFd,
    workers_end: OwnedFd,
    pub page: Page,
    memory: OwnedFd,
    last: u64,
}

impl Front {
    pub fn new() -> Self {
        let ((queue, workers_end), (page, memory)) = (queue().unwrap(), Page::create().unwrap());
        Self { queue, workers_end, page, memory, last: 0 }
    }

    /// Offers the queue to a worker, which does not have to take it.
    pub fn offer(&self, socket: &Path, line: usize) -> Link {
        let stream = connect(socket);
        let ends = (self.workers_end.as_fd(), self.memory.as_fd());
        Offer::send(&stream, ends, line).unwrap();
        Link(stream)
    }

    /// Offers the queue to a worker, which takes it.
    #[track_caller]
    pub fn link(&self, socket: &Path, line: usize) -> Link {
        self.taken(socket, line).expect("the worker ended the connection")
    }

    /// Offers the queue to a worker that may still hold the queues of earlier fronts: until it
    /// sees that they are gone it refuses more than it can hold.
    #[track_caller]
    pub fn link_after_others(&self, socket: &Path, line: usize) -> Link {
        let mut link = None;
        until("the worker has room for a queue", || {
            link = self.taken(socket, line);
            link.is_some()
        });
        link.unwrap()
    }

    #[track_caller]
    fn taken(&self, socket: &Path, line: usize) -> Option<Link> {
        let mut link = self.offer(socket, line);
        let frame = link.frame()?;
        assert_eq!((frame.kind, frame.id, frame.length), (FrameKind::Ready, 0, 0));
        Some(link)
    }

    /// Sends a message, and returns its number.
    #[track_caller]
    pub fn send(&mut self, kind: MessageKind, request: &str) -> u64 {
        self.last += 1;
        let id = if kind == MessageKind::Nudge { 0 } else { self.last };
        let message = Message { id, sent_ns: now_ns(), kind };
        assert!(send(&self.queue, message, request.as_bytes()).unwrap(), "no room");
        id
    }

    /// Sends a GET.
    #[track_caller]
    pub fn get(&mut self, path: &str) -> u64 {
        self.send(MessageKind::Request, &format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n"))
    }

    /// The turn of a request, which is still to be sent.
    #[track_caller]
    pub fn turn(&mut self) -> u64 {
        self.send(MessageKind::Turn, "")
    }

    /// Bytes of messages that nobody has received.
    pub fn unread(&self) -> u64 {
        unread(&self.workers_end).unwrap()
    }

    /// Waits until the worker of a line has no request.
    #[track_caller]
    pub fn until_free(&self, line: usize) {
        until("the line is free", || self.page.running(line).is_none());
    }
}

/// The connection on which a worker answers.
pub struct Link(pub UnixStream);

impl Link {
    /// The next frame; `None` at the end.
    #[track_caller]
    pub fn frame(&mut self) -> Option<Frame> {
        let mut bytes = [0; FRAME_LEN];
        match self.0.read_exact(&mut bytes) {
            // An offer is refused.
            Ok(()) if bytes.starts_with(b"HTTP/1.1 400 Bad Request") => None,
            Ok(()) => Some(Frame::of(&bytes).unwrap_or_else(|| panic!("no frame: {bytes:?}"))),
            // The last one: with bytes of this side unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => None,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "{error}");
                None
            }
        }
    }

    #[track_caller]
    pub fn expect(&mut self, kind: FrameKind, id: u64) -> Frame {
        let frame = self.frame().expect("the link has ended");
        assert_eq!((frame.kind, frame.id), (kind, id), "{frame:?}");
        frame
    }

    /// The whole answer to this request, of a frame.
    #[track_caller]
    pub fn answer(&mut self, id: u64) -> String {
        let frame = self.expect(FrameKind::Answer, id);
        self.text(frame.length as usize)
    }

    #[track_caller]
    pub fn text(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// The answer to this request, which ends as HTTP says: head and body.
    #[track_caller]
    pub fn stream(&mut self, id: u64) -> (String, String) {
        let frame = self.expect(FrameKind::Stream, id);
        assert_eq!(frame.length, 0);
        self.http()
    }

    /// Says that all of an answer has come.
    pub fn say_taken(&mut self) {
        // A worker that has ended the link does not wait for it.
        let _ = self.0.write_all(&[TAKEN]);
    }

    /// An answer of HTTP, head and body, and says that it has come.
    #[track_caller]
    pub fn http(&mut self) -> (String, String) {
        let answer = self.untaken();
        self.say_taken();
        answer
    }

    /// An answer of HTTP, head and body; the worker waits until it is said that it has come.
    #[track_caller]
    pub fn untaken(&mut self) -> (String, String) {
        let head = self.until("\r\n\r\n");
        if head.contains("Transfer-Encoding: chunked\r\n") {
            let mut body = String::new();
            loop {
                let line = self.until("\r\n");
                let size = usize::from_str_radix(line.trim_end(), 16).unwrap();
                body += self.text(size + 2).trim_end();
                if size == 0 {
                    return (head, body);
                }
            }
        }
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let body = self.text(length.unwrap().parse().unwrap());
        (head, body)
    }

    fn until(&mut self, end: &str) -> String {
        let mut text = String::new();
        while !text.ends_with(end) {
            text += &self.text(1);
        }
        text
    }

    /// The worker has nothing else to say, and has closed it.
    #[track_caller]
    pub fn ends(&mut self) {
        assert_eq!(self.frame(), None);
    }

    /// Sends bytes of the request whose turn it is.
    #[track_caller]
    pub fn put(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    /// Asks the worker to take no more.
    pub fn drain(&self) {
        self.0.shutdown(Shutdown::Write).unwrap();
    }

    /// Asks the worker to take no more, once it has received all.
    #[track_caller]
    pub fn drain_when(&self, is_empty: impl FnMut() -> bool) {
        until("all messages are received", is_empty);
        self.drain();
    }

    /// The numbers of all whole answers until the link ends.
    #[track_caller]
    pub fn answered(&mut self) -> BTreeSet<u64> {
        let mut ids = BTreeSet::new();
        while let Some(frame) = self.frame() {
            assert_eq!(frame.kind, FrameKind::Answer);
            assert!(self.text(frame.length as usize).starts_with("HTTP/1.1 200 OK\r\n"));
            assert!(ids.insert(frame.id), "{} is answered twice", frame.id);
        }
        ids
    }
}
