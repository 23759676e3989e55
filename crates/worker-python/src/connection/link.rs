//! A connection that is the link of a front's queue: requests come from the queue, answers go here.

use std::io;

use mfserv_h1::{BodyReader, Framing, HeadScan};
use mfserv_pull::{FRAME_LEN, Frame, FrameKind, Message, Offer, Page, TAKEN, read_first};

use super::{Connection, HEAD_MAX};

/// The longest answer that is said to be whole, head and body, bytes.
const ANSWER_MAX: u64 = 64 * 1024;

/// The first bytes of a connection.
pub enum First {
    /// A front offers requests.
    Offer(Offer),
    /// They are HTTP, or have not come yet.
    Bytes,
    /// The other end is closed.
    End,
}

/// What makes a connection a link.
pub(super) struct Link {
    page: Page,
    /// The line of the page that is this worker's.
    line: usize,
    /// It has a request, which is not answered as a whole.
    has_claim: bool,
    /// Precedes the next bytes of the answer.
    frame: Option<Frame>,
    /// The running request was a message: nothing of it comes through the socket.
    is_message: bool,
    /// The front has still to say that it has all of the answer.
    is_untaken: bool,
}

impl Link {
    /// The frame of the answer, if it was not sent.
    pub(super) fn next_frame(&mut self) -> Option<[u8; FRAME_LEN]> {
        let frame = self.frame.take()?;
        self.is_untaken = frame.kind == FrameKind::Stream;
        Some(Frame { took_us: self.page.took_us(self.line), ..frame }.to_bytes())
    }
}

impl Connection {
    /// True if nothing was read of it.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// Reads once from a connection that is new: the only bytes that may be an offer.
    pub fn read_first(&mut self, space: &mut [u8]) -> io::Result<First> {
        use io::ErrorKind::{Interrupted, WouldBlock};
        let first = match read_first(self.socket(), space) {
            Err(error) if matches!(error.kind(), Interrupted | WouldBlock) => {
                return Ok(First::Bytes);
            }
            first => first?,
        };
        self.is_new = false;
        Ok(match first {
            Ok(offer) => First::Offer(offer),
            Err(0) => First::End,
            Err(count) => {
                self.input.extend_from_slice(&space[..count]);
                First::Bytes
            }
        })
    }

    /// Makes it a link, and tells the front that its requests are taken.
    pub fn link(&mut self, page: Page, line: usize) -> io::Result<()> {
        let link = Link {
            page,
            line,
            has_claim: false,
            frame: None,
            is_message: false,
            is_untaken: false,
        };
        self.link = Some(Box::new(link));
        self.say(FrameKind::Ready, 0)
    }

    /// True if requests come from a queue.
    pub fn is_link(&self) -> bool {
        self.link.is_some()
    }

    /// Sends a frame that no answer follows at once.
    pub fn say(&mut self, kind: FrameKind, id: u64) -> io::Result<()> {
        let frame = Frame { id, length: 0, took_us: 0, kind };
        if let Some(link) = &mut self.link {
            link.is_untaken = kind == FrameKind::Turn;
        }
        self.send(&frame.to_bytes(), None, 0..0, b"")
    }

    /// Claims a request. False if it was given up, and must not begin.
    pub fn claim(&mut self, id: u64) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.has_claim = link.page.claim(link.line, id);
        link.has_claim
    }

    /// The request of a message, which is whole, is the next one.
    pub fn put_message(&mut self, message: Message, request: &[u8]) {
        let Some(link) = &mut self.link else { return };
        let frame = Frame { id: message.id, length: 0, took_us: 0, kind: FrameKind::Stream };
        (link.frame, link.is_message) = (Some(frame), true);
        self.input.extend_from_slice(request);
    }

    /// True while the request of a message runs.
    pub(super) fn is_message(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_message)
    }

    /// True if the content that follows the head in a message is as long as the head says. (Where
    /// it comes in chunks, their reader sees it.)
    pub fn is_one_request(&self) -> bool {
        let there = (self.input.len() - self.start) as u64;
        match self.head.framing {
            Framing::None => there == 0,
            Framing::Length(length) => there == length,
            _ => true,
        }
    }

    /// The answer that begins now has so many bytes, all of which are there.
    pub fn is_whole_answer(&mut self, length: u64) {
        if let Some(frame) = self.link.as_mut().and_then(|link| link.frame.as_mut()) {
            if length <= ANSWER_MAX {
                (frame.kind, frame.length) = (FrameKind::Answer, length as u32);
            }
        }
    }

    /// The request is over: what is left of it is dropped. A link on which more of it has to come
    /// ends: the worker would have to wait.
    pub fn leave_request(&mut self, space: &mut [u8]) {
        if !self.is_message() && self.dropping.is_some() {
            self.ends |= !self.drops_all(space);
        }
        let Some(link) = &mut self.link else { return };
        // What is left of a message was never said on this connection.
        if !link.is_message && self.input[self.start..] == [TAKEN] {
            link.is_untaken = false;
            self.start = self.input.len();
        }
        // The front sends nothing else before its next turn.
        self.ends |= !link.is_message && self.start < self.input.len();
        (link.frame, link.is_message) = (None, false);
        self.start = self.input.len();
        (self.content, self.dropping) = (0..0, None);
        (self.is_gathering, self.expects_continue) = (false, false);
        (self.scan, self.body) = (HeadScan::new(HEAD_MAX), BodyReader::new(Framing::None));
        self.compact();
    }

    /// True while the front reads an answer whose end only it knows.
    pub fn is_untaken(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.is_untaken)
    }

    /// True if the front has said that it has the answer; that is the only thing that it says.
    pub fn was_taken(&mut self) -> bool {
        let said = self.input[self.start..] == [TAKEN];
        let Some(link) = self.link.as_mut().filter(|link| said && link.is_untaken) else {
            return false;
        };
        link.is_untaken = false;
        self.start = self.input.len();
        self.compact();
        true
    }

    /// Drops what is left of a body, if all of it has come.
    fn drops_all(&mut self, space: &mut [u8]) -> bool {
        loop {
            match self.drop_rest() {
                Some(false) => {}
                outcome => return outcome == Some(true),
            }
            let before = self.input.len();
            if !self.read(space).unwrap_or(false) || self.input.len() == before {
                return false;
            }
        }
    }

    /// All of the answer is in the socket, or its front is gone: this worker has no request any
    /// more. (Another link may have the same line.)
    pub fn finish(&mut self) {
        if let Some(link) = self.link.as_mut().filter(|link| link.has_claim) {
            link.has_claim = false;
            link.page.finish(link.line);
        }
    }
}
