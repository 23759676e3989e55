//! The observed node at one instant: what `mfserv status` and `mfserv ps` show.

mod urls;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::event::EndReason;
use crate::maintenance::Marks;
use crate::memory::MemoryControl;
use crate::names::{WatcherName, WorkerId};
use crate::node_state::NodeState;
use crate::plan::{Count, PluginState};
use crate::wire::front::{UpstreamStats, Warned};
use crate::worker::{Phase, Want};

/// One worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Its id.
    pub id: WorkerId,
    /// Its process id, when it has a process.
    pub pid: Option<u32>,
    /// Where it is.
    pub phase: Phase,
    /// Whether its slot is to be filled again once it has ended.
    pub want: Want,
    /// Since when it is in this phase, milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When its process was started, milliseconds since the Unix epoch.
    pub started_ms: u64,
    /// Resident memory of it and its descendants, bytes.
    pub memory_bytes: Option<u64>,
    /// How its memory is limited, and what counts of it; `None` without limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<WorkerMemory>,
    /// CPU time of it and its descendants, milliseconds.
    pub cpu_ms: Option<u64>,
    /// What kills what it leaves behind: `cgroup` or `session`.
    pub containment: String,
    /// It was started by an earlier keeper.
    pub adopted: bool,
    /// The last result of its readiness probe, while it is starting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
    /// Where it listens, if that is a port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listens: Option<std::net::SocketAddr>,
}

/// The limited memory of a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerMemory {
    /// Anonymous and shared memory of it and of what it has started, bytes.
    pub used_bytes: Option<u64>,
    /// It is above `memory_high`, and is replaced when it has served for so long, milliseconds:
    /// the worker before it was above it as soon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_after_ms: Option<u64>,
    /// The limits, and what enforces them.
    #[serde(flatten)]
    pub control: MemoryControl,
}

/// The end of the last worker that crashed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastEnd {
    /// The worker.
    pub worker: WorkerId,
    /// Why.
    pub why: EndReason,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The last lines of its output.
    pub last_output: String,
}

/// The state of a watcher, one word for people and for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WatcherState {
    /// All wanted workers are ready.
    Ready,
    /// Workers are being started, and none has failed.
    Starting,
    /// Workers are being replaced one after the other.
    Restarting,
    /// The last start failed: a slot without a ready worker waits or tries again.
    Failing,
    /// No worker is wanted, and some still live.
    Stopping,
    /// No worker is wanted, and none lives.
    Off,
}

impl std::fmt::Display for WatcherState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            WatcherState::Ready => "ready",
            WatcherState::Starting => "starting",
            WatcherState::Restarting => "restarting",
            WatcherState::Failing => "failing",
            WatcherState::Stopping => "stopping",
            WatcherState::Off => "off",
        })
    }
}

/// One watcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WatcherStatus {
    /// Its name.
    pub name: WatcherName,
    /// The plugin; `None` for a role: the front, telemetry.
    pub plugin: Option<String>,
    /// The URL path of its app, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The hosts where its app answers, at `/`; also wildcards.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
    /// How many workers are wanted.
    pub wanted: u32,
    /// How many are ready.
    pub ready: u32,
    /// Who says how many are wanted, and with which options they run, if that is not the
    /// plugin's own configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scaled: Option<Count>,
    /// Its state.
    pub state: WatcherState,
    /// Crashes and failed starts since the node started.
    pub crashes: u64,
    /// The last of them.
    pub last_end: Option<LastEnd>,
    /// The workers, by slot and incarnation.
    pub workers: Vec<WorkerStatus>,
}

/// One plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginStatus {
    /// Its name.
    pub name: String,
    /// `VERSION-RELEASE` of its configuration, or empty when that cannot be read.
    pub version: String,
    /// The directory that its workers use.
    pub dir: String,
    /// How it takes part.
    #[serde(with = "plugin_state")]
    pub state: PluginState,
    /// Where its apps answer, as URL paths.
    pub paths: Vec<String>,
    /// The hosts where its apps answer, at `/`; also wildcards as `*.example.org`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hosts: Vec<String>,
}

/// The state of a plugin is shown as `last good`; a stored plan has `last_good`.
mod plugin_state {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::plan::PluginState;

