//! An HTTP/1 connection of a client: its bytes, its timer, and how long it is waited for.
//!
//! `poll` is written by hand here and in `workers/`. One step of a request watches the
//! client, the worker and a deadline at once, and moves bytes between two of them; a
//! future for each of the three would borrow what the others need for as long as it waits.

mod ends;
mod patience;
mod transfer;

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mfserv_core::route::HeadLimits;
use tokio::time::Instant;

pub use ends::Ends;
pub use patience::Patience;

use super::access_log::Traffic;
use super::idle_eviction::IdleTracker;
use crate::embedded::io::buffer::Pooled;
use crate::embedded::io::signal::{Signal, Subscription};
use crate::embedded::io::timer::Timer;
use crate::embedded::io::tls::{Identity, TlsStream};
use crate::embedded::io::wire::{Stream, Wire};
use mfserv_h1::{HeadScan, Refusal, RequestHead};

/// When the front ends, a client that has just had an answer may send one more request.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// After an answer to a request that was not read to its end, the rest of the request is
/// read and thrown away, because a close with unread bytes is a reset, and the reset may
/// destroy the answer. It is read for so long in all, …
const LINGER: Duration = Duration::from_secs(30);
/// … and for so long when nothing comes.
const LINGER_SILENCE: Duration = Duration::from_secs(5);

/// A connection. [`super::exchange::Exchange`] reads and writes it while a request is
/// answered.
pub struct Connection {
    wire: Wire,
    /// What has come and no request has used yet.
    pub(super) inbox: Pooled,
    /// What has still to be sent.
    pub(super) out: Pooled,
    timer: Timer,
    closing: Subscription,
    /// The address that connected; `None` over a unix socket.
    peer: Option<IpAddr>,
    peer_text: String,
    ends: Ends,
    /// Who nginx says the client is, where it is the edge of the node.
    identity: Option<Box<Identity>>,
    received: u64,
    sent: u64,
    /// The client sends nothing more, or has gone.
    ended: bool,
    idle_since: Instant,
    idle: IdleTracker,
    head_since: Option<Instant>,
}

/// What came of waiting for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// A whole head of this length, in bytes.
    Head(usize),
    /// Nothing, and nothing will come.
    End,
    /// The beginning of a head, and the rest did not come in time.
    Late,
    /// Bytes that are no head.
    Refused(Refusal),
}

/// The client did not take what was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

impl Connection {
    /// A new connection with these ends. `closing` is raised when the front ends.
    pub fn new(wire: Wire, ends: Ends, closing: Arc<Signal>) -> Self {
        let address = ends.client.map(|client| client.ip());
        Self {
            wire,
            inbox: Pooled::default(),
            out: Pooled::default(),
            timer: Timer::new(),
            closing: Subscription::new(closing),
            peer_text: address.map_or_else(|| "unix:".into(), |a| a.to_canonical().to_string()),
            peer: address.map(|a| a.to_canonical()),
            ends,
            identity: None,
            received: 0,
            sent: 0,
            ended: false,
            idle_since: Instant::now(),
            idle: IdleTracker::new(),
            head_since: None,
        }
    }

    /// When the first byte of the last head came, if that was before its last byte.
    pub fn head_since(&self) -> Option<Instant> {
        self.head_since
    }

