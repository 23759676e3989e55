//! A request to an app: a slot, a connection, the head of the answer; and whether it is
//! tried again when a worker goes away in the middle of that.

mod tries;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use mfserv_core::peers::Shape;
use mfserv_core::route::{HeadLimits, Slots};
use mfserv_core::wire::front::TroubleCause;
use mfserv_h1::{HeadScan, Name, Refusal};
use tokio::time::Instant;

use self::tries::Tries;
use super::destination::{Destination, Reply};
use super::failure::Failure;
use super::heads::{self, Forwarded};
use super::upload::{SendFault, Upload};
use super::upstream::{Link, NoLink, Slot, Taken};
use super::{relay, tunnel};
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::{Cause, Fault};
use crate::embedded::io::wire::{Stream, Wire};

/// The most interim answers (1xx) to one request.
const INTERIM_MAX: u32 = 16;
const NO_ROOM: &str = "requests are refused with 503: no room in temporary files for their bodies, \
                       or too few file descriptors (ulimit -Hn, LimitNOFILE of systemd)";
const SENDS_FILE: &str = "it answers with X-Accel-Redirect or X-Sendfile, which this version does \
                          not do: clients get the answer as it is, without that field and the file";
const TOO_LARGE: &str =
    "its head is larger than [front] answer_head_max or answer_fields_max allow";

/// Forwards a request and passes the answer on, to its end. `under_way` is dropped then, or
/// when the connection is upgraded.
pub async fn run(
    exchange: &mut Exchange<'_>,
    reply: &mut Reply,
    to: Destination<'_>,
    under_way: impl Sized,
) -> Result<(), Fault> {
    let is_finite = matches!(to.app.spec.slots, Slots::Finite { .. });
    let room = (&to.pool.spooled, &to.app.upstream.descriptors);
    let received = Upload::receive(exchange, is_finite, room).await;
    let mut upload = received.inspect_err(|fault| {
        if *fault == Fault::Answer(Cause::NoRoom) {
            to.pool.warn_of(&to.app.upstream, NO_ROOM);
        }
    })?;
    let mut forwarding = Forwarding { exchange, reply, to, tries: Tries::default() };
    let (mut slot, link) = forwarding.answered(&mut upload).await?;
    slot.answered(reply.head.status);
    if reply.head.fields.first(Name::SendFile).is_some() {
        to.pool.warn_of(&to.app.upstream, SENDS_FILE);
    }
    if reply.head.status == 101 {
        drop(under_way);
        return tunnel::run(exchange, reply, to, slot, link).await;
    }
    let done = relay::run(exchange, reply, to, (slot, link), upload).await;
    drop(under_way);
    done
}

/// A request that looks for a worker that answers it.
struct Forwarding<'r, 'x> {
    exchange: &'r mut Exchange<'x>,
    reply: &'r mut Reply,
    to: Destination<'r>,
    tries: Tries,
}

impl Forwarding<'_, '_> {
    /// Asks workers until one has sent the head of an answer.
    async fn answered(&mut self, upload: &mut Upload<'_>) -> Result<(Slot, Link), Fault> {
        let mut last = NoLink::Busy;
        loop {
            let mut slot = self.slot(last).await?;
            self.exchange.set_worker(&slot.peer.source);
            let mut link = match slot.link(self.tries.count > 0).await {
                Ok(link) => link,
                Err(why) => {
                    self.no_link(&slot, why, last);
                    last = why;
                    self.tries.avoid = Some(slot.peer.clone());
                    continue;
                }
            };
            self.exchange.ask_worker();
            self.put_head(&slot, upload);
            let failure = match self.attempt(&mut slot, &mut link, upload).await {
                Ok(()) => return Ok((slot, link)),
                Err(failure) => failure,
            };
            drop(link);
            let is_safe = self.exchange.request().is_safe();
            let again = upload.can_be_repeated() && self.tries.allow(failure, &slot, is_safe);
            self.report(&slot, failure);
            if !again {
                return Err(failure.fault());
            }
            self.to.app.upstream.count_retry();
        }
    }

    fn put_head(&self, slot: &Slot, upload: &mut Upload<'_>) {
        let exchange = &*self.exchange;
        let with = Forwarded {
            address: exchange.address_text(),
            port: exchange.client_port(),
            reached_port: exchange.reached_port(),
            id: exchange.id(),
            trace: exchange.trace(),
            trusted: exchange.is_trusted(),
            length: exchange.content_length(),
            keep_alive: self.to.app.spec.keep_alive && !slot.peer.is_unruly(),
        };
        upload.begin(|out| heads::put_request(out, exchange.request(), exchange.settings(), with));
    }

