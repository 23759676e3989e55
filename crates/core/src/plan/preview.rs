//! What a plan would change if it came into force: what `mfserv plan` shows.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::diagnostic::Diagnostic;
use crate::diff::Changes;
use crate::names::WatcherName;
use crate::plan::Plan;
use crate::route::{Route, Target};
use crate::watcher::WatcherSpec;

/// More variables than this are named by their number.
const NAMED: usize = 5;

/// The difference of a plan to the one in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlanPreview {
    /// The generation of the plan in force; `None`: no node runs, and everything is new.
    pub in_force: Option<u64>,
    /// Plugins that come, go, or have another version or state.
    pub plugins: Vec<PluginChange>,
    /// Watchers of which something changes.
    pub workers: Vec<WorkersChange>,
    /// Routes that come, go, or lead elsewhere.
    pub routes: Vec<RouteChange>,
    /// Apps whose requests are passed on otherwise: timeout, slots, queue (`PLUGIN/APP`).
    pub upstreams: Vec<String>,
    /// Settings of the front that change: fields of its route table.
    pub settings: Vec<String>,
    /// Addresses that are listened on from then on.
    pub listen: Vec<String>,
    /// Addresses that are closed.
    pub close: Vec<String>,
    /// Jobs that come, go or change.
    pub jobs: Vec<JobChange>,
    /// The memory of all workers.
    pub memory: Memory,
    /// What would be wrong or doubtful. An error among them: it would be refused, or a part of it.
    pub problems: Vec<Diagnostic>,
}

/// What becomes of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is new.
    Add,
    /// It goes.
    Remove,
    /// It changes.
    Change,
}

/// A plugin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginChange {
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub action: Action,
    /// `VERSION-RELEASE (STATE)` now.
    pub was: Option<String>,
    /// The same then.
    pub becomes: Option<String>,
}

/// What becomes of the workers of a watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Workers {
    /// They are started.
    Start,
    /// They are drained and stopped.
    Stop,
    /// All of them are replaced.
    Replace,
    /// They go on; more are started, or some are stopped.
    Rescale,
    /// They go on, with another timeout.
    Adjust,
}

/// The workers of a watcher.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkersChange {
    /// The watcher.
    pub watcher: WatcherName,
    /// What becomes of them.
    pub action: Workers,
    /// How many are wanted now.
    pub was: u32,
    /// How many then.
    pub becomes: u32,
    /// What differs. Values are left out, since they may be secret.
    pub because: Vec<String>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteChange {
    /// What becomes of it.
    pub action: Action,
    /// The prefix of its URLs, or a pattern, after its host if it has one.
    pub prefix: String,
    /// `PLUGIN/APP`.
    pub app: String,
    /// Where it leads now, if it is there.
    pub was: Option<String>,
    /// Where it leads then.
    pub becomes: Option<String>,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobChange {
    /// What becomes of it.
    pub action: Action,
    /// `PLUGIN.NAME`.
    pub name: String,
    /// When it runs then, or now if it goes.
    pub schedule: String,
}

/// The memory of all workers, bytes: what they use now, and what as many would use if each used
/// as much as the others of its watcher do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Now.
    pub now_bytes: u64,
    /// When everything has changed.
    pub then_bytes: u64,
    /// At most, while workers are replaced.
    pub meanwhile_bytes: u64,
    /// Workers of watchers of which none runs: nothing is known of them, and nothing counted.
    pub unknown_workers: u32,
}

/// The memory of each worker that lives, bytes, by its watcher.
pub type Measured = BTreeMap<WatcherName, Vec<u64>>;

