//! The observed node at one instant: what `mfserv status` and `mfserv ps` show.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Diagnostic;
use crate::event::EndReason;
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
    /// CPU time of it and its descendants, milliseconds.
    pub cpu_ms: Option<u64>,
    /// What kills what it leaves behind: `cgroup` or `session`.
    pub containment: String,
    /// It was started by an earlier keeper.
    pub adopted: bool,
    /// The last result of its readiness probe, while it is starting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub probe: Option<String>,
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
    /// The plugin; `None` for the front.
    pub plugin: Option<String>,
    /// The URL path of its app, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// How many workers are wanted.
    pub wanted: u32,
    /// How many are ready.
    pub ready: u32,
    /// Who says how many are wanted, if that is not the plugin's own configuration.
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
    /// Problems of the present configuration.
    pub problems: Vec<Diagnostic>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_state_is_the_same_word_in_json_and_on_a_terminal() {
        use WatcherState as S;
        let words = ["ready", "starting", "restarting", "failing", "stopping", "off"];
        let states = [S::Ready, S::Starting, S::Restarting, S::Failing, S::Stopping, S::Off];
        for (state, word) in states.into_iter().zip(words) {
            assert_eq!(state.to_string(), word);
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{word}\""));
        }
    }

    #[test]
    fn the_state_of_a_plugin_is_shown_in_words() {
        let words = ["active", "refused", "last good"];
        for (state, word) in PluginState::ALL.into_iter().zip(words) {
            let status = PluginStatus {
                name: "p".into(),
                version: String::new(),
                dir: "/p".into(),
                state,
                paths: Vec::new(),
            };
            let text = serde_json::to_string(&status).unwrap();
            assert!(text.contains(&format!(r#""state":"{word}""#)), "{text}");
            assert_eq!(serde_json::from_str::<PluginStatus>(&text).unwrap(), status);
            let other = text.replace(word, "lost");
            assert!(serde_json::from_str::<PluginStatus>(&other).is_err());
        }
    }
}
