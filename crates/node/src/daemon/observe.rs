//! The status of the node: what the supervisor and the fronts see, beside the plan.

use mfserv_core::names::WatcherName;
use mfserv_core::plan::{Listen, Plan};
use mfserv_core::route::{hosts, pages};
use mfserv_core::shipping::Report;
use mfserv_core::status::{PluginStatus, RoleStatus, Status, WatcherState, WatcherStatus};
use mfserv_core::wire::front::UpstreamStats;

use std::collections::BTreeSet;
use std::path::PathBuf;

use mfserv_platform::disk;
use mfserv_platform::sync::lock;

use super::node::Node;
use super::upkeep;
use crate::places::Places;
use crate::render;

impl Node {
    /// The watchers, without their paths.
    pub(super) async fn watchers(&self) -> Vec<WatcherStatus> {
        as_planned(self.parts.supervisor.status().await, self.shown_plan().ok().as_deref())
    }

    /// The observed node.
    pub(super) async fn observed(&self) -> Status {
        let plan = self.shown_plan().ok();
        let keeper = self.keeper.lock().ok().and_then(|keeper| keeper.clone());
        let mut notes = self.notes.lock().map(|notes| notes.clone()).unwrap_or_default();
        notes.extend(lock(&self.firing).iter().cloned());
        notes.extend(full_disk(&self.parts.options.places));
        notes.extend(self.circus_notes.lock().map(|it| it.clone()).unwrap_or_default());
        notes.extend(self.parts.events.log_trouble());
        notes.extend(telemetry_trouble(&self.parts.options.places));
        notes.extend(self.parts.jobs.notes().await);
        notes.extend(plan.as_deref().and_then(readable_keys));
        let (watchers, stats) =
            tokio::join!(self.parts.supervisor.status(), self.parts.world.fronts.stats());
        notes.extend(stats.upstreams.iter().filter_map(slow_lane));
        Status {
            state: self.state.get(),
            home: self.parts.options.places.home().to_string_lossy().into_owned(),
            address: plan.as_ref().and_then(|plan| address(plan.listeners.first()?)),
            tls_address: plan.as_ref().and_then(|plan| tls_address(&plan.listeners)),
            generation: plan.as_ref().map_or(0, |plan| plan.generation),
            keeper,
            daemon: RoleStatus {
                pid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").into(),
                since_ms: self.since_ms,
            },
            notes,
            plugins: plan.iter().flat_map(|plan| &plan.plugins).map(plugin_status).collect(),
            watchers: as_planned(watchers, plan.as_deref()),
            requests: stats.upstreams,
            front_warnings: stats.warnings,
            maintenance: plan.as_ref().map(|plan| plan.maintenance.clone()).unwrap_or_default(),
            problems: {
                let refused = self.refused.lock().ok().and_then(|refused| refused.clone());
                let of_plan = plan.into_iter().flat_map(|plan| {
                    let gone = upkeep::gone(&plan);
                    plan.problems.iter().cloned().chain(gone).collect::<Vec<_>>()
                });
                let of_site = self.problems_of_site_packages();
                refused.into_iter().chain(of_site).chain(of_plan).collect()
            },
        }
    }
}

/// Slow requests of an app that wait because the last slot is left to the others.
fn slow_lane((app, stats): (&String, &UpstreamStats)) -> Option<String> {
    let waiting = match stats.slow_waiting {
        0 => return None,
        1 => "1 slow request waits".to_string(),
        count => format!("{count} slow requests wait"),
    };
    let kinds = stats.slow_kinds.join(", ");
    Some(format!(
        "{app}: {waiting}, since one slot is left to the others ([front] slow_lane_wait); slow \
         are: {kinds}"
    ))
}

