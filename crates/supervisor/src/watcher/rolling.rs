//! Replacement of workers one after the other: never fewer ready workers than wanted.

use std::collections::{BTreeSet, VecDeque};

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::WorkerId;
use mfserv_core::worker::{Input, Phase, Want};

use super::Watcher;
use crate::context::Context;

/// The workers that are to be replaced, and the slots whose replacement is under way.
#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<(WorkerId, EndReason)>,
    under_way: BTreeSet<u32>,
    /// What is under way replaces a worker that does not answer: nothing else begins meanwhile.
    alone: bool,
}

impl Queue {
    fn push(&mut self, id: WorkerId, why: EndReason) {
        if !self.waiting.iter().any(|(queued, _)| *queued == id) {
            self.waiting.push_back((id, why));
        }
    }

    /// The next worker, if no more than `width` slots are under way with it; of workers that do
    /// not answer, one at a time.
    fn next(&mut self, width: usize) -> Option<(WorkerId, EndReason)> {
        let (_, why) = self.waiting.front()?;
        let stuck = matches!(why, EndReason::Stuck { .. });
        let is_begun = !self.under_way.is_empty();
        let waits = self.under_way.len() >= width || (is_begun && (stuck || self.alone));
        if waits { None } else { self.waiting.pop_front() }
    }

    fn begin(&mut self, slot: u32, why: &EndReason) {
        self.alone = matches!(why, EndReason::Stuck { .. });
        self.under_way.insert(slot);
    }

    /// The new worker of this slot is ready.
    pub fn end(&mut self, slot: u32) {
        self.under_way.remove(&slot);
    }

    /// Slots above this number are not wanted any more: nothing waits for them.
    pub fn keep_slots(&mut self, count: u32) {
        self.waiting.retain(|(id, _)| id.slot <= count);
        self.under_way.retain(|slot| *slot <= count);
    }

    pub fn clear(&mut self) {
        *self = Queue::default();
    }

    /// A replacement waits or is under way.
    pub fn any(&self) -> bool {
        !self.waiting.is_empty() || !self.under_way.is_empty()
    }

    /// A replacement in this slot waits or is under way.
    pub fn concerns(&self, slot: u32) -> bool {
        self.under_way.contains(&slot) || self.waiting.iter().any(|(id, _)| id.slot == slot)
    }
}

impl Watcher {
    /// Replaces every worker.
    pub fn restart(&mut self, why: &EndReason, context: &mut Context) {
        self.crashes.forgive();
        let all = self.ids(|w| w.want == Want::Up);
        self.replace(all, why, context);
    }

    /// Replaces these workers one after the other. A slot that waits after a crash starts at
    /// once instead: its next worker runs what is wanted now.
    pub fn replace(&mut self, ids: Vec<WorkerId>, why: &EndReason, context: &mut Context) {
        for id in ids {
            if self.workers.get(&id).is_some_and(|w| w.phase() == Phase::Backoff) {
                self.drive(&id, Input::Start, context);
            }
            self.replacements.push(id, why.clone());
            self.roll(context);
        }
    }

    /// Starts as many of the queued replacements as may be under way at a time.
    pub(super) fn roll(&mut self, context: &mut Context) {
        let width = self.spec.rolling_width();
        while let Some((id, why)) = self.replacements.next(width) {
            if !self.needs_replacement(&id) {
                continue;
            }
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            let overlap = worker.spec.overlap;
            worker.reason = Some(why.clone());
            self.replacements.begin(id.slot, &why);
            context.emit(Fact::WorkerRetiring { worker: id.clone(), why });
            // Without overlap the old worker goes first; its requests wait in the front.
            let input = if overlap { Input::Recycle } else { Input::Stop };
            self.drive(&id, input, context);
        }
    }

    /// The worker is needed, it has not just been started as what is wanted now, and no younger
    /// worker is on its way in its slot.
    fn needs_replacement(&self, id: &WorkerId) -> bool {
        let Some(worker) = self.workers.get(id) else { return false };
        let fresh = worker.phase() == Phase::Starting && worker.fingerprint == self.fingerprint;
        let followed = self.needed(id.slot).any(|other| other.id > *id);
        worker.want == Want::Up && !fresh && !followed
    }
}
