//! A reading of everything that is known, family by family.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;

use mfserv_core::names::WatcherName;
use mfserv_core::node_state::NodeState;
use mfserv_core::wire::metrics::{Answerer, METHODS, NodeCounters, REST, Requests, WatcherSample};
use mfserv_core::worker::Phase;
use mfserv_platform::proc;
use mfserv_platform::sync::lock;

use super::alerts;
use super::app_series::AppSeries;
use super::exposition::{Exposition, Format};
use super::host::{self, Sample};
use super::names;
use super::processes::{Processes, Usage};
use super::registry::{Snapshot, Sums};
use crate::ship::Counts;

/// Whose rows those of a watcher are: the values of `plugin`, `app` and `kind`.
type Labels<'a> = [&'a str; 3];

/// What is known besides the registry.
pub struct Around<'a> {
    /// This process, and when it was started.
    pub own: (u32, u64),
    /// This machine.
    pub host: &'a Sample,
    /// What apps have sent: locked only while it is written out.
    pub apps: &'a Mutex<AppSeries>,
    /// The alerts.
    pub alerts: &'a [alerts::Status],
    /// How much of this process does not work.
    pub troubles: usize,
}

/// The text of all metrics.
pub fn text(snapshot: &Snapshot, format: Format, around: &Around<'_>) -> String {
    let mut text = Exposition::new(format);
    node(&mut text, snapshot);
    text.family(&names::TELEMETRY_TROUBLES).put(&[], around.troubles as f64);
    firing(&mut text, around.alerts);
    requests(&mut text, &snapshot.sums);
    faults_and_methods(&mut text, &snapshot.sums);
    load(&mut text, snapshot);
    counted(&mut text, &snapshot.sums);
    jobs(&mut text, snapshot);
    if let Some((daemon, node)) = &snapshot.node {
        watchers(&mut text, &node.watchers);
        memory_limits(&mut text, &node.watchers);
        let processes = Processes::read();
        workers(&mut text, &node.watchers, &processes);
        let mut roles = vec![("daemon", daemon.pid, Some(daemon.since_ms))];
        roles.extend(node.keeper.map(|pid| ("keeper", pid, None)));
        roles.push(("telemetry", around.own.0, Some(around.own.1)));
        self::roles(&mut text, &roles, &processes);
    }
    lock(around.apps).put(&mut text);
    host::put(&mut text, around.host);
    text.finish()
}

fn node(text: &mut Exposition, snapshot: &Snapshot) {
    let mut sources = text.family(&names::SOURCES);
    sources.put(&["front"], snapshot.fronts as f64);
    sources.put(&["daemon"], f64::from(u8::from(snapshot.node.is_some())));
    let mut dropped = text.family(&names::DROPPED);
    snapshot.dropped.iter().for_each(|(what, count)| dropped.put(&[what], *count as f64));
    let mut shipped = text.family(&names::SHIPPED);
    for ((log, receiver), progress) in &snapshot.shipped {
        let Counts { sent, known, refused, .. } = progress.counts;
        for (outcome, count) in [("sent", sent), ("known", known), ("refused", refused)] {
            shipped.put(&[log, receiver, outcome], count as f64);
        }
    }
    let mut unread = text.family(&names::SHIP_UNREAD);
    for ((log, receiver), progress) in &snapshot.shipped {
        unread.put(&[log, receiver], progress.unread as f64);
    }
    let Some((daemon, node)) = &snapshot.node else { return };
    text.family(&names::INFO).put(&[&daemon.version], 1.0);
    let mut states = text.family(&names::NODE_STATE);
    for state in NodeState::ALL {
        states.put(&[&state.as_str().to_lowercase()], f64::from(u8::from(state == node.state)));
    }
    text.family(&names::PLAN_GENERATION).put(&[], node.generation as f64);
    text.family(&names::PROBLEMS).put(&[], node.problems as f64);
    plugins(text, node);
}

fn firing(text: &mut Exposition, alerts: &[alerts::Status]) {
    let mut firing: BTreeMap<&str, u32> = BTreeMap::new();
    for status in alerts {
        let count = firing.entry(&status.alert).or_default();
        *count += u32::from(status.state == alerts::State::Firing);
    }
    let mut family = text.family(&names::ALERT_FIRING);
    firing.into_iter().for_each(|(alert, count)| family.put(&[alert], f64::from(count)));
}

fn plugins(text: &mut Exposition, node: &NodeCounters) {
    let mut plugins = text.family(&names::PLUGIN_INFO);
    for plugin in &node.plugins {
        plugins.put(&[&plugin.name, &plugin.version, &plugin.state], 1.0);
    }
}

