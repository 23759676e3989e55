//! An app as the front sees it: its peers, their slots and idle connections, and the
//! requests that wait. What is decided is `mfserv_core::peers`; here it is carried out.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use mfserv_core::names::WorkerId;
use mfserv_core::peers::{HandedOver, PeerKey, Roster, Take, Ticket};
use mfserv_core::route::UpstreamSpec;
use mfserv_core::wire::front::{Peer as PeerName, UpstreamStats};
use tokio::net::UnixStream;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::alarm::{Bell, Ear};
use super::wire::Wire;

/// No idle connection to a worker is kept longer.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// Idle connections kept to one worker at most.
const IDLE_COUNT: usize = 128;

/// One worker.
#[derive(Debug)]
pub struct Peer {
    key: PeerKey,
    /// Its name and socket.
    pub name: PeerName,
    /// Rings when the worker is known to be dead.
    pub gone: Arc<Bell>,
    idle: Mutex<Vec<Idle>>,
    /// Connections that it did not take, one after the other.
    refusals: AtomicU32,
}

#[derive(Debug)]
struct Idle {
    wire: Wire,
    until: Instant,
}

/// An app's peers and slots.
#[derive(Debug)]
pub struct Upstream {
    /// `PLUGIN/APP`.
    pub name: String,
    inner: Mutex<Inner>,
    /// Changes when a draining peer holds nothing any more.
    drained: Arc<watch::Sender<u64>>,
}

#[derive(Debug)]
struct Inner {
    roster: Roster,
    peers: HashMap<PeerKey, Arc<Peer>>,
    waiters: HashMap<Ticket, oneshot::Sender<Arc<Peer>>>,
    next_key: PeerKey,
    removed: bool,
    stats: UpstreamStats,
}

/// What a request gets.
#[derive(Debug)]
pub enum Taken {
    /// A slot.
    Slot(Slot),
    /// A place in the queue.
    Waiting(Waiting),
    /// The queue is full.
    Full,
    /// The app is no longer there.
    Removed,
}

/// The right to have one request in a worker; given back when dropped.
#[derive(Debug)]
pub struct Slot {
    upstream: Arc<Upstream>,
    /// The worker.
    pub peer: Arc<Peer>,
    ear: Ear,
}

/// A place in the queue; left when dropped.
#[derive(Debug)]
pub struct Waiting {
    upstream: Arc<Upstream>,
    ticket: Ticket,
    call: oneshot::Receiver<Arc<Peer>>,
    called: bool,
}

