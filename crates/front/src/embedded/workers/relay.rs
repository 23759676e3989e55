//! The content of an answer, from the worker to the client.
//!
//! What arrives is passed on at once. A worker with a finite number of slots is let go as
//! soon as it has sent everything: what its client has not read yet waits here, in memory
//! and then in a file ([`Spool`]). Long streams are not put into files: their worker
//! waits for the client.

mod absorb;
mod discard;
mod letting_go;
mod lingering;

pub use discard::discard;

use std::future::poll_fn;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use mfserv_core::wire::front::TroubleCause;
use mfserv_h1::{BodyReader, Piece};
use tokio::time::Instant;

use super::destination::{Destination, Reply};
use super::heads;
use super::spool::Spool;
use super::upload::Upload;
use super::upstream::{Link, Slot};
use crate::embedded::clients::connection::Lost;
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::io::budget::FairShare;
use crate::embedded::io::fastcgi::fastcgi_fault;
use crate::embedded::io::pipe::{self, Pipe};
use crate::embedded::io::wire::Stream;

/// How much the client of a finite app may leave unread where no file takes it, bytes.
const ABSORBED_MAX: usize = 1024 * 1024;
/// How much the client of another app may leave unread, and every client without taking a
/// share of the memory of all, bytes.
const AHEAD_MAX: usize = 64 * 1024;
/// The content of a whole answer that is shorter than this is copied behind the head, bytes.
const COPIED_MAX: usize = 4 * 1024;
/// If so much of an answer that is not whole came with its head, it is written before more
/// is read, bytes.
const MUCH: usize = 16 * 1024;
/// How much is read at a time, bytes.
const STEP: usize = 32 * 1024;

struct Relay<'r, 'x> {
    exchange: &'r mut Exchange<'x>,
    reply: &'r mut Reply,
    to: Destination<'r>,
    reader: BodyReader,
    /// The worker, until it has sent everything.
    held: Option<(Slot, Link)>,
    upload: Upload<'r>,
    send_failed: bool,
    /// The rest of a large body goes through pipes.
    is_piped: bool,
    /// The pipe whose content the client has still to take, after what has been put.
    pipe: Option<Pipe>,
    /// The client is slow: no pipe is used any more.
    absorbs: bool,
    spool: Spool<'r>,
    /// A file cannot be used, or not for this answer.
    is_unspooled: bool,
    /// When the content began, and how much has come.
    began: Instant,
    received: u64,
    /// Why the rest of the answer will not come, and in which words a FastCGI worker says so.
    broken: Option<TroubleCause>,
    why: Option<&'static str>,
    has_begun: bool,
    /// How much the client may leave unread now, and at most.
    ahead_max: usize,
    absorbed_max: usize,
    absorbed: FairShare<'r>,
    worker_patience: Duration,
    worker_by: Instant,
    client_by: Instant,
}

/// Passes an answer on whose head has been read. `by_nginx`: nginx sends the file that it names.
pub async fn run(
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
    to: Destination<'_>,
    held: (Slot, Link),
    upload: Upload<'_>,
    by_nginx: bool,
) -> Result<(), Fault> {
    match by_nginx {
        true => heads::put_answer_for_nginx(exchange, &reply.head),
        false => heads::put_answer(exchange, &reply.head),
    }
    let worker_patience = Duration::from_millis(to.app.spec.timeout_ms);
    let (now, own) = (Instant::now(), &*to.app.upstream);
    let mut relay = Relay {
        reader: BodyReader::new(reply.head.framing),
        held: Some(held),
        upload,
        send_failed: false,
        is_piped: false,
        pipe: None,
        absorbs: false,
        spool: Spool::new(FairShare::new(&own.answers, &to.pool.answers), &own.descriptors),
        is_unspooled: false,
        began: now,
        received: 0,
        broken: None,
        why: None,
        has_begun: false,
        ahead_max: AHEAD_MAX,
        absorbed_max: if to.app.spec.is_finite() { ABSORBED_MAX } else { AHEAD_MAX },
        absorbed: FairShare::new(&own.absorbed, &to.pool.absorbed),
        worker_patience,
        worker_by: now + worker_patience,
        client_by: now + exchange.patience(),
        exchange,
        reply,
        to,
    };
    let done = poll_fn(|cx| relay.poll(cx)).await;
    match (done, relay.broken) {
        (Err(Fault::Cut), Some(cause)) if relay.exchange.take_back() => {
            Err(Cause::Worker(cause).into())
        }
        (done, _) => done,
    }
}