fn requests(text: &mut Exposition, sums: &Sums) {
    let rows = || {
        sums.requests
            .iter()
            .map(|((plugin, app, by), row)| ([plugin.as_str(), app.as_str(), by.as_str()], row))
    };
    let mut family = text.family(&names::REQUESTS);
    for ([plugin, app, by], row) in rows() {
        for (status, count) in &row.statuses {
            let code = match status {
                0 => "unknown".into(),
                status => status.to_string(),
            };
            family.put(&[plugin, app, by, &code], *count as f64);
        }
    }
    let mut family = text.family(&names::DURATION);
    for (labels, row) in rows() {
        family.put_histogram(&labels, &row.duration, &row.exemplars);
    }
    let mut family = text.family(&names::WAIT);
    for ([plugin, app, _], row) in rows().filter(|(_, row)| row.by == Answerer::Dynamic) {
        family.put_histogram(&[plugin, app], &row.wait, &[]);
    }
    let mut family = text.family(&names::RECEIVED);
    rows().for_each(|(labels, row)| family.put(&labels, row.received as f64));
    let mut family = text.family(&names::SENT);
    rows().for_each(|(labels, row)| family.put(&labels, row.sent as f64));
}

/// What is not told apart by what answered: the rows of an app are summed.
fn faults_and_methods(text: &mut Exposition, sums: &Sums) {
    let mut apps: BTreeMap<(&str, &str), Requests> = BTreeMap::new();
    for ((plugin, app, _), row) in &sums.requests {
        apps.entry((plugin, app)).and_modify(|sum| sum.add(row)).or_insert_with(|| row.clone());
    }
    let mut family = text.family(&names::METHODS);
    for ((plugin, app), row) in &apps {
        for (index, count) in row.methods.iter().enumerate().filter(|(_, count)| **count > 0) {
            let method = METHODS.get(index).copied().unwrap_or("other");
            family.put(&[plugin, app, method], *count as f64);
        }
    }
    let mut family = text.family(&names::FAULTS);
    for ((plugin, app), row) in &apps {
        for (cause, count) in &row.faults {
            family.put(&[plugin, app, cause], *count as f64);
        }
    }
}

fn load(text: &mut Exposition, snapshot: &Snapshot) {
    let sums = &snapshot.sums;
    let rows = || {
        sums.load.values().map(|load| {
            let (plugin, app) = load.upstream.split_once('/').unwrap_or((&load.upstream, ""));
            ([plugin, app], load)
        })
    };
    // Without a front, nobody says what is true now.
    if snapshot.fronts > 0 {
        let mut family = text.family(&names::IN_FLIGHT);
        rows().for_each(|(labels, load)| family.put(&labels, load.in_flight as f64));
        let mut family = text.family(&names::WAITING);
        rows().for_each(|(labels, load)| family.put(&labels, load.waiting as f64));
        text.family(&names::CONNECTIONS).put(&[], sums.connections as f64);
        text.family(&names::BUSY).put(&[], sums.busy as f64);
    }
    let mut family = text.family(&names::QUEUED);
    rows().for_each(|(labels, load)| family.put(&labels, load.queued as f64));
    let mut family = text.family(&names::RETRIED);
    rows().for_each(|(labels, load)| family.put(&labels, load.retried as f64));
    text.family(&names::ACCEPTED).put(&[], sums.accepted as f64);
    let mut family = text.family(&names::HANDSHAKES);
    sums.handshakes.iter().for_each(|(outcome, n)| family.put(&[outcome], *n as f64));
}

/// What daemons have counted.
fn counted(text: &mut Exposition, sums: &Sums) {
    let mut family = text.family(&names::ENDS);
    for ((watcher, reason), count) in &sums.ends {
        let [plugin, app, kind] = labels(watcher);
        family.put(&[plugin, app, kind, reason], *count as f64);
    }
    let mut family = text.family(&names::BOOTS);
    for (watcher, boots) in &sums.boots {
        family.put_histogram(&labels(watcher), boots, &[]);
    }
    let mut family = text.family(&names::TROUBLES);
    for ((watcher, cause), count) in &sums.troubles {
        let [plugin, app, kind] = labels(watcher);
        family.put(&[plugin, app, kind, cause.as_str()], *count as f64);
    }
    let mut family = text.family(&names::OPERATIONS);
    for ((operation, outcome), (count, _)) in &sums.operations {
        family.put(&[operation, outcome], *count as f64);
    }
    let mut family = text.family(&names::OPERATION_TIME);
    for ((operation, outcome), (_, ms)) in &sums.operations {
        family.put(&[operation, outcome], *ms as f64 / 1e3);
    }
}

