//! All upstreams of a front, what their requests may use together, and the reports about
//! their workers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::ops::Bound::{Excluded, Included};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use mfserv_core::names::WorkerId;
use mfserv_core::route::{UpstreamSpec, plugin_of};
use mfserv_core::wire::front::{Peer, TroubleCause, UpstreamStats};
use mfserv_platform::sync::lock;
use mfserv_scheduling::Company;
use tokio::sync::watch;

use super::upstream::Upstream;
use super::wakeups::Wakeups;
use crate::embedded::io::budget::{AppDescriptors, Budget, Descriptors};
use crate::embedded::io::error_log::ErrorLog;
use crate::embedded::io::warnings::Warnings;

const UNRULY: &str = "bytes that nobody asked for, after an answer; from now on each \
                      request to this worker has a connection of its own";

/// The most reports about workers that are kept for daemons.
const TROUBLES_MAX: usize = 256;
/// The longest words of one, characters.
const DETAIL_MAX: usize = 300;

/// An app of the table in force.
#[derive(Debug, Clone)]
pub struct App {
    /// Its workers and their slots.
    pub upstream: Arc<Upstream>,
    /// Its settings.
    pub spec: Arc<UpstreamSpec>,
}

/// The apps of a plugin, by name.
pub type Members = BTreeMap<String, App>;

/// The upstreams of a front.
pub struct Pool {
    apps: Mutex<Apps>,
    /// Wakes the tasks that report to daemons and the sweeper.
    wakeups: Arc<Wakeups>,
    /// Memory with what the clients of finite apps have not read yet, bytes.
    pub absorbed: Budget,
    /// What they have not read yet in files, bytes.
    pub answers: Budget,
    /// Bodies of requests in files, bytes.
    pub spooled: Budget,
    /// Descriptors for workers and files.
    pub descriptors: Arc<Descriptors>,
    /// The workers, which yield the processor as long as the lanes do.
    pub company: Arc<Company>,
    /// What an operator should know of.
    pub warnings: Warnings,
    troubles: Mutex<Troubles>,
    errors: Arc<ErrorLog>,
    /// Has one more holder for each worker that is at work after its answer.
    lingering: Arc<()>,
}

/// The upstreams by name.
#[derive(Default)]
pub struct Apps {
    current: BTreeMap<String, Arc<Upstream>>,
    /// Those that the table no longer has, until their last request is over.
    leaving: Vec<Arc<Upstream>>,
}

/// What a worker did, and in which words that is said.
pub type Trouble = (WorkerId, TroubleCause, String);

/// The last reports, numbered.
#[derive(Default)]
struct Troubles {
    last: VecDeque<Trouble>,
    /// The number of the first one in `last`.
    first: u64,
    /// Those before this number have been reported to some daemon.
    reported: u64,
}

impl Pool {
    /// A pool without upstreams.
    pub fn new(errors: Arc<ErrorLog>) -> Self {
        Self {
            apps: Mutex::default(),
            wakeups: Arc::default(),
            absorbed: Budget::default(),
            answers: Budget::default(),
            spooled: Budget::default(),
            descriptors: Arc::default(),
            company: Arc::default(),
            warnings: Warnings::default(),
            troubles: Mutex::default(),
            errors,
            lingering: Arc::default(),
        }
    }

