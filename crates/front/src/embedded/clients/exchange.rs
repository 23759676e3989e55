//! One request and its answer.
//!
//! Whoever answers a request sees this and nothing of the connection below: the head of
//! the request and its content come from here, the head of the answer and its content go
//! here, and here it is decided whether the connection is used again. How all of that is
//! written as bytes is the codec's (`http1.rs`).

mod accounting;
mod content;
mod origin;

use std::future::poll_fn;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::task::{Context, Poll};
use std::time::Duration;

use mfserv_core::route::ServerSettings;
use mfserv_h1::{BodyReader, Framing, Name, RequestHead};
use tokio::time::Instant;

use super::access_log::AccessRecord;
use super::connection::{Connection, Lost};
use super::fault::Fault;
use super::http1::{self, Delimiter, Frame};
use super::real_ip::{self, Trust};
use crate::embedded::io::buffer::Pooled;
use crate::embedded::io::pipe::Pipe;

pub use super::http1::{HeadWriter, STRICT_TRANSPORT, Size, Start};

/// A request with its answer.
pub struct Exchange<'a> {
    connection: &'a mut Connection,
    settings: &'a ServerSettings,
    request: Request<'a>,
    answer: Answer,
    record: &'a mut AccessRecord,
}

/// What comes from the client.
struct Request<'a> {
    head: &'a RequestHead,
    /// The head could be read; else nothing in it means anything.
    is_understood: bool,
    /// For whom a proxy asks whose word is taken.
    forwarded_for: Option<(IpAddr, String)>,
    /// What the client says in X-Forwarded-* is passed on.
    is_trusted: bool,
    body: BodyReader,
    /// Content that has been read, bytes.
    content: u64,
    /// No more is read.
    max_content: u64,
    /// When more of the body has to have come.
    body_by: Instant,
}

/// What goes to the client.
struct Answer {
    delimiter: Delimiter,
    /// The connection can be used again after it.
    keep_alive: bool,
    /// What the connection had sent when the head was put.
    sent_before: u64,
    extra_field: Option<(&'static str, &'static str)>,
    cookie: Option<String>,
}

impl<'a> Exchange<'a> {
    /// The exchange for a request whose record has begun. `is_understood`: its head could
    /// be read. `trust`: whose word about addresses is taken; `None`: everybody may say
    /// X-Forwarded-*, and nobody for whom he asks.
    pub fn new(
        connection: &'a mut Connection,
        settings: &'a ServerSettings,
        (head, is_understood): (&'a RequestHead, bool),
        trust: Option<&Trust>,
        record: &'a mut AccessRecord,
    ) -> Self {
        let is_trusted = is_understood
            && trust.is_none_or(|trust| connection.peer().is_some_and(|peer| trust.trusts(peer)));
        let address =
            trust.filter(|_| is_trusted).and_then(|trust| trust.client_address(&head.fields));
        let patience = Duration::from_millis(settings.client_timeout_ms);
        let request = Request {
            head,
            is_understood,
            forwarded_for: address.map(|address| (address, address.to_string())),
            is_trusted,
            body: BodyReader::new(if is_understood { head.framing } else { Framing::None }),
            content: 0,
            max_content: settings.max_body_bytes,
            body_by: record.began() + patience,
        };
        let answer = Answer {
            delimiter: Delimiter::Head,
            keep_alive: is_understood && head.keep_alive,
            sent_before: 0,
            extra_field: None,
            cookie: None,
        };
        Self { connection, settings, request, answer, record }
    }

    /// The head of the request.
    pub fn request(&self) -> &'a RequestHead {
        self.request.head
    }

    /// The settings of the listening side.
    pub fn settings(&self) -> &'a ServerSettings {
        self.settings
    }

    /// How long a client may make the front wait for its next byte.
    pub fn patience(&self) -> Duration {
        Duration::from_millis(self.settings.client_timeout_ms)
    }

    /// True if the deadline has passed; else the calling task is woken when it does. An
    /// exchange has one timer: the deadline that was asked for last is the one that wakes.
    pub fn has_passed(&mut self, cx: &mut Context<'_>, deadline: Instant) -> bool {
        self.connection.has_passed(cx, deadline)
    }

    /// True if the front ends.
    pub fn is_closing(&self) -> bool {
        self.connection.is_closing()
    }
}

