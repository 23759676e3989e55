//! What the tests are made of: a front, its daemon's end of the control socket, workers
//! on unix sockets that write down what they receive, and clients that send raw bytes.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use mfserv_core::route::{Amendment, RouteTable, ServerSettings, Slots, Target, UpstreamSpec};
use mfserv_core::wire::frame;
use mfserv_core::wire::front::{FromFront, Peer, ToFront};
use tempfile::TempDir;

use crate::kind;
use crate::listeners::Listeners;
use crate::start;
use crate::suite::threads;
pub use crate::worker::Worker;

/// No wait in a test is longer.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A timeout that a test does not see the end of, milliseconds.
pub const NEVER_MS: u64 = 10 * PATIENCE.as_millis() as u64;

/// Waits for a condition.
#[track_caller]
pub fn until(what: &str, holds: impl FnMut() -> bool) {
    mfserv_testkit::until(what, PATIENCE, holds);
}

/// A directory and a listening socket, with which fronts of one kind can be started.
pub struct World {
    kind: &'static str,
    pub has_lua: bool,
    pub slows: Option<PathBuf>,
    pub env: Vec<(&'static str, String)>,
    pub dir: TempDir,
    pub listeners: Listeners,
    pub address: SocketAddr,
}

impl World {
    /// For fronts of the kind that the suite is run with.
    pub fn new() -> Self {
        Self::listening_on("127.0.0.1:0")
    }

    pub fn listening_on(address: &str) -> Self {
        Self::of(kind::under_test().0, address)
    }

    pub fn of(kind: &'static str, address: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("front").tempdir().unwrap();
        let listeners = Listeners::on(address);
        let address = listeners.address();
        Self { kind, has_lua: false, slows: None, env: Vec::new(), dir, listeners, address }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a front and says hello.
    pub fn front(&self, number: u32) -> Front {
        self.front_with_grace(number, 5 * PATIENCE)
    }

    pub fn front_with_grace(&self, number: u32, grace: Duration) -> Front {
        static STARTING: Mutex<()> = Mutex::new(());
        let one_at_a_time = STARTING.lock().unwrap_or_else(|e| e.into_inner());
        let (heirs, named) = self.listeners.inherited();
        let child = start::command(self.kind, self.has_lua, self.slows.as_deref())
            .env(kind::VARIABLE, self.kind)
            .env("FRONT_DIR", self.dir.path())
            .env("FRONT_NUMBER", number.to_string())
            .env("FRONT_GRACE_MS", grace.as_millis().to_string())
            .env("MFSERV_LISTEN", named)
            .envs(self.env.clone())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        drop((heirs, one_at_a_time));
        let socket = self.path(&format!("front.{number}.sock"));
        until("the front listens", || UnixStream::connect(&socket).is_ok());
        Front { child, daemon: Daemon::connect(&socket), socket, address: self.address }
    }

    /// A front that routes by this table and has these workers.
    pub fn serving(&self, table: RouteTable, workers: &[&Worker]) -> Front {
        let mut front = self.front(1);
        front.daemon.publish(1, table, workers);
        front
    }
}

/// A front process; killed when dropped.
pub struct Front {
    pub child: Child,
    pub daemon: Daemon,
    pub socket: PathBuf,
    pub address: SocketAddr,
}

impl Front {
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        until("the front ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    pub fn get(&self, path: &str) -> Answer {
        get(self.address, path)
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        start::kill_all(&mut self.child);
        let _ = self.child.wait();
    }
}

/// The daemon's end of the control socket.
pub struct Daemon {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// Its first word.
    pub hello: FromFront,
    /// What was heard and not waited for.
    pub heard: Vec<FromFront>,
}

impl Daemon {
    pub fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let hello = FromFront::Stats(Default::default());
        let mut daemon = Self { stream, buffer: Vec::new(), hello, heard: Vec::new() };
        daemon.hello = daemon.hear();
        daemon.say(&ToFront::Hello { version: 1 });
        daemon
    }

    pub fn say(&mut self, message: &ToFront) {
        self.stream.write_all(&frame::encode(message).unwrap()).unwrap();
    }

