//! One connection: the bytes that came, what is left of the body, the bytes that wait to go.

use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mfserv_h1::{BodyReader, FIELDS_MAX, Framing, HeadScan, Refusal, RequestHead};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, Shutdown, sendmsg, shutdown};

mod body;
mod link;

pub use self::link::First;
use self::link::Link;

/// The largest head. The front accepts less; what it adds has room here.
const HEAD_MAX: usize = 64 * 1024;
/// The most that one read takes, and so the most of a body that is kept, bytes.
pub const READ_MAX: usize = 64 * 1024;
/// The most of a body that nobody wants which is read for the sake of the connection, bytes.
const UNREAD_MAX: u64 = 64 * 1024;
/// The most bytes of a file in one system call: the other connections have their turn.
const FILE_TURN: u64 = 1 << 20;

/// A part of an answer that waits until the socket takes it.
enum Part {
    Own(Vec<u8>),
    Python(Py<PyBytes>, usize),
    File { file: OwnedFd, at: u64, left: u64 },
}

/// What comes next on a connection.
pub enum Next {
    /// A request whose head is read.
    Request,
    /// More bytes must arrive.
    More,
    /// No other request, and nothing to say.
    End,
    /// No other request, and this answer.
    Refused(Refusal),
}

/// A connection of the front.
pub struct Connection {
    /// Who waits for it holds it too: it may be closed meanwhile.
    socket: Arc<OwnedFd>,
    /// Bytes from `start` on were not looked at.
    input: Vec<u8>,
    start: usize,
    /// Content of the body that is not taken yet, in `input`, before `start`.
    content: Range<usize>,
    scan: HeadScan,
    /// The head of the running request.
    pub head: RequestHead,
    body: BodyReader,
    /// The client sends the body once it is told to go on.
    expects_continue: bool,
    /// The head of a request is read, and its body is awaited.
    is_gathering: bool,
    /// It is among those whose input was read already.
    pub is_queued: bool,
    /// What is left of a body is read and dropped, at most so many bytes.
    dropping: Option<u64>,
    output: VecDeque<Part>,
    /// No other request is read.
    pub ends: bool,
    /// Nothing was read of it.
    is_new: bool,
    /// Requests come from a queue, and this connection carries the answers.
    link: Option<Box<Link>>,
}

