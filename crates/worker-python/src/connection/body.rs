//! The body of a request: what is there of it, and what becomes of the rest.

use std::io;

use mfserv_h1::{Framing, Piece};
use rustix::io::Errno;

use super::{Connection, UNREAD_MAX};

impl Connection {
    /// True while the body of the request, of at most `most` bytes, is on its way.
    pub fn gathers(&mut self, most: u64) -> bool {
        let missing = match self.head.framing {
            Framing::Length(length) if length <= most && !self.expects_continue => length,
            _ => 0,
        };
        self.is_gathering = ((self.input.len() - self.start) as u64) < missing;
        self.is_gathering
    }

    /// True if the whole body, of a known length of at most `most` bytes, is there.
    pub fn is_whole(&self, most: u64) -> bool {
        match self.head.framing {
            Framing::Length(length) => {
                length <= most && length <= (self.input.len() - self.start) as u64
            }
            Framing::None => true,
            _ => false,
        }
    }

    /// How many bytes of the body are to be taken, if its length is known.
    pub fn left(&self) -> Option<u64> {
        Some(self.body.remaining()? + self.content.len() as u64)
    }

    /// Reads content of a body of known length once, none of which is there, to where it is
    /// wanted. Returns how much, `None` if the other end is closed.
    pub fn read_body(&mut self, space: &mut [u8]) -> io::Result<Option<usize>> {
        if self.is_message() {
            return Ok(None);
        }
        let plain = self.body.plain().unwrap_or(0).min(space.len() as u64);
        match rustix::io::read(&self.socket, &mut space[..plain as usize]) {
            Ok(0) => Ok(None),
            Ok(count) => {
                self.body.took(count as u64);
                Ok(Some(count))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Some(0)),
            Err(error) => Err(error.into()),
        }
    }

    /// True if the whole body has been taken.
    pub fn is_read(&self) -> bool {
        self.content.is_empty() && self.body.is_done()
    }

    /// The content of the body that is there; empty when more must arrive or the body is over.
    /// The error says what is wrong with the body.
    pub fn content(&mut self) -> Result<&[u8], &'static str> {
        while self.content.is_empty() && !self.body.is_done() {
            match self.body.next(&self.input[self.start..])? {
                Piece::Content(range) => {
                    self.content = self.start + range.start..self.start + range.end;
                    self.start += range.end;
                }
                Piece::End(used) => self.start += used,
                Piece::More(used) => {
                    self.start += used;
                    self.compact();
                    break;
                }
            }
        }
        Ok(&self.input[self.content.clone()])
    }

    /// Takes so many bytes of the content that is there.
    pub fn take(&mut self, count: usize) {
        self.content.start += count;
        if self.content.is_empty() {
            self.content = 0..0;
            self.compact();
        }
    }

    /// Bytes that came after the head of a request that makes the connection one of another
    /// protocol.
    pub fn unread(&self) -> &[u8] {
        &self.input[self.start..]
    }

    /// So many of them were used.
    pub fn used(&mut self, count: usize) {
        self.start += count;
        self.compact();
    }

    /// True once, if the client waits to be told that the body is wanted.
    pub fn must_continue(&mut self) -> bool {
        std::mem::take(&mut self.expects_continue)
    }

    /// No more of the body is asked for: the connection ends, unless the rest is read later.
    pub fn expect_end(&mut self) {
        self.ends |= !self.is_read() && !self.may_drop_rest();
    }

    /// True if what is left of the body may be read for the sake of the connection.
    fn may_drop_rest(&self) -> bool {
        let is_short = self.body.remaining().is_none_or(|left| left <= UNREAD_MAX);
        is_short && !self.expects_continue || self.is_message()
    }

    /// The request is over. What the app has not read of its body is read later, if it is not
    /// too much; else the connection ends after the answer.
    pub fn finish_request(&mut self) {
        self.head.fields.shrink();
        if self.is_read() {
            return;
        }
        match self.may_drop_rest() {
            true => self.dropping = Some(UNREAD_MAX),
            false => self.ends = true,
        }
    }

    /// True when the rest of the body is dropped, `None` when it is too much or wrong.
    pub(super) fn drop_rest(&mut self) -> Option<bool> {
        loop {
            let count = self.content().ok()?.len();
            if count == 0 {
                break;
            }
            self.take(count);
            self.dropping = Some(self.dropping?.checked_sub(count as u64)?);
        }
        let is_over = self.is_read();
        if is_over {
            self.dropping = None;
        }
        Some(is_over)
    }
}