    pub fn hear(&mut self) -> FromFront {
        loop {
            if let Some(message) = frame::decode(&mut self.buffer).unwrap() {
                return message;
            }
            let mut room = [0; 4096];
            let count = self.stream.read(&mut room).expect("the front says nothing");
            assert!(count > 0, "the front closed its control connection");
            self.buffer.extend_from_slice(&room[..count]);
        }
    }

    /// Waits for a message; others are kept in `heard`.
    pub fn wait_for(&mut self, wanted: impl Fn(&FromFront) -> bool) -> FromFront {
        if let Some(at) = self.heard.iter().position(&wanted) {
            return self.heard.remove(at);
        }
        loop {
            let message = self.hear();
            if wanted(&message) {
                return message;
            }
            self.heard.push(message);
        }
    }

    /// True if something is said within a short time.
    pub fn says(&mut self, wanted: impl Fn(&FromFront) -> bool, within: Duration) -> bool {
        self.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let end = Instant::now() + within;
        let mut found = false;
        while !found && Instant::now() < end {
            let mut room = [0; 4096];
            if let Ok(count) = self.stream.read(&mut room) {
                self.buffer.extend_from_slice(&room[..count]);
            }
            while let Some(message) = frame::decode(&mut self.buffer).unwrap() {
                found |= wanted(&message);
                self.heard.push(message);
            }
        }
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        found
    }

    pub fn publish(&mut self, generation: u64, table: RouteTable, workers: &[&Worker]) {
        let peers = peers(workers);
        self.say(&ToFront::Publish { generation, table: Box::new(table), peers });
        self.wait_for(|m| *m == FromFront::Published { generation });
    }

    /// From the table of generation `generation - 1`.
    pub fn amend(
        &mut self,
        generation: u64,
        (before, after): (&RouteTable, &RouteTable),
        workers: &[&Worker],
    ) {
        let amendment = Box::new(Amendment::between(before, after));
        let (base, peers) = (generation - 1, peers(workers));
        self.say(&ToFront::Amend { base, generation, amendment, peers });
        self.wait_for(|m| *m == FromFront::Published { generation });
    }

    pub fn admit(&mut self, worker: &Worker) {
        self.say(&ToFront::Admit { upstream: worker.app.clone(), peer: worker.peer() });
        let worker = worker.id.clone();
        self.wait_for(|m| *m == FromFront::Admitted { worker: worker.clone() });
    }

    pub fn drain(&mut self, worker: &Worker) {
        let upstream = worker.app.clone();
        self.say(&ToFront::Drain { upstream, worker: worker.id.clone() });
    }

    pub fn drained(&mut self, worker: &Worker) {
        let worker = worker.id.clone();
        self.wait_for(|m| *m == FromFront::Drained { worker: worker.clone() });
    }

    pub fn forget(&mut self, worker: &Worker) {
        let upstream = worker.app.clone();
        self.say(&ToFront::Forget { upstream, worker: worker.id.clone() });
    }

    pub fn stats(&mut self) -> mfserv_core::wire::front::Stats {
        self.say(&ToFront::Stats);
        match self.wait_for(|m| matches!(m, FromFront::Stats(_))) {
            FromFront::Stats(stats) => stats,
            other => panic!("{other:?}"),
        }
    }
}

fn peers(workers: &[&Worker]) -> BTreeMap<String, Vec<Peer>> {
    let mut peers: BTreeMap<String, Vec<Peer>> = BTreeMap::new();
    for worker in workers {
        peers.entry(worker.app.clone()).or_default().push(worker.peer());
    }
    peers
}

/// A table with the app `p/a` behind `/a` with this policy.
pub fn table(slots: Slots, keep_alive: bool) -> RouteTable {
    let spec = UpstreamSpec {
        keep_alive,
        timeout_ms: 5000,
        queue_max: 1000,
        queue_timeout_ms: 5000,
        slow_lane_wait_ms: 1000,
        ..UpstreamSpec::new(slots)
    };
    RouteTable {
        server: ServerSettings {
            max_body_bytes: 4 << 20,
            ignore_client_abort: false,
            server_tokens: false,
            uuid: "the-uuid".into(),
            body_temp_dir: std::env::temp_dir(),
            threads: threads(),
            max_connections: 10_000,
            header_timeout_ms: 5000,
            keepalive_timeout_ms: 5000,
            client_timeout_ms: 5000,
            upgrade_drain_timeout_ms: 5000,
            ..ServerSettings::default()
        },
        routes: vec![route("/a", Target::Upstream { name: "p/a".into() })],
        upstreams: BTreeMap::from([("p/a".to_string(), spec)]),
        not_found_page: None,
        fragments: BTreeMap::new(),
    }
}

pub use crate::routes::route;
pub const ONE: Slots = Slots::Finite { per_worker: 1 };

/// A request as a worker received it.
#[derive(Debug, Clone)]
pub struct Received {
    pub head: String,
    pub body: Vec<u8>,
}

impl Received {
    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }

