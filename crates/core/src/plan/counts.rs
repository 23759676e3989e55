//! How many workers each app and extra daemon has, which other options somebody asked for, and
//! who says so.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::diagnostic::Location;
use crate::names::WatcherName;
use crate::watcher::WatcherSpec;

/// What somebody asked for of a watcher without writing it into the configuration
/// (`circusctl incr`, `circusctl set`, `plugins.stop`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// How many workers; `None` = what the configuration says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
    /// Other options.
    #[serde(default, skip_serializing_if = "HeldOptions::is_empty")]
    pub options: HeldOptions,
    /// The configuration that it was asked for ([`configuration_of`]): what is held ends with
    /// it, but for a stop. `None` = the next one that is read.
    pub of: Option<u64>,
    /// The release, or linked directory, that it was asked for: all that is held ends with it.
    /// `None` = the next one that is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<u64>,
}

impl Held {
    /// What outlives a change of the configuration: an app that somebody has stopped stays
    /// stopped until somebody starts it, or installs another release.
    pub fn stopped(self) -> Option<Held> {
        let stopped = Held { count: Some(0), release: self.release, ..Held::default() };
        (self.count == Some(0)).then_some(stopped)
    }
}

/// Options of a watcher that somebody asked for; `None` = what the configuration says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldOptions {
    /// [`WatcherSpec::max_age_s`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age_s: Option<u64>,
    /// From the order to stop a worker to SIGKILL, its drain included, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_timeout_ms: Option<u64>,
    /// [`WatcherSpec::stop_signal`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<i32>,
}

impl HeldOptions {
    /// Nothing is held.
    pub fn is_empty(&self) -> bool {
        *self == HeldOptions::default()
    }

    /// These, and those of `later` in place of them.
    pub fn and(self, later: HeldOptions) -> HeldOptions {
        HeldOptions {
            max_age_s: later.max_age_s.or(self.max_age_s),
            graceful_timeout_ms: later.graceful_timeout_ms.or(self.graceful_timeout_ms),
            stop_signal: later.stop_signal.or(self.stop_signal),
        }
    }

    /// Lets them be in force in a watcher.
    pub(super) fn apply(self, spec: &mut WatcherSpec) {
        if let Some(max_age_s) = self.max_age_s {
            spec.max_age_s = max_age_s;
        }
        if let Some(signal) = self.stop_signal {
            spec.stop_signal = signal;
        }
        if let Some(all_ms) = self.graceful_timeout_ms {
            // The program keeps a second to end, of a longer time what the drain leaves.
            let stop_ms = all_ms.saturating_sub(spec.drain_timeout_ms).max(all_ms.min(1000));
            spec.drain_timeout_ms = spec.drain_timeout_ms.min(all_ms - stop_ms);
            // 0 would be to wait for ever.
            spec.stop_timeout_ms = stop_ms.max(1);
        }
    }
}

/// `max_age=60`, as Circus calls them.
impl std::fmt::Display for HeldOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = |ms: u64| ms as f64 / 1000.0;
        let all = [
            self.max_age_s.map(|seconds| format!("max_age={seconds}")),
            self.graceful_timeout_ms.map(|ms| format!("graceful_timeout={}", seconds(ms))),
            self.stop_signal.map(|signal| format!("stop_signal={signal}")),
        ];
        f.write_str(&all.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
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
    /// Other options that are held.
    #[serde(default, skip_serializing_if = "HeldOptions::is_empty")]
    pub options: HeldOptions,
    /// The configuration of the watcher.
    pub of: u64,
    /// The release that it is of.
    #[serde(default)]
    pub release: u64,
}

impl Count {
    /// The count of a watcher of which its configuration wants `spec.count` workers.
    pub(super) fn new(
        spec: &WatcherSpec,
        at: Option<Location>,
        held: &BTreeMap<WatcherName, Held>,
    ) -> Count {
        let (of, release) = (configuration_of(spec), release_of(spec));
        let held = held.get(&spec.name).filter(|held| held.release.is_none_or(|it| it == release));
        let held = held.and_then(|held| match held.of {
            Some(known) if known != of => held.stopped(),
            _ => Some(*held),
        });
        let Held { count, options, .. } = held.unwrap_or_default();
        let wanted = count.unwrap_or(spec.count);
        Count { wanted, configured: spec.count, at, held: count.is_some(), options, of, release }
    }

    /// Somebody decides about the count beside the plugin itself: the watcher is there, and can
    /// be scaled, also with no worker.
    pub fn is_scaled(&self) -> bool {
        self.held || self.at.is_some()
    }

    /// Somebody has stopped it, and nobody has started it since.
    pub fn is_stopped(&self) -> bool {
        self.held && self.wanted == 0
    }

    /// Something of the watcher is otherwise than its plugin says.
    pub fn differs(&self) -> bool {
        self.is_scaled() || !self.options.is_empty()
    }

    /// What is held of it, for the next plan.
    pub fn to_hold(&self) -> Option<Held> {
        let count = self.held.then_some(self.wanted);
        let (of, release) = (Some(self.of), Some(self.release));
        let held = Held { count, options: self.options, of, release };
        (self.held || !self.options.is_empty()).then_some(held)
    }
}

/// What a watcher is configured to run, its count included, as a number.
fn configuration_of(spec: &WatcherSpec) -> u64 {
    spec.fingerprint().rotate_left(1) ^ u64::from(spec.count)
}

/// The directory that a watcher runs in, as a number: each release has one of its own.
fn release_of(spec: &WatcherSpec) -> u64 {
    crate::fingerprint::of(spec.cwd.to_string_lossy().as_bytes())
}