/// A connection to a worker.
#[derive(Debug)]
pub struct Link {
    /// The stream.
    pub wire: Wire,
    /// It has carried a request before.
    pub reused: bool,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoLink {
    /// Its backlog is full.
    Busy,
    /// Nobody listens.
    Refused,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Upstream {
    /// An app without peers.
    pub fn new(name: String, spec: &UpstreamSpec, drained: Arc<watch::Sender<u64>>) -> Arc<Self> {
        let inner = Inner {
            roster: Roster::new(spec.slots, spec.queue_max as usize),
            peers: HashMap::new(),
            waiters: HashMap::new(),
            next_key: 0,
            removed: false,
            stats: UpstreamStats::default(),
        };
        Arc::new(Self { name, inner: Mutex::new(inner), drained })
    }

    /// Asks for a slot, if possible not of the worker `avoid`.
    pub fn take(self: &Arc<Self>, avoid: Option<&Arc<Peer>>) -> Taken {
        let mut inner = lock(&self.inner);
        if inner.removed {
            return Taken::Removed;
        }
        match inner.roster.take(avoid.map(|peer| peer.key)) {
            Take::Slot(key) => match inner.peers.get(&key) {
                Some(peer) => Taken::Slot(Slot::new(self.clone(), peer.clone())),
                None => Taken::Removed,
            },
            Take::Wait(ticket) => {
                let (tell, call) = oneshot::channel();
                inner.waiters.insert(ticket, tell);
                inner.stats.queued += 1;
                Taken::Waiting(Waiting { upstream: self.clone(), ticket, call, called: false })
            }
            Take::Full => Taken::Full,
        }
    }

    /// True if any worker is admitted.
    pub fn has_admitted(&self) -> bool {
        lock(&self.inner).roster.has_admitted()
    }

    /// Takes over how requests are given out.
    pub fn set_spec(&self, spec: &UpstreamSpec) {
        let mut inner = lock(&self.inner);
        inner.removed = false;
        let handed = inner.roster.set_policy(spec.slots, spec.queue_max as usize);
        inner.deliver(handed);
    }

    /// Gives traffic to a worker.
    pub fn admit(&self, name: &PeerName) {
        let mut inner = lock(&self.inner);
        let known = inner.find(&name.worker).filter(|peer| !peer.gone.has_rung());
        let key = match known {
            Some(peer) => peer.key,
            None => inner.add(name.clone()),
        };
        let handed = inner.roster.admit(key);
        inner.deliver(handed);
    }

    /// Gives no more traffic to a worker and closes its idle connections.
    pub fn drain(&self, worker: &WorkerId) {
        let mut inner = lock(&self.inner);
        if let Some(peer) = inner.find(worker) {
            inner.drain(&peer);
            drop(inner);
            self.drained.send_modify(|count| *count += 1);
        }
    }

    /// The worker is dead: what it holds is told so.
    pub fn forget(&self, worker: &WorkerId) {
        let peer = lock(&self.inner).find(worker);
        if let Some(peer) = peer {
            self.drain(worker);
            peer.gone.ring();
        }
    }

    /// Only these workers stay.
    pub fn keep_only(&self, names: &[PeerName]) {
        let gone: Vec<WorkerId> = lock(&self.inner)
            .peers
            .values()
            .filter(|peer| !names.contains(&peer.name))
            .map(|peer| peer.name.worker.clone())
            .collect();
        gone.iter().for_each(|worker| self.drain(worker));
    }

    /// The app is no longer there: nobody waits for it any more.
    pub fn remove(&self) {
        self.keep_only(&[]);
        let mut inner = lock(&self.inner);
        inner.removed = true;
        let tickets: Vec<Ticket> = inner.waiters.drain().map(|(ticket, _)| ticket).collect();
        for ticket in tickets {
            inner.roster.give_up(ticket);
        }
    }

    /// True while a worker, draining or not, is still in use.
    pub fn holds(&self, worker: &WorkerId) -> bool {
        lock(&self.inner).find(worker).is_some()
    }

    /// True if it has no worker at all.
    pub fn is_empty(&self) -> bool {
        lock(&self.inner).peers.is_empty()
    }

    /// The admitted workers.
    pub fn admitted(&self) -> Vec<PeerName> {
        let inner = lock(&self.inner);
        let mut names: Vec<PeerName> = inner
            .peers
            .values()
            .filter(|peer| inner.roster.is_admitted(peer.key))
            .map(|peer| peer.name.clone())
            .collect();
        names.sort_by(|a, b| a.worker.cmp(&b.worker));
        names
    }

    /// The workers with what they hold, and whether they are admitted.
    pub fn peers(&self) -> Vec<(PeerName, u32, bool)> {
        let inner = lock(&self.inner);
        let mut peers: Vec<_> = inner
            .peers
            .values()
            .map(|peer| {
                let in_flight = inner.roster.in_flight(peer.key);
                (peer.name.clone(), in_flight, inner.roster.is_admitted(peer.key))
            })
            .collect();
        peers.sort_by(|a, b| a.0.worker.cmp(&b.0.worker));
        peers
    }

    /// Its counters.
    pub fn stats(&self) -> UpstreamStats {
        let inner = lock(&self.inner);
        let in_flight: BTreeMap<String, u64> = inner
            .peers
            .values()
            .map(|p| (p.name.worker.to_string(), u64::from(inner.roster.in_flight(p.key))))
            .collect();
        UpstreamStats { waiting: inner.roster.waiting() as u64, in_flight, ..inner.stats.clone() }
    }

    /// Counts an answer.
    pub fn count_answer(&self, status: u16) {
        let class = usize::from(status / 100).clamp(1, 5) - 1;
        lock(&self.inner).stats.by_class[class] += 1;
    }

    /// Counts a second try.
    pub fn count_retry(&self) {
        lock(&self.inner).stats.retried += 1;
    }

    /// Closes idle connections whose time has come (all of them if `all`). True if some
    /// are left.
    pub fn sweep(&self, now: Instant, all: bool) -> bool {
        let peers: Vec<Arc<Peer>> = lock(&self.inner).peers.values().cloned().collect();
        peers.iter().filter(|peer| peer.sweep(now, all)).count() > 0
    }

    /// A worker did not take a connection: the others are asked first for a moment, which
    /// grows while it goes on.
    pub fn rest(self: &Arc<Self>, peer: &Arc<Peer>, why: NoLink) {
        let times = peer.refusals.fetch_add(1, Ordering::Relaxed).min(5);
        let pause = Duration::from_millis(match why {
            NoLink::Busy => 2 << times,
            NoLink::Refused => 10 << times,
        });
        lock(&self.inner).roster.rest(peer.key);
        let (upstream, key) = (self.clone(), peer.key);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            let mut inner = lock(&upstream.inner);
            let handed = inner.roster.wake(key);
            inner.deliver(handed);
        });
    }

    fn release(&self, peer: &Peer) {
        let mut inner = lock(&self.inner);
        let handed = inner.roster.release(peer.key);
        inner.deliver(handed);
        if inner.strike_off_if_empty(peer.key) {
            drop(inner);
            self.drained.send_modify(|count| *count += 1);
        }
    }
}

impl Inner {
    fn find(&self, worker: &WorkerId) -> Option<Arc<Peer>> {
        self.peers.values().find(|peer| peer.name.worker == *worker).cloned()
    }

    fn add(&mut self, name: PeerName) -> PeerKey {
        let key = self.next_key;
        self.next_key += 1;
        let peer = Peer {
            key,
            name,
            gone: Arc::default(),
            idle: Mutex::default(),
            refusals: AtomicU32::new(0),
        };
        self.peers.insert(key, Arc::new(peer));
        key
    }

