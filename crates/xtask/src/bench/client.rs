//! An open loop: requests are sent when their time has come, whether or not earlier ones
//! have been answered, and their latency counts from the time when they were due.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mfserv_core::Diagnostic;
use rustix::time::{ClockId, clock_gettime};

use super::arrivals::Arrival;
use crate::interrupt;

/// Connections, and so requests under way, at most. A request that is due while all are
/// taken is late, and its latency says so.
const CONNECTIONS: usize = 256;
/// The stack of a connection's thread, bytes.
const STACK: usize = 128 * 1024;
/// The first request is due after this, so that all threads are there.
const LEAD_NS: u64 = 200_000_000;
/// A request without an answer after this has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest line and the longest body that are read, bytes.
const LONGEST: u64 = 64 * 1024;

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub struct Asked {
    /// Its id.
    pub id: u64,
    /// It was one of the fast ones.
    pub fast: bool,
    /// When it was due, nanoseconds of the monotonic clock.
    pub due_ns: u64,
    /// When it was sent.
    pub sent_ns: u64,
    /// When its answer had been read.
    pub done_ns: u64,
    /// The status of the answer; `None` when there was none.
    pub status: Option<u16>,
}

impl Asked {
    /// It was answered well.
    pub fn is_answered(&self) -> bool {
        self.status == Some(200)
    }

    /// From the time when it was due to the end of its answer, milliseconds.
    pub fn latency_ms(&self) -> f64 {
        self.done_ns.saturating_sub(self.due_ns) as f64 / 1e6
    }
}

/// The monotonic clock, nanoseconds: the one that the workers read too.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// What is asked for: the request target of a request with this id.
pub type Target<'a> = &'a (dyn Fn(u64, &Arrival) -> String + Sync);

/// Sends the requests; ids count from `first_id`. Returns when all have been answered or
/// have failed.
pub fn ask_all(
    address: SocketAddr,
    target: Target<'_>,
    arrivals: &[Arrival],
    first_id: u64,
) -> Result<Vec<Asked>, Diagnostic> {
    let round = Round {
        address,
        target,
        arrivals,
        first_id,
        begin_ns: now_ns() + LEAD_NS,
        next: AtomicUsize::new(0),
        given_up: AtomicBool::new(false),
    };
    let mut asked = Vec::with_capacity(arrivals.len());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                let builder = std::thread::Builder::new().stack_size(STACK);
                builder.spawn_scoped(scope, || round.connection())
            })
            .collect();
        let mut failed = None;
        for thread in threads {
            match thread.map(|thread| thread.join()) {
                Ok(Ok(theirs)) => asked.extend(theirs),
                Ok(Err(_)) => failed = Some("a connection's thread panicked".to_string()),
                Err(why) => {
                    round.given_up.store(true, Ordering::Relaxed);
                    failed = Some(why.to_string());
                }
            }
        }
        failed.map_or(Ok(()), |why| Err(Diagnostic::error("cannot load the front").because(why)))
    })?;
    interrupt::check()?;
    asked.sort_by_key(|one| one.id);
    Ok(asked)
}

/// What the connections of a round share.
struct Round<'a> {
    address: SocketAddr,
    target: Target<'a>,
    arrivals: &'a [Arrival],
    first_id: u64,
    begin_ns: u64,
    next: AtomicUsize,
    given_up: AtomicBool,
}

impl Round<'_> {
    /// Takes the next request that nobody has taken, waits until it is due, asks.
    fn connection(&self) -> Vec<Asked> {
        let mut stream = None;
        let mut asked = Vec::new();
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(arrival) = self.arrivals.get(index) else { return asked };
            let due_ns = self.begin_ns + arrival.at.as_nanos() as u64;
            std::thread::sleep(Duration::from_nanos(due_ns.saturating_sub(now_ns())));
            if interrupt::is_asked() || self.given_up.load(Ordering::Relaxed) {
                return asked;
            }
            let id = self.first_id + index as u64;
            let target = (self.target)(id, arrival);
            let sent_ns = now_ns();
            let status = self.ask(&mut stream, &target);
            let fast = arrival.fast;
            asked.push(Asked { id, fast, due_ns, sent_ns, done_ns: now_ns(), status });
        }
    }

    /// Asks on the kept connection. When the front has closed it meanwhile: on a new one,
    /// as every client does.
    fn ask(&self, kept: &mut Option<BufReader<TcpStream>>, target: &str) -> Option<u16> {
        let was_kept = kept.is_some();
        match self.once(kept, target) {
            Ok(status) => Some(status),
            Err(why) if was_kept && was_closed(&why) => self.once(kept, target).ok(),
            Err(_) => None,
        }
    }

    fn once(&self, kept: &mut Option<BufReader<TcpStream>>, target: &str) -> io::Result<u16> {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => connect(self.address)?,
        };
        write!(stream.get_mut(), "GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        let (status, close) = read_answer(&mut stream)?;
        if !close {
            *kept = Some(stream);
        }
        Ok(status)
    }
}

fn connect(address: SocketAddr) -> io::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

fn was_closed(why: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(why.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | UnexpectedEof)
}

/// Reads an answer with a length; true if the connection is closed after it.
fn read_answer(stream: &mut BufReader<TcpStream>) -> io::Result<(u16, bool)> {
    let malformed = || io::Error::new(io::ErrorKind::InvalidData, "this is no answer");
    let first = line(stream)?;
    let status =
        first.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(malformed)?;
    let (mut length, mut close) = (None, false);
    loop {
        let field = line(stream)?.to_ascii_lowercase();
        if field.is_empty() {
            break;
        }
        if let Some(value) = field.strip_prefix("content-length:") {
            length = value.trim().parse::<u64>().ok();
        }
        close |= field.strip_prefix("connection:").is_some_and(|value| value.trim() == "close");
    }
    let length = length.filter(|length| *length <= LONGEST).ok_or_else(malformed)?;
    let read = io::copy(&mut stream.take(length), &mut io::sink())?;
    if read != length {
        return Err(malformed());
    }
    Ok((status, close))
}

fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut text = String::new();
    stream.take(LONGEST).read_line(&mut text)?;
    match text.strip_suffix('\n') {
        Some(line) => Ok(line.trim_end().to_string()),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
