//! What all lanes of a front share: the table in force, the apps, the logs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Included};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Wake;

use mfserv_core::names::WorkerId;
use mfserv_core::node_state::NodeState;
use mfserv_core::route::{
    Amendment, Matcher, Route, Section, ServerSettings, Slots, Target, UpstreamSpec, plugin_of,
};
use mfserv_core::wire::front::{Peer, UpstreamStats};
use mfserv_platform::sync::lock;
use tokio::sync::{Notify, watch};

use crate::embedded::clients::real_ip::Trust;
use crate::embedded::io::budget::Budget;
use crate::embedded::io::error_log::ErrorLog;
use crate::embedded::io::log_file::Log;
use crate::embedded::io::timer::Bell;
use crate::embedded::request::dev_page::Broken;
use crate::embedded::workers::upstream::Upstream;

const UNRULY: &str = "bytes that nobody asked for, after an answer; from now on each \
                      request to this worker has a connection of its own";

/// Reports of misbehaving workers that are kept for the daemon at most.
const TROUBLES_MAX: usize = 256;

/// The routing that a request sees from its beginning to its end.
pub struct InForce {
    /// The plan's generation.
    pub generation: u64,
    /// Settings of the listening side.
    pub server: ServerSettings,
    /// The page for URLs that no route matches.
    pub not_found_page: Option<PathBuf>,
    /// The routes, with the apps that they lead to.
    pub matcher: Matcher<Option<App>>,
    /// Whose word about the client's address is taken.
    pub trust: Option<Trust>,
}

/// An app with the settings of the table.
#[derive(Debug, Clone)]
pub struct App {
    /// Its peers and slots.
    pub upstream: Arc<Upstream>,
    /// Its settings.
    pub spec: Arc<UpstreamSpec>,
}

/// What an app tells the front of.
#[derive(Debug, Default)]
pub struct Signals {
    /// Changes when a table came, a worker has drained or did not behave: those who
    /// talk with a daemon want to know.
    pub stir: watch::Sender<u64>,
    /// Some idle connection to a worker is kept.
    parked: AtomicBool,
    /// Wakes who looks after idle connections.
    sweeper: Notify,
}

