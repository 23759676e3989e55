//! The upstream: a server that answers at once, on several unix sockets as the workers
//! of an app are. `GET ANYTHING/N` is answered with N bytes.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use mfserv_core::Diagnostic;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};

/// Workers, each with a socket.
pub const WORKERS: usize = 4;
/// Connections that wait to be accepted, per socket.
const BACKLOG: i32 = 1024;
/// The longest head of a request, bytes.
const HEAD_MAX: usize = 16 * 1024;
/// The longest content, bytes.
const CONTENT_MAX: usize = 64 * 1024 * 1024;
/// How often the end is looked for while nothing comes.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
/// Events that are taken at a time.
const EVENTS: usize = 1024;

/// The upstream; it ends when this is dropped.
#[derive(Debug)]
pub struct Origin {
    sockets: Vec<PathBuf>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Origin {
    /// Listens in a directory.
    pub fn start(dir: &Path) -> Result<Self, Diagnostic> {
        let failed = |e: io::Error| Diagnostic::error("the upstream cannot start").because(e);
        let sockets: Vec<PathBuf> =
            (1..=WORKERS).map(|n| dir.join(format!("worker_{n}.socket"))).collect();
        let server = Server::listen(&sockets).map_err(failed)?;
        let ended = Arc::<AtomicBool>::default();
        let over = ended.clone();
        let thread = std::thread::Builder::new().name("origin".into());
        let thread = thread.spawn(move || server.serve_until(&over)).map_err(failed)?;
        Ok(Self { sockets, ended, thread: Some(thread) })
    }

    /// Where it listens.
    pub fn sockets(&self) -> &[PathBuf] {
        &self.sockets
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has ended as well; the fronts have noticed.
            let _ = thread.join();
        }
    }
}

struct Server {
    poll: OwnedFd,
    listeners: Vec<UnixListener>,
    connections: BTreeMap<u64, Connection>,
    /// Connections are numbered after the listeners, and no number comes twice.
    next: u64,
    /// Answers by the length of their content.
    answers: BTreeMap<usize, Arc<Vec<u8>>>,
}

struct Connection {
    stream: UnixStream,
    head: Vec<u8>,
    /// What is being sent, and how far that is.
    sending: Option<(Arc<Vec<u8>>, usize)>,
}

impl Server {
    fn listen(sockets: &[PathBuf]) -> io::Result<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut listeners = Vec::new();
        for (number, socket) in sockets.iter().enumerate() {
            let listener = UnixListener::bind(socket)?;
            rustix::net::listen(&listener, BACKLOG)?;
            listener.set_nonblocking(true)?;
            let number = epoll::EventData::new_u64(number as u64);
            epoll::add(&poll, &listener, number, epoll::EventFlags::IN)?;
            listeners.push(listener);
        }
        let next = listeners.len() as u64;
        let (connections, answers) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { poll, listeners, connections, next, answers })
    }

    fn serve_until(mut self, ended: &AtomicBool) {
        let mut events = Vec::with_capacity(EVENTS);
        while !ended.load(Ordering::Relaxed) {
            events.clear();
            // Whatever fails, the fronts notice, and the bench by them.
            let _ = epoll::wait(&self.poll, spare_capacity(&mut events), Some(&LOOK));
            for event in &events {
                let number = event.data.u64();
                let done = match self.listeners.get(number as usize) {
                    Some(_) => self.accept(number as usize),
                    None => self.go_on(number),
                };
                if done.is_err() {
                    self.connections.remove(&number);
                }
            }
        }
    }

    fn accept(&mut self, listener: usize) -> io::Result<()> {
        loop {
            let stream = match self.listeners[listener].accept() {
                Ok((stream, _)) => stream,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why),
            };
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(self.next);
            epoll::add(&self.poll, &stream, data, epoll::EventFlags::IN)?;
            let connection = Connection { stream, head: Vec::new(), sending: None };
            self.connections.insert(self.next, connection);
            self.next += 1;
        }
    }

    /// Goes on sending, or reads once. An error ends the connection.
    fn go_on(&mut self, number: u64) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let was_sending = connection.sending.is_some();
        if !was_sending {
            let Some(length) = connection.read()? else { return Ok(()) };
            let answer = self.answers.entry(length).or_insert_with(|| Arc::new(answer(length)));
            connection.sending = Some((answer.clone(), 0));
        }
        connection.send()?;
        let is_sending = connection.sending.is_some();
        if is_sending != was_sending {
            use epoll::EventFlags;
            let wanted = if is_sending { EventFlags::OUT } else { EventFlags::IN };
            let data = epoll::EventData::new_u64(number);
            epoll::modify(&self.poll, &connection.stream, data, wanted)?;
        }
        Ok(())
    }
}

impl Connection {
    /// The length that is asked for, once the head is there.
    fn read(&mut self) -> io::Result<Option<usize>> {
        let mut room = [0; HEAD_MAX];
        let count = match self.stream.read(&mut room) {
            Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(why) => return Err(why),
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
        };
        self.head.extend_from_slice(&room[..count]);
        if !self.head.ends_with(b"\r\n\r\n") {
            let is_long = self.head.len() > HEAD_MAX;
            return if is_long { Err(ErrorKind::InvalidData.into()) } else { Ok(None) };
        }
        let length = asked_for(&self.head).filter(|length| *length <= CONTENT_MAX);
        self.head.clear();
        length.map(Some).ok_or_else(|| ErrorKind::InvalidData.into())
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some((answer, at)) = &mut self.sending {
            match self.stream.write(&answer[*at..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => *at += count,
                Err(why) if why.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(why) => return Err(why),
            }
            if *at == answer.len() {
                self.sending = None;
            }
        }
        Ok(())
    }
}

/// The number at the end of the path.
fn asked_for(head: &[u8]) -> Option<usize> {
    let target = head.split(|&b| b == b' ').nth(1)?;
    let last = target.rsplit(|&b| b == b'/').next()?;
    std::str::from_utf8(last).ok()?.parse().ok()
}

/// What an application server says.
fn answer(length: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nServer: origin\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\r\n"
    );
    let mut bytes = head.into_bytes();
    bytes.resize(bytes.len() + length, b'x');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_says_how_much_is_wanted() {
        assert_eq!(asked_for(b"GET /app/100 HTTP/1.1\r\n"), Some(100));
        assert_eq!(asked_for(b"GET /app/ HTTP/1.1\r\n"), None);
        assert_eq!(asked_for(b"GET"), None);
    }

    #[test]
    fn it_answers_on_all_sockets_again_and_again() {
        let dir = tempfile::tempdir().unwrap();
        let origin = Origin::start(dir.path()).unwrap();
        for socket in origin.sockets() {
            let mut stream = UnixStream::connect(socket).unwrap();
            for length in [0, 100, 1_000_000] {
                write!(stream, "GET /app/{length} HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
                let mut got = vec![0; answer(length).len()];
                stream.read_exact(&mut got).unwrap();
                assert!(got == answer(length), "{length}");
            }
        }
    }
}
