//! An upstream: the workers of an app, their slots and idle connections, and the requests
//! that wait for a slot. `mfserv_core::peers` decides; here it is carried out.

mod asking;
mod backoff;
mod gate;
mod idle;
mod inner;
mod link;
mod peer;
mod pull;
mod quiet;
mod slot;
mod sticky;
mod taking;
mod waiting;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Waker;
use std::time::Duration;

use mfserv_core::names::WorkerId;
use mfserv_core::peers::{Pace, PeerKey, QUEUE, Roster, Ticket};
use mfserv_core::route::{Slots, UpstreamSpec};
use mfserv_core::wire::front::{Peer as PeerName, UpstreamStats};
use mfserv_platform::sync::lock;
use mfserv_scheduling::Company;
use tokio::sync::oneshot;
use tokio::time::Instant;

use self::asking::{Asked, Learnt};
pub use self::gate::Gate;
pub use self::idle::Swept;
use self::idle::{Heard, Idle};
pub use self::link::{Link, NoLink};
pub use self::peer::Peer;
pub use self::pull::{Answered, Begun, Lost, Turn};
use self::pull::{Pulling, Queue};
pub use self::slot::{Slot, Speaks};
pub use self::sticky::Client;
use super::wakeups::Wakeups;
use crate::embedded::io::budget::{AppDescriptors, Budget};

/// The longest time that an idle connection to a worker is kept.
const IDLE_MAX: Duration = Duration::from_secs(1);
/// The most idle connections that are kept to one worker.
const IDLE_COUNT: usize = 128;

/// An app's peers and slots.
#[derive(Debug)]
pub struct Upstream {
    /// `PLUGIN/APP`.
    pub name: String,
    /// Memory with what clients have not read yet of its answers, bytes.
    pub absorbed: Budget,
    /// What they have not read yet in files, bytes.
    pub answers: Budget,
    /// Bodies of its requests in files, bytes.
    pub bodies: Budget,
    /// Its connections to workers, and its files.
    pub descriptors: AppDescriptors,
    /// Open, unless it is in maintenance.
    pub gate: Gate,
    /// Until when all its workers wait for their next start; milliseconds since the Unix
    /// epoch, 0: they do not.
    backing_off: AtomicU64,
    /// When it was last said that one of the two is full.
    said_full: Mutex<Option<Instant>>,
    inner: Mutex<Inner>,
    wakeups: Arc<Wakeups>,
    company: Arc<Company>,
    /// Wakes the sweeper when something can be read from an idle connection.
    watch: Waker,
}

#[derive(Debug)]
struct Inner {
    roster: Roster,
    slots: Slots,
    timeout: Duration,
    members: Vec<Member>,
    /// Its workers are asked to pull.
    pulls: bool,
    /// Some of them have not been asked.
    has_unasked: bool,
    /// What they pull from, once one was asked.
    queue: Option<Arc<Queue>>,
    /// The requests in the queue, which has at most `queue_max` places.
    waiters: HashMap<Ticket, Waiter>,
    learnt: Learnt,
    next_key: PeerKey,
    removed: bool,
    stats: UpstreamStats,
}

/// A request in the queue.
#[derive(Debug)]
struct Waiter {
    /// Told the worker; `None` for the queue that workers pull from.
    tell: oneshot::Sender<Option<Arc<Peer>>>,
    pace: Pace,
}

/// A worker with its idle connections.
#[derive(Debug)]
struct Member {
    peer: Arc<Peer>,
    idle: Vec<Idle>,
    pulling: Pulling,
    /// Since when it has nothing in hand, unless it has a request.
    quiet_from: Instant,
}

/// What inner endpoints report of a worker.
#[derive(Debug, Clone)]
pub struct PeerState {
    /// Its name and socket.
    pub name: PeerName,
    /// How many requests it has.
    pub in_flight: u32,
    /// True if it gets traffic.
    pub serves: bool,
}

/// Where a request may go.
#[derive(Debug)]
pub enum Place {
    /// To this worker.
    Slot(Slot),
    /// Into the queue that workers pull from.
    Turn(Turn),
}