impl Relay<'_, '_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Fault>> {
        self.begin(cx);
        loop {
            self.go_on_uploading(cx);
            let was_full = self.is_full();
            let read = self.read(cx);
            if let Some(cause) = self.broken {
                let fault = self.break_off(cause);
                // What is in the file comes before what is sent after this.
                if self.spool.is_empty() {
                    return Poll::Ready(Err(fault));
                }
            }
            let unsent = self.unsent();
            let wrote = match self.write(cx) {
                Poll::Ready(Ok(())) if self.broken.is_some() => continue,
                Poll::Ready(Ok(())) if self.held.is_none() => return Poll::Ready(Ok(())),
                Poll::Ready(Ok(())) => {
                    self.restart_client_timer();
                    true
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Err(Fault::Gone)),
                Poll::Pending => {
                    if self.unsent() < unsent {
                        self.restart_client_timer();
                    }
                    // The worker can be free although the client has not taken all.
                    if self.absorb() {
                        continue;
                    }
                    false
                }
            };
            // Without room the worker was not read; if there is room now, it is.
            let has_room_again = was_full && !self.is_full();
            if !read && !has_room_again && !self.has_spooled(cx) {
                return self.wait(cx, wrote);
            }
        }
    }

    fn restart_client_timer(&mut self) {
        self.client_by = Instant::now() + self.exchange.patience();
    }

    /// Nothing can be done now.
    fn wait(&mut self, cx: &mut Context<'_>, client_has_all: bool) -> Poll<Result<(), Fault>> {
        let ignores = self.exchange.settings().ignore_client_abort;
        // While a body is sent on, the upload watches the client.
        let watches = !self.exchange.awaits_body() || self.send_failed;
        let is_held = self.held.is_some();
        if is_held && watches && self.exchange.client_has_gone(cx) && !ignores {
            return Poll::Ready(Err(Fault::Gone));
        }
        if !client_has_all && self.exchange.has_passed(cx, self.client_by) {
            self.exchange.cut();
            return Poll::Ready(Err(Fault::Gone));
        }
        if is_held && !self.is_full() && self.exchange.has_passed(cx, self.worker_by) {
            self.broken = Some(TroubleCause::Timeout);
            return Poll::Ready(Err(self.break_off(TroubleCause::Timeout)));
        }
        Poll::Pending
    }

    /// Content that came together with the head leaves with it, if possible in one write.
    fn begin(&mut self, cx: &mut Context<'_>) {
        if std::mem::replace(&mut self.has_begun, true) {
            return;
        }
        let Some(left) = self.content_as_it_is() else {
            self.decode();
            return self.end_if_done();
        };
        let came = std::mem::take(&mut self.reply.ahead);
        let length = came.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        // Bytes after the content are a fault of the worker, which is looked at before the
        // worker is let go.
        if length < came.len() {
            self.reply.ahead.push(&came.filled()[length..]);
        }
        self.reader.took(length as u64);
        let is_whole = self.let_go_if_done();
        let content = &came.filled()[..length];
        match length >= MUCH || (is_whole && length >= COPIED_MAX) {
            true => self.exchange.put_at_once(cx, content),
            false => self.exchange.put_data(content),
        }
        if is_whole {
            self.exchange.end();
        }
    }

    /// How many bytes of content to come go to the client as the worker sends them; `None`
    /// if they have to be decoded or encoded.
    fn content_as_it_is(&self) -> Option<u64> {
        self.reader.plain().filter(|_| self.exchange.takes_content_as_it_is())
    }

    /// True if the worker is not read until the client has taken more.
    fn is_full(&self) -> bool {
        match &self.pipe {
            Some(pipe) => !pipe.is_empty(),
            None => self.exchange.unsent() >= self.ahead_max,
        }
    }

    /// How many bytes the client has still to take.
    fn unsent(&self) -> usize {
        let spooled = usize::try_from(self.spool.unsent()).unwrap_or(usize::MAX);
        self.exchange.unsent() + self.pipe.as_ref().map_or(0, Pipe::len) + spooled
    }

    /// Writes what the client takes. Ready when it has all.
    fn write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Lost>> {
        if !self.spool.is_empty() {
            ready!(self.spool.poll_send(cx, self.exchange))?;
            if self.spool.is_busy() {
                // The loop waits for it.
                return Poll::Pending;
            }
        }
        ready!(self.exchange.poll_flush(cx))?;
        if let Some(pipe) = &mut self.pipe {
            ready!(self.exchange.poll_content_from(cx, pipe))?;
            self.pipe = None;
        }
        Poll::Ready(Ok(()))
    }

    /// An empty pipe for what comes next, if that is worth one and client and worker can
    /// be connected by one.
    fn next_pipe(&self) -> Option<Pipe> {
        let least = if self.is_piped { 1 } else { pipe::WORTH_IT };
        let is_worth_it = self.reader.remaining().is_some_and(|left| left >= least);
        let of_worker = || self.held.as_ref().is_some_and(|(_, link)| link.wire.takes_pipes());
        let takes_pipe = is_worth_it && !self.absorbs && self.exchange.takes_pipe() && of_worker();
        if takes_pipe { Pipe::take() } else { None }
    }

    /// Reads once from the worker, if there is room. True if something came.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        if self.broken.is_some() {
            return false;
        }
        if self.is_full() && !self.takes_more() {
            self.worker_by = Instant::now() + self.worker_patience;
            return false;
        }
        let (mut pipe, as_it_is) = (self.next_pipe(), self.content_as_it_is());
        let Some((slot, link)) = &mut self.held else { return false };
        let got = match (&mut pipe, as_it_is) {
            (Some(pipe), Some(left)) => pipe.poll_fill(cx, &link.wire, left),
            (None, Some(left)) => {
                let room = self.exchange.room(STEP);
                let most = room.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                link.wire.poll_read(cx, &mut room[..most])
            }
            (_, None) => link.wire.poll_read(cx, self.reply.ahead.spare(STEP)),
        };
        if let Some(said) = link.wire.take_said() {
            self.to.pool.worker_said(&slot.peer.name.worker, &said);
        }
        match got {
            Poll::Pending => {
                if slot.worker_is_gone(cx, &link.wire) {
                    self.worker_ended(false);
                }
                return false;
            }
            Poll::Ready(Ok(count)) if count > 0 => self.came(count, pipe, as_it_is.is_some()),
            Poll::Ready(Ok(_)) => self.worker_ended(true),
            Poll::Ready(Err(why)) => {
                self.why = fastcgi_fault(&why).map(|fault| fault.reason());
                self.worker_ended(false);
            }
        }
        true
    }

    /// `count` bytes have come: into a pipe, to where they are sent from, or to be decoded.
    fn came(&mut self, count: usize, pipe: Option<Pipe>, as_it_is: bool) {
        self.received += count as u64;
        self.worker_by = Instant::now() + self.worker_patience;
        match (pipe, as_it_is) {
            (Some(pipe), _) => {
                self.is_piped = true;
                self.pipe = Some(pipe);
                self.reader.took(count as u64);
            }
            (None, true) => {
                self.exchange.filled(count);
                self.reader.took(count as u64);
            }
            (None, false) => {
                self.reply.ahead.advance(count);
                self.decode();
            }
        }
        self.end_if_done();
    }

    fn worker_ended(&mut self, cleanly: bool) {
        if !cleanly || !self.reader.may_end_here() {
            let is_malformed = self.why.is_some();
            let cause = if is_malformed { TroubleCause::Malformed } else { TroubleCause::EarlyEnd };
            self.broken = Some(cause);
            return;
        }
        self.exchange.leave_worker();
        self.held.take().into_iter().for_each(|(slot, _)| slot.end());
        self.exchange.end();
    }

    /// Takes the content out of the worker's framing.
    fn decode(&mut self) {
        let ahead = &mut self.reply.ahead;
        loop {
            match self.reader.next(ahead.filled()) {
                Ok(Piece::Content(range)) => {
                    let end = range.end;
                    self.exchange.put_data(&ahead.filled()[range]);
                    ahead.consume(end);
                }
                Ok(Piece::More(used) | Piece::End(used)) => return ahead.consume(used),
                Err(_) => return self.broken = Some(TroubleCause::Malformed),
            }
        }
    }

    /// Once the answer is complete, lets the worker go and ends the content.
    fn end_if_done(&mut self) {
        if self.let_go_if_done() {
            self.exchange.end();
        }
    }

    /// Sends on a body that is not whole yet while the answer already comes.
    fn go_on_uploading(&mut self, cx: &mut Context<'_>) {
        let Some((_, link)) = &mut self.held else { return };
        if self.send_failed || self.upload.is_finished() {
            return;
        }
        match self.upload.send(cx, &mut link.wire, self.exchange) {
            Ok(true) => self.worker_by = Instant::now() + self.worker_patience,
            Ok(false) => {}
            Err(_) => self.send_failed = true,
        }
    }
}
