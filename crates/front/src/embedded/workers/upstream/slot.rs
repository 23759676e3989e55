//! A slot of a worker.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Waker};
use std::time::Duration;

use mfserv_core::wire::front::Address;
use tokio::net::UnixStream;
use tokio::time::Instant;

use super::asking::Asked;
use super::idle::{Heard, Idle};
use super::pull::{Answered, Loan, Return};
use super::{IDLE_MAX, Link, NoLink, Peer, SlotEnd, Upstream};
use crate::embedded::io::budget::Descriptor;
use crate::embedded::io::fastcgi::FastCgi;
use crate::embedded::io::loopback::{self, NoConnection};
use crate::embedded::io::signal::Subscription;
use crate::embedded::io::wire::Wire;
use crate::embedded::workers::pool::Pool;

/// What a worker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http,
    /// FastCGI, with one request on a connection.
    FastCgi,
}

/// The right to have one request in a worker; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    upstream: Arc<Upstream>,
    /// The worker.
    pub peer: Arc<Peer>,
    lane: usize,
    asked: Asked,
    since: Instant,
    gone: Subscription,
    /// The idle connection that came with the slot.
    idle: Option<Idle>,
    /// The status of the answer; counted when the slot is given back.
    status: Option<u16>,
    /// The worker has sent the whole answer.
    is_over: bool,
    /// The worker has taken the request from the queue.
    was_pulled: bool,
    /// Where its connection goes back to, if it was lent.
    back: Option<Return>,
}

impl Slot {
    pub(super) fn new(
        upstream: Arc<Upstream>,
        peer: Arc<Peer>,
        lane: usize,
        idle: Option<Idle>,
        asked: Asked,
    ) -> Self {
        let gone = Subscription::new(peer.gone.clone());
        let since = Instant::now();
        let (status, is_over, was_pulled, back) = (None, false, false, None);
        Self { upstream, peer, lane, asked, since, gone, idle, status, is_over, was_pulled, back }
    }

    /// The slot of a worker that has taken the request from the queue.
    pub(super) fn pulled(
        upstream: Arc<Upstream>,
        answered: &Answered,
        lane: usize,
        asked: Asked,
    ) -> Self {
        let mut slot = Self::new(upstream, answered.peer.clone(), lane, None, asked);
        slot.since = slot.since.checked_sub(answered.took).unwrap_or(slot.since);
        slot.was_pulled = true;
        slot
    }

    /// The connection on which the answer of a worker that pulls goes on; one without another byte
    /// if it has come as a whole.
    pub fn lent(&mut self, loan: Option<Loan>) -> Link {
        let Some(loan) = loan else {
            return Link { wire: Wire::Ended, reused: true, descriptor: None };
        };
        let (wire, descriptor, back) = loan.take();
        self.back = Some(back);
        Link { wire, reused: true, descriptor: Some(descriptor) }
    }

    /// Gives the slot back with a connection that was lent: the answer has been read.
    pub fn give_back(mut self, link: Link) {
        self.is_over = true;
        if let (Some(back), Some(descriptor)) = (self.back.take(), link.descriptor) {
            back.give_back(link.wire, descriptor);
        }
    }

    /// True if the worker has taken the request from the queue.
    pub fn was_pulled(&self) -> bool {
        self.was_pulled
    }

    /// When the worker began with the request.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// A connection to the worker: an idle one, or a new one. With `fresh` a new one, for
    /// which the idle one is closed: a worker never has more connections than slots.
    pub async fn link(&mut self, fresh: bool, speaks: Speaks) -> Result<Link, NoLink> {
        let idle = self.idle.take().filter(|_| !fresh);
        if let Some((wire, descriptor)) = idle.and_then(|idle| self.reuse(idle)) {
            return Ok(Link { wire, reused: true, descriptor: Some(descriptor) });
        }
        let descriptor = self.upstream.descriptors.take().ok_or(NoLink::NoDescriptor)?;
        let wire = self.connect(speaks).await?;
        if self.peer.refusals.load(Ordering::Relaxed) != 0 {
            self.peer.refusals.store(0, Ordering::Relaxed);
        }
        Ok(Link { wire, reused: false, descriptor: Some(descriptor) })
    }