/// The answer to a request for a slot.
#[derive(Debug)]
pub enum Taken {
    /// A slot.
    Now(Place),
    /// A place in the queue.
    Waiting(Waiting),
    /// The queue is full.
    Full,
    /// The app has been removed.
    Removed,
    /// The app is in maintenance.
    Away,
}

/// A place in the queue; left when dropped.
#[derive(Debug)]
pub struct Waiting {
    upstream: Arc<Upstream>,
    lane: usize,
    ticket: Ticket,
    asked: Asked,
    call: oneshot::Receiver<Option<Arc<Peer>>>,
    called: bool,
    /// It waits for one worker.
    is_sticky: bool,
}

impl Upstream {
    /// An app without peers.
    pub fn new(
        name: String,
        spec: &UpstreamSpec,
        (wakeups, company): (Arc<Wakeups>, Arc<Company>),
        descriptors: AppDescriptors,
    ) -> Arc<Self> {
        let inner = Inner {
            roster: Roster::new(spec.slots, spec.queue_max as usize),
            slots: spec.slots,
            timeout: Duration::from_millis(spec.timeout_ms),
            members: Vec::new(),
            pulls: spec.pulls,
            has_unasked: false,
            queue: None,
            waiters: HashMap::new(),
            learnt: Learnt::new(spec, None),
            next_key: 0,
            removed: false,
            stats: UpstreamStats::default(),
        };
        Arc::new(Self {
            name,
            absorbed: Budget::default(),
            answers: Budget::default(),
            bodies: Budget::default(),
            descriptors,
            gate: Gate::new(spec.maintenance),
            backing_off: AtomicU64::new(0),
            said_full: Mutex::default(),
            inner: Mutex::new(inner),
            watch: Waker::from(wakeups.clone()),
            wakeups,
            company,
        })
    }

    /// True if any worker is admitted.
    pub fn has_admitted(&self) -> bool {
        lock(&self.inner).roster.has_admitted()
    }

    /// How long a worker may be silent.
    pub fn timeout(&self) -> Duration {
        lock(&self.inner).timeout
    }

    /// Takes over the policy of a new table.
    pub fn set_spec(&self, spec: &UpstreamSpec) {
        let mut inner = lock(&self.inner);
        inner.removed = false;
        inner.slots = spec.slots;
        inner.pulls = spec.pulls;
        inner.has_unasked = true;
        if !spec.pulls {
            let peers: Vec<_> = inner.members.iter().map(|member| member.peer.clone()).collect();
            peers.iter().for_each(|peer| inner.leave_queue(peer));
        }
        inner.learnt.set_spec(spec);
        inner.timeout = Duration::from_millis(spec.timeout_ms);
        let mut handed = inner.roster.set_policy(spec.slots, spec.queue_max as usize);
        if !inner.learnt.has_slow_lane() {
            handed.extend(inner.roster.hasten_all());
        }
        if spec.affinity.is_none() {
            handed.extend(inner.roster.loosen_all());
        }
        inner.deliver(handed);
    }

    /// Admits a worker: it gets traffic from now on.
    pub fn admit(&self, name: &PeerName) {
        name.pid.into_iter().for_each(|pid| self.company.join(pid));
        let mut inner = lock(&self.inner);
        let known = inner.find(&name.worker).filter(|peer| !peer.gone.is_raised());
        let key = match known {
            Some(peer) => {
                peer.leaving.lower();
                inner.has_unasked = true;
                peer.key
            }
            None => inner.add(name.clone()),
        };
        let handed = inner.roster.admit(key);
        inner.deliver(handed);
    }

    /// Drains a worker: it gets no more traffic, and its idle connections are closed.
    pub fn drain(&self, worker: &WorkerId) {
        let mut inner = lock(&self.inner);
        if let Some(peer) = inner.find(worker) {
            let closed = inner.drain(&peer);
            drop(inner);
            drop(closed);
            peer.leaving.raise();
            self.wakeups.report();
        }
    }

