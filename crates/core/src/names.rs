//! The names that run through the whole system, and how they are written.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Checks a plugin name by the rules of the plugin format: letters, digits,
/// `_` and `-`; not starting with `plugin_` or `__`; not `base` or `config`.
/// Returns the reason when it is refused.
pub fn check_plugin_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() {
        return Err("a plugin name cannot be empty".into());
    }
    if !name.chars().all(allowed) {
        return Err("a plugin name is made of letters, digits, _ and - only".into());
    }
    if name.len() > 100 {
        return Err("a plugin name has at most 100 characters".into());
    }
    for prefix in ["plugin_", "__"] {
        if name.starts_with(prefix) {
            return Err(format!("a plugin name cannot start with {prefix}"));
        }
    }
    if name == "base" || name == "config" {
        return Err(format!("the name {name} is reserved"));
    }
    Ok(())
}

/// The name of a plugin, as its label has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PluginName(String);

impl PluginName {
    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for PluginName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// The name of a watcher: `app.PLUGIN.APP`, `extra.PLUGIN.NAME`, `front`, `telemetry` or
/// `telegraf`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WatcherName(String);

impl WatcherName {
    /// The watcher of an app.
    pub fn app(plugin: &str, app: &str) -> Self {
        Self(format!("app.{plugin}.{app}"))
    }

    /// The watcher of an extra daemon.
    pub fn extra(plugin: &str, name: &str) -> Self {
        Self(format!("extra.{plugin}.{name}"))
    }

    /// The watcher of the web front.
    pub fn front() -> Self {
        Self("front".into())
    }

    /// The watcher of the telemetry role.
    pub fn telemetry() -> Self {
        Self("telemetry".into())
    }

    /// The watcher of Telegraf.
    pub fn telegraf() -> Self {
        Self("telegraf".into())
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The plugin, if the watcher belongs to one.
    pub fn plugin(&self) -> Option<&str> {
        let mut parts = self.0.splitn(3, '.');
        match (parts.next(), parts.next(), parts.next()) {
            (Some("app" | "extra"), Some(plugin), Some(_)) => Some(plugin),
            _ => None,
        }
    }

    /// The part after the plugin, or the whole name.
    pub fn short(&self) -> &str {
        self.0.splitn(3, '.').last().unwrap_or(&self.0)
    }

    /// The name of an app's upstream, `PLUGIN/APP`.
    pub fn upstream(&self) -> Option<String> {
        let (plugin, app) = self.0.strip_prefix("app.")?.split_once('.')?;
        Some(format!("{plugin}/{app}"))
    }

    /// The name as part of a file name: dots become underscores
    /// (`app_PLUGIN_APP`), as MFSERV names its logs and sockets.
    pub fn file_stem(&self) -> String {
        self.0.replace('.', "_")
    }
}

impl fmt::Display for WatcherName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for WatcherName {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

/// One process of a watcher: slot number N (1..count) and incarnation K,
/// written `app.PLUGIN.APP.N.K`. No two processes of a node ever share one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId {
    /// The watcher it belongs to.
    pub watcher: WatcherName,
    /// The slot number, from 1.
    pub slot: u32,
    /// The incarnation in that slot, from 1, never reused in a node's life.
    pub incarnation: u64,
}

impl WorkerId {
    /// A worker of a watcher.
    pub fn new(watcher: WatcherName, slot: u32, incarnation: u64) -> Self {
        Self { watcher, slot, incarnation }
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.watcher, self.slot, self.incarnation)
    }
}

impl FromStr for WorkerId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.rsplitn(3, '.');
        let incarnation = parts.next().and_then(|k| k.parse().ok());
        let slot = parts.next().and_then(|n| n.parse().ok());
        match (parts.next(), slot, incarnation) {
            (Some(watcher), Some(slot), Some(incarnation)) if !watcher.is_empty() => {
                Ok(Self::new(WatcherName(watcher.into()), slot, incarnation))
            }
            _ => Err(format!("{text:?} is not a worker: expected WATCHER.N.K")),
        }
    }
}

impl Serialize for WorkerId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WorkerId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_written_and_read_back_the_same() {
        for text in ["app.foo.main.2.7", "extra.a-b.c_d.1.1", "front.1.12"] {
            let worker: WorkerId = text.parse().unwrap();
            assert_eq!(worker.to_string(), text);
        }
        assert!("app.foo".parse::<WorkerId>().is_err());
        assert!(".1.2".parse::<WorkerId>().is_err());
    }

    #[test]
    fn plugin_names_follow_the_plugin_format() {
        for good in ["foo", "Foo-bar_2", "sample_flask"] {
            assert!(check_plugin_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "..", "plugin_x", "__hs_x", "base", "config", "é"] {
            assert!(check_plugin_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_watcher_knows_its_plugin_and_its_file_name() {
        let watcher = WatcherName::app("foo", "main");
        assert_eq!(watcher.plugin(), Some("foo"));
        assert_eq!(watcher.short(), "main");
        assert_eq!(watcher.file_stem(), "app_foo_main");
        assert_eq!(WatcherName::front().plugin(), None);
    }
}
