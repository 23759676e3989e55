//! Requests that this worker takes from the queues of fronts.

use std::time::Instant;

use mfserv_h1::Refusal;
use mfserv_pull::{FrameKind, Message, MessageKind, Offer, now_ns};
use pyo3::prelude::*;
use rustix::event::epoll;

use super::Loop;
use super::queues::{Taken, request};
use crate::answer::refused;
use crate::connection::{Connection, First, Next, is_of_client};

/// Messages that are received before connections have their turn, at most.
const MESSAGES: usize = 16;
/// After so long no other message is received before that, nanoseconds.
const LONG: u64 = 5_000_000;
/// What a front is answered whose offer is refused.
pub const NO_OFFER: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
/// After so long in the queue the front of a request may have gone, nanoseconds.
const OLD: u64 = 1_000_000;

impl Loop {
    /// The first bytes of a connection are there: an offer, or HTTP.
    pub(super) fn first_bytes(&mut self, py: Python<'_>, index: usize) -> PyResult<()> {
        let Some(connection) = self.connections.get_mut(index).and_then(Option::as_mut) else {
            return Ok(());
        };
        match connection.read_first(&mut self.space) {
            Ok(First::Bytes) => return self.go_on(py, index),
            Ok(First::Offer(offer)) if !self.shared.is_stopping() => {
                self.accept_offer(py, index, offer);
            }
            Ok(First::Offer(_) | First::End) => self.end(index),
            Err(error) => {
                let _ = connection.send(NO_OFFER, None, 0..0, b"");
                self.end(index);
                if !is_of_client(&error) {
                    self.log(py, &format!("an offer of requests is refused: {error}"), None);
                }
            }
        }
        Ok(())
    }

    fn accept_offer(&mut self, py: Python<'_>, index: usize, offer: Offer) {
        let Some(connection) = self.connections[index].as_mut() else { return };
        let added = self.queues.add(&self.epoll, offer.queue, index);
        let is_added = added.is_ok();
        if let Err(error) = added.and_then(|()| connection.link(offer.page, offer.line)) {
            // No frame: the front does not offer it again.
            let _ = connection.send(NO_OFFER, None, 0..0, b"");
            self.end(index);
            // A front that has left meanwhile is no news.
            if !is_added {
                self.log(py, &format!("an offer of requests is refused: {error}"), None);
            }
            return;
        }
        self.settle_link(index);
    }

    /// Receives messages and serves their requests, one after the other.
    pub(super) fn pull(&mut self, py: Python<'_>) -> PyResult<()> {
        self.queues.is_busy = false;
        let begun = now_ns();
        let mut now = begun;
        let mut looked = None;
        for _ in 0..MESSAGES {
            if self.shared.is_stopping() {
                return Ok(());
            }
            if now - begun > LONG {
                break;
            }
            let Some(taken) = self.receive() else { return Ok(()) };
            now = now_ns();
            match taken {
                Taken::Message(link, message, length) => {
                    // One look at a front is enough for those of it that come at once.
                    let is_old = now.saturating_sub(message.sent_ns) > OLD && looked != Some(link);
                    if is_old {
                        looked = Some(link);
                    }
                    self.take(py, (link, is_old), message, length)?;
                }
                Taken::End(link, error) => {
                    self.end(link);
                    if let Some(error) = error {
                        self.log(py, &format!("requests are no longer taken: {error}"), None);
                    }
                }
            }
            self.check_signals(py)?;
        }
        self.queues.is_busy = true;
        Ok(())
    }

    /// Nothing is received from a front that has not got all of an answer: with the connection, only
    /// that is lost.
    fn receive(&mut self) -> Option<Taken> {
        let connections = &self.connections;
        self.queues.receive(&mut self.space, |link| is_free(connections, link))
    }

    /// Messages wake this worker, unless it could not serve them now.
    pub(super) fn watch_queues(&mut self) {
        let connections = &self.connections;
        self.queues.watch(&self.epoll, |link| is_free(connections, link));
    }

