//! Answers `GET /metrics`: on a unix socket, and on a loopback port if a key says so. `GET /history`
//! is answered on the socket alone.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mfserv_h1::{HeadScan, RequestHead};
use mfserv_platform::clock::now_ms;
use mfserv_platform::sync::lock;
use rustix::event::{PollFd, PollFlags, poll};

use super::LOOK;
use super::alerts::Shown;
use super::app_series::AppSeries;
use super::collect;
use super::exposition::Format;
use super::history::{self, History, Refused};
use super::host::{Sample, Sources};
use super::listener::SocketListener;
use super::registry::Registry;
use crate::troubles::Troubles;

/// The most requests at a time, on the socket and on the port each: who asks on the port, which any
/// user of the machine may, takes no place of the owner. Others wait to be accepted.
const CLIENTS_MAX: usize = 8;
/// How soon it is looked again whether a client is answered, when there is no room.
const FULL_LOOK: Duration = Duration::from_millis(10);
/// How long a client may take to send its request, and until it reads more of the answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may take to read the whole answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// So much of an answer is written at a time, bytes: how long each may take has a limit of its own.
const PART: usize = 16 * 1024;
/// How often it is looked whether the sums are whole again, after the start of the role.
const SETTLING_PAUSE: Duration = Duration::from_millis(20);
/// The most fields of a head.
const FIELDS_MAX: usize = 100;
/// The longest head of a request, bytes.
const HEAD_MAX: usize = 8 * 1024;

/// Answers requests, in threads: one that accepts, and one for each request.
pub struct Server {
    known: Known,
    ends: Arc<AtomicBool>,
    socket: SocketListener,
    port: Option<u16>,
    tcp: Option<TcpListener>,
    clients: Clients,
    since_ms: u64,
}

/// How many clients are answered now.
#[derive(Default)]
struct Clients {
    of_socket: Arc<AtomicUsize>,
    of_port: Arc<AtomicUsize>,
}

impl Clients {
    fn of(&self, is_local: bool) -> &Arc<AtomicUsize> {
        if is_local { &self.of_socket } else { &self.of_port }
    }

    fn have_room(&self, is_local: bool) -> bool {
        self.of(is_local).load(Ordering::Relaxed) < CLIENTS_MAX
    }
}

/// What questions are answered from.
#[derive(Clone)]
pub struct Known {
    /// What is counted.
    pub registry: Arc<Mutex<Registry>>,
    /// What apps have sent.
    pub apps: Arc<Mutex<AppSeries>>,
    /// What was.
    pub history: Arc<History>,
    /// What the alerts do.
    pub alerts: Shown,
    /// Where the kernel says what the machine does.
    pub sources: Sources,
    /// What does not work.
    pub troubles: Arc<Troubles>,
}

/// A connection to a client.
trait Client: Read + Write + Send {
    /// How long the next writes may take, each.
    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()>;
}

impl Client for UnixStream {
    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(timeout))
    }
}

impl Client for TcpStream {
    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.set_write_timeout(Some(timeout))
    }
}

impl Server {
    /// One that listens on a unix socket, and on a port of 127.0.0.1 if there is one, as soon as
    /// it runs.
    pub fn new(
        (socket, port): (PathBuf, Option<u16>),
        known: Known,
        ends: Arc<AtomicBool>,
    ) -> Self {
        let (clients, since_ms) = (Clients::default(), now_ms());
        let socket = SocketListener::new(socket);
        Self { known, ends, socket, port, tcp: None, clients, since_ms }
    }

    /// Accepts until it is to end.
    pub fn run(mut self) {
        let mut of_socket = String::new();
        while !self.ends.load(Ordering::Relaxed) {
            if let Err(why) = self.socket.look_after() {
                super::report_once(&mut of_socket, format!("no socket to ask for metrics: {why}"));
            }
            self.listen();
            self.wait();
            while let Some((client, is_local)) = self.accept() {
                self.answer(client, is_local);
            }
        }
    }

    /// Binds the port. One that is taken is tried again later.
    fn listen(&mut self) {
        let (Some(port), None) = (self.port, &self.tcp) else { return };
        let what = format!("[metrics] port={port}");
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .and_then(|listener| listener.set_nonblocking(true).map(|()| listener));
        match bound {
            Ok(listener) => {
                self.tcp = Some(listener);
                self.known.troubles.over(&what);
            }
            Err(why) => {
                self.known.troubles.say(&what, &format!("nobody can read /metrics there: {why}"))
            }
        }
    }

    fn wait(&self) {
        let (socket, port) = (self.clients.have_room(true), self.clients.have_room(false));
        // Those that wait for room are readable all the time: they are looked at soon again.
        let timeout = if socket && port { LOOK } else { FULL_LOOK };
        let mut all: Vec<PollFd<'_>> = Vec::new();
        let listener = self.socket.socket().filter(|_| socket);
        all.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
        let listener = self.tcp.as_ref().filter(|_| port);
        all.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
        // Interrupted or not: everything is looked at again.
        let _ = poll(&mut all, Some(&super::timespec(timeout)));
    }

    /// The next client, and whether it uses the socket, which only the user of the node can.
    fn accept(&self) -> Option<(Box<dyn Client>, bool)> {
        let waits = self.clients.have_room(true).then(|| self.socket.accept()).flatten();
        if let Some(stream) = waits {
            stream.set_read_timeout(Some(PATIENCE)).ok()?;
            return Some((Box::new(stream), true));
        }
        let listener = self.tcp.as_ref().filter(|_| self.clients.have_room(false))?;
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(false).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some((Box::new(stream), false))
    }