    /// A slot, at once or when it is this request's turn.
    async fn slot(&mut self, last: NoLink) -> Result<Slot, Fault> {
        let upstream = &self.to.app.upstream;
        let sent_away = || upstream.rests_s().map_or(Cause::Removed, Cause::Crashing);
        if let Some(seconds) = upstream.rests_s() {
            return Err(Cause::Crashing(seconds).into());
        }
        let request = self.exchange.request();
        let shape = Shape::new(request.method(), request.path());
        let mut waiting = match upstream.take(self.to.lane, self.tries.avoid.as_ref(), shape) {
            Taken::Slot(slot) => return Ok(slot),
            Taken::Waiting(waiting) => waiting,
            Taken::Full => return Err(Cause::QueueFull.into()),
            Taken::Removed => return Err(Cause::Removed.into()),
        };
        let wait = Duration::from_millis(self.to.app.spec.queue_timeout_ms);
        let exchange = &mut *self.exchange;
        let since = Instant::now();
        let slow_wait = Duration::from_millis(self.to.app.spec.slow_lane_wait_ms);
        let first = *self.tries.waits_since.get_or_insert(since);
        let deadline = first + wait;
        let mut hasten_at = waiting.is_slow().then(|| deadline.min(first + slow_wait));
        let turn = poll_fn(|cx| {
            // First: the slot that it gives may be all that is missed at the deadline.
            if hasten_at.is_some_and(|at| exchange.has_passed(cx, at)) {
                hasten_at = None;
                waiting.hasten();
            }
            if let Poll::Ready(turn) = Pin::new(&mut waiting).poll(cx) {
                return Poll::Ready(turn.ok_or_else(|| sent_away().into()));
            }
            if exchange.client_has_gone(cx) && !exchange.settings().ignore_client_abort {
                return Poll::Ready(Err(Fault::Gone));
            }
            if hasten_at.is_none() && exchange.has_passed(cx, deadline) {
                let cause = match last {
                    NoLink::Refused => Cause::Worker(TroubleCause::Refused),
                    _ if upstream.has_admitted() => Cause::QueueTimeout,
                    _ => Cause::NoWorker,
                };
                return Poll::Ready(Err(cause.into()));
            }
            Poll::Pending
        })
        .await;
        self.exchange.add_wait(since.elapsed());
        turn
    }

    fn no_link(&self, slot: &Slot, why: NoLink, last: NoLink) {
        self.to.app.upstream.cool_down(&slot.peer, why);
        if why == NoLink::NoDescriptor && last != NoLink::NoDescriptor {
            self.to.pool.report_few_descriptors(&self.to.app.upstream);
        }
        if why == NoLink::Refused && last != NoLink::Refused {
            let socket = slot.socket().display().to_string();
            let worker = &slot.peer.name.worker;
            self.to.pool.report_trouble(worker, TroubleCause::Refused, &socket);
        }
    }

    fn report(&self, slot: &Slot, failure: Failure) {
        let Ok((cause, detail)) = failure.trouble() else { return };
        let path = String::from_utf8_lossy(self.exchange.request().path());
        let id = String::from_utf8_lossy(self.exchange.id());
        let detail = format!("{detail} (path {path}, request {id})");
        self.to.pool.report_trouble(&slot.peer.name.worker, cause, &detail);
    }

    /// Sends the request on a connection and reads the head of the answer.
    async fn attempt(
        &mut self,
        slot: &mut Slot,
        link: &mut Link,
        upload: &mut Upload<'_>,
    ) -> Result<(), Failure> {
        self.reply.ahead.clear();
        let limits = self.exchange.settings().answer_head;
        let mut attempt = Attempt {
            exchange: self.exchange,
            reply: self.reply,
            scan: HeadScan::new(limits.bytes as usize),
            limits,
            interim: 0,
            send_failed: false,
            deadline: None,
            patience: Duration::from_millis(self.to.app.spec.timeout_ms),
        };
        poll_fn(|cx| attempt.poll(cx, slot, link, upload)).await
    }
}

/// One try with one worker.
struct Attempt<'r, 'x> {
    exchange: &'r mut Exchange<'x>,
    reply: &'r mut Reply,
    scan: HeadScan,
    limits: HeadLimits,
    /// How many interim answers there were.
    interim: u32,
    send_failed: bool,
    /// When the worker's time ends; it begins anew with whatever the worker takes or
    /// sends, and while the client is waited for.
    deadline: Option<Instant>,
    patience: Duration,
}

