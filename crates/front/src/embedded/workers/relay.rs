//! The body of an answer, from the worker to the client.
//!
//! What arrives is passed on at once. A worker with a finite number of slots is let go
//! as soon as it has said everything: what its client has not read yet waits here.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mfserv_core::route::Slots;
use tokio::time::Instant;

use crate::embedded::clients::connection::Lost;
use crate::embedded::io::budget::Share;
use crate::embedded::io::pipe::{self, Pipe};
use crate::embedded::workers::forward::{Fault, Forwarding};
use crate::embedded::workers::heads::{self, Shape};
use crate::embedded::workers::upload::{self, Upload};
use crate::embedded::workers::upstream::{Link, Slot};
use mfserv_h1::{BodyReader, Piece};

/// What the client of a finite app may leave unread, bytes.
const ABSORBED_MAX: usize = 1024 * 1024;
/// Memory that all such clients together may take with what they leave unread, bytes.
/// When it is taken they hold their workers, as the clients of other apps do.
const ALL_ABSORBED_MAX: u64 = 128 * 1024 * 1024;
/// What the client of another app may leave unread, and every client without asking, bytes.
const AHEAD_MAX: usize = 64 * 1024;
/// Content of less than this is copied behind the head, bytes.
const COPIED_MAX: usize = 4 * 1024;
/// So much of an answer that is not whole yet is written before more is read, bytes.
const MUCH: usize = 16 * 1024;
/// What is read at a time, bytes.
const STEP: usize = 32 * 1024;

struct Relay<'a> {
    reader: BodyReader,
    shape: Shape,
    /// The worker, as long as it has something to say.
    held: Option<(Slot, Link)>,
    upload: Upload<'a>,
    send_failed: bool,
    /// The rest of a large body passes through pipes.
    piped: bool,
    /// The one with what the client has still to take, after what is in its buffer.
    pipe: Option<Pipe>,
    /// The client is slow: no pipe.
    absorbs: bool,
    /// The worker broke off.
    broken: Option<&'static str>,
    /// Some of this answer may have reached the client.
    begun: bool,
    /// What the client may leave unread now, and at most.
    ahead_max: usize,
    absorbed_max: usize,
    absorbed: Share<'a>,
    worker_patience: Duration,
    worker_by: Instant,
    client_patience: Duration,
    client_by: Instant,
}

/// Passes an answer on, whose head has been read.
pub async fn run(
    mut of: Forwarding<'_>,
    slot: Slot,
    link: Link,
    upload: Upload<'_>,
) -> Result<(), Fault> {
    let lane = of.lane;
    let sent_before = of.client.sent;
    of.visit.keep &= !upload.is_incomplete() && !of.lane.front.closing.has_rung();
    let shape = heads::put_answer(&mut of.client.out, of.reply, of.head, of.settings, of.visit);
    let now = Instant::now();
    let worker_patience = Duration::from_millis(of.app.spec.timeout_ms);
    let client_patience = Duration::from_millis(of.settings.client_timeout_ms);
    let mut relay = Relay {
        reader: BodyReader::new(of.reply.framing),
        shape,
        held: Some((slot, link)),
        upload,
        send_failed: false,
        piped: false,
        pipe: None,
        absorbs: false,
        broken: None,
        begun: false,
        ahead_max: AHEAD_MAX,
        absorbed_max: match of.app.spec.slots {
            Slots::Finite { .. } => ABSORBED_MAX,
            Slots::Unlimited => AHEAD_MAX,
        },
        absorbed: Share::new(&lane.front.absorbed),
        worker_patience,
        worker_by: now + worker_patience,
        client_patience,
        client_by: now + client_patience,
    };
    let done = poll_fn(|cx| relay.poll(cx, &mut of)).await;
    match (done, relay.broken) {
        (Err(Fault::Cut), Some(cause)) if of.client.sent == sent_before => {
            of.client.out.clear();
            Err(Fault::Answer(if cause == "timeout" { 504 } else { 502 }, cause))
        }
        (Err(Fault::Cut), _) if relay.shape == Shape::UntilClose => {
            // An ordinary close would look like the end of the answer.
            of.client.cut();
            Err(Fault::Cut)
        }
        (done, _) => done,
    }
}

