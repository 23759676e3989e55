//! The content of a request, as it comes from the client.

use std::task::{Context, Poll, ready};

use mfserv_h1::Piece;
use tokio::time::Instant;

use super::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::clients::http1::HeadWriter;
use crate::embedded::io::pipe::Pipe;

impl Exchange<'_> {
    /// True if the client has still to send a part of the body, or all of it.
    pub fn awaits_body(&self) -> bool {
        !self.request.body.is_done()
    }

    /// The length of the whole content, where it is known.
    pub fn content_length(&self) -> Option<u64> {
        self.request.body.remaining().map(|left| self.request.content + left)
    }

    /// Tells a client that waits for it to send its body (`100 Continue`).
    pub async fn invite_body(&mut self) -> Result<(), Fault> {
        if !self.request.head.expects_continue || !self.connection.inbox.is_empty() {
            return Ok(());
        }
        HeadWriter::begin(&mut self.connection.out, 100, b"Continue").end();
        self.flush().await.map_err(|_| Fault::Gone)
    }

    /// The client was not waited for meanwhile: its time for the next byte begins anew.
    pub fn restart_body_timer(&mut self) {
        self.request.body_by = Instant::now() + self.patience();
    }

    /// Gives the next content, at most `most` bytes, to `take`. Ready with false at the end
    /// of the body.
    pub fn poll_content(
        &mut self,
        cx: &mut Context<'_>,
        most: usize,
        take: impl FnOnce(&[u8]),
    ) -> Poll<Result<bool, Fault>> {
        loop {
            let here = self.connection.inbox.filled();
            let looked_at = here.len().min(most);
            let piece = self.request.body.next(&here[..looked_at]);
            let is_all = looked_at == here.len();
            match piece.map_err(|_| Cause::BadBody)? {
                Piece::Content(range) => {
                    self.count_content(range.len() as u64)?;
                    let end = range.end;
                    take(&self.connection.inbox.filled()[range]);
                    self.connection.inbox.consume(end);
                    return Poll::Ready(Ok(true));
                }
                Piece::End(used) => {
                    self.connection.inbox.consume(used);
                    return Poll::Ready(Ok(false));
                }
                Piece::More(used) => self.connection.inbox.consume(used),
            }
            if is_all {
                ready!(self.poll_body(cx))?;
            }
        }
    }

    /// The largest content, bytes.
    pub fn max_content(&self) -> u64 {
        self.request.max_content
    }

    /// The app has a limit of its own.
    pub fn set_max_content(&mut self, bytes: u64) {
        self.request.max_content = bytes;
    }

    fn count_content(&mut self, count: u64) -> Result<(), Cause> {
        self.request.content += count;
        let limit = self.request.max_content;
        if self.request.content > limit { Err(Cause::TooLarge(limit)) } else { Ok(()) }
    }

    /// Reads more of the body.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        match self.connection.poll_fill(cx) {
            Poll::Ready(Ok(count)) if count > 0 => {
                self.restart_body_timer();
                Poll::Ready(Ok(()))
            }
            Poll::Ready(_) => Poll::Ready(Err(Fault::Gone)),
            Poll::Pending => self.poll_body_timer(cx),
        }
    }

    fn poll_body_timer<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Fault>> {
        match self.connection.has_passed(cx, self.request.body_by) {
            true => Poll::Ready(Err(Cause::SlowBody.into())),
            false => Poll::Pending,
        }
    }

    /// True if the rest of the content can go through a pipe: it comes as it is, at least
    /// `least` bytes of it, and none of them has been read. (Content that has to be decoded
    /// or decrypted cannot.)
    pub fn content_takes_pipe(&self, least: u64) -> bool {
        let left = self.request.body.remaining().unwrap_or(0);
        left >= least && self.connection.inbox.is_idle() && self.connection.takes_pipes()
    }

    /// Moves content into an empty pipe.
    pub fn poll_content_into(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Result<(), Fault>> {
        let left = self.request.body.remaining().unwrap_or(0);
        match self.connection.poll_fill_pipe(cx, pipe, left) {
            Poll::Ready(0) => Poll::Ready(Err(Fault::Gone)),
            Poll::Ready(count) => {
                self.request.body.took(count as u64);
                self.request.content += count as u64;
                self.restart_body_timer();
                Poll::Ready(Ok(()))
            }
            Poll::Pending => self.poll_body_timer(cx),
        }
    }
}