impl Connection {
    /// A connection that nothing was read of.
    pub fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Arc::new(socket),
            input: Vec::new(),
            start: 0,
            content: 0..0,
            scan: HeadScan::new(HEAD_MAX),
            head: RequestHead::default(),
            body: BodyReader::new(Framing::None),
            expects_continue: false,
            is_gathering: false,
            is_queued: false,
            dropping: None,
            output: VecDeque::new(),
            ends: false,
            is_new: true,
            link: None,
        }
    }

    /// Its socket.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Its socket, for somebody who waits.
    pub fn share(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.socket)
    }

    /// True while bytes of an answer wait.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// True if a request has begun to arrive, or an answer waits.
    pub fn has_work(&self) -> bool {
        self.has_output()
            || self.is_gathering
            || self.dropping.is_none() && self.start < self.input.len()
    }

    /// True if nothing has begun on it, and nothing waits in its socket.
    pub fn is_idle(&self) -> bool {
        !self.has_work() && !matches!(rustix::io::ioctl_fionread(&self.socket), Ok(1..))
    }

    /// True if bytes that came were not looked at.
    pub fn has_input(&self) -> bool {
        self.start < self.input.len() || self.dropping.is_some()
    }

    /// Closes both directions: a child of the app may still have the socket open.
    pub fn shut(&self) {
        let _ = shutdown(&self.socket, Shutdown::Both);
    }

    /// Reads once. `Ok(false)` = the other end is closed.
    pub fn read(&mut self, space: &mut [u8]) -> io::Result<bool> {
        if self.is_message() {
            return Ok(false);
        }
        match rustix::io::read(&self.socket, &mut *space) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.input.extend_from_slice(&space[..count]);
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// True if the other end has closed the connection, not only its own direction. It costs a
    /// system call.
    pub fn is_left(&self) -> bool {
        let mut place = [PollFd::new(&self.socket, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut place, Some(&now)) == Ok(1) && place[0].revents().contains(PollFlags::HUP)
    }

    /// Looks at the bytes that are there.
    pub fn next(&mut self) -> Next {
        if self.ends {
            return Next::End;
        }
        if self.is_gathering {
            return Next::Request;
        }
        if self.dropping.is_some() {
            match self.drop_rest() {
                Some(true) => {}
                Some(false) => return Next::More,
                None => return Next::End,
            }
        }
        match self.next_head() {
            Ok(true) => Next::Request,
            Ok(false) => Next::More,
            Err(refusal) => Next::Refused(refusal),
        }
    }

    fn next_head(&mut self) -> Result<bool, Refusal> {
        let Some(length) = self.scan.find_end(&self.input[self.start..])? else {
            return Ok(false);
        };
        let end = self.start + length;
        self.scan = HeadScan::new(HEAD_MAX);
        self.head.read(&self.input[self.start..end], FIELDS_MAX)?;
        self.start = end;
        self.compact();
        self.body = BodyReader::new(self.head.framing);
        self.expects_continue = self.head.expects_continue && !self.body.is_done();
        Ok(true)
    }

    /// Forgets the bytes that were used.
    fn compact(&mut self) {
        if self.start == self.input.len() {
            self.input.clear();
            self.start = 0;
            if self.input.capacity() > 2 * READ_MAX {
                self.input = Vec::new();
            }
        } else if self.start >= READ_MAX {
            self.input.drain(..self.start);
            self.start = 0;
        }
    }

    /// The other end is gone: nothing is sent or read any more.
    pub fn abandon(&mut self) {
        self.output.clear();
        self.ends = true;
    }

    /// Sends what the socket takes now; the rest waits. `body` lies between the two others. The
    /// frame of the answer, if one is due, precedes them.
    pub fn send(
        &mut self,
        before: &[u8],
        body: Option<&Bound<'_, PyBytes>>,
        range: Range<usize>,
        after: &[u8],
    ) -> io::Result<()> {
        let bytes = body.map_or(&[][..], |body| &body.as_bytes()[range.clone()]);
        let frame = self.link.as_mut().and_then(|link| link.next_frame());
        let frame = frame.as_ref().map_or(&[][..], |frame| frame);
        let mut sent = 0;
        if self.output.is_empty() {
            sent = self.send_now(&[frame, before, bytes, after])?;
        }
        let wait = |part: &[u8], sent: &mut usize| {
            let gone = part.len().min(*sent);
            *sent -= gone;
            (gone < part.len()).then_some(gone)
        };
        if let Some(gone) = wait(frame, &mut sent) {
            self.output.push_back(Part::Own(frame[gone..].to_vec()));
        }
        if let Some(gone) = wait(before, &mut sent) {
            self.output.push_back(Part::Own(before[gone..].to_vec()));
        }
        if let (Some(gone), Some(body)) = (wait(bytes, &mut sent), body) {
            // the slice ends where the object does, or is short
            match range.end == body.as_bytes().len() {
                true => {
                    let part = Part::Python(body.clone().unbind(), range.start + gone);
                    self.output.push_back(part);
                }
                false => self.output.push_back(Part::Own(bytes[gone..].to_vec())),
            }
        }
        if let Some(gone) = wait(after, &mut sent) {
            self.output.push_back(Part::Own(after[gone..].to_vec()));
        }
        Ok(())
    }

    /// How many of these bytes the socket takes.
    fn send_now(&self, parts: &[&[u8]]) -> io::Result<usize> {
        let mut vectors = [(); 4].map(|()| IoSlice::new(&[]));
        let mut count = 0;
        for part in parts.iter().filter(|part| !part.is_empty()) {
            vectors[count] = IoSlice::new(part);
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        let mut none = SendAncillaryBuffer::default();
        match sendmsg(&self.socket, &vectors[..count], &mut none, SendFlags::NOSIGNAL) {
            Ok(sent) => Ok(sent),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Puts a part of a file behind what waits.
    pub fn send_file(&mut self, file: OwnedFd, at: u64, left: u64) {
        if left > 0 {
            self.output.push_back(Part::File { file, at, left });
        }
    }

    /// Puts bytes behind what waits.
    pub fn put(&mut self, bytes: &[u8]) {
        self.output.push_back(Part::Own(bytes.to_vec()));
    }

    /// Sends what the socket takes now of what waits. `Ok(true)` = all of it.
    pub fn flush(&mut self, py: Python<'_>) -> io::Result<bool> {
        while let Some(mut part) = self.output.pop_front() {
            let is_sent = match &mut part {
                Part::Own(bytes) => {
                    let sent = self.send_now(&[bytes])?;
                    bytes.drain(..sent);
                    bytes.is_empty()
                }
                Part::Python(bytes, at) => {
                    let bytes = bytes.bind(py).as_bytes();
                    *at += self.send_now(&[&bytes[*at..]])?;
                    *at == bytes.len()
                }
                Part::File { file, at, left } => {
                    let count = FILE_TURN.min(*left) as usize;
                    match rustix::fs::sendfile(&self.socket, &*file, Some(at), count) {
                        Ok(0) => {
                            let message = "the file has become shorter while it was sent";
                            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
                        }
                        Ok(sent) => *left -= sent as u64,
                        Err(Errno::AGAIN | Errno::INTR) => {}
                        Err(error) => return Err(error.into()),
                    }
                    *left == 0
                }
            };
            if !is_sent {
                self.output.push_front(part);
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// True if an error of sending is that of a client that has left, not of a file that is sent.
pub fn is_of_client(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}
