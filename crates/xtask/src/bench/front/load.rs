//! A closed loop: each connection asks again as soon as it has a whole answer. One
//! thread, as few system calls as there can be, so that the fronts are what is busy.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use mfserv_core::Diagnostic;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// What is read at a time, bytes.
const ROOM: usize = 256 * 1024;
/// The longest head of an answer, bytes.
const HEAD_MAX: usize = 16 * 1024;
/// How often the end is looked for while nothing comes.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// What is asked for, and what an answer must be.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The path.
    pub path: String,
    /// The length of the content, bytes.
    pub length: u64,
    /// How many connections ask at a time.
    pub connections: usize,
}

impl Wanted {
    /// The request, as it is sent.
    pub fn request(&self) -> Vec<u8> {
        let head = "HTTP/1.1\r\nHost: localhost\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n";
        format!("GET {} {head}", self.path).into_bytes()
    }
}

/// What has been received so far.
#[derive(Debug, Default)]
pub struct Tally {
    /// Content of good answers, bytes.
    bytes: AtomicU64,
    /// Answers that were none, or others than wanted.
    failed: AtomicU64,
}

impl Tally {
    /// Answers, counted by their content: one that is half there is half an answer.
    pub fn answers(&self, length: u64) -> f64 {
        self.bytes.load(Ordering::Relaxed) as f64 / length as f64
    }

    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// Clients that ask until this is dropped.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Tally>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

impl Load {
    /// Connects, and begins to ask.
    pub fn start(address: SocketAddr, wanted: &Wanted) -> Result<Self, Diagnostic> {
        let (tally, ended) = (Arc::<Tally>::default(), Arc::<AtomicBool>::default());
        let clients = Clients::connect(address, wanted, tally.clone())
            .map_err(|e| Diagnostic::error(format!("cannot connect to {address}")).because(e))?;
        let over = ended.clone();
        let thread = std::thread::Builder::new().name("load".into());
        let thread = thread
            .spawn(move || clients.ask_until(&over))
            .map_err(|e| Diagnostic::error("no thread for the clients").because(e))?;
        Ok(Self { tally, ended, thread: Some(thread) })
    }

    /// What has been received so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Stops asking.
    pub fn end(mut self) -> Result<(), Diagnostic> {
        self.ended.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(why))) => Err(Diagnostic::error("the clients gave up").because(why)),
            Some(Err(_)) => Err(Diagnostic::error("the clients panicked")),
            Some(Ok(Ok(()))) | None => Ok(()),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it measured is of no interest any more.
            let _ = thread.join();
        }
    }
}

struct Clients {
    poll: OwnedFd,
    address: SocketAddr,
    length: u64,
    request: Vec<u8>,
    connections: Vec<Connection>,
    tally: Arc<Tally>,
}

/// A connection that asks for the same again and again.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    /// The head, as far as it has come; empty from its end on.
    head: Vec<u8>,
    /// Content still to come, once the head has.
    left: Option<u64>,
}

impl Clients {
    fn connect(address: SocketAddr, wanted: &Wanted, tally: Arc<Tally>) -> io::Result<Self> {
        let mut clients = Self {
            poll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            address,
            length: wanted.length,
            request: wanted.request(),
            connections: Vec::with_capacity(wanted.connections),
            tally,
        };
        for number in 0..wanted.connections {
            let connection = Connection::open(clients.address, &clients.poll, number)?;
            clients.connections.push(connection);
        }
        Ok(clients)
    }

    fn ask_until(mut self, ended: &AtomicBool) -> io::Result<()> {
        let mut room = vec![0; ROOM];
        let mut events = Vec::with_capacity(self.connections.len());
        for connection in &mut self.connections {
            connection.ask(&self.request)?;
        }
        while !ended.load(Ordering::Relaxed) {
            events.clear();
            match epoll::wait(&self.poll, spare_capacity(&mut events), Some(&LOOK)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
            for event in &events {
                self.go_on(event.data.u64() as usize, &mut room)?;
            }
        }
        Ok(())
    }

    /// Reads once from a connection. One that failed is replaced.
    fn go_on(&mut self, number: usize, room: &mut [u8]) -> io::Result<()> {
        let connection = &mut self.connections[number];
        match connection.read(room, self.length, &self.tally) {
            Some(false) => Ok(()),
            Some(true) if connection.ask(&self.request).is_ok() => Ok(()),
            _ => {
                self.tally.failed.fetch_add(1, Ordering::Relaxed);
                self.connections[number] = Connection::open(self.address, &self.poll, number)?;
                self.connections[number].ask(&self.request)
            }
        }
    }
}

impl Connection {
    /// Connects; events of `poll` carry `number`.
    pub fn open(address: SocketAddr, poll: &OwnedFd, number: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let number = epoll::EventData::new_u64(number as u64);
        epoll::add(poll, &stream, number, epoll::EventFlags::IN)?;
        Ok(Self { stream, head: Vec::with_capacity(HEAD_MAX), left: None })
    }

    /// Reads once. True if the answer is whole, none if it is not as it must be, or the
    /// connection has ended.
    pub fn read(&mut self, room: &mut [u8], length: u64, tally: &Tally) -> Option<bool> {
        match self.stream.read(room) {
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                Some(false)
            }
            Ok(count) if count > 0 => self.receive(&room[..count], length, tally),
            _ => None,
        }
    }

    /// A short request fits into an empty socket.
    pub fn ask(&mut self, request: &[u8]) -> io::Result<()> {
        self.left = None;
        self.head.clear();
        match self.stream.write(request)? {
            count if count == request.len() => Ok(()),
            _ => Err(ErrorKind::WriteZero.into()),
        }
    }

    /// Takes what came. True if the answer is whole, none if it is not as it must be.
    fn receive(&mut self, bytes: &[u8], length: u64, tally: &Tally) -> Option<bool> {
        let content = match self.left {
            Some(_) => bytes.len(),
            None => {
                self.head.extend_from_slice(bytes);
                let Some(end) = self.head.windows(4).position(|four| four == b"\r\n\r\n") else {
                    return (self.head.len() < HEAD_MAX).then_some(false);
                };
                self.left = Some(length).filter(|_| is_wanted(&self.head[..end], length));
                self.head.len() - end - 4
            }
        };
        let left = self.left?.checked_sub(content as u64)?;
        self.left = Some(left);
        tally.bytes.fetch_add(content as u64, Ordering::Relaxed);
        Some(left == 0)
    }
}

/// Status 200, and the length that it must have.
fn is_wanted(head: &[u8], length: u64) -> bool {
    let mut lines = head.split(|&b| b == b'\n');
    let status_is_good = lines.next().is_some_and(|line| line.starts_with(b"HTTP/1.1 200 "));
    status_is_good
        && lines.any(|line| {
            let (name, value) = line.split_at(line.len().min(15));
            name.eq_ignore_ascii_case(b"content-length:")
                && std::str::from_utf8(value).is_ok_and(|text| text.trim().parse() == Ok(length))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_the_wanted_status_and_length() {
        let ok = "HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 5\r\nX: y";
        assert!(is_wanted(ok.as_bytes(), 5));
        assert!(!is_wanted(ok.as_bytes(), 6));
        assert!(!is_wanted(ok.replace("200", "502").as_bytes(), 5));
        assert!(!is_wanted(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", 5));
    }
}
