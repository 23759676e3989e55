//! How many workers each app and extra daemon has, and who says so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Location;
use crate::names::WatcherName;
use crate::watcher::WatcherSpec;

/// A count that somebody asked for without writing it into the configuration (`circusctl incr`,
/// `plugins.stop`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// How many workers.
    pub count: u32,
    /// The configuration that it was asked for ([`configuration_of`]): the count ends with it.
    /// `None` = the next one that is read.
    pub of: Option<u64>,
}

/// The count of a watcher in a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// How many workers are wanted.
    pub wanted: u32,
    /// What the configuration says.
    pub configured: u32,
    /// Where an override file says so; `None` = the plugin's own configuration.
    #[serde(default)]
    pub at: Option<Location>,
    /// `wanted` is a [`Held`] count.
    #[serde(default)]
    pub held: bool,
    /// The configuration of the watcher.
    pub of: u64,
}

impl Count {
    /// The count of a watcher of which its configuration wants `spec.count` workers.
    pub(super) fn new(
        spec: &WatcherSpec,
        at: Option<Location>,
        held: &BTreeMap<WatcherName, Held>,
    ) -> Count {
        let of = configuration_of(spec);
        let held = held.get(&spec.name).filter(|held| held.of.is_none_or(|known| known == of));
        Count {
            wanted: held.map_or(spec.count, |held| held.count),
            configured: spec.count,
            at,
            held: held.is_some(),
            of,
        }
    }

    /// Somebody decides about the count beside the plugin itself: the watcher is there, and can
    /// be scaled, also with no worker.
    pub fn is_scaled(&self) -> bool {
        self.held || self.at.is_some()
    }
}

/// What a watcher is configured to run, its count included, as a number.
fn configuration_of(spec: &WatcherSpec) -> u64 {
    spec.fingerprint().rotate_left(1) ^ u64::from(spec.count)
}
