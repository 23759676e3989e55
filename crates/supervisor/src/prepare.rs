//! Workers of a plan that is not in force yet: started beside those that serve, and
//! ready before the first request goes to any of them. When the plan comes into force
//! they take over all at once; until then nothing depends on them.

use std::time::Duration;

use mfserv_core::event::EndReason;
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::worker::{Input, Phase, Want};
use tokio::time::Instant;

use crate::supervisor::Supervisor;
use crate::watcher::Watcher;
use crate::worker::Worker;

/// How long prepared workers wait for their plan.
const PATIENCE: Duration = Duration::from_secs(120);

impl Supervisor {
    /// Starts the workers of these specs beside what serves. Earlier preparations of
    /// the same watchers are given up.
    pub(crate) fn prepare(&mut self, specs: Vec<WatcherSpec>) {
        for spec in specs {
            let name = spec.name.clone();
            self.abandon(&name);
            let saved = self.remembered.get(&name).cloned().unwrap_or_default();
            let watcher = self.watchers.entry(name).or_insert_with(|| {
                // A new app: nothing is wanted of it before its plan is in force.
                let mut watcher = Watcher::new(&WatcherSpec { count: 0, ..spec.clone() });
                watcher.remember(saved);
                watcher
            });
            let fingerprint = spec.fingerprint();
            let shared = std::sync::Arc::new(spec);
            let ids: Vec<WorkerId> = (1..=shared.count).map(|slot| watcher.next_id(slot)).collect();
            for id in &ids {
                let mut worker = Worker::new(id.clone(), shared.clone(), fingerprint, None);
                worker.prepared = true;
                worker.want = Want::Down;
                watcher.workers.insert(id.clone(), worker);
            }
            for id in ids {
                self.drive(&id, Input::Start);
            }
        }
    }

    /// A prepared worker is ready: it waits for its plan, but not for ever.
    pub(crate) fn wait_for_plan(&mut self, id: &WorkerId) {
        if let Some(worker) = self.worker(id) {
            worker.expires = Some(Instant::now() + PATIENCE);
        }
    }

    /// Gives up what was prepared.
    pub(crate) fn abandon(&mut self, name: &WatcherName) {
        let Some(watcher) = self.watchers.get(name) else { return };
        let ids: Vec<WorkerId> =
            watcher.workers.values().filter(|w| w.prepared).map(|w| w.id.clone()).collect();
        for id in ids {
            let Some(worker) = self.worker(&id) else { continue };
            worker.prepared = false;
            worker.reason = Some(EndReason::Asked { what: "not needed".into() });
            self.give_up(&id);
        }
        self.forget_watcher_if_over(name);
    }

    /// Retires a worker. One that is still starting is killed: it has served nobody, and what
    /// it would say of being interrupted is of no use to anybody.
    fn give_up(&mut self, id: &WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        worker.want = Want::Down;
        match worker.phase() {
            Phase::Starting => self.drive(id, Input::Timeout),
            _ => self.retire(id),
        }
    }

    /// A plan has come into force that wants something else of this watcher. If workers
    /// were prepared for it in every slot, they take over; else what was prepared is of no
    /// use. (What a plan does not change goes on being prepared.)
    pub(crate) fn promote(&mut self, name: &WatcherName) {
        let Some(watcher) = self.watchers.get(name) else { return };
        let count = watcher.count;
        let fits = |w: &&Worker| {
            w.prepared && w.phase() == Phase::Ready && w.fingerprint == watcher.fingerprint
        };
        let fresh: Vec<WorkerId> =
            watcher.workers.values().filter(fits).map(|w| w.id.clone()).collect();
        let whole = (1..=count).all(|slot| fresh.iter().any(|id| id.slot == slot));
        match whole && count > 0 {
            true => self.take_over(name, &fresh, &EndReason::Asked { what: "new release".into() }),
            false => self.abandon(name),
        }
    }

    /// Fresh code serves from here: the first prepared worker takes over from all that
    /// serve, and the other slots are filled with its like.
    /// False if nothing was prepared.
    pub(crate) fn renew(&mut self, name: &WatcherName, why: &EndReason) -> bool {
        let Some(watcher) = self.watchers.get(name) else { return false };
        let fits = |w: &&Worker| w.prepared && w.phase() == Phase::Ready;
        let fresh: Vec<WorkerId> =
            watcher.workers.values().filter(fits).map(|w| w.id.clone()).collect();
        if fresh.is_empty() {
            return false;
        }
        self.take_over(name, &fresh, why);
        self.reconcile(name);
        true
    }

    fn take_over(&mut self, name: &WatcherName, fresh: &[WorkerId], why: &EndReason) {
        let Some(watcher) = self.watchers.get_mut(name) else { return };
        // A restart that is under way ends here: each admission below would go on with it.
        watcher.queue.clear();
        watcher.rolling.clear();
        let count = watcher.count;
        let serving = watcher.workers.values().filter(|w| w.want == Want::Up);
        let before: Vec<WorkerId> = serving.map(|w| w.id.clone()).collect();
        for id in fresh.iter().filter(|id| id.slot <= count) {
            if let Some(worker) = self.worker(id) {
                worker.prepared = false;
                worker.want = Want::Up;
                worker.renew_expiry();
            }
            self.admit(id);
        }
        for id in before {
            if let Some(worker) = self.worker(&id) {
                worker.reason = Some(why.clone());
            }
            self.give_up(&id);
        }
        self.abandon(name);
    }
}
