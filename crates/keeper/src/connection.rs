//! One client of `keep.sock`, seen from the keeper: never waited for.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use mfserv_core::wire::frame::{self, MAX_FRAME};
use mfserv_core::wire::keeper::{Answer, Ask, Response};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use serde::Serialize;
use serde_json::Value;

use crate::descriptors;

/// More than this waits for no client that does not read.
const MOST_UNREAD: usize = 32 * 1024 * 1024;

/// Read at once from one client, before it is another's turn.
const TURN: usize = 256 * 1024;

/// What a client sent.
pub(crate) enum Asked {
    /// A request, with its number.
    Ask(u64, Ask),
    /// A request that this keeper does not know: a newer client.
    Unknown(u64, String),
}

pub(crate) struct Connection {
    id: u64,
    socket: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sent: usize,
    received: VecDeque<OwnedFd>,
    watches: bool,
    broken: bool,
}

impl Connection {
    pub fn new(id: u64, socket: UnixStream) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let (incoming, outgoing) = (Vec::new(), Vec::new());
        let received = VecDeque::new();
        Ok(Self {
            id,
            socket,
            incoming,
            outgoing,
            sent: 0,
            received,
            watches: false,
            broken: false,
        })
    }

    /// Its number.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// It wants notices from now on.
    pub fn watch(&mut self) {
        self.watches = true;
    }

    /// Returns true if it wants notices.
    pub fn watches(&self) -> bool {
        self.watches
    }

    /// Returns true if it is to be dropped: it has closed, or it does not behave.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    pub fn wants_to_write(&self) -> bool {
        self.sent < self.outgoing.len()
    }

    /// Reads what is there and returns the requests that are whole.
    pub fn receive(&mut self) -> Vec<Asked> {
        let mut buffer = vec![0; TURN];
        match descriptors::receive(self.socket.as_fd(), &mut buffer, &mut self.received) {
            Ok(0) => self.broken = true,
            Ok(count) => self.incoming.extend_from_slice(&buffer[..count]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.broken = true,
        }
        let mut asked = Vec::new();
        loop {
            match frame::decode::<Value>(&mut self.incoming) {
                Ok(Some(message)) => match understand(message) {
                    Some(one) => asked.push(one),
                    None => self.broken = true,
                },
                Ok(None) => break,
                Err(_) => self.broken = true,
            }
            if self.broken {
                break;
            }
        }
        debug_assert!(self.broken || self.incoming.len() <= MAX_FRAME + 4 + TURN);
        asked
    }

    /// The oldest descriptor that was attached and not used.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.received.pop_front()
    }

    pub fn answer(&mut self, seq: u64, answer: Answer) {
        self.send(&Response { seq, answer });
    }

    /// Queues a message; one that cannot be sent in a frame is refused by name.
    pub fn send<T: Serialize>(&mut self, message: &T) {
        match frame::encode(message) {
            Ok(bytes) if self.outgoing.len() - self.sent + bytes.len() <= MOST_UNREAD => {
                self.outgoing.extend_from_slice(&bytes);
            }
            _ => self.broken = true,
        }
    }

    /// Sends what the client takes now.
    pub fn flush(&mut self) {
        while self.wants_to_write() && !self.broken {
            let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
            match send(&self.socket, &self.outgoing[self.sent..], flags) {
                Ok(count) => self.sent += count,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => self.broken = true,
            }
        }
        self.outgoing.clear();
        self.outgoing.shrink_to(64 * 1024);
        self.sent = 0;
    }
}

fn understand(message: Value) -> Option<Asked> {
    let seq = message.get("seq")?.as_u64()?;
    match serde_json::from_value::<Ask>(message) {
        Ok(ask) => Some(Asked::Ask(seq, ask)),
        Err(e) => Some(Asked::Unknown(seq, e.to_string())),
    }
}
