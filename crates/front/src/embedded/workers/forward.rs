//! A request to an app: its body, a slot, a connection, the answer; and what happens
//! when a worker goes away in the middle of that.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mfserv_core::route::{ServerSettings, Slots};
use tokio::time::Instant;

use crate::embedded::clients::access_log::Visit;
use crate::embedded::clients::connection::Client;
use crate::embedded::io::buffer::Lent;
use crate::embedded::lanes::lane::Lane;
use crate::embedded::request::state::App;
use crate::embedded::workers::heads::{self, Told};
use crate::embedded::workers::relay;
use crate::embedded::workers::tunnel;
use crate::embedded::workers::upload::{BodyFault, SendFault, Upload};
use crate::embedded::workers::upstream::{Link, NoLink, Peer, Slot, Taken};
use mfserv_h1::{HeadScan, Refusal, RequestHead, ResponseHead};

/// Interim answers (1xx) of one request at most.
const INTERIM_MAX: u32 = 16;

/// How a request to an app ended when it did not end well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The client gets this status with this cause, in one word.
    Answer(u16, &'static str),
    /// The client has gone.
    Gone,
    /// The answer had begun and cannot be finished.
    Cut,
}

/// Why a worker gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// Nothing of the request was sent.
    Unsent,
    /// It was reset with the request unread.
    Unread,
    /// It ended, or was reset, before it said anything.
    Silent(&'static str),
    /// It ended in the middle of the head.
    Early,
    /// What it said is no answer.
    Malformed(&'static str),
    /// It said nothing in time.
    Timeout,
    /// The client is to blame.
    Client(Fault),
}

/// A request on its way to an app.
pub struct Forwarding<'a> {
    /// The thread that serves it.
    pub lane: &'a Lane,
    /// Who asks.
    pub client: &'a mut Client,
    /// What.
    pub head: &'a RequestHead,
    /// Its line in the log.
    pub visit: &'a mut Visit,
    /// The app.
    pub app: &'a App,
    /// The listening side's settings.
    pub settings: &'a ServerSettings,
    /// The answer's head.
    pub reply: &'a mut ResponseHead,
    /// What the worker sent and nobody has used yet.
    pub back: &'a mut Lent,
}

/// What has been tried.
#[derive(Default)]
struct Tries {
    count: u32,
    first: Option<Arc<Peer>>,
    first_died_of_it: bool,
    avoid: Option<Arc<Peer>>,
    /// How long it may wait for slots, from the first time it has to.
    wait_until: Option<Instant>,
}