    /// The bytes so far. Those in the inbox belong to no request yet.
    pub fn traffic(&self) -> Traffic {
        Traffic { received: self.received - self.inbox.len() as u64, sent: self.sent }
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// True if the client sends nothing more, or has gone.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// True if no further request is taken: the front ends, or the client would perhaps not be let
    /// in again.
    pub fn is_closing(&self) -> bool {
        self.closing.signal().is_raised() || self.tls().is_some_and(TlsStream::is_outdated)
    }

    /// True if the deadline has passed; else the calling task is woken when it does.
    pub fn has_passed(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        self.timer.has_passed(cx, deadline)
    }

    /// Takes the head that has arrived out of the inbox. An arrival that is no head is
    /// refused like a bad one.
    pub fn read_head(
        &mut self,
        arrival: Arrival,
        head: &mut RequestHead,
        limits: HeadLimits,
    ) -> Result<(), Refusal> {
        match arrival {
            Arrival::Head(length) => {
                let read = head.read(&self.inbox.filled()[..length], limits.fields as usize);
                self.inbox.consume(length);
                if self.inbox.is_empty() {
                    self.inbox.give_back();
                }
                read
            }
            Arrival::Refused(refusal) => Err(refusal),
            Arrival::Late | Arrival::End => Err(Refusal { status: 408, reason: "a slow head" }),
        }
    }

    /// Waits for the head of a request. `first`: it is the first one of the connection.
    pub async fn next_head(&mut self, patience: Patience, first: bool) -> Arrival {
        let arrival = self.await_head(patience, first).await;
        self.idle.end();
        match self.tls().is_some_and(TlsStream::is_outdated) {
            true => Arrival::End,
            false => arrival,
        }
    }

    async fn await_head(&mut self, patience: Patience, first: bool) -> Arrival {
        let mut scan = HeadScan::new(patience.head.bytes as usize);
        let header = patience.header;
        let idle = if first { header } else { patience.idle };
        self.idle_since = Instant::now();
        let mut head_by = (!self.inbox.is_empty()).then(|| self.idle_since + header);
        self.head_since = head_by.map(|_| self.idle_since);
        if head_by.is_some() {
            match scan.find_end(self.inbox.filled()) {
                Ok(Some(length)) => return Arrival::Head(length),
                Ok(None) => self.inbox.grow_if_full(),
                Err(refusal) => return Arrival::Refused(refusal),
            }
        }
        let idle_by = self.idle_since + idle;
        if head_by.is_none() && !self.ends.is_edge {
            self.idle.begin(self.idle_since);
        }
        poll_fn(|cx| {
            while ready!(self.poll_more(cx, idle_by, head_by)) {
                match scan.find_end(self.inbox.filled()) {
                    Ok(Some(length)) => return Poll::Ready(Arrival::Head(length)),
                    Ok(None) => {
                        self.idle.end();
                        self.inbox.grow_if_full();
                        let since = *self.head_since.get_or_insert_with(Instant::now);
                        head_by.get_or_insert(since + header)
                    }
                    Err(refusal) => return Poll::Ready(Arrival::Refused(refusal)),
                };
            }
            let late = head_by.is_some() && !self.ended;
            Poll::Ready(if late { Arrival::Late } else { Arrival::End })
        })
        .await
    }

    /// Ready with true when more is in the inbox, with false when nothing will be.
    fn poll_more(
        &mut self,
        cx: &mut Context<'_>,
        idle_by: Instant,
        head_by: Option<Instant>,
    ) -> Poll<bool> {
        if self.inbox.is_idle() {
            self.inbox.give_back();
            self.out.give_back();
        }
        if let Poll::Ready(got) = self.poll_fill(cx) {
            return Poll::Ready(got.is_ok_and(|count| count > 0));
        }
        if self.tls().is_some_and(TlsStream::has_begun) {
            // A handshake is no silence.
            self.idle.has_spoken();
        }
        if self.wire.poll_outdated(cx) {
            return Poll::Ready(false);
        }
        let closing = self.closing.is_raised(cx);
        let deadline = match head_by {
            Some(by) => by,
            None if closing => idle_by.min(self.idle_since + LAST_REQUEST),
            None => idle_by,
        };
        let evicted = head_by.is_none() && self.idle.is_evicted(cx);
        if !evicted && !self.timer.has_passed(cx, deadline) {
            return Poll::Pending;
        }
        Poll::Ready(head_by.is_none() && self.take_what_just_came())
    }

    /// Looks once more, with a system call, before an idle connection is closed.
    fn take_what_just_came(&mut self) -> bool {
        match self.wire.try_read(self.inbox.room()) {
            Ok(count) if count > 0 => {
                self.inbox.advance(count);
                self.received += count as u64;
                true
            }
            _ => false,
        }
    }

    /// Reads into the inbox, as far as there is room; 0 means that the client has ended.
    /// An empty inbox holds no memory while nothing comes.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let got = self.poll_inbox(cx);
        if got.is_pending() && self.inbox.is_idle() {
            self.inbox.give_back();
        }
        got
    }

    fn poll_inbox(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.ended {
            return Poll::Ready(Ok(0));
        }
        if self.inbox.is_idle() {
            ready!(self.wire.poll_readable(cx))?;
        }
        let room = self.inbox.room();
        if room.is_empty() {
            return Poll::Pending;
        }
        let got = ready!(self.wire.poll_read(cx, room));
        match got {
            Ok(count) if count > 0 => {
                self.inbox.advance(count);
                self.received += count as u64;
            }
            _ => self.ended = true,
        }
        Poll::Ready(got)
    }

    /// True if the client has gone. What it has sent ahead is taken into the inbox.
    pub fn has_gone(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.ended {
            if self.poll_fill(cx).is_pending() {
                return false;
            }
        }
        true
    }

    /// Cuts the connection: nothing more is written or read, and the client sees a reset
    /// instead of an ordinary end.
    pub fn cut(&mut self) {
        self.ended = true;
        self.out.clear();
        self.wire.cut();
    }

    /// Ends the connection after an answer. `unread`: the client may still be sending.
    pub async fn leave(mut self, unread: bool) {
        if !unread || self.ended {
            return;
        }
        self.wire.end_writing();
        self.inbox.clear();
        self.out.give_back();
        let mut last = Instant::now();
        let end = last + LINGER;
        self.idle.begin(last);
        poll_fn(|cx| {
            let mut came = false;
            // It ends: the runtime's budget makes a task that reads for long wait.
            while let Poll::Ready(got) = self.poll_fill(cx) {
                if !got.is_ok_and(|count| count > 0) {
                    return Poll::Ready(());
                }
                self.inbox.clear();
                came = true;
            }
            if came {
                last = Instant::now();
            }
            let silence = if self.closing.is_raised(cx) { LAST_REQUEST } else { LINGER_SILENCE };
            let by = end.min(last + silence);
            let over = self.idle.is_evicted(cx) || self.timer.has_passed(cx, by);
            if over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Bytes as they are, for a connection that has been upgraded.
impl Stream for Connection {
    fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_readable(cx)
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.wire.poll_read(cx, room))?;
        self.received += count as u64;
        self.ended = count == 0;
        Poll::Ready(Ok(count))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let count = ready!(self.wire.poll_write(cx, bytes))?;
        self.sent += count as u64;
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_flush(cx)
    }

    fn end_writing(&mut self) {
        self.wire.end_writing();
    }
}