    pub fn serialize<S: Serializer>(state: &PluginState, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(state.as_str())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PluginState, D::Error> {
        let text = String::deserialize(from)?;
        let known = PluginState::ALL.into_iter().find(|state| state.as_str() == text);
        known.ok_or_else(|| D::Error::custom(format!("{text:?} is no state of a plugin")))
    }
}

/// A role of the node: keeper, daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleStatus {
    /// Its process id.
    pub pid: u32,
    /// Its version.
    pub version: String,
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// The whole node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its state, also in the file `var/status`.
    pub state: NodeState,
    /// The runtime home.
    pub home: String,
    /// Where HTTP is answered, `http://HOST:PORT`.
    pub address: Option<String>,
    /// Where HTTP over TLS is answered too, `https://HOST:PORT`; `None` where `address` says it.
    #[serde(default)]
    pub tls_address: Option<String>,
    /// The generation of the plan in force.
    pub generation: u64,
    /// The keeper.
    pub keeper: Option<RoleStatus>,
    /// The daemon.
    pub daemon: RoleStatus,
    /// What a restart of the keeper or of the daemon has lost, in sentences.
    pub notes: Vec<String>,
    /// The plugins.
    pub plugins: Vec<PluginStatus>,
    /// The watchers, the front included.
    pub watchers: Vec<WatcherStatus>,
    /// The requests of each app, by upstream (`PLUGIN.APP`): counted since the fronts that live
    /// were started, summed over them. A front that does not answer is left out.
    #[serde(default)]
    pub requests: BTreeMap<String, UpstreamStats>,
    /// By sentence, what the fronts that live have to warn of: limits that were met, and what
    /// they do not do.
    #[serde(default)]
    pub front_warnings: BTreeMap<String, Warned>,
    /// What is in maintenance.
    #[serde(default, skip_serializing_if = "Marks::is_empty")]
    pub maintenance: Marks,
    /// Problems of the present configuration.
    pub problems: Vec<Diagnostic>,
}

impl WatcherStatus {
    /// It is the web front.
    pub fn is_front(&self) -> bool {
        self.name == WatcherName::front()
    }
}

impl Status {
    /// The web front, if the node has one.
    pub fn front(&self) -> Option<&WatcherStatus> {
        self.watchers.iter().find(|watcher| watcher.is_front())
    }

    /// The node runs, and everything that it shall run does.
    pub fn is_well(&self) -> bool {
        self.state == NodeState::Running && self.faults().is_empty()
    }

    /// What is wrong beside the state of the node, each in a few words: `1 of 6 apps down`.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.keeper.is_none() {
            faults.push("no keeper".into());
        }
        for (role, text) in [
            (WatcherName::front(), "the front is down"),
            (WatcherName::telemetry(), "telemetry is down"),
            (WatcherName::telegraf(), "Telegraf is down"),
        ] {
            let role = self.watchers.iter().find(|watcher| watcher.name == role);
            if role.is_some_and(|role| role.ready < role.wanted) {
                faults.push(text.into());
            }
        }
        // It has been replaced by one that does not start; the one of before may serve.
        if self.front().is_some_and(|front| {
            front.ready >= front.wanted && front.state == WatcherState::Failing
        }) {
            faults.push("the new front does not start".into());
        }
        for (kind, one, several) in
            [("app.", "app", "apps"), ("extra.", "extra daemon", "extra daemons")]
        {
            let own = |watcher: &&WatcherStatus| watcher.name.as_str().starts_with(kind);
            let wanted: Vec<_> =
                self.watchers.iter().filter(own).filter(|w| w.wanted > 0).collect();
            let what = if wanted.len() == 1 { one } else { several };
            // What is in maintenance may lack whatever it is mended in.
            let served = || wanted.iter().filter(|watcher| !self.is_in_maintenance(watcher));
            let down = served().filter(|watcher| watcher.ready == 0).count();
            let short = served().filter(|w| w.ready > 0 && w.ready < w.wanted).count();
            for (count, how) in [(down, "down"), (short, "with too few workers")] {
                if count > 0 {
                    faults.push(format!("{count} of {} {what} {how}", wanted.len()));
                }
            }
        }
        let broken = self.front_warnings.values().filter(|warned| warned.is_fault);
        faults.extend(count_of(broken.count(), "fault of the front", "faults of the front"));
        let unwell = self.plugins.iter().filter(|plugin| plugin.state != PluginState::Active);
        let names: Vec<&str> = unwell.map(|plugin| plugin.name.as_str()).collect();
        faults.extend(count_of(names.len(), "plugin refused", "plugins refused"));
        let others = self.problems.iter().filter(|problem| {
            problem.is_error() && !names.iter().any(|plugin| problem.is_about(plugin))
        });
        faults.extend(count_of(others.count(), "error", "errors"));
        faults
    }

    /// Somebody has put this app in maintenance. An extra daemon gets no requests that could be kept
    /// from it.
    fn is_in_maintenance(&self, watcher: &WatcherStatus) -> bool {
        let plugin = watcher.plugin.as_deref().unwrap_or_default();
        let is_app = watcher.name.as_str().starts_with("app.");
        is_app && self.maintenance.of(plugin, watcher.name.short()).is_some()
    }
}

fn count_of(count: usize, one: &str, several: &str) -> Option<String> {
    let what = if count == 1 { one } else { several };
    (count > 0).then(|| format!("{count} {what}"))
}

#[cfg(test)]
mod tests;