impl Signals {
    /// Wakes who talks with a daemon.
    pub fn stir(&self) {
        self.stir.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// An idle connection was kept. Costs a look while others are kept already.
    pub fn parked(&self) {
        if !self.parked.load(Ordering::Relaxed) {
            self.parked.store(true, Ordering::Relaxed);
            self.sweeper.notify_one();
        }
    }

    /// To be said before the look that finds no idle connection any more: one that is
    /// kept after that look is told again.
    pub fn none_parked(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// A worker ends, or says something on, a connection on which nothing was asked.
    pub fn spoken(&self) {
        self.sweeper.notify_one();
    }

    /// Waits until idle connections are to be looked at: one is kept where there was
    /// none, or [`Signals::spoken`] was said.
    pub async fn sweep_wanted(&self) {
        self.sweeper.notified().await;
    }
}

/// Of idle connections: something can be read.
impl Wake for Signals {
    fn wake(self: Arc<Self>) {
        self.spoken();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.spoken();
    }
}

/// A front.
pub struct Front {
    in_force: Mutex<Option<Arc<InForce>>>,
    /// Counts the tables; lanes look whether theirs is the last.
    version: AtomicU64,
    apps: Mutex<Apps>,
    /// The node's state, as the daemon last reported it.
    node_state: Mutex<NodeState>,
    /// Rings when the front is to end.
    pub closing: Arc<Bell>,
    /// What others are told of.
    pub signals: Arc<Signals>,
    /// Told when a client connection has been closed.
    pub closed: Notify,
    /// Memory with what the clients of finite apps have not read yet, bytes.
    pub absorbed: Budget,
    /// Bodies of requests in files, bytes.
    pub spooled: Budget,
    troubles: Mutex<Troubles>,
    /// The access log.
    pub access: Log,
    /// The error log.
    pub errors: ErrorLog,
    /// Plugins under development whose newest code does not start.
    pub broken: Broken,
    connections: AtomicU64,
    accepted: AtomicU64,
}

/// The apps of a plugin, by name.
type Members = BTreeMap<String, App>;

#[derive(Default)]
struct Apps {
    current: BTreeMap<String, Arc<Upstream>>,
    /// Those that the table no longer has, until their last request is over.
    leaving: Vec<Arc<Upstream>>,
}

/// The last reports, numbered.
#[derive(Default)]
struct Troubles {
    last: VecDeque<(WorkerId, &'static str)>,
    /// The number of the first one in `last`.
    first: u64,
    /// Those before this number have been told to some daemon.
    told: u64,
}

impl Front {
    /// A front without a table.
    pub fn new(access: Log, errors: ErrorLog) -> Arc<Self> {
        Arc::new(Self {
            in_force: Mutex::default(),
            version: AtomicU64::new(0),
            apps: Mutex::default(),
            node_state: Mutex::default(),
            closing: Arc::default(),
            signals: Arc::default(),
            closed: Notify::new(),
            absorbed: Budget::default(),
            spooled: Budget::default(),
            troubles: Mutex::default(),
            access,
            errors,
            broken: Broken::default(),
            connections: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        })
    }

    /// The table in force.
    pub fn in_force(&self) -> Option<Arc<InForce>> {
        lock(&self.in_force).clone()
    }

    /// Changes with every table; 0 = there was none yet.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The generation in force; 0 = none.
    pub fn generation(&self) -> u64 {
        lock(&self.in_force).as_ref().map_or(0, |in_force| in_force.generation)
    }

    /// How many client connections there may be, and how many lanes take them.
    pub fn limits(&self) -> (u64, usize) {
        let in_force = lock(&self.in_force);
        in_force.as_ref().map_or((1, 1), |in_force| {
            let server = &in_force.server;
            (u64::from(server.max_connections.max(1)), server.threads.max(1) as usize)
        })
    }

    /// Takes over what differs from the table of generation `base` (none: from nothing).
    /// On an error nothing has changed. What it costs depends on what differs alone.
    pub fn publish(
        &self,
        base: Option<u64>,
        generation: u64,
        amendment: Amendment,
        peers: &BTreeMap<String, Vec<Peer>>,
    ) -> Result<(), String> {
        let mut apps = lock(&self.apps);
        let before = self.in_force();
        let in_force = before.as_ref().map_or(0, |before| before.generation);
        if generation < in_force || base.is_some_and(|base| base != in_force) {
            return Err(format!("generation {in_force} is in force"));
        }
        let Amendment { server, not_found_page, sections } = amendment;
        let trust = server.real_ip.as_ref().map(Trust::new).transpose()?;
        check(&sections, peers)?;
        let mut matcher = match (base, &before) {
            (Some(_), Some(before)) => before.matcher.clone(),
            _ => Matcher::default(),
        };
        let mut renewed = Vec::with_capacity(sections.len());
        for (plugin, Section { routes, upstreams }) in sections {
            let members = self.members(&apps, upstreams);
            let to_app = |route: Route| {
                let app = match &route.target {
                    Target::Upstream { name } => members.get(name).cloned(),
                    _ => None,
                };
                (route, app)
            };
            matcher.set(&plugin, routes.into_iter().map(to_app))?;
            renewed.push((plugin, members));
        }
        let admitted = |name: &str| peers.get(name).map_or(&[][..], Vec::as_slice);
        for (name, app) in renewed.iter().flat_map(|(_, members)| members) {
            app.upstream.set_spec(&app.spec);
            admitted(name).iter().for_each(|peer| app.upstream.admit(peer));
        }
        let next = InForce { generation, server, not_found_page, matcher, trust };
        *lock(&self.in_force) = Some(Arc::new(next));
        self.version.fetch_add(1, Ordering::Release);
        if base.is_none() {
            apps.leave_all_but(&renewed);
        }
        for (plugin, members) in renewed {
            apps.replace(&plugin, members, admitted);
        }
        drop(apps);
        // Perhaps the last holder of a large one, and nobody has to wait for its end.
        drop(before);
        self.signals.stir();
        Ok(())
    }

    /// The apps of a plugin: those that are known keep their requests and connections.
    fn members(&self, apps: &Apps, upstreams: BTreeMap<String, UpstreamSpec>) -> Members {
        let member = |(name, spec): (String, UpstreamSpec)| {
            let known = apps.current.get(&name).cloned();
            let upstream =
                known.unwrap_or_else(|| Upstream::new(name.clone(), &spec, self.signals.clone()));
            (name, App { upstream, spec: Arc::new(spec) })
        };
        upstreams.into_iter().map(member).collect()
    }

    /// An app of the table in force.
    pub fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        lock(&self.apps).current.get(name).cloned()
    }

    /// All apps of the table in force.
    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        lock(&self.apps).current.values().cloned().collect()
    }

    /// True while anything of a worker is in use: a request, a connection.
    pub fn holds(&self, upstream: &str, worker: &WorkerId) -> bool {
        lock(&self.apps).named(upstream).any(|one| one.holds(worker))
    }

    /// A worker is dead.
    pub fn forget(&self, upstream: &str, worker: &WorkerId) {
        let named: Vec<_> = lock(&self.apps).named(upstream).cloned().collect();
        named.iter().for_each(|one| one.forget(worker));
    }

    /// Closes idle connections to workers whose time has come, and tells which workers
    /// spoke on one. True if some are left.
    pub fn sweep(&self, all: bool) -> bool {
        let now = tokio::time::Instant::now();
        let mut left = false;
        for upstream in self.upstreams() {
            let swept = upstream.sweep(now, all);
            left |= swept.left;
            for worker in swept.unruly {
                self.trouble(&worker, "malformed", UNRULY);
            }
        }
        left
    }

    /// A worker did not behave: into the error log, and to the daemon.
    pub fn trouble(&self, worker: &WorkerId, cause: &'static str, detail: &str) {
        self.errors.say(&format!("worker {worker}: {cause}: {detail}"));
        let mut troubles = lock(&self.troubles);
        if troubles.last.len() == TROUBLES_MAX {
            troubles.last.pop_front();
            troubles.first += 1;
        }
        troubles.last.push_back((worker.clone(), cause));
        drop(troubles);
        self.signals.stir();
    }

    /// The reports from number `from` on, and the number of the one that comes next.
    /// `None` begins with those that no daemon has been told of.
    pub fn troubles(&self, from: Option<u64>) -> (Vec<(WorkerId, &'static str)>, u64) {
        let mut troubles = lock(&self.troubles);
        let next = troubles.first + troubles.last.len() as u64;
        let skipped = from.unwrap_or(troubles.told).saturating_sub(troubles.first);
        troubles.told = next;
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        (troubles.last.iter().skip(skipped).cloned().collect(), next)
    }

    /// The counters of all apps.
    pub fn upstream_stats(&self) -> BTreeMap<String, UpstreamStats> {
        let apps = lock(&self.apps);
        apps.current.iter().map(|(name, one)| (name.clone(), one.stats())).collect()
    }

    /// Client connections open now.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Client connections accepted since the beginning.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// A client came.
    pub fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A client went.
    pub fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.closed.notify_one();
    }

    /// The node's state, as the daemon last reported it.
    pub fn node_state(&self) -> NodeState {
        *lock(&self.node_state)
    }

    /// Stores the state that the daemon reports.
    pub fn set_node_state(&self, state: NodeState) {
        *lock(&self.node_state) = state;
    }
}

impl Apps {
    /// The app of this name, and those of this name that leave.
    fn named(&self, name: &str) -> impl Iterator<Item = &Arc<Upstream>> {
        let left = self.leaving.iter().filter(move |one| one.name == name);
        self.current.get(name).into_iter().chain(left)
    }

