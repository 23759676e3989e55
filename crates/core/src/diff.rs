//! The difference between two plans.

use crate::names::WatcherName;
use crate::plan::{Listen, Plan};

/// What has to change to come from one plan to another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// Watchers that are new.
    pub start: Vec<WatcherName>,
    /// Watchers that are not wanted any more.
    pub stop: Vec<WatcherName>,
    /// Watchers whose workers are all replaced.
    pub replace: Vec<WatcherName>,
    /// Watchers that change their number of workers, and nothing that a worker runs with.
    pub rescale: Vec<WatcherName>,
    /// Watchers whose workers go on, and are given another timeout.
    pub adjust: Vec<WatcherName>,
    /// The route table changes.
    pub table: bool,
    /// Sockets to listen on.
    pub listen: Vec<Listen>,
    /// Names of sockets to close.
    pub unlisten: Vec<String>,
}

impl Changes {
    /// The changes from one plan (`None`: no plan yet) to another.
    pub fn between(old: Option<&Plan>, new: &Plan) -> Changes {
        let mut changes =
            Changes { table: old.is_none_or(|old| old.table != new.table), ..Self::default() };
        let before = |name: &WatcherName| old.and_then(|old| old.watchers.get(name));
        for (name, spec) in &new.watchers {
            let list = match before(name) {
                None => &mut changes.start,
                Some(was) if was == spec => continue,
                Some(was) if was.fingerprint() != spec.fingerprint() => &mut changes.replace,
                Some(was) if was.count != spec.count => &mut changes.rescale,
                Some(_) => &mut changes.adjust,
            };
            list.push(name.clone());
        }
        let Some(old) = old else {
            changes.listen.clone_from(&new.listeners);
            return changes;
        };
        let gone = old.watchers.keys().filter(|name| !new.watchers.contains_key(name));
        changes.stop = gone.cloned().collect();
        let fresh = new.listeners.iter().filter(|listen| !old.listeners.contains(listen));
        changes.listen = fresh.cloned().collect();
        let closed =
            old.listeners.iter().filter(|was| !new.listeners.iter().any(|l| l.name == was.name));
        changes.unlisten = closed.map(|listen| listen.name.clone()).collect();
        changes
    }

    /// True if nothing changes.
    pub fn is_empty(&self) -> bool {
        *self == Changes::default()
    }

    /// The watchers that are touched and remain.
    pub fn touched(&self) -> Vec<WatcherName> {
        [&self.start[..], &self.replace[..], &self.rescale[..], &self.adjust[..]].concat()
    }
}

/// In a few words, for a log line.
impl std::fmt::Display for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parts = Vec::new();
        let lists = [
            ("start", &self.start),
            ("stop", &self.stop),
            ("replace", &self.replace),
            ("rescale", &self.rescale),
            ("adjust", &self.adjust),
        ];
        for (verb, names) in lists.iter().filter(|(_, names)| !names.is_empty()) {
            let names: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
            parts.push(format!("{verb} {}", names.join(", ")));
        }
        if self.table {
            parts.push("routes".into());
        }
        parts.extend(self.listen.iter().map(|listen| format!("listen on {}", listen.address)));
        parts.extend(self.unlisten.iter().map(|name| format!("close {name}")));
        match parts.is_empty() {
            true => f.write_str("nothing"),
            false => f.write_str(&parts.join("; ")),
        }
    }
}