impl Relay<'_> {
    fn poll(&mut self, cx: &mut Context<'_>, of: &mut Forwarding<'_>) -> Poll<Result<(), Fault>> {
        self.begin(cx, of);
        loop {
            self.go_on_uploading(cx, of)?;
            let was_full = self.is_full(of);
            let read = self.read(cx, of);
            if let Some(cause) = self.broken {
                return Poll::Ready(Err(self.break_off(of, cause)));
            }
            let unsent = self.ahead(of);
            let wrote = match self.write(cx, of) {
                Poll::Ready(Ok(())) if self.held.is_none() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {
                    self.client_by = Instant::now() + self.client_patience;
                    true
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Fault::Gone)),
                Poll::Pending => {
                    if self.ahead(of) < unsent {
                        self.client_by = Instant::now() + self.client_patience;
                    }
                    // What it has not taken may leave the worker free all the same.
                    if self.absorb(of) {
                        continue;
                    }
                    false
                }
            };
            // Where there was no room, the worker has not been asked: if there is now, it is.
            let has_room_again = was_full && !self.is_full(of);
            if !read && !has_room_again {
                return self.wait(cx, of, wrote);
            }
        }
    }

    /// Nothing can be done now: how long may that last?
    fn wait(
        &mut self,
        cx: &mut Context<'_>,
        of: &mut Forwarding<'_>,
        client_has_all: bool,
    ) -> Poll<Result<(), Fault>> {
        let ignore = of.settings.ignore_client_abort;
        // A client that is still sending is watched by the upload.
        let quiet = !self.upload.is_incomplete() || self.send_failed;
        if self.held.is_some() && quiet && of.client.has_gone(cx) && !ignore {
            return Poll::Ready(Err(Fault::Gone));
        }
        if !client_has_all && of.client.alarm.rings(cx, self.client_by) {
            of.client.cut();
            return Poll::Ready(Err(Fault::Gone));
        }
        if self.held.is_some() && !self.is_full(of) && of.client.alarm.rings(cx, self.worker_by) {
            self.broken = Some("timeout");
            return Poll::Ready(Err(self.break_off(of, "timeout")));
        }
        Poll::Pending
    }

    /// What came together with the head leaves with it, in one write if it can.
    fn begin(&mut self, cx: &mut Context<'_>, of: &mut Forwarding<'_>) {
        if std::mem::replace(&mut self.begun, true) {
            return;
        }
        let Some(left) = self.reader.plain().filter(|_| self.shape != Shape::Chunked) else {
            self.decode(of);
            return self.let_go_if_done(of);
        };
        let came = std::mem::take(of.back);
        let length = came.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        // More than the content is no good sign, and is looked at before the worker is
        // let go.
        if length < came.len() {
            of.back.push(&came.filled()[length..]);
        }
        self.reader.took(length as u64);
        self.let_go_if_done(of);
        let content = &came.filled()[..length];
        let mut sent = 0;
        if length >= MUCH || (self.held.is_none() && length >= COPIED_MAX) {
            // A client that is lost is noticed at the next write.
            if let Poll::Ready(Ok(count)) = of.client.poll_write_with(cx, content) {
                sent = count;
            }
        }
        of.client.out.push(&content[sent..]);
    }

    /// The worker is not read until the client has taken more.
    fn is_full(&self, of: &Forwarding<'_>) -> bool {
        match &self.pipe {
            Some(pipe) => !pipe.is_empty(),
            None => of.client.out.len() >= self.ahead_max,
        }
    }

    /// The client of a finite app may leave more unread, as far as there is memory for it.
    fn takes_more(&mut self, of: &Forwarding<'_>) -> bool {
        let room = self.pipe.is_none() && self.ahead_max < self.absorbed_max;
        // A buffer is at most twice as large as what is in it.
        let memory = 2 * self.ahead_max as u64;
        if room && self.absorbed.grow(memory, ALL_ABSORBED_MAX) {
            self.ahead_max *= 2;
        }
        !self.is_full(of)
    }

    /// What the client has still to take.
    fn ahead(&self, of: &Forwarding<'_>) -> usize {
        of.client.out.len() + self.pipe.as_ref().map_or(0, Pipe::len)
    }

    /// Writes what the client takes. Ready when it has all.
    fn write(&mut self, cx: &mut Context<'_>, of: &mut Forwarding<'_>) -> Poll<Result<(), Lost>> {
        ready!(of.client.poll_flush(cx))?;
        if let Some(pipe) = &mut self.pipe {
            ready!(of.client.poll_drain(cx, pipe))?;
            self.pipe = None;
        }
        Poll::Ready(Ok(()))
    }

    /// An empty pipe for what comes next, if that passes through one: if there is much to
    /// come, nothing to be decoded or encoded, and the client has all that came before.
    fn next_pipe(&self, of: &Forwarding<'_>) -> Option<Pipe> {
        let least = if self.piped { 1 } else { pipe::WORTH_IT };
        let much = self.reader.remaining().is_some_and(|left| left >= least);
        let as_it_is = self.shape == Shape::Plain && !self.absorbs;
        if much && as_it_is && of.client.out.is_empty() { Pipe::take() } else { None }
    }

    /// The client is slower than a finite app: what is in the pipe goes to memory, where
    /// there is more room, and the rest of the body after it. True if so.
    fn absorb(&mut self, of: &mut Forwarding<'_>) -> bool {
        let finite = matches!(of.app.spec.slots, Slots::Finite { .. });
        let Some(pipe) = self.pipe.as_mut().filter(|_| finite && self.held.is_some()) else {
            return false;
        };
        while !pipe.is_empty() {
            let room = of.client.out.spare(pipe.len());
            match pipe.read_out(room) {
                Ok(count) if count > 0 => of.client.out.advance(count),
                _ => {
                    self.broken = Some("pipe");
                    break;
                }
            }
        }
        self.pipe = None;
        self.absorbs = true;
        true
    }

    /// Reads once from the worker, if there is room. True if something came.
    fn read(&mut self, cx: &mut Context<'_>, of: &mut Forwarding<'_>) -> bool {
        if self.broken.is_some() {
            return false;
        }
        if self.is_full(of) && !self.takes_more(of) {
            self.worker_by = Instant::now() + self.worker_patience;
            return false;
        }
        let mut pipe = self.next_pipe(of);
        let Some((slot, link)) = &mut self.held else { return false };
        // Content that needs no reading goes straight to where it is sent from.
        let direct = self.reader.plain().filter(|_| self.shape != Shape::Chunked);
        let got = match (&mut pipe, direct) {
            (Some(pipe), Some(left)) => pipe.poll_fill(cx, &link.wire, left),
            (None, Some(left)) => {
                let room = of.client.out.spare(STEP);
                let most = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                link.wire.poll_read(cx, &mut room[..most])
            }
            (_, None) => link.wire.poll_read(cx, of.back.spare(STEP)),
        };
        match got {
            Poll::Pending => {
                if slot.worker_is_gone(cx) {
                    self.worker_ended(of, false);
                }
                return false;
            }
            Poll::Ready(Ok(count)) if count > 0 => {
                self.worker_by = Instant::now() + self.worker_patience;
                match (pipe, direct) {
                    (Some(pipe), _) => {
                        self.piped = true;
                        self.pipe = Some(pipe);
                        self.reader.took(count as u64);
                    }
                    (None, Some(_)) => {
                        of.client.out.advance(count);
                        self.reader.took(count as u64);
                    }
                    (None, None) => {
                        of.back.advance(count);
                        self.decode(of);
                    }
                }
                self.let_go_if_done(of);
            }
            Poll::Ready(end) => self.worker_ended(of, end.is_ok()),
        }
        true
    }

    fn worker_ended(&mut self, of: &mut Forwarding<'_>, cleanly: bool) {
        if !cleanly || !self.reader.may_end_here() {
            self.broken = Some("early_end");
            return;
        }
        self.held = None;
        if self.shape == Shape::Chunked {
            of.client.out.push(b"0\r\n\r\n");
        }
    }

    /// From the worker's framing to the client's.
    fn decode(&mut self, of: &mut Forwarding<'_>) {
        loop {
            match self.reader.next(of.back.filled()) {
                Ok(Piece::Content(range)) => {
                    let (end, content) = (range.end, &of.back.filled()[range]);
                    match self.shape {
                        Shape::Chunked => upload::put_chunk(&mut of.client.out, content),
                        _ => of.client.out.push(content),
                    }
                    of.back.consume(end);
                }
                Ok(Piece::More(used)) => return of.back.consume(used),
                Ok(Piece::End(used)) => return of.back.consume(used),
                Err(_) => {
                    self.broken = Some("malformed");
                    return;
                }
            }
        }
    }

    /// The answer is complete: the worker is free for the next request.
    fn let_go_if_done(&mut self, of: &mut Forwarding<'_>) {
        if self.broken.is_some() || !self.reader.is_done() {
            return;
        }
        let Some((slot, link)) = self.held.take() else { return };
        if self.shape == Shape::Chunked {
            of.client.out.push(b"0\r\n\r\n");
        }
        if !of.back.is_empty() {
            slot.distrust();
        }
        let reusable = of.reply.keep_alive
            && of.app.spec.keep_alive
            && !of.lane.front.closing.has_rung()
            && self.upload.finished
            && of.back.is_empty();
        of.back.clear();
        if reusable {
            slot.park(link.wire, of.reply.keep_alive_s);
        }
    }

    /// A body that is still being sent while the answer already comes.
    fn go_on_uploading(
        &mut self,
        cx: &mut Context<'_>,
        of: &mut Forwarding<'_>,
    ) -> Result<(), Fault> {
        let Some((_, link)) = &mut self.held else { return Ok(()) };
        if self.send_failed || self.upload.finished {
            return Ok(());
        }
        match self.upload.send(cx, &mut link.wire, of.client) {
            Ok(true) => self.worker_by = Instant::now() + self.worker_patience,
            Ok(false) => {}
            Err(_) => self.send_failed = true,
        }
        Ok(())
    }

    /// The rest of the answer will not come.
    fn break_off(&mut self, of: &mut Forwarding<'_>, cause: &'static str) -> Fault {
        if let Some((slot, _)) = self.held.take() {
            let id = String::from_utf8_lossy(&of.visit.id);
            let detail = format!("in the body of its answer (request {id})");
            of.lane.front.trouble(&slot.peer.name.worker, cause, &detail);
        }
        Fault::Cut
    }
}
