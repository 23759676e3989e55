//! One try with one worker: the request is sent, and the head of the answer is read.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use mfserv_core::route::HeadLimits;
use mfserv_h1::{HeadScan, Refusal};
use tokio::time::Instant;

use super::Forwarding;
use crate::embedded::clients::exchange::Exchange;
use crate::embedded::clients::fault::Fault;
use crate::embedded::io::fastcgi::fastcgi_fault;
use crate::embedded::io::wire::{Stream, Wire};
use crate::embedded::workers::destination::Reply;
use crate::embedded::workers::failure::Failure;
use crate::embedded::workers::heads;
use crate::embedded::workers::upload::{SendFault, Upload};
use crate::embedded::workers::upstream::{Link, Slot};

/// The most interim answers (1xx) to one request.
const INTERIM_MAX: u32 = 16;
const TOO_LARGE: &str =
    "its head is larger than [front] answer_head_max or answer_fields_max allow";

impl Forwarding<'_, '_> {
    /// Sends the request on a connection and reads the head of the answer, of which `came` has
    /// come already.
    pub(super) async fn attempt(
        &mut self,
        slot: &mut Slot,
        link: &mut Link,
        upload: &mut Upload<'_>,
        came: &[u8],
    ) -> Result<(), Failure> {
        self.reply.ahead.clear();
        self.reply.ahead.push(came);
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
        if !came.is_empty() && attempt.read_head(upload.is_finished())? {
            return Ok(());
        }
        if upload.is_finished() {
            attempt.deadline = Some(Instant::now() + attempt.patience);
        }
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
                    return Poll::Ready(Err(self.ended((slot, link), upload, end.err())));
                }
            }
        }
        if slot.worker_is_gone(cx, &link.wire) {
            return Poll::Ready(Err(self.ended((slot, link), upload, None)));
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

    fn ended(
        &self,
        (slot, link): (&Slot, &Link),
        upload: &Upload<'_>,
        why: Option<io::Error>,
    ) -> Failure {
        match why.as_ref().and_then(fastcgi_fault) {
            Some(fault) if fault.is_overload() => return Failure::Overloaded,
            Some(fault) => return Failure::Malformed(fault.reason()),
            None => {}
        }
        // A worker that pulls has read what it has begun with.
        let may_be_unread = !slot.was_pulled() && upload.was_one_short_write();
        let is_reset = why.as_ref().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionReset);
        let is_unix = matches!(link.wire, Wire::Unix(_));
        if !self.reply.ahead.is_empty() || self.interim > 0 {
            Failure::Early
        } else if is_reset && is_unix && may_be_unread {
            Failure::Unread
        } else {
            Failure::Silent { reused: link.reused }
        }
    }
}
