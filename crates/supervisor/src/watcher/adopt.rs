//! Processes of an earlier daemon, and of a keeper that was lost and found.

use std::collections::{BTreeMap, BTreeSet};

use mfserv_core::event::Fact;
use mfserv_core::names::WorkerId;
use mfserv_core::watcher::Probe;
use mfserv_core::wire::keeper::{Ended, Exit, Process};
use mfserv_core::worker::{Input, Phase};
use mfserv_platform::clock::now_ms;

use super::Watcher;
use super::worker::Worker;
use crate::context::Context;
use crate::spawn::Note;

impl Watcher {
    /// Takes over living workers of an earlier daemon. Those in `admitted` have traffic and keep
    /// it; the others are probed, unless they are known to have been ready.
    pub fn adopt(
        &mut self,
        found: BTreeMap<WorkerId, (Note, Process)>,
        admitted: &BTreeSet<WorkerId>,
        were_ready: &BTreeSet<u64>,
        context: &mut Context,
    ) {
        let youngest: BTreeMap<u32, WorkerId> =
            found.keys().map(|id| (id.slot, id.clone())).collect();
        for (id, (note, process)) in found {
            context.emit(Fact::WorkerAdopted { worker: id.clone(), pid: process.pid });
            self.next_incarnation = self.next_incarnation.max(id.incarnation + 1);
            let ready = admitted.contains(&id);
            self.has_served |= ready;
            // A worker without traffic that has a younger one in its slot was being drained.
            let leaving = youngest.get(&id.slot) != Some(&id) && !ready;
            let can_be_asked = matches!(note.spec.probe, Probe::Http { .. } | Probe::Connect);
            let was_ready = were_ready.contains(&id.incarnation) && !can_be_asked;
            let mut worker = Worker::adopted(id.clone(), note, process, ready || leaving);
            worker.replaces =
                self.needed(id.slot).filter(|w| w.id < id).map(|w| w.id.clone()).last();
            self.workers.insert(id.clone(), worker);
            match (leaving, ready, was_ready) {
                (true, _, _) => self.retire(&id, context),
                (_, true, _) => self.retire_replaced(&id, context),
                (_, _, true) => self.believe(&id, context),
                _ => self.observe(&id, context),
            }
        }
    }

    fn observe(&mut self, id: &WorkerId, context: &mut Context) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.observe(context);
        }
    }

    /// This worker was ready, and says so only once: one on a port still has to listen there.
    fn believe(&mut self, id: &WorkerId, context: &mut Context) {
        match self.workers.get_mut(id) {
            Some(worker) if worker.port_number().is_some() => {
                worker.observe_by(Probe::Connect, context);
            }
            _ => self.drive(id, Input::Ready, context),
        }
    }

    /// This worker has a process, or is about to have one.
    pub fn counts_on(&self, id: &WorkerId) -> bool {
        self.workers.get(id).is_some_and(|w| w.phase().has_process())
    }

    /// The link to the keeper is back, and these processes live.
    pub fn resync(&mut self, alive: &BTreeMap<WorkerId, Process>, context: &mut Context) {
        for id in self.ids(|w| w.phase().has_process()) {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            let (phase, had_process) = (worker.phase(), worker.process.is_some());
            match (alive.get(&id), had_process) {
                (Some(process), _) => {
                    worker.has_process(process.clone());
                    self.signal_again(&id, context);
                }
                (None, true) => self.ended(&id, Some(gone_unseen(&id)), context),
                (None, false) if phase == Phase::Starting => self.spawn(&id, context),
                (None, false) => self.ended(&id, None, context),
            }
        }
    }
}

/// The exit of a process that the keeper does not know.
fn gone_unseen(id: &WorkerId) -> Exit {
    Exit {
        id: id.to_string(),
        pid: 0,
        ended: Ended::Unknown,
        out_of_memory: None,
        at_ms: now_ms(),
        last_output: String::new(),
        left_behind: 0,
        note: String::new(),
    }
}