impl PlanPreview {
    /// What changes from one plan (`None`: nothing runs) to the next.
    pub fn between(old: Option<&Plan>, new: &Plan, measured: &Measured) -> PlanPreview {
        let changes = Changes::between(old, new);
        let addresses = |plan: &Plan, names: &[String]| -> Vec<String> {
            let named = plan.listeners.iter().filter(|listen| names.contains(&listen.name));
            named.map(|listen| listen.address.clone()).collect()
        };
        PlanPreview {
            in_force: old.map(|old| old.generation),
            plugins: plugins(old, new),
            routes: routes(old, new),
            upstreams: upstreams(old, new),
            settings: old.map_or_else(Vec::new, |old| {
                different(&old.table.server, &new.table.server).collect()
            }),
            listen: changes.listen.iter().map(|listen| listen.address.clone()).collect(),
            close: old.map_or_else(Vec::new, |old| addresses(old, &changes.unlisten)),
            jobs: jobs(old, new),
            memory: Memory::between(old, new, &changes, measured),
            workers: workers(old, new, &changes),
            problems: new.problems.clone(),
        }
    }

    /// Nothing would change.
    pub fn changes_nothing(&self) -> bool {
        self.in_force.is_some()
            && self.plugins.is_empty()
            && self.workers.is_empty()
            && self.routes.is_empty()
            && [&self.upstreams, &self.settings, &self.listen, &self.close]
                .iter()
                .all(|list| list.is_empty())
            && self.jobs.is_empty()
    }
}

impl Memory {
    fn between(old: Option<&Plan>, new: &Plan, changes: &Changes, measured: &Measured) -> Memory {
        let mut memory =
            Memory { now_bytes: measured.values().flatten().sum(), ..Memory::default() };
        let mut beside = 0;
        for (name, spec) in &new.watchers {
            let known = measured.get(name).filter(|workers| !workers.is_empty());
            let Some(known) = known else {
                memory.unknown_workers += spec.count;
                continue;
            };
            let each = known.iter().sum::<u64>() / known.len() as u64;
            memory.then_bytes += each * u64::from(spec.count);
            if changes.replace.contains(name) && spec.overlap {
                let was = old.and_then(|old| old.watchers.get(name)).unwrap_or(spec);
                beside += each * was.rolling_width().min(was.count as usize) as u64;
            }
        }
        memory.meanwhile_bytes = memory.now_bytes.max(memory.then_bytes) + beside;
        memory
    }
}

/// The elements of two maps that are not in both, and those that are not equal.
fn compared<'a, K: Ord, V: PartialEq>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Action, Option<&'a V>, Option<&'a V>)> {
    let names: BTreeSet<&K> = old.keys().chain(new.keys()).collect();
    names.into_iter().filter_map(|name| {
        let action = match (old.get(name), new.get(name)) {
            (None, _) => Action::Add,
            (_, None) => Action::Remove,
            (was, becomes) if was == becomes => return None,
            _ => Action::Change,
        };
        Some((name, action, old.get(name), new.get(name)))
    })
}

fn plugins(old: Option<&Plan>, new: &Plan) -> Vec<PluginChange> {
    let of = |plan: &Plan| -> BTreeMap<String, String> {
        let named = plan.plugins.iter().map(|plugin| {
            let version = plugin.version.as_str();
            let gap = if version.is_empty() { "" } else { " " };
            (plugin.name.clone(), format!("{version}{gap}({})", plugin.state))
        });
        named.collect()
    };
    let (old, new) = (old.map(of).unwrap_or_default(), of(new));
    let changes = compared(&old, &new).map(|(name, action, was, becomes)| PluginChange {
        name: name.clone(),
        action,
        was: was.cloned(),
        becomes: becomes.cloned(),
    });
    changes.collect()
}

fn workers(old: Option<&Plan>, new: &Plan, changes: &Changes) -> Vec<WorkersChange> {
    let lists = [
        (Workers::Stop, &changes.stop),
        (Workers::Start, &changes.start),
        (Workers::Replace, &changes.replace),
        (Workers::Rescale, &changes.rescale),
        (Workers::Adjust, &changes.adjust),
    ];
    let of = |action: Workers, name: &WatcherName| {
        let was = old.and_then(|old| old.watchers.get(name));
        let becomes = new.watchers.get(name);
        let ends = old.and_then(|old| old.counts.get(name)).is_some_and(|count| count.held)
            && !new.counts.get(name).is_some_and(|count| count.held);
        let mut because = was.zip(becomes).map_or_else(Vec::new, |(was, now)| reasons(was, now));
        because.extend(ends.then(|| "the count that was asked for ends".to_string()));
        WorkersChange {
            watcher: name.clone(),
            action,
            was: was.map_or(0, |spec| spec.count),
            becomes: becomes.map_or(0, |spec| spec.count),
            because,
        }
    };
    let all = lists.into_iter().flat_map(|(action, names)| names.iter().map(move |n| (action, n)));
    all.map(|(action, name)| of(action, name)).collect()
}