/// Adds the paths of apps, who says how many workers there are, and the watchers that are scaled
/// to nothing.
fn as_planned(mut watchers: Vec<WatcherStatus>, plan: Option<&Plan>) -> Vec<WatcherStatus> {
    for spec in plan.iter().flat_map(|plan| plan.watchers.values()).filter(|s| s.count == 0) {
        if !watchers.iter().any(|watcher| watcher.name == spec.name) {
            watchers.push(WatcherStatus {
                name: spec.name.clone(),
                plugin: spec.name.plugin().map(str::to_owned),
                path: None,
                hosts: Vec::new(),
                wanted: 0,
                ready: 0,
                scaled: None,
                state: WatcherState::Off,
                crashes: 0,
                last_end: None,
                workers: Vec::new(),
            });
        }
    }
    watchers.sort_by(|a, b| a.name.cmp(&b.name));
    for watcher in &mut watchers {
        let count = plan.and_then(|plan| plan.counts.get(&watcher.name));
        watcher.scaled = count.filter(|count| count.differs()).cloned();
    }
    let pages = plan.map_or_else(Default::default, |plan| pages(&plan.table.routes));
    let hosts = plan.map_or_else(Default::default, |plan| hosts(&plan.table.routes));
    let apps: BTreeSet<_> = pages.keys().chain(hosts.keys()).collect();
    for (plugin, app) in apps {
        let name = WatcherName::app(plugin, app);
        if let Ok(at) = watchers.binary_search_by(|watcher| watcher.name.cmp(&name)) {
            watchers[at].path = pages.get(&(*plugin, *app)).map(|path| path.to_string());
            let hosts = hosts.get(&(*plugin, *app)).into_iter().flatten();
            watchers[at].hosts = hosts.map(|host| host.to_string()).collect();
        }
    }
    watchers
}

fn plugin_status(plugin: &mfserv_core::plan::PlannedPlugin) -> PluginStatus {
    PluginStatus {
        name: plugin.name.clone(),
        version: plugin.version.clone(),
        dir: plugin.dir.to_string_lossy().into_owned(),
        state: plugin.state,
        paths: plugin.paths.clone(),
        hosts: plugin.hosts.clone(),
    }
}

/// Less than this is free on a disk that is full for us, bytes.
const FULL: u64 = 1 << 20;

/// What the telemetry role says of its ports, and of what does not arrive where it is sent.
fn telemetry_trouble(places: &Places) -> Vec<String> {
    // It has nothing to say, or a role of another version says it otherwise.
    let text = std::fs::read(places.var().join("ship/reports.json")).unwrap_or_default();
    let reports: Vec<Report> = serde_json::from_slice(&text).unwrap_or_default();
    let mut notes = Vec::new();
    for report in reports {
        if let Some((since_ms, why)) = report.trouble {
            let since = render::time(since_ms);
            notes.push(format!("{}: {why}, since {since}", report.what));
        }
        if report.lost_bytes > 0 {
            notes.push(format!(
                "{}: {} lost, at last {}: the files were removed before they were sent",
                report.what,
                render::bytes(report.lost_bytes),
                render::time(report.lost_ms),
            ));
        }
    }
    notes
}

/// Apps have the user of the front, and so the files that it can read.
fn readable_keys(plan: &Plan) -> Option<String> {
    let tls = plan.table.server.tls.as_ref()?;
    let has_apps = plan.watchers.values().any(|watcher| watcher.upstream.is_some());
    has_apps.then(|| {
        let key = tls.key.display();
        format!("apps run as the user of the front, and could read the keys of TLS ({key})")
    })
}

/// A note for the first directory whose disk is full.
fn full_disk(places: &Places) -> Option<String> {
    let full = |dir: &PathBuf| disk::free_bytes(dir).is_some_and(|free| free < FULL);
    let dir = [places.log(), places.var(), places.tmp()].into_iter().find(full)?;
    Some(format!(
        "the disk of {} is full: apps go on, but output, events and requests with large bodies \
         are lost until there is room",
        dir.display()
    ))
}

/// The address of TLS, where another one is in clear.
fn tls_address(listeners: &[Listen]) -> Option<String> {
    let is_tls = |listen: &Listen| listen.name.starts_with("https:");
    let (_, others) = listeners.split_first().filter(|(first, _)| !is_tls(first))?;
    others.iter().find(|listen| is_tls(listen)).and_then(address)
}

/// The URL of a listener, for a client on this host.
fn address(listen: &Listen) -> Option<String> {
    let (scheme, _) = listen.name.split_once(':')?;
    let everywhere = ["0.0.0.0:", "[::]:"];
    let port = everywhere.iter().find_map(|prefix| listen.address.strip_prefix(prefix));
    Some(match port {
        Some(port) => format!("{scheme}://127.0.0.1:{port}"),
        None => format!("{scheme}://{}", listen.address),
    })
}