impl Forwarding<'_> {
    /// The whole life of it.
    pub async fn run(mut self) -> Result<(), Fault> {
        let finite = matches!(self.app.spec.slots, Slots::Finite { .. });
        let lane = self.lane;
        let how = (finite, &lane.front.spooled);
        let received =
            Upload::receive(self.client, self.head, self.settings, how, self.visit.began).await;
        // Without its body, what follows it cannot be understood.
        self.visit.keep &= received.is_ok();
        let mut upload = received.map_err(of_body)?;
        let answered = self.answered(&mut upload).await;
        if answered.is_err() {
            self.visit.keep &= !upload.is_incomplete();
        }
        let (mut slot, link) = answered?;
        slot.answered(self.reply.status);
        if self.reply.status == 101 {
            return tunnel::run(self, slot, link).await;
        }
        relay::run(self, slot, link, upload).await
    }

    /// Until a worker has sent the head of an answer.
    async fn answered(&mut self, upload: &mut Upload<'_>) -> Result<(Slot, Link), Fault> {
        let mut tries = Tries::default();
        let mut last = NoLink::Busy;
        loop {
            let mut slot = self.slot(&mut tries, last).await?;
            let mut link = match slot.link(tries.count > 0).await {
                Ok(link) => link,
                Err(why) => {
                    self.no_link(&slot, why, last);
                    last = why;
                    tries.avoid = Some(slot.peer.clone());
                    continue;
                }
            };
            let keep_alive = self.app.spec.keep_alive && !slot.peer.is_unruly();
            upload.begin(|out, upload| {
                let told = Told {
                    address: self.client.address_text(),
                    id: &self.visit.id,
                    trusted: self.visit.trusted,
                    length: upload.length(),
                    keep_alive,
                };
                heads::put_request(out, self.head, self.settings, told);
            });
            let failure = match self.attempt(&mut slot, &mut link, upload).await {
                Ok(()) => return Ok((slot, link)),
                Err(failure) => failure,
            };
            drop(link);
            let again = tries.allow(
                failure,
                &slot,
                self.head.is_safe() && upload.can_be_repeated(),
                upload,
            );
            self.report(&slot, failure);
            if !again {
                return Err(of_failure(failure));
            }
            self.app.upstream.count_retry();
        }
    }

    /// A slot, now or when it is this request's turn.
    async fn slot(&mut self, tries: &mut Tries, last: NoLink) -> Result<Slot, Fault> {
        let mut waiting = match self.app.upstream.take(self.lane.number, tries.avoid.as_ref()) {
            Taken::Slot(slot) => return Ok(slot),
            Taken::Waiting(waiting) => waiting,
            Taken::Full => return Err(Fault::Answer(503, "queue_full")),
            Taken::Removed => return Err(Fault::Answer(503, "removed")),
        };
        let wait = Duration::from_millis(self.app.spec.queue_timeout_ms);
        let deadline = *tries.wait_until.get_or_insert_with(|| Instant::now() + wait);
        poll_fn(|cx| {
            if let Poll::Ready(called) = Pin::new(&mut waiting).poll(cx) {
                return Poll::Ready(called.ok_or(Fault::Answer(503, "removed")));
            }
            if self.client.has_gone(cx) && !self.settings.ignore_client_abort {
                return Poll::Ready(Err(Fault::Gone));
            }
            if self.client.alarm.rings(cx, deadline) {
                return Poll::Ready(Err(match last {
                    NoLink::Refused => Fault::Answer(502, "refused"),
                    NoLink::Busy if self.app.upstream.has_admitted() => {
                        Fault::Answer(503, "queue_timeout")
                    }
                    NoLink::Busy => Fault::Answer(503, "no_worker"),
                }));
            }
            Poll::Pending
        })
        .await
    }

    fn no_link(&self, slot: &Slot, why: NoLink, last: NoLink) {
        self.app.upstream.rest(&slot.peer, why);
        if why == NoLink::Refused && last != NoLink::Refused {
            let socket = slot.socket().display().to_string();
            self.lane.front.trouble(&slot.peer.name.worker, "refused", &socket);
        }
    }

    fn report(&self, slot: &Slot, failure: Failure) {
        let (cause, detail) = match failure {
            Failure::Unsent => ("reset", "before the request was sent"),
            Failure::Unread => ("reset", "with the request unread"),
            Failure::Silent(how) => ("reset", how),
            Failure::Early => ("early_end", "in the head of its answer"),
            Failure::Malformed(reason) => ("malformed", reason),
            Failure::Timeout => ("timeout", "before its answer"),
            Failure::Client(_) => return,
        };
        let target = String::from_utf8_lossy(self.head.path());
        let id = String::from_utf8_lossy(&self.visit.id);
        let detail = format!("{detail} (path {target}, request {id})");
        self.lane.front.trouble(&slot.peer.name.worker, cause, &detail);
    }

    /// Sends the request on a connection and reads the head of the answer.
    async fn attempt(
        &mut self,
        slot: &mut Slot,
        link: &mut Link,
        upload: &mut Upload<'_>,
    ) -> Result<(), Failure> {
        self.back.clear();
        let patience = Duration::from_millis(self.app.spec.timeout_ms);
        let mut exchange = Exchange {
            scan: HeadScan::default(),
            interim: 0,
            send_failed: false,
            deadline: None,
            patience,
        };
        poll_fn(|cx| exchange.poll(cx, self, slot, link, upload)).await
    }
}

/// One try with one worker.
struct Exchange {
    scan: HeadScan,
    interim: u32,
    send_failed: bool,
    /// When its patience ends; it begins anew with whatever the worker takes or says, and
    /// while the client is waited for.
    deadline: Option<Instant>,
    patience: Duration,
}

