//! A client's connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mfserv_core::route::ServerSettings;
use tokio::time::Instant;

use crate::embedded::clients::idle_eviction::Rest;
use crate::embedded::clients::real_ip::{self, Trust};
use crate::embedded::io::buffer::Lent;
use crate::embedded::io::pipe::Pipe;
use crate::embedded::io::timer::{Alarm, Bell, Ear};
use crate::embedded::io::wire::Wire;
use mfserv_h1::{Fields, HeadScan, Name, Refusal};

/// When the front ends, a connection that has just been used may bring one more request.
const LAST_REQUEST: Duration = Duration::from_secs(1);
/// After an answer to a request that was not read to its end, its rest is read and
/// thrown away, so that the answer is not lost in a reset: for so long in all, ...
const LINGER: Duration = Duration::from_secs(30);
/// ... and for so long when nothing comes.
const LINGER_SILENCE: Duration = Duration::from_secs(5);

/// A client.
pub struct Client {
    wire: Wire,
    /// What it sent and nobody has used yet.
    pub inbox: Lent,
    /// What it has still to receive.
    pub out: Lent,
    /// Its timer.
    pub alarm: Alarm,
    closing: Ear,
    /// Who connected; none over a unix socket.
    peer: Option<IpAddr>,
    peer_text: String,
    /// For whom it asks this time, where it is a proxy whose word is taken.
    told: Option<(IpAddr, String)>,
    /// Bytes received.
    pub received: u64,
    /// Bytes sent.
    pub sent: u64,
    /// It sends nothing more, or is gone.
    pub ended: bool,
    idle_since: Instant,
    rest: Rest,
    /// When the first byte of a head came whose last byte came later.
    pub head_since: Option<Instant>,
}

/// How long a client is waited for between requests. A copy: a connection without a
/// request keeps no table alive.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    header: Duration,
    idle: Duration,
}

impl Patience {
    /// As the settings say.
    pub fn of(settings: &ServerSettings) -> Self {
        Self {
            header: Duration::from_millis(settings.header_timeout_ms),
            idle: Duration::from_millis(settings.keepalive_timeout_ms),
        }
    }
}

/// What the next thing is that a client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// A whole head of this length is in the inbox.
    Head(usize),
    /// Nothing more will come, or has come in time.
    End,
    /// A head began and was not finished in time.
    Late,
    /// What came is no head.
    Refused(Refusal),
}

/// The client did not take its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

impl Client {
    /// A new connection.
    pub fn new(wire: Wire, address: Option<IpAddr>, closing: Arc<Bell>) -> Self {
        Self {
            wire,
            inbox: Lent::default(),
            out: Lent::default(),
            alarm: Alarm::new(),
            closing: Ear::new(closing),
            peer_text: address.map_or_else(|| "unix:".into(), |a| a.to_canonical().to_string()),
            peer: address.map(|a| a.to_canonical()),
            told: None,
            received: 0,
            sent: 0,
            ended: false,
            idle_since: Instant::now(),
            rest: Rest::new(),
            head_since: None,
        }
    }

    /// True if an address is good: the one that connected, and the one for which it
    /// says to ask. A client over a unix socket is on this machine.
    pub fn is_among(&self, good: impl Fn(IpAddr) -> bool) -> bool {
        self.peer.is_none_or(&good) && self.told.as_ref().is_none_or(|(address, _)| good(*address))
    }

    /// True if somebody on this machine asks, and no proxy on it for somebody else.
    pub fn is_local(&self, fields: &Fields) -> bool {
        let mut told = fields.tokens(Name::ForwardedFor).chain(fields.tokens(Name::RealIp));
        let is_local =
            |text| real_ip::parse_address(text).is_some_and(|address| address.is_loopback());
        self.is_among(|address| address.is_loopback()) && told.all(is_local)
    }

    /// A request has come: for whom is it? Returns false if the client has no say about
    /// X-Forwarded-* either.
    pub fn identify(&mut self, trust: Option<&Trust>, fields: &Fields) -> bool {
        let Some(trust) = trust else { return true };
        let trusted = self.peer.is_some_and(|peer| trust.trusts(peer));
        let address = trusted.then(|| trust.client_address(fields)).flatten();
        self.told = address.map(|address| (address, address.to_string()));
        trusted
    }

    /// A request has come that cannot be understood: for nobody else.
    pub fn identify_nobody(&mut self) {
        self.told = None;
    }

    /// The address that asks, as text.
    pub fn address_text(&self) -> &str {
        self.told.as_ref().map_or(&self.peer_text, |(_, text)| text)
    }

    /// The address that connected, as text.
    pub fn peer_text(&self) -> &str {
        &self.peer_text
    }