    fn drain(&mut self, peer: &Peer) {
        self.roster.drain(peer.key);
        lock(&peer.idle).clear();
        self.strike_off_if_empty(peer.key);
    }

    /// A draining peer that holds nothing is no longer known.
    fn strike_off_if_empty(&mut self, key: PeerKey) -> bool {
        let empty = !self.roster.is_admitted(key) && self.roster.in_flight(key) == 0;
        if empty {
            self.roster.remove(key);
            self.peers.remove(&key);
        }
        empty
    }

    /// Calls the waiting requests that have a slot now.
    fn deliver(&mut self, handed: Vec<HandedOver>) {
        let mut handed = handed;
        while let Some((ticket, key)) = handed.pop() {
            let peer = self.peers.get(&key).cloned();
            let waiter = self.waiters.remove(&ticket);
            let taken = match (waiter, peer) {
                (Some(waiter), Some(peer)) => waiter.send(peer).is_ok(),
                _ => false,
            };
            if !taken {
                handed.extend(self.roster.release(key));
            }
        }
    }
}

impl Peer {
    fn sweep(&self, now: Instant, all: bool) -> bool {
        let mut idle = lock(&self.idle);
        idle.retain(|one| !all && one.until > now);
        !idle.is_empty()
    }

    /// An idle connection that still lives.
    async fn idle_link(&self) -> Option<Wire> {
        loop {
            let idle = lock(&self.idle).pop()?;
            if idle.until <= Instant::now() {
                continue;
            }
            let mut wire = idle.wire;
            let quiet = std::future::poll_fn(|cx| {
                // Anything to read on an idle connection, its end included, is wrong.
                Poll::Ready(wire.poll_read(cx, &mut [0]).is_pending())
            });
            if quiet.await {
                return Some(wire);
            }
        }
    }
}

impl Slot {
    fn new(upstream: Arc<Upstream>, peer: Arc<Peer>) -> Self {
        let ear = Ear::new(peer.gone.clone());
        Self { upstream, peer, ear }
    }

    /// A connection to the worker: an idle one, or a new one. With `fresh`, only a new
    /// one; an idle one is closed for it, so that there are never more than slots.
    pub async fn link(&self, fresh: bool) -> Result<Link, NoLink> {
        let idle = self.peer.idle_link().await;
        if let (Some(wire), false) = (idle, fresh) {
            return Ok(Link { wire, reused: true });
        }
        match UnixStream::connect(&self.peer.name.socket).await {
            Ok(stream) => {
                self.peer.refusals.store(0, Ordering::Relaxed);
                Ok(Link { wire: Wire::Unix(stream), reused: false })
            }
            Err(why) if is_busy(&why) => Err(NoLink::Busy),
            Err(_) => Err(NoLink::Refused),
        }
    }

    /// The request is over and its connection can carry another one. True if it is kept.
    pub fn park(&self, wire: Wire, announced_s: Option<u64>) -> bool {
        let announced = announced_s.map_or(IDLE_MAX, |s| Duration::from_secs(s.saturating_sub(1)));
        let life = announced.min(IDLE_MAX);
        let inner = lock(&self.upstream.inner);
        let mut idle = lock(&self.peer.idle);
        let keep =
            !life.is_zero() && idle.len() < IDLE_COUNT && inner.roster.is_admitted(self.peer.key);
        if keep {
            idle.push(Idle { wire, until: Instant::now() + life });
        }
        keep
    }

    /// True if the worker is known to be dead; else the task is woken when it is.
    pub fn worker_is_gone(&mut self, cx: &Context<'_>) -> bool {
        self.ear.hears(cx)
    }

    /// The socket's path.
    pub fn socket(&self) -> &PathBuf {
        &self.peer.name.socket
    }
}

/// EAGAIN of connect(2) on a unix socket: the backlog is full. Out of descriptors is no
/// fault of the worker either.
fn is_busy(why: &io::Error) -> bool {
    let emfile = rustix::io::Errno::MFILE.raw_os_error();
    let enfile = rustix::io::Errno::NFILE.raw_os_error();
    why.kind() == io::ErrorKind::WouldBlock
        || why.raw_os_error().is_some_and(|code| code == emfile || code == enfile)
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.upstream.release(&self.peer);
    }
}

/// Ready with the slot when it is this request's turn; with `None` if the app is gone.
impl Future for Waiting {
    type Output = Option<Slot>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Slot>> {
        let called = std::task::ready!(Pin::new(&mut self.call).poll(cx));
        self.called = true;
        Poll::Ready(called.ok().map(|peer| Slot::new(self.upstream.clone(), peer)))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.called {
            return;
        }
        let mut inner = lock(&self.upstream.inner);
        inner.waiters.remove(&self.ticket);
        inner.roster.give_up(self.ticket);
        drop(inner);
        // Called, but too late to hear it: the slot goes to the next.
        if let Ok(peer) = self.call.try_recv() {
            self.upstream.release(&peer);
        }
    }
}
