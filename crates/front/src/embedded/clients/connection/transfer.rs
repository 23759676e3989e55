//! What a connection sends, and what it passes through pipes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::{Connection, Lost};
use crate::embedded::io::pipe::Pipe;
use crate::embedded::io::wire::Stream;

impl Connection {
    /// True if bytes can go through pipes.
    pub fn takes_pipes(&self) -> bool {
        self.wire.takes_pipes()
    }

    /// How many bytes have been put and not been sent yet; 0 only when all are.
    pub fn unsent(&self) -> usize {
        self.out.len() + self.wire.unsent()
    }

    /// Writes what is in `out`, as far as the client takes it. Ready when all is written.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        while !self.out.is_empty() {
            match ready!(self.wire.poll_write(cx, self.out.filled())) {
                Ok(count) if count > 0 => {
                    self.out.consume(count);
                    self.sent += count as u64;
                }
                _ => {
                    self.ended = true;
                    return Poll::Ready(Err(Lost));
                }
            }
        }
        self.poll_flush_wire(cx)
    }

    /// Ready when nothing waits inside of the stream.
    fn poll_flush_wire(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        let flushed = ready!(self.wire.poll_flush(cx));
        self.ended |= flushed.is_err();
        Poll::Ready(flushed.map_err(|_| Lost))
    }

    /// Writes what is in `out` and `behind` after it with one system call; returns how many
    /// bytes of `behind` were taken.
    pub fn poll_write_with(
        &mut self,
        cx: &mut Context<'_>,
        behind: &[u8],
    ) -> Poll<io::Result<usize>> {
        let first = self.out.len();
        let both = [IoSlice::new(self.out.filled()), IoSlice::new(behind)];
        let count = ready!(self.wire.poll_write_vectored(cx, &both))?;
        self.sent += count as u64;
        self.out.consume(count.min(first));
        Poll::Ready(Ok(count.saturating_sub(first)))
    }

    /// Sends the content of a pipe. Ready when the pipe is empty. `out` must be empty: what
    /// is in it comes first.
    pub fn poll_drain(&mut self, cx: &mut Context<'_>, pipe: &mut Pipe) -> Poll<Result<(), Lost>> {
        while !pipe.is_empty() {
            match ready!(pipe.poll_drain(cx, &self.wire)) {
                Ok(count) if count > 0 => self.sent += count as u64,
                _ => {
                    self.ended = true;
                    return Poll::Ready(Err(Lost));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Moves at most `most` bytes from the client into an empty pipe; 0 means that the
    /// client has ended.
    pub fn poll_fill_pipe(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
        most: u64,
    ) -> Poll<usize> {
        if self.ended {
            return Poll::Ready(0);
        }
        let count = ready!(pipe.poll_fill(cx, &self.wire, most)).unwrap_or(0);
        self.received += count as u64;
        self.ended = count == 0;
        Poll::Ready(count)
    }

    /// Writes all that is in `out`; the client has to take some of it within each
    /// `patience`.
    pub async fn flush(&mut self, patience: Duration) -> Result<(), Lost> {
        let mut left = self.unsent();
        let mut deadline = Instant::now() + patience;
        poll_fn(|cx| {
            if let Poll::Ready(done) = self.poll_flush(cx) {
                return Poll::Ready(done);
            }
            if self.unsent() < left {
                left = self.unsent();
                deadline = Instant::now() + patience;
            }
            if self.timer.has_passed(cx, deadline) { Poll::Ready(Err(Lost)) } else { Poll::Pending }
        })
        .await
    }

    /// Sends a part of a file after what is in `out`; the client has to take some of it
    /// within each `patience`. A file that ends before the part does loses the client.
    pub async fn send_file(
        &mut self,
        file: &OwnedFd,
        mut part: Range<u64>,
        patience: Duration,
    ) -> Result<(), Lost> {
        let mut before = (self.sent, self.wire.unsent());
        let mut deadline = Instant::now() + patience;
        poll_fn(|cx| {
            if let Poll::Ready(done) = self.poll_send_file(cx, file, &mut part) {
                return Poll::Ready(done);
            }
            let now = (self.sent, self.wire.unsent());
            if now != before {
                before = now;
                deadline = Instant::now() + patience;
            }
            if self.timer.has_passed(cx, deadline) { Poll::Ready(Err(Lost)) } else { Poll::Pending }
        })
        .await
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &OwnedFd,
        part: &mut Range<u64>,
    ) -> Poll<Result<(), Lost>> {
        while !self.out.is_empty() {
            match ready!(self.wire.poll_write_ahead(cx, self.out.filled())) {
                Ok(count) if count > 0 => {
                    self.sent += count as u64;
                    self.out.consume(count);
                }
                _ => {
                    self.ended = true;
                    return Poll::Ready(Err(Lost));
                }
            }
        }
        self.poll_send_part(cx, file.as_fd(), part)
    }

    /// Sends a part of a file, whatever is in `out`, as far as the client takes it. What
    /// has been taken is taken off the part. Ready when nothing of it is left to take.
    pub fn poll_send_part(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        part: &mut Range<u64>,
    ) -> Poll<Result<(), Lost>> {
        while part.start < part.end {
            let left = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
            match ready!(self.wire.poll_send_file(cx, file, &mut part.start, left)) {
                Ok(count) if count > 0 => self.sent += count as u64,
                _ => {
                    self.ended = true;
                    return Poll::Ready(Err(Lost));
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