impl Attempt<'_, '_> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        slot: &mut Slot,
        link: &mut Link,
        upload: &mut Upload<'_>,
    ) -> Poll<Result<(), Failure>> {
        self.send(cx, link, upload)?;
        loop {
            let ahead = &mut self.reply.ahead;
            // No buffer is held while there is nothing to read.
            if ahead.is_idle() && link.wire.poll_readable(cx).is_pending() {
                break;
            }
            // The scan limits how large it becomes.
            ahead.grow_if_full();
            match link.wire.poll_read(cx, ahead.room()) {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) if count > 0 => {
                    ahead.advance(count);
                    if self.read_head(upload.is_finished())? {
                        return Poll::Ready(Ok(()));
                    }
                    self.deadline = Some(Instant::now() + self.patience);
                }
                Poll::Ready(end) => {
                    return Poll::Ready(Err(self.ended(link, upload, end.err())));
                }
            }
        }
        if slot.worker_is_gone(cx, &link.wire) {
            return Poll::Ready(Err(self.ended(link, upload, None)));
        }
        self.watch_client(cx)?;
        match self.deadline {
            Some(deadline) if self.exchange.has_passed(cx, deadline) => {
                Poll::Ready(Err(Failure::Timeout))
            }
            _ => Poll::Pending,
        }
    }

    fn watch_client(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        let exchange = &mut *self.exchange;
        // While a body is sent on, the upload watches the client.
        let watches = self.send_failed || !exchange.awaits_body();
        if watches && exchange.client_has_gone(cx) && !exchange.settings().ignore_client_abort {
            return Err(Failure::Client(Fault::Gone));
        }
        // Interim answers are passed on at once; a client that takes none is noticed later.
        let _ = exchange.poll_flush(cx);
        Ok(())
    }

    /// Goes on sending. A worker that takes no more may have answered all the same.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        link: &mut Link,
        upload: &mut Upload<'_>,
    ) -> Result<(), Failure> {
        if self.send_failed || upload.is_finished() {
            return Ok(());
        }
        let took = match upload.send(cx, &mut link.wire, self.exchange) {
            Ok(took) => took,
            Err(SendFault::Worker) if upload.is_unsent() => return Err(Failure::Unsent),
            Err(SendFault::Worker) => {
                self.send_failed = true;
                true
            }
            Err(SendFault::Client(fault)) => return Err(Failure::Client(fault)),
        };
        if took || self.deadline.is_none() {
            self.deadline = Some(Instant::now() + self.patience);
        }
        Ok(())
    }

    /// True when the final head has been read; interim ones are passed on. `is_sent`: the
    /// worker has the whole request.
    fn read_head(&mut self, is_sent: bool) -> Result<bool, Failure> {
        let malformed = |refusal: Refusal| match refusal.status {
            431 => Failure::Malformed(TOO_LARGE),
            _ => Failure::Malformed(refusal.reason),
        };
        let request = self.exchange.request();
        let Reply { head, ahead } = &mut *self.reply;
        while let Some(length) = self.scan.find_end(ahead.filled()).map_err(malformed)? {
            let is_head = request.method() == b"HEAD";
            let fields_max = self.limits.fields as usize;
            head.read(&ahead.filled()[..length], is_head, fields_max).map_err(malformed)?;
            ahead.consume(length);
            self.scan = HeadScan::new(self.limits.bytes as usize);
            if head.status == 101 && !request.upgrade {
                return Err(Failure::Malformed("an upgrade that nobody asked for"));
            }
            // What follows the request belongs to the new protocol, which cannot begin
            // before (RFC 9110, 7.8).
            if head.status == 101 && !is_sent {
                return Err(Failure::Malformed("an upgrade before the end of the request"));
            }
            if !head.is_interim() {
                return Ok(true);
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(Failure::Malformed("too many interim answers"));
            }
            if head.status != 100 {
                heads::put_interim(self.exchange, head);
            }
            if ahead.is_empty() {
                break;
            }
        }
        Ok(false)
    }

    fn ended(&self, link: &Link, upload: &Upload<'_>, why: Option<io::Error>) -> Failure {
        let is_reset = why.as_ref().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionReset);
        let is_unix = matches!(link.wire, Wire::Unix(_));
        if !self.reply.ahead.is_empty() || self.interim > 0 {
            Failure::Early
        } else if is_reset && is_unix && upload.was_one_short_write() {
            Failure::Unread
        } else {
            Failure::Silent { reused: link.reused }
        }
    }
}