    /// The upstreams, locked, for a change of several of them.
    pub fn apps(&self) -> MutexGuard<'_, Apps> {
        lock(&self.apps)
    }

    /// The apps of a plugin in a new table. Those that are known keep their requests and
    /// connections.
    pub fn members(&self, apps: &Apps, specs: BTreeMap<String, UpstreamSpec>) -> Members {
        let member = |(name, spec): (String, UpstreamSpec)| {
            let known = apps.current.get(&name).cloned();
            let descriptors = || AppDescriptors::new(self.descriptors.clone());
            let shared = || (self.wakeups.clone(), self.company.clone());
            let new = || Upstream::new(name.clone(), &spec, shared(), descriptors());
            let upstream = known.unwrap_or_else(new);
            (name, App { upstream, spec: Arc::new(spec) })
        };
        specs.into_iter().map(member).collect()
    }

    /// The upstream of an app of the table in force.
    pub fn upstream(&self, name: &str) -> Option<Arc<Upstream>> {
        lock(&self.apps).current.get(name).cloned()
    }

    /// All upstreams of the table in force.
    pub fn upstreams(&self) -> Vec<Arc<Upstream>> {
        lock(&self.apps).current.values().cloned().collect()
    }

    /// True while a worker has a request or a connection.
    pub fn holds(&self, upstream: &str, worker: &WorkerId) -> bool {
        lock(&self.apps).named(upstream).any(|one| one.holds(worker))
    }

    /// A worker is dead.
    pub fn forget(&self, upstream: &str, worker: &WorkerId) {
        let named: Vec<_> = lock(&self.apps).named(upstream).cloned().collect();
        named.iter().for_each(|one| one.forget(worker));
    }

    /// Closes idle connections to workers that have been kept long enough (all of them if
    /// `all`), and reports workers that have sent something on one. True if some are left.
    pub fn sweep(&self, all: bool) -> bool {
        let now = tokio::time::Instant::now();
        let mut left = false;
        for upstream in self.upstreams() {
            let swept = upstream.sweep(now, all);
            left |= swept.left;
            for worker in swept.unruly {
                self.report_trouble(&worker, TroubleCause::Malformed, UNRULY);
            }
        }
        left
    }

    /// Closes idle connections when their time has come, and soon after a worker has ended
    /// one or sent something on it. `pause` passes between a wakeup and the sweep; while
    /// connections are kept, they are swept each `interval`. Never returns.
    pub async fn keep_sweeping(&self, pause: std::time::Duration, interval: std::time::Duration) {
        loop {
            self.wakeups.sweep_wanted().await;
            loop {
                tokio::time::sleep(pause).await;
                if !self.sweep(false) {
                    self.wakeups.no_idle_kept();
                    if !self.sweep(false) {
                        break;
                    }
                }
                // A wakeup or the interval: both lead to the next sweep.
                let _ = tokio::time::timeout(interval, self.wakeups.sweep_wanted()).await;
            }
        }
    }

    /// A worker is at work after its answer until what this returns is dropped.
    pub fn begin_lingering(&self) -> Arc<()> {
        self.lingering.clone()
    }

    /// True while a worker is at work after its answer.
    pub fn lingers(&self) -> bool {
        Arc::strong_count(&self.lingering) > 1
    }

    /// A worker did not behave: goes into the error log, and to the daemons.
    pub fn report_trouble(&self, worker: &WorkerId, cause: TroubleCause, detail: &str) {
        self.errors.report(&format!("worker {worker}: {cause}: {detail}"));
        let detail: String = detail.chars().take(DETAIL_MAX).collect();
        let mut troubles = lock(&self.troubles);
        if troubles.last.len() == TROUBLES_MAX {
            troubles.last.pop_front();
            troubles.first += 1;
        }
        troubles.last.push_back((worker.clone(), cause, detail));
        drop(troubles);
        self.wakeups.report();
    }

    /// A worker has said something of errors beside its answer: FastCGI has a stream for that.
    pub fn worker_said(&self, worker: &WorkerId, said: &[u8]) {
        let said = String::from_utf8_lossy(said);
        for line in said.lines().filter(|line| !line.trim().is_empty()) {
            self.errors.report(&format!("worker {worker} says: {line}"));
        }
    }

    /// The clients of an app read so slowly that no more of its answers can be put aside: a
    /// worker waits. Goes into the error log, for each app at most once a minute. `first`: it
    /// is the first time for this answer.
    pub fn report_full(&self, upstream: &Upstream, why: &str, first: bool) {
        let name = &upstream.name;
        let text = format!("app {name}: workers wait for slow clients: {why}");
        if first {
            self.warnings.count(&text);
        }
        if upstream.may_say_full() {
            self.errors.report(&text);
        }
    }

    /// The bodies of an app's requests cannot be put into files. Goes into the error log as often
    /// as that its answers cannot: a disk that is full is full for both.
    pub fn report_unwritten(&self, upstream: &Upstream, dir: &Path, why: &io::Error) {
        let text = format!(
            "app {}: requests are refused with 500: their bodies cannot be written to files in {}: \
             {why} (make room there, or name another directory: [nginx] clientbody_temp_path)",
            upstream.name,
            dir.display()
        );
        self.warnings.count(&text);
        if upstream.may_say_full() {
            self.errors.report(&text);
        }
    }

    /// There are too few descriptors for what an app needs: a request waits, or is refused.
    pub fn report_few_descriptors(&self, upstream: &Upstream) {
        self.warn_of(
            upstream,
            "it has its share of the file descriptors for workers and files, \
            and requests wait: raise the limit (ulimit -Hn, LimitNOFILE of systemd)",
        );
    }

    /// Something is not as an app wants it. The first time it goes into the error log.
    pub fn warn_of(&self, upstream: &Upstream, what: &str) {
        let text = format!("app {}: {what}", upstream.name);
        if self.warnings.count(&text) {
            self.errors.report(&text);
        }
    }

    /// The reports from number `from` on, and the number of the next one to come. `None`
    /// begins with the first one that no daemon has got.
    pub fn troubles(&self, from: Option<u64>) -> (Vec<Trouble>, u64) {
        let mut troubles = lock(&self.troubles);
        let next = troubles.first + troubles.last.len() as u64;
        let skipped = from.unwrap_or(troubles.reported).saturating_sub(troubles.first);
        troubles.reported = next;
        let skipped = usize::try_from(skipped).unwrap_or(usize::MAX);
        (troubles.last.iter().skip(skipped).cloned().collect(), next)
    }

    /// There is something to report to daemons.
    pub fn report(&self) {
        self.wakeups.report();
    }

    /// Changes whenever there is something to report to daemons.
    pub fn reports(&self) -> watch::Receiver<u64> {
        self.wakeups.reports()
    }

    /// Of these workers, by upstream, those that have nothing in hand, with how long that has
    /// been so, milliseconds.
    pub fn quiet(&self, workers: &BTreeMap<String, Vec<WorkerId>>) -> Vec<(WorkerId, u64)> {
        let apps = lock(&self.apps);
        let known = workers.iter().filter_map(|(app, ids)| Some((apps.current.get(app)?, ids)));
        known.flat_map(|(upstream, ids)| upstream.quiet(ids)).collect()
    }

    /// The counters of all upstreams.
    pub fn stats(&self) -> BTreeMap<String, UpstreamStats> {
        let apps = lock(&self.apps);
        apps.current.iter().map(|(name, one)| (name.clone(), one.stats())).collect()
    }
}