    /// Apps of plugins that a whole table does not have are removed.
    fn leave_all_but(&mut self, renewed: &[(String, Members)]) {
        let plugins: BTreeSet<&str> = renewed.iter().map(|(plugin, _)| plugin.as_str()).collect();
        let gone = |name: &&String| !plugins.contains(plugin_of(name));
        let gone: Vec<String> = self.current.keys().filter(gone).cloned().collect();
        gone.iter().for_each(|name| self.leave(name));
    }

    /// From the old apps of a plugin to those that it has now: workers that are not
    /// named are drained, apps that it has no more are removed.
    fn replace<'a>(
        &mut self,
        plugin: &str,
        members: Members,
        admitted: impl Fn(&str) -> &'a [Peer],
    ) {
        // `0` is the character after `/`.
        let own = (Included(format!("{plugin}/")), Excluded(format!("{plugin}0")));
        let old = self.current.range::<String, _>(own).map(|(name, _)| name.clone());
        let gone: Vec<String> = old.filter(|name| !members.contains_key(name)).collect();
        gone.iter().for_each(|name| self.leave(name));
        for (name, app) in members {
            app.upstream.keep_only(admitted(&name));
            self.current.insert(name, app.upstream);
        }
        self.leaving.retain(|upstream| !upstream.is_empty());
    }

    fn leave(&mut self, name: &str) {
        if let Some(upstream) = self.current.remove(name) {
            upstream.remove();
            self.leaving.push(upstream);
        }
    }
}

/// What [`Matcher::set`] does not see of what cannot be used.
fn check(
    sections: &BTreeMap<String, Section>,
    peers: &BTreeMap<String, Vec<Peer>>,
) -> Result<(), String> {
    for (plugin, section) in sections {
        for route in &section.routes {
            let of = || format!("route {:?} of {}/{}", route.prefix, route.plugin, route.app);
            match &route.target {
                Target::Upstream { name } if !section.upstreams.contains_key(name) => {
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
        for (name, spec) in &section.upstreams {
            if plugin_of(name) != plugin {
                return Err(format!("app {name} is not one of plugin {plugin}"));
            }
            if spec.slots == (Slots::Finite { per_worker: 0 }) {
                return Err(format!("app {name} has workers without slots"));
            }
        }
    }
    let known = |name: &String| {
        sections.get(plugin_of(name)).is_some_and(|section| section.upstreams.contains_key(name))
    };
    match peers.keys().find(|name| !known(name)) {
        Some(name) => Err(format!("there are workers of an unknown app {name:?}")),
        None => Ok(()),
    }
}