    /// The worker is dead: the requests that it has learn of it.
    pub fn forget(&self, worker: &WorkerId) {
        let peer = lock(&self.inner).find(worker);
        if let Some(peer) = peer {
            self.drain(worker);
            peer.gone.raise();
        }
    }

    /// Drains all workers but these.
    pub fn keep_only(&self, names: &[PeerName]) {
        let gone: Vec<WorkerId> = lock(&self.inner)
            .members
            .iter()
            .map(|member| &member.peer.name)
            .filter(|name| !names.iter().any(|kept| kept.is(name)))
            .map(|name| name.worker.clone())
            .collect();
        gone.iter().for_each(|worker| self.drain(worker));
    }

    /// The app has been removed: requests that wait for it are answered so.
    pub fn remove(&self) {
        self.keep_only(&[]);
        let mut inner = lock(&self.inner);
        inner.removed = true;
        inner.send_away();
        drop(inner);
        self.gate.set(None);
    }

    /// True if the app has been removed.
    pub fn is_removed(&self) -> bool {
        lock(&self.inner).removed
    }

    /// True while a worker, draining or not, is still in use.
    pub fn holds(&self, worker: &WorkerId) -> bool {
        lock(&self.inner).find(worker).is_some()
    }

    /// True if it has no worker at all.
    pub fn is_empty(&self) -> bool {
        lock(&self.inner).members.is_empty()
    }

    /// The admitted workers.
    pub fn admitted(&self) -> Vec<PeerName> {
        let inner = lock(&self.inner);
        let mut names: Vec<PeerName> = inner
            .members
            .iter()
            .filter(|member| inner.roster.is_admitted(member.peer.key))
            .map(|member| member.peer.name.clone())
            .collect();
        names.sort_by(|a, b| a.worker.cmp(&b.worker));
        names
    }

    /// The workers with what they hold.
    pub fn peers(&self) -> Vec<PeerState> {
        let inner = lock(&self.inner);
        let state = |member: &Member| PeerState {
            name: member.peer.name.clone(),
            in_flight: inner.in_flight(&member.peer),
            serves: inner.roster.is_admitted(member.peer.key)
                && !inner.roster.is_suspended(member.peer.key),
        };
        let mut peers: Vec<PeerState> = inner.members.iter().map(state).collect();
        peers.sort_by(|a, b| a.name.worker.cmp(&b.name.worker));
        peers
    }

    /// Suspends a worker: it gets no traffic until [`Upstream::resume`] or
    /// [`Upstream::admit`]. It keeps its requests; its idle connections are closed.
    pub fn suspend(&self, worker: &WorkerId) {
        let mut inner = lock(&self.inner);
        let Some(peer) = inner.find(worker) else { return };
        let handed = inner.roster.suspend(peer.key);
        inner.leave_queue(&peer);
        let closed = inner.take_idle(&peer);
        inner.deliver(handed);
        drop(inner);
        drop(closed);
    }

    /// Ends [`Upstream::suspend`].
    pub fn resume(&self, worker: &WorkerId) {
        let mut inner = lock(&self.inner);
        let Some(peer) = inner.find(worker) else { return };
        let handed = inner.roster.resume(peer.key);
        inner.has_unasked = true;
        inner.deliver(handed);
    }

    /// Its counters.
    pub fn stats(&self) -> UpstreamStats {
        let inner = lock(&self.inner);
        let in_flight: BTreeMap<String, u64> = inner
            .members
            .iter()
            .map(|member| &member.peer)
            .map(|p| (p.name.worker.to_string(), u64::from(inner.in_flight(p))))
            .collect();
        let (slow_in_flight, slow_waiting) = inner.roster.slow();
        UpstreamStats {
            waiting: inner.roster.waiting() as u64 + self.gate.waiting(),
            in_flight,
            slow_in_flight: slow_in_flight as u64,
            slow_waiting: slow_waiting as u64,
            slow_kinds: inner.learnt.slow_kinds(),
            ..inner.stats.clone()
        }
    }