    /// Looks whether the client has gone.
    pub async fn is_gone(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.has_gone(cx))).await
    }

    /// Waits for a request. `first`: it is the first one of the connection.
    pub async fn next_head(&mut self, patience: Patience, first: bool) -> Arrival {
        let arrival = self.await_head(patience, first).await;
        self.rest.end();
        arrival
    }

    async fn await_head(&mut self, patience: Patience, first: bool) -> Arrival {
        let mut scan = HeadScan::default();
        let header = patience.header;
        let idle = if first { header } else { patience.idle };
        self.idle_since = Instant::now();
        let mut head_by = (!self.inbox.is_empty()).then(|| self.idle_since + header);
        self.head_since = head_by.map(|_| self.idle_since);
        if head_by.is_some() {
            match scan.find_end(self.inbox.filled()) {
                Ok(Some(length)) => return Arrival::Head(length),
                Ok(None) => {}
                Err(refusal) => return Arrival::Refused(refusal),
            }
        }
        let idle_by = self.idle_since + idle;
        if head_by.is_none() {
            self.rest.begin(self.idle_since);
        }
        poll_fn(|cx| {
            while ready!(self.poll_more(cx, idle_by, head_by)) {
                match scan.find_end(self.inbox.filled()) {
                    Ok(Some(length)) => return Poll::Ready(Arrival::Head(length)),
                    Ok(None) => {
                        self.rest.end();
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
        let closing = self.closing.hears(cx);
        let deadline = match head_by {
            Some(by) => by,
            None if closing => idle_by.min(self.idle_since + LAST_REQUEST),
            None => idle_by,
        };
        let others_come = head_by.is_none() && self.rest.is_over(cx);
        if !others_come && !self.alarm.rings(cx, deadline) {
            return Poll::Pending;
        }
        Poll::Ready(head_by.is_none() && self.take_what_just_came())
    }

    /// The last look before an idle connection is closed.
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

    /// Reads into the inbox, as far as there is room. 0: it has ended. While nothing comes
    /// and nothing is there, it takes no memory.
    pub fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let got = self.poll_read(cx);
        if got.is_pending() && self.inbox.is_idle() {
            self.inbox.give_back();
        }
        got
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
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

    /// Looks whether the client is still there, taking what it sends ahead into the
    /// inbox. True if it has gone.
    pub fn has_gone(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.ended {
            if self.poll_fill(cx).is_pending() {
                return false;
            }
        }
        true
    }

    /// Writes what it has to receive, as far as it takes it. Ready when all is written.
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
        Poll::Ready(Ok(()))
    }

    /// Writes what it has to receive with `behind` behind it, in one write; returns how
    /// much of `behind` it took.
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

    /// Lets out what is in a pipe, after what it has to receive before. Ready when the
    /// pipe is empty.
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

    /// Lets what it sends into an empty pipe, at most `most`. 0: it has ended.
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

    /// Writes everything; the client has to take some of it within each `patience`.
    pub async fn flush(&mut self, patience: Duration) -> Result<(), Lost> {
        let mut left = self.out.len();
        let mut deadline = Instant::now() + patience;
        poll_fn(|cx| {
            if let Poll::Ready(done) = self.poll_flush(cx) {
                return Poll::Ready(done);
            }
            if self.out.len() < left {
                left = self.out.len();
                deadline = Instant::now() + patience;
            }
            if self.alarm.rings(cx, deadline) { Poll::Ready(Err(Lost)) } else { Poll::Pending }
        })
        .await
    }

    /// Sends a part of a file behind what it has still to receive; it has to take some of
    /// it within each `patience`. A file that ends earlier loses it as well.
    pub async fn send_file(
        &mut self,
        file: &OwnedFd,
        mut part: Range<u64>,
        patience: Duration,
    ) -> Result<(), Lost> {
        let mut before = self.sent;
        let mut deadline = Instant::now() + patience;
        poll_fn(|cx| {
            if let Poll::Ready(done) = self.poll_send_file(cx, file, &mut part) {
                return Poll::Ready(done);
            }
            if self.sent > before {
                before = self.sent;
                deadline = Instant::now() + patience;
            }
            if self.alarm.rings(cx, deadline) { Poll::Ready(Err(Lost)) } else { Poll::Pending }
        })
        .await
    }

    fn poll_send_file(
        &mut self,
        cx: &mut Context<'_>,
        file: &OwnedFd,
        part: &mut Range<u64>,
    ) -> Poll<Result<(), Lost>> {
        while !self.out.is_empty() || part.start < part.end {
            let ahead = !self.out.is_empty();
            let left = usize::try_from(part.end - part.start).unwrap_or(usize::MAX);
            let wrote = match ahead {
                true => self.wire.poll_write_ahead(cx, self.out.filled()),
                false => self.wire.poll_send_file(cx, file.as_fd(), &mut part.start, left),
            };
            match ready!(wrote) {
                Ok(count) if count > 0 => {
                    self.sent += count as u64;
                    if ahead {
                        self.out.consume(count);
                    }
                }
                _ => {
                    self.ended = true;
                    return Poll::Ready(Err(Lost));
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Says that nothing more will be sent.
    pub fn end_writing(&mut self) {
        self.wire.end_writing();
    }

    /// Makes the close visible as a cut: nothing is written or read any more.
    pub fn cut(&mut self) {
        self.ended = true;
        self.out.clear();
        self.wire.cut();
    }

    /// Ends the connection after an answer; `unread`: the client may still be sending.
    pub async fn leave(mut self, unread: bool) {
        if !unread || self.ended {
            return;
        }
        self.wire.end_writing();
        self.inbox.clear();
        self.out.give_back();
        let mut last = Instant::now();
        let end = last + LINGER;
        self.rest.begin(last);
        poll_fn(|cx| {
            let mut came = false;
            // A lane lets nobody read without end.
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
            let silence = if self.closing.hears(cx) { LAST_REQUEST } else { LINGER_SILENCE };
            let by = end.min(last + silence);
            let over = self.rest.is_over(cx) || self.alarm.rings(cx, by);
            if over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}
