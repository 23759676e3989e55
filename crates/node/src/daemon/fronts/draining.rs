//! Workers that are being drained, and the fronts that may still hold requests of them.

use std::collections::{BTreeMap, BTreeSet};

use mfserv_core::names::WorkerId;

/// The fronts that have not reported yet that a worker is drained, by worker.
#[derive(Default)]
pub struct Draining(BTreeMap<WorkerId, BTreeSet<WorkerId>>);

impl Draining {
    /// These fronts may hold requests of the worker.
    pub fn begin(&mut self, worker: WorkerId, fronts: BTreeSet<WorkerId>) {
        self.0.insert(worker, fronts);
    }

    /// Nobody waits for this worker any more.
    pub fn end(&mut self, worker: &WorkerId) {
        self.0.remove(worker);
    }

    /// A front has reported that a worker is drained.
    pub fn reported(&mut self, front: &WorkerId, worker: &WorkerId) {
        if let Some(missing) = self.0.get_mut(worker) {
            missing.remove(front);
        }
    }

    /// A front has gone: it holds nothing.
    pub fn lost(&mut self, front: &WorkerId) {
        for missing in self.0.values_mut() {
            missing.remove(front);
        }
    }

    /// The workers that a front has not reported.
    pub fn missing(&self, front: &WorkerId) -> impl Iterator<Item = &WorkerId> {
        let of_front = self.0.iter().filter(move |(_, missing)| missing.contains(front));
        of_front.map(|(worker, _)| worker)
    }

    /// Takes out the workers that every front has reported.
    pub fn take_drained(&mut self) -> Vec<WorkerId> {
        let is_drained = |missing: &BTreeSet<WorkerId>| missing.is_empty();
        let done = self.0.iter().filter(|(_, missing)| is_drained(missing));
        let done: Vec<WorkerId> = done.map(|(worker, _)| worker.clone()).collect();
        self.0.retain(|_, missing| !is_drained(missing));
        done
    }
}
