//! One watcher: its slots, and the queue of workers to be replaced one after the other.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use mfserv_core::backoff::Backoff;
use mfserv_core::event::EndReason;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::status::{LastEnd, WatcherState, WatcherStatus};
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::worker::{Phase, Want};

use crate::saved::SavedWatcher;
use crate::waiting::{Progress, Until};
use crate::worker::Worker;

/// A watcher and all that lives of it.
pub(crate) struct Watcher {
    pub name: WatcherName,
    /// What is wanted.
    pub spec: Arc<WatcherSpec>,
    /// Its [`WatcherSpec::fingerprint`].
    pub fingerprint: u64,
    /// How many workers are wanted.
    pub count: u32,
    pub workers: BTreeMap<WorkerId, Worker>,
    /// The next incarnation number.
    pub next_incarnation: u64,
    pub backoffs: BTreeMap<u32, Backoff>,
    /// Workers still to be replaced, and why.
    pub queue: VecDeque<(WorkerId, EndReason)>,
    /// Slots whose replacement is under way.
    pub rolling: BTreeSet<u32>,
    /// Crashes and failed starts.
    pub crashes: u64,
    /// Starts that never became ready.
    pub failed_starts: u64,
    /// The same, of workers that were prepared for a plan or an edit.
    pub failed_prepared: u64,
    pub last_end: Option<LastEnd>,
}

impl Watcher {
    pub fn new(spec: &WatcherSpec) -> Self {
        Watcher {
            name: spec.name.clone(),
            spec: Arc::new(spec.clone()),
            fingerprint: spec.fingerprint(),
            count: spec.count,
            workers: BTreeMap::new(),
            next_incarnation: 1,
            backoffs: BTreeMap::new(),
            queue: VecDeque::new(),
            rolling: BTreeSet::new(),
            crashes: 0,
            failed_starts: 0,
            failed_prepared: 0,
            last_end: None,
        }
    }

    /// Takes up what an earlier daemon knew of it.
    pub fn remember(&mut self, saved: SavedWatcher) {
        self.next_incarnation = saved.next_incarnation.max(1);
        self.crashes = saved.crashes;
        self.last_end = saved.last_end;
    }

    /// What a later daemon must know of it.
    pub fn to_remember(&self) -> SavedWatcher {
        SavedWatcher {
            next_incarnation: self.next_incarnation,
            crashes: self.crashes,
            ready: self
                .workers
                .values()
                .filter(|w| w.is_ready())
                .map(|w| w.id.incarnation)
                .collect(),
            last_end: self.last_end.clone(),
        }
    }

    /// The next incarnation of a slot.
    pub fn next_id(&mut self, slot: u32) -> WorkerId {
        let incarnation = self.next_incarnation;
        self.next_incarnation += 1;
        WorkerId::new(self.name.clone(), slot, incarnation)
    }

    /// The workers of a slot that are needed, oldest first.
    pub fn needed(&self, slot: u32) -> impl Iterator<Item = &Worker> {
        self.workers.values().filter(move |w| w.id.slot == slot && w.want == Want::Up)
    }

    /// A replacement of this worker would be of use: it is needed, it is not fresh
    /// from its start, and no younger one is on its way in its slot.
    pub fn needs_replacement(&self, id: &WorkerId) -> bool {
        let Some(worker) = self.workers.get(id) else { return false };
        let fresh = worker.phase() == Phase::Starting && worker.fingerprint == self.fingerprint;
        let followed = self.needed(id.slot).any(|other| other.id > *id);
        worker.want == Want::Up && !fresh && !followed
    }

    /// How many workers may be replaced at a time: a quarter, at least one.
    pub fn rolling_width(&self) -> usize {
        (self.count as usize / 4).max(1)
    }

    /// How many are ready.
    pub fn ready(&self) -> u32 {
        let slots: BTreeSet<u32> =
            self.workers.values().filter(|w| w.is_ready()).map(|w| w.id.slot).collect();
        slots.len() as u32
    }

    /// How far it is on the way to a state. Of workers that are to end, all that live are
    /// `wanted`.
    pub fn progress(&self, until: Until) -> Progress {
        match until {
            Until::Gone => Progress { done: 0, wanted: self.workers.len() as u32 },
            Until::Prepared => {
                let prepared = self.workers.values().filter(|w| w.prepared);
                let ready = prepared.clone().filter(|w| w.phase() == Phase::Ready);
                Progress { done: ready.count() as u32, wanted: prepared.count() as u32 }
            }
            Until::Settled | Until::Tried => {
                let done = (1..=self.count).filter(|slot| self.is_slot_settled(*slot));
                Progress { done: done.count() as u32, wanted: self.count }
            }
        }
    }

    /// It has reached this state.
    pub fn has_reached(&self, until: Until) -> bool {
        let Progress { done, wanted } = self.progress(until);
        let nobody_leaves = || {
            let leaving = |w: &Worker| w.want == Want::Down && !w.prepared;
            !self.workers.values().any(|w| leaving(w) && w.phase() == Phase::Ready)
        };
        done == wanted
            && match until {
                Until::Settled | Until::Tried => self.queue.is_empty() && nobody_leaves(),
                Until::Prepared | Until::Gone => true,
            }
    }

    /// A ready worker of the present spec serves the slot, and is not about to be replaced.
    fn is_slot_settled(&self, slot: u32) -> bool {
        let serves = |w: &Worker| w.is_ready() && w.fingerprint == self.fingerprint;
        !self.rolling.contains(&slot)
            && !self.queue.iter().any(|(id, _)| id.slot == slot)
            && self.needed(slot).any(serves)
    }

    /// Nothing is wanted of it and nothing lives of it.
    pub fn is_over(&self) -> bool {
        self.count == 0 && self.workers.is_empty()
    }

    /// One word for a person.
    pub fn state(&self) -> WatcherState {
        let ready = self.ready();
        let waiting = self.workers.values().any(|w| w.phase() == Phase::Backoff);
        if self.count == 0 {
            return match self.workers.is_empty() {
                true => WatcherState::Off,
                false => WatcherState::Stopping,
            };
        }
        if !self.rolling.is_empty() || !self.queue.is_empty() {
            return match self.failing() {
                true => WatcherState::Failing,
                false => WatcherState::Restarting,
            };
        }
        match ready {
            n if n >= self.count => WatcherState::Ready,
            _ if waiting || self.failing() => WatcherState::Failing,
            _ => WatcherState::Starting,
        }
    }

    /// The last start failed, and nothing has become ready since.
    fn failing(&self) -> bool {
        let trouble = |slot: &u32| self.backoffs.get(slot).is_some_and(|b| b.wait_ms() > 0);
        (1..=self.count).any(|slot| trouble(&slot) && !self.needed(slot).any(Worker::is_ready))
            || self.workers.values().any(|w| w.phase() == Phase::Backoff)
    }

    /// What is seen from outside, without samples.
    pub fn status(&self) -> WatcherStatus {
        WatcherStatus {
            // The supervisor knows no routes.
            path: None,
            name: self.name.clone(),
            plugin: self.name.plugin().map(str::to_owned),
            wanted: self.count,
            ready: self.ready(),
            state: self.state(),
            crashes: self.crashes,
            last_end: self.last_end.clone(),
            workers: self.workers.values().map(crate::sample::worker_status).collect(),
        }
    }
}
