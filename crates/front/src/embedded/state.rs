//! What all connections of a front share: the table in force, the apps, the logs.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::Arc;

use mfserv_core::names::WorkerId;
use mfserv_core::route::{Matcher, RouteTable, Slots, Target, UpstreamSpec};
use mfserv_core::wire::front::{Peer, Stats};
use tokio::sync::{Notify, watch};

use super::alarm::Bell;
use super::error_log::ErrorLog;
use super::log::Log;
use super::upstream::Upstream;

/// Reports of misbehaving workers that wait for the daemon at most.
const TROUBLES_MAX: usize = 256;

/// The routing that a request sees from its beginning to its end.
pub struct InForce {
    /// The plan's generation.
    pub generation: u64,
    /// The table.
    pub table: RouteTable,
    /// Its routes, ready to be looked up.
    pub matcher: Matcher,
    /// By route: the app it leads to.
    pub apps: Vec<Option<App>>,
}

/// An app with the settings of the table.
#[derive(Clone)]
pub struct App {
    /// Its peers and slots.
    pub upstream: Arc<Upstream>,
    /// Its settings.
    pub spec: Rc<UpstreamSpec>,
}

/// A front.
pub struct Front {
    in_force: RefCell<Option<Rc<InForce>>>,
    upstreams: RefCell<BTreeMap<String, Arc<Upstream>>>,
    /// Apps that the table no longer has, until their last request is over.
    leaving: RefCell<Vec<Arc<Upstream>>>,
    /// The node's state, as the daemon last said it.
    pub word: RefCell<String>,
    /// Rings when the front is to end.
    pub closing: Arc<Bell>,
    /// Told when a first table is in force.
    pub published: Notify,
    /// Changes when a worker has drained or did not behave: the daemon wants to know.
    pub stir: Arc<watch::Sender<u64>>,
    /// Told when a client connection has been closed.
    pub closed: Notify,
    /// Told when an idle connection to a worker was kept.
    pub parked: Notify,
    troubles: RefCell<VecDeque<(WorkerId, &'static str)>>,
    /// The access log.
    pub access: Log,
    /// The error log.
    pub errors: ErrorLog,
    /// Client connections open now.
    pub connections: Cell<u64>,
    /// Client connections accepted.
    pub accepted: Cell<u64>,
    /// Requests answered.
    pub requests: Cell<u64>,
    /// Requests being read or answered now: reading, writing.
    pub busy: Cell<u64>,
    ids: RequestIds,
}

impl Front {
    /// A front without a table.
    pub fn new(access: Log, errors: ErrorLog) -> Rc<Self> {
        Rc::new(Self {
            in_force: RefCell::default(),
            upstreams: RefCell::default(),
            leaving: RefCell::default(),
            word: RefCell::new("UNKNOWN".into()),
            closing: Arc::default(),
            published: Notify::new(),
            stir: Arc::new(watch::Sender::new(0)),
            closed: Notify::new(),
            parked: Notify::new(),
            troubles: RefCell::default(),
            access,
            errors,
            connections: Cell::new(0),
            accepted: Cell::new(0),
            requests: Cell::new(0),
            busy: Cell::new(0),
            ids: RequestIds::new(),
        })
    }

    /// The table in force.
    pub fn in_force(&self) -> Option<Rc<InForce>> {
        self.in_force.borrow().clone()
    }

    /// The generation in force; 0 = none.
    pub fn generation(&self) -> u64 {
        self.in_force.borrow().as_ref().map_or(0, |in_force| in_force.generation)
    }

    /// Takes a table over. On an error nothing has changed.
    pub fn publish(
        &self,
        generation: u64,
        table: RouteTable,
        peers: &BTreeMap<String, Vec<Peer>>,
    ) -> Result<(), String> {
        if generation < self.generation() {
            return Err(format!("generation {} is in force", self.generation()));
        }
        let matcher = Matcher::new(&table)?;
        check(&table, peers)?;
        let upstreams = self.renew_upstreams(&table, peers);
        let specs: BTreeMap<&String, Rc<UpstreamSpec>> =
            table.upstreams.iter().map(|(name, spec)| (name, Rc::new(spec.clone()))).collect();
        let app = |name: &String| {
            Some(App { upstream: upstreams.get(name)?.clone(), spec: specs.get(name)?.clone() })
        };
        let apps = table
            .routes
            .iter()
            .map(|route| match &route.target {
                Target::Upstream { name } => app(name),
                _ => None,
            })
            .collect();
        let in_force = InForce { generation, matcher, apps, table };
        *self.in_force.borrow_mut() = Some(Rc::new(in_force));
        *self.upstreams.borrow_mut() = upstreams;
        self.published.notify_waiters();
        self.stir.send_modify(|count| *count += 1);
        Ok(())
    }

