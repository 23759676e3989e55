//! Maintenance: for a time, requests to apps are answered by the front, or wait in it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::route::RouteTable;

/// The key of all apps.
pub const ALL: &str = "*";

/// What an upstream does with requests while its app is in maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Maintenance {
    /// They wait until it is over, as long as requests wait for a worker.
    Hold,
    /// They are refused.
    Shut,
}

/// What a route answers while its app is in maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shut {
    /// The file with the page; `None`: a small one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<PathBuf>,
}

/// That something is in maintenance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Requests wait.
    #[serde(default)]
    pub hold: bool,
    /// The file with the page; `None`: a small one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub page: Option<PathBuf>,
    /// Since when, milliseconds since the Unix epoch.
    pub since_ms: u64,
}

/// What is in maintenance: `*` (all apps), `PLUGIN` or `PLUGIN.APP`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Marks(pub BTreeMap<String, Mark>);

impl Marks {
    /// The mark that counts for an app: the one of the smallest part of the node.
    pub fn of(&self, plugin: &str, app: &str) -> Option<&Mark> {
        let own = self.0.get(&format!("{plugin}.{app}"));
        own.or_else(|| self.0.get(plugin)).or_else(|| self.0.get(ALL))
    }

    /// True if this, or something in it, is.
    pub fn has(&self, key: &str) -> bool {
        self.0.keys().any(|other| is_part(other, key))
    }

    /// Nothing is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is named is in maintenance, with everything in it.
    pub fn begin(&mut self, key: &str, mark: Mark) {
        self.0.retain(|other, _| !is_part(other, key));
        self.0.insert(key.to_string(), mark);
    }

    /// What is named is not any more, with everything in it. False: nothing of it was.
    ///
    /// # Errors
    /// The larger part of the node whose maintenance would have to end.
    pub fn end(&mut self, key: &str) -> Result<bool, String> {
        let larger = self.0.keys().find(|other| *other != key && is_part(key, other));
        if let Some(larger) = larger {
            return Err(larger.clone());
        }
        let before = self.0.len();
        self.0.retain(|other, _| !is_part(other, key));
        Ok(self.0.len() < before)
    }
}

/// True if the first of two keys names the same or a part of what the second one names.
pub fn is_part(of: &str, whole: &str) -> bool {
    let below = || of.strip_prefix(whole).is_some_and(|rest| rest.starts_with('.'));
    whole == ALL || of == whole || below()
}

/// Has a table obey these marks, and no others.
pub fn apply(table: &mut RouteTable, marks: &Marks) {
    for route in &mut table.routes {
        let mark = marks.of(&route.plugin, &route.app).filter(|mark| !mark.hold);
        route.maintenance = mark.map(|mark| Shut { page: mark.page.clone() });
    }
    for (name, spec) in &mut table.upstreams {
        let (plugin, app) = name.split_once('/').unwrap_or((name, ""));
        let hold_or_shut = |hold| if hold { Maintenance::Hold } else { Maintenance::Shut };
        spec.maintenance = marks.of(plugin, app).map(|mark| hold_or_shut(mark.hold));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(hold: bool) -> Mark {
        Mark { hold, page: None, since_ms: 1 }
    }

    #[test]
    fn the_mark_of_the_smallest_part_counts() {
        let mut marks = Marks::default();
        marks.begin("foo", mark(false));
        marks.begin("foo.main", mark(true));
        let hold = |marks: &Marks, plugin, app| marks.of(plugin, app).map(|mark| mark.hold);
        assert_eq!(hold(&marks, "foo", "main"), Some(true));
        assert_eq!(hold(&marks, "foo", "other"), Some(false));
        assert_eq!(hold(&marks, "foobar", "main"), None);
        marks.begin("foo", mark(false));
        assert_eq!(hold(&marks, "foo", "main"), Some(false), "the later one has all of it");
        marks.begin(ALL, mark(true));
        assert_eq!((marks.0.len(), hold(&marks, "any", "app")), (1, Some(true)));
    }

    #[test]
    fn the_end_of_a_part_needs_the_end_of_the_whole() {
        let mut marks = Marks::default();
        assert_eq!(marks.end("foo"), Ok(false));
        marks.begin("foo", mark(false));
        assert_eq!(marks.end("foo.main"), Err("foo".into()));
        marks.begin("bar.main", mark(false));
        assert_eq!((marks.end("foo"), marks.0.len()), (Ok(true), 1));
        assert_eq!((marks.end(ALL), marks.0.len()), (Ok(true), 0));
        marks.begin(ALL, mark(false));
        assert_eq!(marks.end("foo"), Err(ALL.into()));
    }
}