    /// A message was received: its request is claimed, and served.
    fn take(
        &mut self,
        py: Python<'_>,
        (link, is_old): (usize, bool),
        message: Message,
        length: usize,
    ) -> PyResult<()> {
        let Some(connection) = self.connections[link].as_mut() else { return Ok(()) };
        if message.kind == MessageKind::Nudge {
            return Ok(());
        }
        if is_old && connection.is_left() {
            self.end(link);
            return Ok(());
        }
        if !connection.claim(message.id) {
            self.drop_request(link, message.id);
            return Ok(());
        }
        self.is_fresh = false;
        if message.kind == MessageKind::Turn {
            return self.serve_turn(py, link, message.id);
        }
        connection.put_message(message, request(&self.space, length));
        let next = match connection.next() {
            Next::Request if connection.is_one_request() => Next::Request,
            Next::Refused(refusal) => Next::Refused(refusal),
            _ => {
                let reason = "the message is not one whole request";
                Next::Refused(Refusal { status: 400, reason })
            }
        };
        self.answer(py, link, next)
    }

    /// A request that was given up has not begun.
    fn drop_request(&mut self, link: usize, id: u64) {
        let Some(connection) = self.connections[link].as_mut() else { return };
        match connection.say(FrameKind::Dropped, id) {
            Ok(()) => self.settle_link(link),
            Err(_) => self.end(link),
        }
    }

    /// Serves the request of a link, or answers what is none.
    pub(super) fn answer(&mut self, py: Python<'_>, link: usize, next: Next) -> PyResult<()> {
        let Some(mut connection) = self.connections[link].take() else { return Ok(()) };
        match next {
            Next::Request => {
                connection = self.app.serve(py, connection)?;
                self.is_settled = false;
            }
            Next::Refused(refusal) => refuse(&mut connection, &refusal),
            Next::More | Next::End => connection.ends = true,
        }
        if self.shared.is_stopping() {
            self.served = Instant::now();
        }
        connection.leave_request(&mut self.space);
        self.connections[link] = Some(connection);
        self.settle_link(link);
        Ok(())
    }

    /// Something was sent on a link: the request is over, or waits for the socket.
    fn settle_link(&mut self, link: usize) {
        let Some(connection) = self.connections[link].as_mut() else { return };
        if connection.has_output() {
            let data = epoll::EventData::new_u64(link as u64);
            let flags = epoll::EventFlags::OUT;
            let _ = epoll::modify(&self.epoll, connection.socket(), data, flags);
            self.watch_queues();
        } else if connection.ends {
            self.end(link);
        } else if connection.is_untaken() {
            self.watch_queues();
        } else {
            connection.finish();
        }
    }

    /// The socket of a link can be read or written.
    pub(super) fn ready_link(&mut self, py: Python<'_>, link: usize) {
        let Some(connection) = self.connections[link].as_mut() else { return };
        if connection.has_output() {
            match connection.flush(py) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => {
                    self.end(link);
                    if !is_of_client(&error) {
                        self.log(py, &format!("an answer was cut: {error}"), None);
                    }
                    return;
                }
            }
            let data = epoll::EventData::new_u64(link as u64);
            let flags = epoll::EventFlags::IN;
            let _ = epoll::modify(&self.epoll, connection.socket(), data, flags);
            self.settle_link(link);
            self.watch_queues();
        }
        // The front takes its queue back: it sends nothing else between two requests.
        let Some(connection) = self.connections[link].as_mut() else { return };
        let is_open = connection.read(&mut self.space).unwrap_or(false);
        if !is_open {
            self.end(link);
        } else if connection.was_taken() {
            connection.finish();
            self.watch_queues();
        } else if connection.has_input() {
            self.end(link);
            self.log(py, "a front has sent something that no worker has asked for", None);
        }
    }
}

/// True if the front has got all that was answered on this link.
fn is_free(connections: &[Option<Box<Connection>>], link: usize) -> bool {
    let connection = connections.get(link).and_then(Option::as_ref);
    connection.is_none_or(|connection| !connection.has_output() && !connection.is_untaken())
}

fn refuse(connection: &mut Connection, refusal: &Refusal) {
    let text = refused(refusal);
    connection.is_whole_answer(text.len() as u64);
    // Without the front the link ends, which it does anyway.
    let _ = connection.send(text.as_bytes(), None, 0..0, b"");
    connection.ends = true;
}