    /// The apps of a new table: those that stay keep their requests and connections.
    fn renew_upstreams(
        &self,
        table: &RouteTable,
        peers: &BTreeMap<String, Vec<Peer>>,
    ) -> BTreeMap<String, Arc<Upstream>> {
        let mut old = self.upstreams.borrow().clone();
        let mut upstreams = BTreeMap::new();
        for (name, spec) in &table.upstreams {
            let upstream = old
                .remove(name)
                .unwrap_or_else(|| Upstream::new(name.clone(), spec, self.stir.clone()));
            upstream.set_spec(spec);
            let names = peers.get(name).map_or(&[][..], Vec::as_slice);
            names.iter().for_each(|peer| upstream.admit(peer));
            upstream.keep_only(names);
            upstreams.insert(name.clone(), upstream);
        }
        for removed in old.into_values() {
            removed.remove();
            self.leaving.borrow_mut().push(removed);
        }
        self.leaving.borrow_mut().retain(|upstream| !upstream.is_empty());
        upstreams
    }

    /// An app of the table in force.
    pub fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        self.upstreams.borrow().get(name).cloned()
    }

    /// All apps of the table in force.
    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        self.upstreams.borrow().values().cloned().collect()
    }

    /// True while anything of a worker is in use: a request, a connection.
    pub fn holds(&self, upstream: &str, worker: &WorkerId) -> bool {
        let leaving = self.leaving.borrow();
        let left = leaving.iter().filter(|one| one.name == upstream);
        self.upstream(upstream).iter().chain(left).any(|one| one.holds(worker))
    }

    /// A worker is dead.
    pub fn forget(&self, upstream: &str, worker: &WorkerId) {
        let leaving = self.leaving.borrow();
        let left = leaving.iter().filter(|one| one.name == upstream);
        self.upstream(upstream).iter().chain(left).for_each(|one| one.forget(worker));
    }

    /// Closes idle connections to workers whose time has come. True if some are left.
    pub fn sweep(&self, all: bool) -> bool {
        let now = tokio::time::Instant::now();
        self.upstreams().iter().filter(|one| one.sweep(now, all)).count() > 0
    }

    /// A worker did not behave: into the error log, and to the daemon.
    pub fn trouble(&self, worker: &WorkerId, cause: &'static str, detail: &str) {
        self.errors.say(&format!("worker {worker}: {cause}: {detail}"));
        let mut troubles = self.troubles.borrow_mut();
        if troubles.len() < TROUBLES_MAX {
            troubles.push_back((worker.clone(), cause));
            self.stir.send_modify(|count| *count += 1);
        }
    }

    /// The next report for the daemon.
    pub fn next_trouble(&self) -> Option<(WorkerId, &'static str)> {
        self.troubles.borrow_mut().pop_front()
    }

    /// The counters.
    pub fn stats(&self) -> Stats {
        let upstreams = self.upstreams.borrow();
        Stats {
            connections: self.connections.get(),
            accepted: self.accepted.get(),
            requests: self.requests.get(),
            upstreams: upstreams.iter().map(|(name, one)| (name.clone(), one.stats())).collect(),
        }
    }

    /// A new request id: 32 lower-case hexadecimal digits.
    pub fn new_id(&self, id: &mut Vec<u8>) {
        self.ids.next(id);
    }
}

/// What [`Matcher::new`] does not see of a table that cannot be used.
fn check(table: &RouteTable, peers: &BTreeMap<String, Vec<Peer>>) -> Result<(), String> {
    for route in &table.routes {
        let of = || format!("route {:?} of {}/{}", route.prefix, route.plugin, route.app);
        match &route.target {
            Target::Upstream { name } if !table.upstreams.contains_key(name) => {
                return Err(format!("{} leads to an unknown app {name:?}", of()));
            }
            Target::Static { root } if !root.is_absolute() => {
                return Err(format!("{} has a root that is no absolute path", of()));
            }
            Target::Fixed { status, .. } if !(200..=599).contains(status) => {
                return Err(format!("{} answers with a bad status {status}", of()));
            }
            _ => {}
        }
    }
    for (name, spec) in &table.upstreams {
        if spec.slots == (Slots::Finite { per_worker: 0 }) {
            return Err(format!("app {name} has workers without slots"));
        }
    }
    if let Some(name) = peers.keys().find(|name| !table.upstreams.contains_key(*name)) {
        return Err(format!("there are workers of an unknown app {name:?}"));
    }
    Ok(())
}

/// Makes ids that no one has seen: a keyed hash of a counter, the key from the system.
struct RequestIds {
    keys: [RandomState; 2],
    count: Cell<u64>,
}

impl RequestIds {
    fn new() -> Self {
        Self { keys: [RandomState::new(), RandomState::new()], count: Cell::new(0) }
    }

    fn next(&self, id: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.count.get();
        self.count.set(count.wrapping_add(1));
        id.clear();
        for key in &self.keys {
            for byte in key.hash_one(count).to_be_bytes() {
                id.push(DIGITS[usize::from(byte >> 4)]);
                id.push(DIGITS[usize::from(byte & 15)]);
            }
        }
    }
}
