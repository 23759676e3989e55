//! What all lanes of a front share: the table in force, the upstreams, the logs, the
//! counters.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use mfserv_core::node_state::NodeState;
use mfserv_core::route::{
    Amendment, Matcher, Route, Section, ServerSettings, Slots, Target, plugin_of,
};
use mfserv_core::wire::front::{Peer, Warned};
use mfserv_core::wire::metrics::Requests;
use mfserv_platform::sync::lock;
use tokio::sync::Notify;

use super::extensions::Extensions;
use super::gauge::Gauge;
use crate::embedded::clients::real_ip::Trust;
use crate::embedded::io::error_log::ErrorLog;
use crate::embedded::io::log_file::LogWriter;
use crate::embedded::io::signal::Signal;
use crate::embedded::io::tls::{Problems, Tls};
use crate::embedded::workers::pool::{App, Pool};
use crate::process::{OWN_DESCRIPTORS, clients_within, descriptors};

/// With so few descriptors little works; it is tried all the same.
const OTHERS_LEAST: u64 = 8;

/// The descriptors of this process for clients, for workers and files, and for itself.
struct Fitted {
    /// How many clients there may be.
    clients: u64,
    /// How many descriptors are left for workers and files.
    others: u64,
    /// Why there may be fewer clients than the settings say.
    few: Option<String>,
}

impl Fitted {
    fn new(server: &ServerSettings) -> Self {
        let wanted = u64::from(server.max_connections.max(1));
        let descriptors = descriptors();
        let fitting = clients_within(descriptors);
        let clients = wanted.min(fitting);
        let few = (fitting < wanted).then(|| {
            format!(
                "at most {fitting} clients at a time, not [front] max_connections={wanted}: this \
                 process may have {descriptors} descriptors (ulimit -Hn, LimitNOFILE of systemd)"
            )
        });
        let others = descriptors.saturating_sub(OWN_DESCRIPTORS + clients).max(OTHERS_LEAST);
        Self { clients, others, few }
    }
}

/// The routing that a request sees from its beginning to its end.
pub struct InForce {
    /// The plan's generation.
    pub generation: u64,
    /// Settings of the listening side.
    pub server: ServerSettings,
    /// How many clients there may be.
    fitted: Fitted,
    /// The page for URLs that no route matches.
    pub not_found_page: Option<PathBuf>,
    /// The routes, with the apps that they lead to.
    pub matcher: Matcher<Option<App>>,
    /// The proxies that are trusted with the client's address.
    pub trust: Option<Trust>,
}

/// A front.
pub struct Front {
    in_force: Mutex<Option<Arc<InForce>>>,
    /// Counts the tables; a lane compares it with the version of the table that it has.
    version: AtomicU64,
    /// The node's state, as the daemon last reported it.
    node_state: Mutex<NodeState>,
    /// The upstreams and their workers.
    pub pool: Arc<Pool>,
    /// Raised when the front is to end.
    pub closing: Arc<Signal>,
    /// Notified when a client connection has been closed.
    pub closed: Notify,
    /// The access log.
    pub access: LogWriter,
    /// The error log.
    pub errors: Arc<ErrorLog>,
    /// The TLS side.
    pub tls: Arc<Tls>,
    /// The extensions.
    pub extensions: Extensions,
    /// What nginx says to be believed, where it is the edge of the node; empty: nobody is.
    pub edge_key: String,
    gauges: Mutex<Vec<Arc<Gauge>>>,
    connections: AtomicU64,
    accepted: AtomicU64,
}

impl Front {
    /// Something that an operator should know of: `mfserv status` shows it, and the error log has it once.
    pub fn complain(&self, sentence: &str) {
        if self.pool.warnings.count(sentence) {
            self.errors.report(sentence);
        }
    }

    /// A front without a table.
    pub fn new(access: LogWriter, errors: ErrorLog, edge_key: String) -> Arc<Self> {
        let errors = Arc::new(errors);
        Arc::new(Self {
            in_force: Mutex::default(),
            version: AtomicU64::new(0),
            node_state: Mutex::default(),
            pool: Pool::new(errors.clone()).into(),
            closing: Arc::default(),
            closed: Notify::new(),
            access,
            errors,
            tls: Arc::default(),
            extensions: Extensions::new(),
            edge_key,
            gauges: Mutex::default(),
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
            (in_force.fitted.clients, server.threads.max(1) as usize)
        })
    }

    /// Fits everything into the descriptors of this process.
    fn fit(&self, server: &ServerSettings) -> Fitted {
        let fitted = Fitted::new(server);
        self.pool.descriptors.set_limit(fitted.others);
        if let Some(few) = &fitted.few {
            self.errors.report(few);
        }
        fitted
    }

    /// Clients wait to be accepted, because there are as many as may be.
    pub fn warn_of_clients(&self) {
        let (max, _) = self.limits();
        self.pool.warnings.count(&format!(
            "{max} clients were connected, as many as may be, and others waited: raise [front] \
             max_connections, or the limit of descriptors where that is said to be too low"
        ));
    }