    async fn connect(&self, speaks: Speaks) -> Result<Wire, NoLink> {
        let failed = |why: io::Error| match is_out_of_descriptors(&why) {
            true => NoLink::NoDescriptor,
            false => NoLink::Refused,
        };
        match &self.peer.name.address {
            Address::Socket(path) => match UnixStream::connect(path).await {
                Ok(stream) if speaks == Speaks::FastCgi => {
                    Ok(Wire::FastCgi(Box::new(FastCgi::new(stream))))
                }
                Ok(stream) => Ok(Wire::Unix(stream)),
                // The backlog of a unix socket is full.
                Err(why) if why.kind() == io::ErrorKind::WouldBlock => Err(NoLink::Busy),
                Err(why) => Err(failed(why)),
            },
            Address::Port { port, uid } => match loopback::connect(*port, *uid).await {
                Ok(stream) => Ok(Wire::Tcp(stream)),
                Err(NoConnection::Busy) => Err(NoLink::Busy),
                Err(NoConnection::Foreign(uid)) => Err(NoLink::Foreign(uid)),
                Err(NoConnection::Failed(why)) => Err(failed(why)),
            },
        }
    }

    /// An idle connection that can still be used, registered with the reactor of this lane.
    fn reuse(&self, mut idle: Idle) -> Option<(Wire, Descriptor)> {
        if idle.until <= Instant::now() {
            return None;
        }
        let wire = match idle.listen(Waker::noop()) {
            Heard::Nothing if idle.lane == self.lane => Some(idle.wire),
            Heard::Nothing => idle.wire.moved_here(),
            Heard::End => None,
            Heard::Speech => {
                self.upstream.distrust(&self.peer);
                None
            }
        };
        wire.map(|wire| (wire, idle.descriptor))
    }

    /// Records the status of the answer; it is counted when the slot is given back.
    pub fn answered(&mut self, status: u16) {
        self.status = Some(status);
    }

    /// Gives the slot back: the worker has sent the whole answer.
    pub fn end(mut self) {
        self.is_over = true;
    }

    /// Gives the slot back with its connection, which can carry another request: the worker
    /// has sent the whole answer.
    pub fn park(mut self, link: Link, announced_s: Option<u64>) {
        self.is_over = true;
        let announced = announced_s.map_or(IDLE_MAX, |s| Duration::from_secs(s.saturating_sub(1)));
        let life = announced.min(IDLE_MAX);
        if life.is_zero() || self.peer.is_unruly() {
            return;
        }
        let Link { wire, descriptor: Some(descriptor), .. } = link else { return };
        let until = Instant::now() + life;
        let mut idle = Idle { wire, descriptor, lane: self.lane, until };
        match idle.listen(&self.upstream.watch) {
            Heard::Nothing => self.idle = Some(idle),
            Heard::End => {}
            Heard::Speech => self.distrust(),
        }
    }

    /// The worker has sent bytes that nobody asked for.
    pub fn distrust(&self) {
        self.upstream.distrust(&self.peer);
    }

    /// Something is not as the app wants it.
    pub fn warn(&self, pool: &Pool, what: &str) {
        pool.warn_of(&self.upstream, what);
    }

    /// True if the worker is known to be dead and `wire` holds nothing more of it (its last bytes
    /// may be seen after the news); else the calling task is woken when one of both changes.
    pub fn worker_is_gone(&mut self, cx: &Context<'_>, wire: &Wire) -> bool {
        self.gone.is_raised(cx) && !wire.has_unread()
    }

    /// Where the worker takes connections.
    pub fn address(&self) -> &Address {
        &self.peer.name.address
    }
}

/// True if this process, or the system, has no descriptors left.
fn is_out_of_descriptors(why: &io::Error) -> bool {
    let codes = [rustix::io::Errno::MFILE, rustix::io::Errno::NFILE];
    codes.iter().any(|code| why.raw_os_error() == Some(code.raw_os_error()))
}

impl Drop for Slot {
    fn drop(&mut self) {
        let held = Some(self.since.elapsed());
        let (status, is_over, was_pulled) = (self.status, self.is_over, self.was_pulled);
        let end = SlotEnd { status, is_over, held, was_pulled };
        let idle = self.idle.take();
        self.upstream.release(&self.peer, &self.asked, idle, end);
    }
}