impl Apps {
    /// The upstreams of this name: the current one, and those that leave.
    fn named(&self, name: &str) -> impl Iterator<Item = &Arc<Upstream>> {
        let leaving = self.leaving.iter().filter(move |one| one.name == name);
        self.current.get(name).into_iter().chain(leaving)
    }

    /// Removes the apps of all plugins but these.
    pub fn remove_all_but(&mut self, renewed: &[(String, Members)]) {
        let plugins: BTreeSet<&str> = renewed.iter().map(|(plugin, _)| plugin.as_str()).collect();
        let gone = |name: &&String| !plugins.contains(plugin_of(name));
        let gone: Vec<String> = self.current.keys().filter(gone).cloned().collect();
        gone.iter().for_each(|name| self.remove(name));
    }

    /// Replaces the apps of a plugin: those that are not among `members` are removed, and
    /// workers that are not `admitted` are drained.
    pub fn replace<'a>(
        &mut self,
        plugin: &str,
        members: Members,
        admitted: impl Fn(&str) -> &'a [Peer],
    ) {
        // `0` is the character after `/`.
        let own = (Included(format!("{plugin}/")), Excluded(format!("{plugin}0")));
        let old = self.current.range::<String, _>(own).map(|(name, _)| name.clone());
        let gone: Vec<String> = old.filter(|name| !members.contains_key(name)).collect();
        gone.iter().for_each(|name| self.remove(name));
        for (name, app) in members {
            app.upstream.keep_only(admitted(&name));
            // The table is in force: who is sent away finds what is answered now.
            app.upstream.set_maintenance(app.spec.maintenance);
            self.current.insert(name, app.upstream);
        }
        self.leaving.retain(|upstream| !upstream.is_empty());
    }

    /// While the node stops, nobody waits for the end of maintenance: those requests are answered.
    pub fn end_holds_if(&self, stopping: bool) {
        if stopping {
            self.current.values().for_each(|upstream| upstream.end_hold());
        }
    }

    fn remove(&mut self, name: &str) {
        if let Some(upstream) = self.current.remove(name) {
            upstream.remove();
            self.leaving.push(upstream);
        }
    }
}
