//! One watcher: what is wanted, the workers that live, and the steps from one to the other.
//!
//! A watcher owns its workers, and nothing else changes them. Each file below has one subject:
//! `worker` a worker and its phase, `life` the effects of the phase table,
//! `liveness` workers that do not answer any more, `memory` workers that use too much, `rolling` replacement one after the other, `prepare` the next release, `ends` crashes and backoff,
//! `adopt` processes of an earlier daemon or keeper.

mod adopt;
mod ends;
mod life;
mod liveness;
mod memory;
mod prepare;
mod rolling;
mod stop_signal;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::status::{LastEnd, WatcherState, WatcherStatus};
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::worker::{Input, Phase, Want};
use mfserv_platform::sync::lock;
use tokio::time::Instant;

use crate::context::Context;
use crate::saved::SavedWatcher;
use crate::waiting::{Progress, Until};
use ends::Crashes;
use memory::Pace;
use rolling::Queue;
use worker::Worker;

/// A watcher and its workers.
pub(crate) struct Watcher {
    name: WatcherName,
    /// What its workers are to run.
    spec: Arc<WatcherSpec>,
    /// The [`WatcherSpec::fingerprint`] of `spec`.
    fingerprint: u64,
    /// How many workers are wanted.
    count: u32,
    /// A plan has said what is wanted. Before that nothing is started: the environment of an
    /// adopted watcher is not known.
    planned: bool,
    workers: BTreeMap<WorkerId, Worker>,
    next_incarnation: u64,
    /// One of its workers was given requests.
    has_served: bool,
    replacements: Queue,
    crashes: Crashes,
    memory_pace: Pace,
}

impl Watcher {
    /// A watcher that wants no worker before a plan says so.
    pub fn new(spec: WatcherSpec, saved: SavedWatcher) -> Self {
        Watcher {
            name: spec.name.clone(),
            fingerprint: spec.fingerprint(),
            spec: Arc::new(spec),
            count: 0,
            planned: false,
            workers: BTreeMap::new(),
            next_incarnation: saved.next_incarnation.max(1),
            has_served: false,
            replacements: Queue::default(),
            memory_pace: Pace::default(),
            crashes: Crashes::known(saved.crashes, saved.last_end),
        }
    }

    /// What the next daemon must know of it.
    pub fn to_save(&self) -> SavedWatcher {
        let ready = self.workers.values().filter(|w| w.is_ready());
        SavedWatcher {
            next_incarnation: self.next_incarnation,
            crashes: self.crashes.total,
            ready: ready.map(|w| w.id.incarnation).collect(),
            last_end: self.crashes.last_end.clone(),
        }
    }

    // ---- what is asked of it ----

    /// A plan is in force that wants this of it.
    pub fn apply(&mut self, spec: WatcherSpec, context: &mut Context) {
        self.planned = true;
        if self.want(spec) {
            self.promote(context);
        }
        self.reconcile(context);
    }

    /// A plan is in force that does not know it. An app that is only being prepared goes on: its
    /// plan comes later, and plans of other plugins come between.
    pub fn stop(&mut self, context: &mut Context) {
        self.planned = true;
        let was_wanted = std::mem::take(&mut self.count) > 0;
        self.replacements.clear();
        if was_wanted {
            self.abandon(context);
        }
        self.reconcile(context);
    }

    /// Sets what is wanted; true if that is something else than before.
    fn want(&mut self, spec: WatcherSpec) -> bool {
        let fingerprint = spec.fingerprint();
        let changed = self.count != spec.count || self.fingerprint != fingerprint;
        if self.fingerprint != fingerprint {
            // Nothing says that the new configuration fails too.
            self.crashes.forgive();
            self.memory_pace.forgive();
        }
        self.count = spec.count;
        self.replacements.keep_slots(spec.count);
        self.fingerprint = fingerprint;
        self.spec = Arc::new(spec);
        changed
    }

    /// Starts, stops and replaces workers until what lives is what is wanted.
    fn reconcile(&mut self, context: &mut Context) {
        let (count, fingerprint) = (self.count, self.fingerprint);
        // Prepared workers are of a plan that comes later, which may have more slots.
        let surplus = self.ids(|w| w.id.slot > count && !w.prepared);
        let empty: Vec<u32> =
            (1..=count).filter(|slot| self.needed(*slot).next().is_none()).collect();
        let outdated =
            self.ids(|w| w.id.slot <= count && w.want == Want::Up && w.fingerprint != fingerprint);
        for id in surplus {
            self.retire(&id, context);
        }
        for slot in empty {
            self.start_in(slot, None, None, context);
        }
        let why = EndReason::Asked { what: "configuration changed".into() };
        self.replace(outdated, &why, context);
    }