    fn answer(&self, mut client: Box<dyn Client>, is_local: bool) {
        let clients = self.clients.of(is_local).clone();
        clients.fetch_add(1, Ordering::Relaxed);
        let (known, answered) = (self.known.clone(), clients.clone());
        let own = (std::process::id(), self.since_ms);
        let thread = std::thread::Builder::new().name("metrics-to".into());
        let spawned = thread.spawn(move || {
            // A client that is lost gets no answer.
            let _ = exchange(&mut *client, is_local, &known, own);
            answered.fetch_sub(1, Ordering::Relaxed);
        });
        if spawned.is_err() {
            clients.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Reads a request and answers it.
fn exchange(
    client: &mut dyn Client,
    is_local: bool,
    known: &Known,
    own: (u32, u64),
) -> io::Result<()> {
    let Some(head) = read_head(client)? else {
        return put(client, "400 Bad Request", "text/plain", "bad request\n");
    };
    if !is_local && !names_this_machine(&head) {
        let text = "the Host of a request to this port is 127.0.0.1, [::1] or localhost\n";
        return put(client, "403 Forbidden", "text/plain", text);
    }
    match (head.method(), head.path()) {
        (b"GET" | b"HEAD", b"/metrics") => {
            let fields = head.fields.iter();
            let mut accepts = fields.filter(|(_, name, _)| name.eq_ignore_ascii_case(b"accept"));
            let format = Format::accepted(accepts.next().map_or(b"", |(_, _, value)| value));
            let text = metrics(known, format, own);
            let text = if head.method() == b"HEAD" { "" } else { &text };
            put(client, "200 OK", format.content_type(), text)
        }
        (b"GET", b"/alerts") if is_local => {
            let alerts = lock(&known.alerts).clone();
            let text = serde_json::to_string(&alerts).map_err(io::Error::other)?;
            put(client, "200 OK", "application/json", &text)
        }
        (b"GET", b"/history") if is_local => {
            let target = String::from_utf8_lossy(head.target());
            let question = target.split_once('?').map_or("", |(_, question)| question);
            put_history(client, &known.history, question)
        }
        (_, b"/metrics") => put(client, "405 Method Not Allowed", "text/plain", "GET only\n"),
        (_, b"/history" | b"/alerts") if is_local => {
            put(client, "405 Method Not Allowed", "text/plain", "GET only\n")
        }
        _ => put(client, "404 Not Found", "text/plain", "only /metrics is here\n"),
    }
}

/// The text of all metrics. Nobody waits for a lock while something is read or written: the series
/// of apps are taken, and alerts are evaluated, whoever asks.
fn metrics(known: &Known, format: Format, own: (u32, u64)) -> String {
    while !lock(&known.registry).is_settled() {
        std::thread::sleep(SETTLING_PAUSE);
    }
    let snapshot = lock(&known.registry).snapshot();
    let alerts = lock(&known.alerts).clone();
    let host = Sample::read(&known.sources);
    let around = collect::Around {
        own,
        host: &host,
        apps: &known.apps,
        alerts: &alerts,
        troubles: known.troubles.count(),
    };
    collect::text(&snapshot, format, &around)
}

/// The `Host` of a request is this machine. A page of another site may have a name that leads here
/// (DNS rebinding), and its browser sends that name.
fn names_this_machine(head: &RequestHead) -> bool {
    let mut fields = head.fields.iter();
    let host = fields.find(|(_, name, _)| name.eq_ignore_ascii_case(b"host"));
    let Some((_, _, host)) = host else { return true };
    let host = String::from_utf8_lossy(host).to_ascii_lowercase();
    // The codec has refused what is no host with a port.
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(&*host, |(name, _)| name),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn put_history(client: &mut dyn Client, history: &History, question: &str) -> io::Result<()> {
    match history::answer(history, question) {
        Ok(answer) => {
            let text = serde_json::to_string(&answer).map_err(io::Error::other)?;
            put(client, "200 OK", "application/json", &text)
        }
        Err(Refused::Bad(why)) => put(client, "400 Bad Request", "text/plain", &format!("{why}\n")),
        Err(Refused::None(why)) => put(client, "404 Not Found", "text/plain", &format!("{why}\n")),
    }
}

/// The head of a request; `None` if it is none, too large, or late.
fn read_head(client: &mut dyn Client) -> io::Result<Option<RequestHead>> {
    let (mut bytes, mut scan) = (Vec::new(), HeadScan::default());
    let end = Instant::now() + PATIENCE;
    let mut part = [0; 1024];
    loop {
        match scan.find_end(&bytes) {
            Ok(Some(length)) => {
                let mut head = RequestHead::default();
                return Ok(head.read(&bytes[..length], FIELDS_MAX).is_ok().then_some(head));
            }
            Ok(None) if bytes.len() < HEAD_MAX && Instant::now() < end => {}
            _ => return Ok(None),
        }
        match client.read(&mut part)? {
            0 => return Ok(None),
            count => bytes.extend_from_slice(&part[..count]),
        }
    }
}

fn put(client: &mut dyn Client, status: &str, content_type: &str, text: &str) -> io::Result<()> {
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n"
    );
    let end = Instant::now() + ANSWER_PATIENCE;
    write_until(client, head.as_bytes(), end)?;
    write_until(client, text.as_bytes(), end)
}

/// Writes all of it, if the client reads it in time.
fn write_until(client: &mut dyn Client, bytes: &[u8], end: Instant) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        client.set_write_timeout(left.min(PATIENCE))?;
        match client.write(&rest[..rest.len().min(PART)]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