/// Who asks.
impl Exchange<'_> {
    /// True if an address is good: the one that connected, and the one for which it asks.
    /// A client over a unix socket is on this machine.
    pub fn is_among(&self, good: impl Fn(IpAddr) -> bool) -> bool {
        let forwarded = self.request.forwarded_for.as_ref();
        self.connection.peer().is_none_or(&good) && forwarded.is_none_or(|(ip, _)| good(*ip))
    }

    /// True if somebody on this machine asks, and no proxy on it for somebody else.
    pub fn is_local(&self) -> bool {
        let fields = &self.request.head.fields;
        let mut claims = fields.tokens(Name::ForwardedFor).chain(fields.tokens(Name::RealIp));
        let is_loopback = |text| real_ip::parse_address(text).is_some_and(|ip| ip.is_loopback());
        self.is_among(|ip| ip.is_loopback()) && claims.all(is_loopback)
    }

    /// The address for which it is asked, as text.
    pub fn address_text(&self) -> &str {
        let forwarded = self.request.forwarded_for.as_ref();
        forwarded.map_or(self.connection.peer_text(), |(_, text)| text)
    }

    /// True if the client has gone. What it sends ahead is kept for later.
    pub fn client_has_gone(&mut self, cx: &mut Context<'_>) -> bool {
        self.connection.has_gone(cx)
    }

    /// The same, for whoever waits for something else.
    pub async fn has_client_gone(&mut self) -> bool {
        poll_fn(|cx| Poll::Ready(self.client_has_gone(cx))).await
    }
}