    /// Acts on deadlines that are over: timeouts, maximum ages, preparations without a plan.
    pub fn tick(&mut self, now: Instant, context: &mut Context) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let late = self.ids(|w| due(w.deadline));
        let old = self.ids(|w| due(w.expires));
        for id in late {
            self.time_out(&id, context);
        }
        for id in old {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            worker.expires = None;
            match worker.prepared {
                true => self.abandon(context),
                false => self.replace(vec![id], &EndReason::TooOld, context),
            }
        }
    }

    /// When [`Watcher::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.workers.values().flat_map(|w| [w.deadline, w.expires]).flatten().min()
    }

    // ---- its workers ----

    /// The workers of which something holds.
    fn ids(&self, holds: impl Fn(&Worker) -> bool) -> Vec<WorkerId> {
        self.workers.values().filter(|w| holds(w)).map(|w| w.id.clone()).collect()
    }

    /// The workers of a slot that are needed, oldest first.
    fn needed(&self, slot: u32) -> impl Iterator<Item = &Worker> {
        self.workers.values().filter(move |w| w.id.slot == slot && w.want == Want::Up)
    }

    /// The next incarnation of a slot.
    fn next_id(&mut self, slot: u32) -> WorkerId {
        let incarnation = self.next_incarnation;
        self.next_incarnation += 1;
        WorkerId::new(self.name.clone(), slot, incarnation)
    }

    /// This worker exists.
    pub fn has(&self, id: &WorkerId) -> bool {
        self.workers.contains_key(id)
    }

    /// This worker is not needed any more.
    fn retire(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.want = Want::Down;
        if worker.reason.is_none() {
            let why = EndReason::Asked { what: "stop".into() };
            worker.reason = Some(why.clone());
            context.emit(Fact::WorkerRetiring { worker: id.clone(), why });
        }
        self.drive(id, Input::Stop, context);
    }

    // ---- what is seen of it ----

    /// Its name.
    pub fn name(&self) -> &WatcherName {
        &self.name
    }

    /// No worker is wanted, none lives, and nobody is to learn that a prepared one has failed: who
    /// has it prepared waits for it, and abandons it.
    pub fn is_over(&self) -> bool {
        self.count == 0 && self.workers.is_empty() && self.failed_preparations() == 0
    }

    /// Starts that never became ready, of workers that were to serve at once.
    pub fn failed_starts(&self) -> u64 {
        self.crashes.failed_starts
    }

    /// Prepared workers that have crashed since the preparation, ready or not.
    pub fn failed_preparations(&self) -> u64 {
        self.crashes.failed_preparations
    }

    /// How the last worker that crashed ended.
    pub fn last_end(&self) -> Option<&LastEnd> {
        self.crashes.last_end.as_ref()
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
                Until::Settled | Until::Tried => !self.replacements.any() && nobody_leaves(),
                Until::Prepared | Until::Gone => true,
            }
    }

    /// A ready worker of the present spec serves the slot, and is not about to be replaced.
    fn is_slot_settled(&self, slot: u32) -> bool {
        let serves = |w: &Worker| w.is_ready() && w.fingerprint == self.fingerprint;
        !self.replacements.concerns(slot) && self.needed(slot).any(serves)
    }

    /// The number of slots that a ready worker serves.
    fn ready(&self) -> u32 {
        let slots: BTreeSet<u32> =
            self.workers.values().filter(|w| w.is_ready()).map(|w| w.id.slot).collect();
        slots.len() as u32
    }

    /// What the probe of a worker that has not become ready saw last; empty if there is none.
    pub fn seen_of_starting(&self) -> String {
        let starting = self.workers.values().filter(|worker| worker.phase() == Phase::Starting);
        let mut seen = starting.map(|worker| lock(&worker.saw).text.clone());
        seen.find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// Its state, in one word.
    pub fn state(&self) -> WatcherState {
        if self.count == 0 {
            return match self.workers.is_empty() {
                true => WatcherState::Off,
                false => WatcherState::Stopping,
            };
        }
        if self.replacements.any() {
            return match self.is_failing() {
                true => WatcherState::Failing,
                false => WatcherState::Restarting,
            };
        }
        match self.ready() {
            n if n >= self.count => WatcherState::Ready,
            _ if self.is_failing() => WatcherState::Failing,
            _ => WatcherState::Starting,
        }
    }

    /// A slot waits for its next start, or keeps crashing and has no ready worker.
    fn is_failing(&self) -> bool {
        let crashing = |slot: &u32| self.crashes.wait(*slot).is_some();
        self.workers.values().any(|w| w.phase() == Phase::Backoff)
            || (1..=self.count)
                .any(|slot| crashing(&slot) && !self.needed(slot).any(Worker::is_ready))
    }

    /// What is seen from outside, without memory and CPU.
    pub fn status(&self) -> WatcherStatus {
        WatcherStatus {
            // The supervisor knows no routes.
            path: None,
            hosts: Vec::new(),
            scaled: None,
            name: self.name.clone(),
            plugin: self.name.plugin().map(str::to_owned),
            wanted: self.count,
            ready: self.ready(),
            state: self.state(),
            crashes: self.crashes.total,
            last_end: self.crashes.last_end.clone(),
            workers: self.workers.values().map(Worker::status).collect(),
        }
    }
}
