//! The file `var/scale.json`: worker counts and options that were asked for and are in no
//! configuration.

use mfserv_core::Diagnostic;
use mfserv_core::names::WatcherName;
use mfserv_core::plan::{Held, HeldOptions, Plan};
use mfserv_platform::disk::Disk;

use super::node::Node;
use crate::operations::Counts;
use crate::places::Places;

/// Reads them; what cannot be read counts as none.
pub fn read(disk: &dyn Disk, places: &Places) -> Counts {
    let text = disk.read(&places.scale_file()).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// The apps among them that somebody has stopped: a reload leaves them so.
pub fn stopped(all: &Counts) -> Counts {
    all.iter().filter_map(|(name, held)| Some((name.clone(), held.stopped()?))).collect()
}

impl Node {
    /// Keeps this many workers until the configuration of the app changes, or none until it is
    /// started; `None` = as configured.
    pub(super) fn hold_count(
        &self,
        watcher: &WatcherName,
        count: Option<u32>,
    ) -> Result<(), Diagnostic> {
        self.hold(watcher, |held| held.count = count)
    }

    /// Lets a watcher run with these options until its configuration changes.
    pub(super) fn hold_options(
        &self,
        watcher: &WatcherName,
        options: HeldOptions,
    ) -> Result<(), Diagnostic> {
        self.hold(watcher, |held| held.options = held.options.and(options))
    }

    fn hold(&self, watcher: &WatcherName, change: impl Fn(&mut Held)) -> Result<(), Diagnostic> {
        let mut all = self.held_counts();
        let mut held = Held { of: None, release: None, ..all.remove(watcher).unwrap_or_default() };
        change(&mut held);
        if held != Held::default() {
            all.insert(watcher.clone(), held);
        }
        self.write_counts(&all)
    }

    /// Every app has as many workers as is configured, from the next plan on, but for those that
    /// are stopped. Returns what was held.
    pub(super) fn forget_counts(&self) -> Result<Counts, Diagnostic> {
        let held = self.held_counts();
        let stopped = stopped(&held);
        if held != stopped {
            self.write_counts(&stopped)?;
        }
        Ok(held)
    }

    /// Every app runs as it is configured, from the next plan on.
    pub(super) fn forget_all_counts(&self) -> Result<(), Diagnostic> {
        if self.held_counts().is_empty() { Ok(()) } else { self.write_counts(&Counts::new()) }
    }

    /// Holds these counts again: the plan without them was refused.
    pub(super) fn restore_counts(&self, counts: &Counts) -> Result<(), Diagnostic> {
        if counts.is_empty() { Ok(()) } else { self.write_counts(counts) }
    }

    /// Ties counts to the configuration that they are applied to, and forgets those that a plan
    /// has not taken: their app has changed or gone.
    pub(super) fn settle_counts(&self, plan: &Plan) -> Result<(), Diagnostic> {
        let before = self.held_counts();
        let held = plan.counts.iter();
        let after: Counts =
            held.filter_map(|(name, count)| Some((name.clone(), count.to_hold()?))).collect();
        if before == after { Ok(()) } else { self.write_counts(&after) }
    }

    pub(super) fn held_counts(&self) -> Counts {
        read(&*self.parts.world.disk, &self.parts.options.places)
    }

    fn write_counts(&self, all: &Counts) -> Result<(), Diagnostic> {
        let text = serde_json::to_vec(all).unwrap_or_default();
        self.parts.world.disk.write(&self.parts.options.places.scale_file(), &text)
    }
}