    /// The values of a field.
    pub fn field(&self, name: &str) -> Vec<String> {
        fields(&self.head, name)
    }
}

pub fn fields(head: &str, name: &str) -> Vec<String> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(found, _)| found.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_string())
        .collect()
}

/// An answer with a length.
pub fn say(stream: &mut UnixStream, body: &str) -> bool {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(format!("{head}{body}").as_bytes()).is_ok()
}

pub fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

/// A whole chunked body and how many bytes it took.
pub fn unchunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        let size = std::str::from_utf8(&bytes[at..at + line]).unwrap();
        let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
        at += line + 2;
        if bytes.len() < at + size + 2 {
            return None;
        }
        body.extend_from_slice(&bytes[at..at + size]);
        at += size + 2;
        if size == 0 {
            return Some((body, at));
        }
    }
}

/// An answer as a client received it.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
    /// The body came to its announced end.
    pub whole: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn field(&self, name: &str) -> Vec<String> {
        fields(&self.head, name)
    }
}

/// A client.
pub struct Client {
    pub stream: TcpStream,
    pending: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, pending: Vec::new() }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        self.receive().unwrap()
    }

    fn more(&mut self) -> bool {
        let mut room = [0; 65536];
        let count = self.stream.read(&mut room).unwrap_or(0);
        self.pending.extend_from_slice(&room[..count]);
        count > 0
    }

    /// The next bytes up to `wanted`.
    pub fn read_until(&mut self, wanted: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = find(&self.pending, wanted) {
                return self.pending.drain(..at + wanted.len()).collect();
            }
            assert!(self.more(), "ended before {wanted:?}: {:?}", self.pending);
        }
    }

    /// What was received and not looked at.
    pub fn rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.pending)
    }

    /// True if the front has closed the connection.
    pub fn is_closed(&mut self) -> bool {
        let seen = self.stream.peek(&mut [0]);
        seen.map_or_else(|why| why.kind() == ErrorKind::ConnectionReset, |count| count == 0)
    }

    /// The next final answer; none if the connection ended before it began.
    pub fn receive(&mut self) -> Option<Answer> {
        self.receive_to(false)
    }

    pub fn receive_to(&mut self, to_head: bool) -> Option<Answer> {
        loop {
            let head = loop {
                if let Some(at) = find(&self.pending, b"\r\n\r\n") {
                    break self.pending.drain(..at + 4).collect::<Vec<u8>>();
                }
                if !self.more() {
                    return None;
                }
            };
            let head = String::from_utf8(head).unwrap();
            let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let (body, whole) = self.body(&head, status, to_head);
            return Some(Answer { status, head, body, whole });
        }
    }

    fn body(&mut self, head: &str, status: u16, to_head: bool) -> (Vec<u8>, bool) {
        if to_head || matches!(status, 101 | 204 | 304) {
            return (Vec::new(), true);
        }
        if !fields(head, "transfer-encoding").is_empty() {
            loop {
                if let Some((body, used)) = unchunk(&self.pending) {
                    self.pending.drain(..used);
                    return (body, true);
                }
                if !self.more() {
                    return (std::mem::take(&mut self.pending), false);
                }
            }
        }
        let Some(length) = fields(head, "content-length").first().map(|l| l.parse().unwrap())
        else {
            while self.more() {}
            return (std::mem::take(&mut self.pending), true);
        };
        while self.pending.len() < length && self.more() {}
        let whole = self.pending.len() >= length;
        let length = length.min(self.pending.len());
        (self.pending.drain(..length).collect(), whole)
    }
}

/// One request on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    ask(address, format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
}

pub fn ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Answer {
    try_ask(address, bytes).expect("no answer")
}

pub fn try_ask(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Option<Answer> {
    let mut client = Client::connect(address);
    client.send(bytes);
    client.receive()
}