    /// Counts a request that is tried again.
    pub fn count_retry(&self) {
        lock(&self.inner).stats.retried += 1;
    }

    /// Closes the idle connections that have been kept long enough (all of them if `all`),
    /// that the worker has ended, or on which it has sent something.
    pub fn sweep(&self, now: Instant, all: bool) -> Swept {
        let mut inner = lock(&self.inner);
        let (mut over, mut swept) = (Vec::new(), Swept::default());
        for member in &mut inner.members {
            let idle = std::mem::take(&mut member.idle);
            let (mut kept, mut ended): (Vec<Idle>, Vec<Idle>) =
                idle.into_iter().partition(|one| !all && one.until > now);
            for at in (0..kept.len()).rev() {
                let heard = kept[at].listen(&self.watch);
                if heard != Heard::Nothing {
                    ended.push(kept.swap_remove(at));
                }
                if heard == Heard::Speech {
                    member.peer.unruly.store(true, Ordering::Relaxed);
                }
            }
            if member.peer.is_unruly() {
                ended.append(&mut kept);
                if !member.peer.reported.swap(true, Ordering::Relaxed) {
                    swept.unruly.push(member.peer.name.worker.clone());
                }
            }
            member.idle = kept;
            over.push(ended);
            swept.left |= !member.idle.is_empty();
        }
        drop(inner);
        drop(over);
        swept
    }

    /// A worker has sent bytes that nobody asked for: its connections are kept no longer,
    /// and the next sweep reports it.
    pub fn distrust(&self, peer: &Peer) {
        if !peer.unruly.swap(true, Ordering::Relaxed) {
            self.wakeups.idle_readable();
        }
    }

    /// A worker did not take a connection: the others are asked first for a moment. The
    /// moment grows with each further refusal.
    pub fn cool_down(self: &Arc<Self>, peer: &Arc<Peer>, why: NoLink) {
        let times = peer.refusals.fetch_add(1, Ordering::Relaxed).min(5);
        let pause = Duration::from_millis(match why {
            NoLink::Busy | NoLink::NoDescriptor => 2 << times,
            NoLink::Refused | NoLink::Foreign(_) => 10 << times,
        });
        lock(&self.inner).roster.cool_down(peer.key);
        let (upstream, key) = (self.clone(), peer.key);
        tokio::task::spawn_local(async move {
            tokio::time::sleep(pause).await;
            let mut inner = lock(&upstream.inner);
            let handed = inner.roster.end_cool_down(key);
            inner.deliver(handed);
        });
    }

    /// Gives a slot back, with the connection to be kept and the status to be counted.
    fn release(&self, peer: &Peer, asked: &Asked, kept: Option<Idle>, end: SlotEnd) {
        let mut inner = lock(&self.inner);
        inner.note_end(peer.key, end.is_over);
        if let Some(status) = end.status {
            let class = usize::from(status / 100).clamp(1, 5) - 1;
            inner.stats.by_class[class] += 1;
        }
        if let Some(held) = end.held {
            inner.learnt.learn(asked, held, end.is_over);
        }
        let some = kept.is_some();
        let refused = kept.and_then(|idle| inner.keep(peer.key, idle));
        let key = if end.was_pulled { QUEUE } else { peer.key };
        let handed = inner.roster.release(key, asked.pace);
        inner.deliver(handed);
        let empty = inner.remove_if_empty(peer.key);
        drop(inner);
        if some && refused.is_none() {
            self.wakeups.idle_kept();
        }
        // Closed before it is reported that the worker has drained.
        drop(refused);
        if empty {
            self.wakeups.report();
        }
    }
}

/// How a slot was used.
#[derive(Debug, Default)]
struct SlotEnd {
    /// The status of the answer.
    status: Option<u16>,
    /// The worker has sent the whole answer.
    is_over: bool,
    /// How long a request had it.
    held: Option<Duration>,
    /// The worker has taken the request from the queue.
    was_pulled: bool,
}