    /// What an operator should know of.
    pub fn warnings(&self) -> BTreeMap<String, Warned> {
        let mut all = self.pool.warnings.all();
        let in_force = self.in_force();
        if let Some(few) = in_force.and_then(|in_force| in_force.fitted.few.clone()) {
            all.insert(few, Warned::default());
        }
        let Problems { faults, notes } = self.tls.problems();
        let faults = faults.into_iter().map(|fault| (fault, true));
        for (sentence, is_fault) in faults.chain(notes.into_iter().map(|note| (note, false))) {
            all.insert(format!("TLS: {sentence}"), Warned { is_fault, ..Warned::default() });
        }
        all
    }

    /// Takes over what differs from the table of generation `base` (`None`: the amendment
    /// is a whole table). On an error nothing has changed. The cost depends only on what
    /// differs.
    pub fn publish(
        &self,
        base: Option<u64>,
        generation: u64,
        amendment: Amendment,
        peers: &BTreeMap<String, Vec<Peer>>,
    ) -> Result<(), String> {
        let mut apps = self.pool.apps();
        let before = self.in_force();
        let in_force = before.as_ref().map_or(0, |before| before.generation);
        if generation < in_force || base.is_some_and(|base| base != in_force) {
            return Err(format!("generation {in_force} is in force"));
        }
        let Amendment { server, not_found_page, sections } = amendment;
        let trust = server.real_ip.as_ref().map(Trust::new).transpose()?;
        check(&sections, peers)?;
        self.tls.adopt(server.tls.as_ref(), before.is_none())?;
        let mut matcher = match (base, &before) {
            (Some(_), Some(before)) => before.matcher.clone(),
            _ => Matcher::default(),
        };
        let mut renewed = Vec::with_capacity(sections.len());
        for (plugin, Section { routes, upstreams, fragments: _ }) in sections {
            let members = self.pool.members(&apps, upstreams);
            let to_app = |route: Route| {
                let app = match &route.target {
                    Target::Upstream { name } => members.get(name).cloned(),
                    // Files of an app with scripts are served without these.
                    Target::Static { .. } | Target::Site { .. } => {
                        let own = members.get(&format!("{}/{}", route.plugin, route.app)).cloned();
                        own.filter(|app| app.spec.fastcgi.is_some())
                    }
                    Target::Fixed { .. } => None,
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
        let (fitted, stopping) = (self.fit(&server), server.stopping);
        let next = InForce { generation, server, fitted, not_found_page, matcher, trust };
        self.put_in_force(next);
        if base.is_none() {
            apps.remove_all_but(&renewed);
        }
        for (plugin, members) in renewed {
            apps.replace(&plugin, members, admitted);
        }
        apps.end_holds_if(stopping);
        drop(apps);
        // This may be the last use of a large table; its memory is freed outside the lock.
        drop(before);
        self.pool.report();
        Ok(())
    }

    fn put_in_force(&self, next: InForce) {
        *lock(&self.in_force) = Some(Arc::new(next));
        self.version.fetch_add(1, Ordering::Release);
    }

    /// The gauge of a new lane.
    pub fn new_gauge(&self) -> Arc<Gauge> {
        let gauge = Arc::<Gauge>::default();
        lock(&self.gauges).push(gauge.clone());
        gauge
    }

    /// Requests answered, and requests in work now, in all lanes.
    pub fn requests(&self) -> (u64, u64) {
        let gauges = lock(&self.gauges);
        let requests = gauges.iter().map(|gauge| gauge.requests()).sum();
        (requests, gauges.iter().map(|gauge| gauge.busy()).sum())
    }

    /// Requests to apps that are under way, in all lanes.
    pub fn under_way(&self) -> u64 {
        lock(&self.gauges).iter().map(|gauge| gauge.under_way()).sum()
    }

    /// The requests by app, and by what answers them, in all lanes.
    pub fn counts(&self) -> HashMap<String, Requests> {
        let mut all = HashMap::new();
        for gauge in lock(&self.gauges).iter() {
            lock(&gauge.counts).add_to(&mut all);
        }
        all
    }

    /// Client connections open now.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// Client connections accepted since the beginning.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// A client has connected.
    pub fn connection_opened(&self) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        self.accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A client connection has been closed.
    pub fn connection_closed(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        self.closed.notify_one();
    }

    /// The node's state, as the daemon last reported it.
    pub fn node_state(&self) -> NodeState {
        *lock(&self.node_state)
    }

    /// Takes over the node's state.
    pub fn set_node_state(&self, state: NodeState) {
        *lock(&self.node_state) = state;
    }
}

/// Finds what cannot be used in a table and what [`Matcher::set`] does not see.
fn check(
    sections: &BTreeMap<String, Section>,
    peers: &BTreeMap<String, Vec<Peer>>,
) -> Result<(), String> {
    for (plugin, section) in sections {
        for route in &section.routes {
            let of = || format!("route {:?} of {}/{}", route.label(), route.plugin, route.app);
            match &route.target {
                Target::Upstream { name } if !section.upstreams.contains_key(name) => {
                    return Err(format!("{} leads to an unknown app {name:?}", of()));
                }
                Target::Static { root } | Target::Site { root, .. } if !root.is_absolute() => {
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

#[cfg(test)]
mod tests {
    use super::clients_within;

    #[test]
    fn a_part_of_the_descriptors_is_kept_for_workers_and_files() {
        for (descriptors, clients) in
            [(1024, 720), (65_536, 49_104), (0, 1), (64, 1), (u64::MAX, 13_835_058_055_282_163_664)]
        {
            assert_eq!(clients_within(descriptors), clients, "{descriptors}");
        }
    }
}