fn jobs(text: &mut Exposition, snapshot: &Snapshot) {
    // The name of a plugin has no dot.
    let parts = |job: &str| {
        let (plugin, name) = job.split_once('.').unwrap_or((job, ""));
        (plugin.to_owned(), name.to_owned())
    };
    let mut family = text.family(&names::JOB_RUNS);
    for ((job, result), (count, _)) in &snapshot.sums.runs {
        let (plugin, name) = parts(job);
        family.put(&[&plugin, &name, result], *count as f64);
    }
    let mut family = text.family(&names::JOB_TIME);
    for ((job, result), (_, ms)) in &snapshot.sums.runs {
        let (plugin, name) = parts(job);
        family.put(&[&plugin, &name, result], *ms as f64 / 1e3);
    }
    let Some((_, node)) = &snapshot.node else { return };
    let mut family = text.family(&names::JOB_RUNNING);
    for sample in &node.jobs {
        let (plugin, name) = parts(&sample.job);
        family.put(&[&plugin, &name], sample.running as f64);
    }
    let mut family = text.family(&names::JOB_LAST_SUCCESS);
    for sample in &node.jobs {
        let (plugin, name) = parts(&sample.job);
        if let Some(ms) = sample.last_ok_ms {
            family.put(&[&plugin, &name], ms as f64 / 1e3);
        }
    }
}

fn watchers(text: &mut Exposition, watchers: &[WatcherSample]) {
    let mut family = text.family(&names::WANTED);
    for watcher in watchers {
        family.put(&labels(&watcher.name), f64::from(watcher.wanted));
    }
    let mut family = text.family(&names::WORKERS);
    for watcher in watchers {
        let [plugin, app, kind] = labels(&watcher.name);
        for phase in Phase::ALL {
            let count = watcher.workers.iter().filter(|worker| worker.phase == phase).count();
            family.put(&[plugin, app, kind, &phase.to_string()], count as f64);
        }
    }
}

fn memory_limits(text: &mut Exposition, watchers: &[WatcherSample]) {
    let mut family = text.family(&names::WORKER_MEMORY_LIMIT);
    for watcher in watchers.iter().filter(|watcher| watcher.memory_limit > 0) {
        family.put(&labels(&watcher.name), watcher.memory_limit as f64);
    }
}

fn workers(text: &mut Exposition, watchers: &[WatcherSample], processes: &Processes) {
    let mut used: Vec<(Labels<'_>, String, Usage)> = Vec::new();
    for watcher in watchers {
        let of = labels(&watcher.name);
        for worker in &watcher.workers {
            let Some(usage) = worker.pid.and_then(|pid| processes.tree(pid)) else { continue };
            let slot = worker.slot.to_string();
            // A worker and its replacement have the same slot: one sample is both.
            match used.last_mut().filter(|(known, last, _)| *known == of && *last == slot) {
                Some((_, _, sum)) => sum.add(&usage),
                None => used.push((of, slot, usage)),
            }
        }
    }
    for (name, take) in [
        (&names::WORKER_MEMORY, (|usage| usage.memory as f64) as fn(&Usage) -> f64),
        (&names::WORKER_CPU, |usage| usage.cpu_s),
        (&names::WORKER_FDS, |usage| usage.descriptors as f64),
        (&names::WORKER_THREADS, |usage| usage.threads as f64),
    ] {
        let mut family = text.family(name);
        for ([plugin, app, kind], slot, usage) in &used {
            family.put(&[plugin, app, kind, slot], take(usage));
        }
    }
}

/// What roles use: name, process, and when it was started, milliseconds since the Unix epoch; as
/// the kernel says it where nobody else does.
fn roles(text: &mut Exposition, roles: &[(&str, u32, Option<u64>)], processes: &Processes) {
    let used = || roles.iter().filter_map(|(role, pid, _)| Some((*role, processes.own(*pid)?)));
    let mut family = text.family(&names::ROLE_MEMORY);
    used().for_each(|(role, usage)| family.put(&[role], usage.memory as f64));
    let mut family = text.family(&names::ROLE_CPU);
    used().for_each(|(role, usage)| family.put(&[role], usage.cpu_s));
    let mut family = text.family(&names::ROLE_FDS);
    used().for_each(|(role, usage)| family.put(&[role], usage.descriptors as f64));
    let mut family = text.family(&names::ROLE_START);
    for (role, pid, since_ms) in roles {
        let since_s = since_ms
            .map(|ms| ms as f64 / 1e3)
            .or_else(|| proc::started_s(Path::new("/proc"), *pid));
        since_s.into_iter().for_each(|since_s| family.put(&[role], since_s));
    }
}

/// `plugin`, `app` and `kind` of a watcher; the roles are `#core#`.
fn labels(watcher: &WatcherName) -> Labels<'_> {
    let kind = match watcher.as_str() {
        REST => return [REST, "", "rest"],
        name if name.starts_with("app.") => "app",
        name if name.starts_with("extra.") => "extra",
        _ => "role",
    };
    [watcher.plugin().unwrap_or("#core#"), watcher.short(), kind]
}