/// The answer.
impl Exchange<'_> {
    /// Adds a field to the answer, whoever gives it.
    pub fn add_field(&mut self, field: (&'static str, &'static str)) {
        self.answer.extra_field = Some(field);
    }

    /// Sets a cookie with the answer: the value of the field.
    pub fn set_cookie(&mut self, cookie: String) {
        self.answer.cookie = Some(cookie);
    }

    /// False if the request asks for a head alone (HEAD).
    pub fn wants_content(&self) -> bool {
        !(self.request.is_understood && self.request.head.method() == b"HEAD")
    }

    /// Puts the head of the answer; `fields` writes the fields. With this it is decided
    /// whether the connection is used again: not where the rest of the request's body
    /// would be taken for the next request.
    pub fn put_head(&mut self, start: Start<'_>, fields: impl FnOnce(&mut HeadWriter<'_>)) {
        let tls = self.settings.tls.as_ref().filter(|_| self.is_https());
        let strict_transport = tls.and_then(|tls| tls.strict_transport.as_deref());
        let (request, answer) = (&self.request, &mut self.answer);
        self.record.set_status(start.status);
        answer.sent_before = self.connection.sent();
        let timing = self.settings.server_timing.then(|| self.record.server_timing());
        let frame = Frame {
            request: request.head,
            keep_alive: answer.keep_alive
                && request.body.is_done()
                && !self.connection.is_closing()
                && !self.settings.stopping,
            id: self.settings.add_request_id.then(|| self.record.id()),
            timing: timing.as_deref(),
            extra_field: answer.extra_field,
            cookie: answer.cookie.as_deref(),
            strict_transport,
        };
        let out = &mut self.connection.out;
        (answer.delimiter, answer.keep_alive) = http1::put_head(out, start, frame, fields);
    }

    /// Puts a head that comes before the answer (103…). Clients of HTTP/1.0 know none.
    pub fn put_interim(
        &mut self,
        (status, reason): (u16, &[u8]),
        fields: impl FnOnce(&mut HeadWriter<'_>),
    ) {
        // nginx takes an interim answer for the answer.
        if self.request.head.is_1_1 && !self.connection.is_edge() {
            let mut head = HeadWriter::begin(&mut self.connection.out, status, reason);
            fields(&mut head);
            head.end();
        }
    }

    /// Puts content.
    pub fn put_data(&mut self, content: &[u8]) {
        self.answer.delimiter.put(&mut self.connection.out, content);
    }

    /// Ends the content.
    pub fn end(&mut self) {
        self.answer.delimiter.put_end(&mut self.connection.out);
    }

    /// True if content goes out as it is. Only then there is [`Exchange::room`] to read it
    /// into, and [`Exchange::put_at_once`] may be used.
    pub fn takes_content_as_it_is(&self) -> bool {
        self.answer.delimiter != Delimiter::Chunks
    }

    /// Room for at least `least` bytes of content, behind what has been put.
    pub fn room(&mut self, least: usize) -> &mut [u8] {
        self.connection.out.spare(least)
    }

    /// Says that `count` bytes of content have been written into the room.
    pub fn filled(&mut self, count: usize) {
        self.connection.out.advance(count);
    }

    /// Sends what has been put and `content` behind it with one system call, without a copy
    /// where the client takes all of it.
    pub fn put_at_once(&mut self, cx: &mut Context<'_>, content: &[u8]) {
        // A client that is lost is noticed by the next write.
        let sent = match self.connection.poll_write_with(cx, content) {
            Poll::Ready(Ok(count)) => count,
            _ => 0,
        };
        self.connection.out.push(&content[sent..]);
    }

    /// True if the next content can go through a pipe: it goes out as it is, and what was
    /// put before has been sent. (Content that has to be encoded or encrypted cannot.)
    pub fn takes_pipe(&self) -> bool {
        self.answer.delimiter == Delimiter::Head
            && self.connection.out.is_empty()
            && self.connection.takes_pipes()
    }

    /// Sends content that is in a pipe. Ready when the pipe is empty.
    pub fn poll_content_from(
        &mut self,
        cx: &mut Context<'_>,
        pipe: &mut Pipe,
    ) -> Poll<Result<(), Lost>> {
        self.connection.poll_drain(cx, pipe)
    }

    /// How many bytes have been put and not been sent yet; 0 only when all are.
    pub fn unsent(&self) -> usize {
        self.connection.unsent()
    }

    /// How many of them [`Exchange::take_unsent`] takes out: not those that are encrypted.
    pub fn takes_out(&self) -> usize {
        self.connection.out.len()
    }

    /// Sends what has been put, as far as the client takes it. Ready when all is sent.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        self.connection.poll_flush(cx)
    }

    /// Sends all that has been put.
    pub async fn flush(&mut self) -> Result<(), Lost> {
        if self.unsent() == 0 {
            return Ok(());
        }
        self.connection.flush(self.patience()).await
    }

    /// Sends a part of a file as content. (HTTP over plain TCP lets the system do it.)
    pub async fn send_file(&mut self, file: &OwnedFd, part: Range<u64>) -> Result<(), Fault> {
        let patience = self.patience();
        self.connection.send_file(file, part, patience).await.map_err(|_| Fault::Gone)
    }

    /// Takes out what has been put and not been sent. What is sent before the rest of the
    /// answer is sent with [`Exchange::poll_send_part`] or put back.
    pub fn take_unsent(&mut self) -> Pooled {
        std::mem::take(&mut self.connection.out)
    }

    /// The end of [`Exchange::take_unsent`]: `unsent` comes before what was put meanwhile.
    pub fn put_back(&mut self, mut unsent: Pooled) {
        unsent.push(self.connection.out.filled());
        self.connection.out = unsent;
    }

    /// Sends a part of a file that has what was taken out, before what has been put.
    pub fn poll_send_part(
        &mut self,
        cx: &mut Context<'_>,
        file: BorrowedFd<'_>,
        part: &mut Range<u64>,
    ) -> Poll<Result<(), Lost>> {
        self.connection.poll_send_part(cx, file, part)
    }

    /// Takes the answer back, if nothing of it has been sent: another one may be put.
    pub fn take_back(&mut self) -> bool {
        let is_unsent = self.connection.sent() == self.answer.sent_before;
        if is_unsent {
            self.connection.out.clear();
        }
        is_unsent
    }

    /// The answer cannot be finished: the client must not take what it has for the whole.
    pub fn abort(&mut self) {
        self.answer.keep_alive = false;
        if self.answer.delimiter == Delimiter::Close {
            // An ordinary close would look like the end of the content.
            self.connection.cut();
        }
    }

    /// The client is lost: nothing more is sent.
    pub fn cut(&mut self) {
        self.answer.keep_alive = false;
        self.connection.cut();
    }

    /// After an upgrade: the connection as bytes, what the client has sent ahead, and what
    /// it has still to be sent. Both buffers are given back with [`Exchange::end_tunnel`].
    pub fn tunnel(&mut self) -> (&mut Connection, Pooled, Pooled) {
        let ahead = std::mem::take(&mut self.connection.inbox);
        let unsent = std::mem::take(&mut self.connection.out);
        (self.connection, ahead, unsent)
    }

    /// The end of [`Exchange::tunnel`].
    pub fn end_tunnel(&mut self, ahead: Pooled, unsent: Pooled) {
        self.connection.inbox = ahead;
        self.connection.out = unsent;
    }
}
