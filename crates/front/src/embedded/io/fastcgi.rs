//! A connection to a FastCGI worker, of which HTTP/1.1 is read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use mfserv_fastcgi::{Answer, Fault};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::UnixStream;

/// How much is read at a time, bytes.
const STEP: usize = 16 * 1024;

/// What is wrong with the answer of a FastCGI worker, if that is why it cannot be read.
pub fn fastcgi_fault(why: &io::Error) -> Option<Fault> {
    why.get_ref()?.downcast_ref::<Fault>().copied()
}

/// The connection of one request. What is written goes to the worker as it is: in records. What is
/// read is the answer that they mean.
#[derive(Debug)]
pub struct FastCgi {
    /// The socket.
    pub socket: UnixStream,
    answer: Answer,
    /// What was understood, and how much of it was read.
    out: Vec<u8>,
    at: usize,
}

impl FastCgi {
    /// A connection on which nothing was sent.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, answer: Answer::default(), out: Vec::new(), at: 0 }
    }

    /// Ready when something can be read.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.has_more() || self.answer.is_over() {
            true => Poll::Ready(Ok(())),
            false => self.socket.poll_read_ready(cx),
        }
    }

    /// True if something was understood that was not read.
    pub fn has_more(&self) -> bool {
        self.at < self.out.len()
    }

    /// What the worker has said of errors since the last call.
    pub fn take_said(&mut self) -> Option<Vec<u8>> {
        self.answer.take_said()
    }

    /// Reads some of the answer; 0 once the worker has ended it. An end of the connection before that
    /// is an error, and so is what is no FastCGI ([`io::ErrorKind::InvalidData`]).
    pub fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.has_more() {
                let count = room.len().min(self.out.len() - self.at);
                room[..count].copy_from_slice(&self.out[self.at..][..count]);
                self.at += count;
                if !self.has_more() {
                    self.out.clear();
                    self.at = 0;
                }
                return Poll::Ready(Ok(count));
            }
            if self.answer.is_over() {
                return Poll::Ready(Ok(0));
            }
            let mut space = [0; STEP];
            let mut came = ReadBuf::new(&mut space);
            ready!(Pin::new(&mut self.socket).poll_read(cx, &mut came))?;
            if came.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            let read = self.answer.read(came.filled(), &mut self.out);
            read.map_err(|fault| io::Error::new(io::ErrorKind::InvalidData, fault))?;
        }
    }
}