/// The fields of two values that differ.
fn different<T: Serialize>(was: &T, now: &T) -> impl Iterator<Item = String> + use<T> {
    let fields = |value: &T| match serde_json::to_value(value) {
        Ok(Value::Object(fields)) => fields.into_iter().collect::<BTreeMap<_, _>>(),
        _ => BTreeMap::new(),
    };
    let (was, now) = (fields(was), fields(now));
    let names: Vec<String> = compared(&was, &now).map(|(name, ..)| name.clone()).collect();
    names.into_iter()
}

/// What of a watcher differs, for people.
fn reasons(was: &WatcherSpec, now: &WatcherSpec) -> Vec<String> {
    let named = different(was, now).filter(|field| field != "count");
    let reason = |field: String| match field.as_str() {
        "argv" => "its command".into(),
        "cwd" => "its directory".into(),
        "rlimits" => "its limits".into(),
        "env" => variables(&was.env, &now.env),
        "secrets" => {
            let names: Vec<&str> = now.secrets.different(&was.secrets).collect();
            format!("its secrets ({})", names.join(", "))
        }
        other => other.trim_end_matches("_ms").trim_end_matches("_s").replace('_', " "),
    };
    named.map(reason).collect()
}

fn variables(was: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> String {
    let names: Vec<&str> = compared(was, now).map(|(name, ..)| name.as_str()).collect();
    let shown = names.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    match names.len().checked_sub(NAMED) {
        None | Some(0) => format!("its environment ({shown})"),
        Some(more) => format!("its environment ({shown} and {more} more)"),
    }
}

fn routes(old: Option<&Plan>, new: &Plan) -> Vec<RouteChange> {
    // Of two equal prefixes of an app one leads to files, the other to its workers.
    let key = |route: &Route| {
        let files = matches!(route.target, Target::Static { .. } | Target::Site { .. });
        (route.label(), route.plugin.clone(), route.app.clone(), files)
    };
    let of = |plan: &Plan| -> BTreeMap<_, String> {
        plan.table.routes.iter().map(|route| (key(route), leads_to(&route.target))).collect()
    };
    let (old, new) = (old.map(of).unwrap_or_default(), of(new));
    let changes = compared(&old, &new).map(|(key, action, was, becomes)| RouteChange {
        action,
        prefix: key.0.clone(),
        app: format!("{}/{}", key.1, key.2),
        was: was.cloned(),
        becomes: becomes.cloned(),
    });
    changes.collect()
}

fn leads_to(target: &Target) -> String {
    match target {
        Target::Upstream { name } => format!("workers of {name}"),
        Target::Static { root } | Target::Site { root, .. } => {
            format!("files of {}", root.display())
        }
        Target::Fixed { status, .. } => format!("answer {status}"),
    }
}

fn upstreams(old: Option<&Plan>, new: &Plan) -> Vec<String> {
    let Some(old) = old else { return Vec::new() };
    let changes = compared(&old.table.upstreams, &new.table.upstreams);
    let changes = changes.filter(|(_, action, ..)| *action == Action::Change);
    changes.map(|(name, ..)| name.clone()).collect()
}

fn jobs(old: Option<&Plan>, new: &Plan) -> Vec<JobChange> {
    let none = BTreeMap::new();
    let changes = compared(old.map_or(&none, |old| &old.jobs), &new.jobs);
    let change = changes.map(|(name, action, was, becomes)| {
        let schedule = becomes.or(was).map(|job| job.schedule.clone()).unwrap_or_default();
        JobChange { action, name: name.clone(), schedule }
    });
    change.collect()
}

#[cfg(test)]
mod tests;