impl Exchange {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        of: &mut Forwarding<'_>,
        slot: &mut Slot,
        link: &mut Link,
        upload: &mut Upload<'_>,
    ) -> Poll<Result<(), Failure>> {
        self.send(cx, of, link, upload)?;
        loop {
            // Without a buffer while there is nothing to read.
            if of.back.is_idle() && link.wire.poll_readable(cx).is_pending() {
                break;
            }
            let room = of.back.room();
            if room.is_empty() {
                return Poll::Ready(Err(Failure::Malformed("its head is too large")));
            }
            match link.wire.poll_read(cx, room) {
                Poll::Pending => break,
                Poll::Ready(Ok(count)) if count > 0 => {
                    of.back.advance(count);
                    if self.read_head(of, upload.finished)? {
                        return Poll::Ready(Ok(()));
                    }
                    self.deadline = Some(Instant::now() + self.patience);
                }
                Poll::Ready(end) => {
                    return Poll::Ready(Err(self.ended(of, link, upload, end.err())));
                }
            }
        }
        if slot.worker_is_gone(cx) {
            return Poll::Ready(Err(self.ended(of, link, upload, None)));
        }
        // A client that is still sending is watched by the upload.
        let quiet = self.send_failed || !upload.is_incomplete();
        if quiet && of.client.has_gone(cx) && !of.settings.ignore_client_abort {
            return Poll::Ready(Err(Failure::Client(Fault::Gone)));
        }
        // Interim answers are not held back; a client that takes none is noticed later.
        let _ = of.client.poll_flush(cx);
        if self.deadline.is_some_and(|by| of.client.alarm.rings(cx, by)) {
            return Poll::Ready(Err(Failure::Timeout));
        }
        Poll::Pending
    }

    /// Goes on sending. A worker that takes no more may still have answered.
    fn send(
        &mut self,
        cx: &mut Context<'_>,
        of: &mut Forwarding<'_>,
        link: &mut Link,
        upload: &mut Upload<'_>,
    ) -> Result<(), Failure> {
        if self.send_failed || upload.finished {
            return Ok(());
        }
        let took = match upload.send(cx, &mut link.wire, of.client) {
            Ok(took) => took,
            Err(SendFault::Worker) if upload.is_unsent() => return Err(Failure::Unsent),
            Err(SendFault::Worker) => {
                self.send_failed = true;
                true
            }
            Err(SendFault::Body(fault)) => return Err(Failure::Client(of_body(fault))),
        };
        if took || self.deadline.is_none() {
            self.deadline = Some(Instant::now() + self.patience);
        }
        Ok(())
    }

    /// True when the final head has been read; interim ones are passed on. `sent`: the
    /// worker has the whole request.
    fn read_head(&mut self, of: &mut Forwarding<'_>, sent: bool) -> Result<bool, Failure> {
        let malformed = |refusal: Refusal| Failure::Malformed(refusal.reason);
        while let Some(length) = self.scan.find_end(of.back.filled()).map_err(malformed)? {
            let to_head = of.head.method() == b"HEAD";
            of.reply.read(&of.back.filled()[..length], to_head).map_err(malformed)?;
            of.back.consume(length);
            self.scan = HeadScan::default();
            if of.reply.status == 101 && !of.head.upgrade {
                return Err(Failure::Malformed("an upgrade that nobody asked for"));
            }
            // What follows the request belongs to the new protocol: it cannot begin before
            // (RFC 9110, 7.8).
            if of.reply.status == 101 && !sent {
                return Err(Failure::Malformed("an upgrade before the end of the request"));
            }
            if !of.reply.is_interim() {
                return Ok(true);
            }
            self.interim += 1;
            if self.interim > INTERIM_MAX {
                return Err(Failure::Malformed("too many interim answers"));
            }
            if of.reply.status != 100 && of.head.is_1_1 {
                heads::put_interim(&mut of.client.out, of.reply, of.settings);
            }
            if of.back.is_empty() {
                break;
            }
        }
        Ok(false)
    }

    fn ended(
        &self,
        of: &Forwarding<'_>,
        link: &Link,
        upload: &Upload<'_>,
        why: Option<io::Error>,
    ) -> Failure {
        let reset = why.as_ref().is_some_and(|e| e.kind() == io::ErrorKind::ConnectionReset);
        let unix = matches!(link.wire, crate::embedded::io::wire::Wire::Unix(_));
        if !of.back.is_empty() || self.interim > 0 {
            Failure::Early
        } else if reset && unix && upload.was_one_short_write() {
            Failure::Unread
        } else if link.reused {
            Failure::Silent("on a kept connection, without an answer")
        } else {
            Failure::Silent("on a new connection, without an answer")
        }
    }
}

impl Tries {
    /// Whether another worker may be asked after this. One retry; a second one only if
    /// the first worker did not die of the request.
    fn allow(&mut self, failure: Failure, slot: &Slot, safe: bool, upload: &Upload<'_>) -> bool {
        let harmless = matches!(failure, Failure::Unsent | Failure::Unread);
        let silent = matches!(failure, Failure::Silent(_));
        if !upload.can_be_repeated() || !(harmless || (silent && safe)) {
            return false;
        }
        self.count += 1;
        self.avoid = Some(slot.peer.clone());
        if self.count == 1 {
            let fresh = matches!(failure, Failure::Silent(how) if how.starts_with("on a new"));
            self.first_died_of_it = fresh;
            self.first = (!harmless).then(|| slot.peer.clone());
            return true;
        }
        let gone = self.first.as_ref().is_some_and(|peer| peer.gone.has_rung());
        self.count == 2 && !self.first_died_of_it && !gone
    }
}

fn of_body(fault: BodyFault) -> Fault {
    match fault {
        BodyFault::Refused(refusal) => Fault::Answer(refusal.status, "bad_body"),
        BodyFault::TooLarge => Fault::Answer(413, "too_large"),
        BodyFault::Gone => Fault::Gone,
        BodyFault::Late => Fault::Answer(408, "slow_body"),
        BodyFault::Disk => Fault::Answer(500, "disk"),
        BodyFault::NoRoom => Fault::Answer(503, "no_room"),
    }
}

fn of_failure(failure: Failure) -> Fault {
    match failure {
        Failure::Unsent | Failure::Unread | Failure::Silent(_) => Fault::Answer(502, "reset"),
        Failure::Early => Fault::Answer(502, "early_end"),
        Failure::Malformed(_) => Fault::Answer(502, "malformed"),
        Failure::Timeout => Fault::Answer(504, "timeout"),
        Failure::Client(fault) => fault,
    }
}
