//! Replacing workers one after the other: never below the wanted number of ready ones.

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::worker::{Input, Phase, Want};

use crate::supervisor::Supervisor;

impl Supervisor {
    /// Queues every worker of these watchers.
    pub(crate) fn restart(&mut self, names: &[WatcherName], why: &EndReason) {
        for name in names {
            let Some(watcher) = self.watchers.get_mut(name) else { continue };
            watcher.backoffs.clear();
            let ids: Vec<WorkerId> = watcher
                .workers
                .values()
                .filter(|w| w.want == Want::Up)
                .map(|w| w.id.clone())
                .collect();
            for id in ids {
                self.start_if_waiting(&id);
                self.queue_replacement(id, why.clone());
            }
        }
    }

    /// One that waits after a crash starts as what is wanted now, at once: there is no
    /// reason to believe that this fails too.
    pub(crate) fn start_if_waiting(&mut self, id: &WorkerId) {
        if self.worker(id).is_some_and(|worker| worker.phase() == Phase::Backoff) {
            self.drive(id, Input::Start);
        }
    }

    pub(crate) fn queue_replacement(&mut self, id: WorkerId, why: EndReason) {
        let name = id.watcher.clone();
        let Some(watcher) = self.watchers.get_mut(&name) else { return };
        if !watcher.queue.iter().any(|(queued, _)| *queued == id) {
            watcher.queue.push_back((id, why));
        }
        self.roll(&name);
    }

    /// Starts as many of the queued replacements as may be under way at a time.
    pub(crate) fn roll(&mut self, name: &WatcherName) {
        loop {
            let Some(watcher) = self.watchers.get_mut(name) else { return };
            if watcher.rolling.len() >= watcher.rolling_width() {
                return;
            }
            let Some((id, why)) = watcher.queue.pop_front() else { return };
            if !watcher.needs_replacement(&id) {
                continue;
            }
            let Some(worker) = watcher.workers.get_mut(&id) else { continue };
            let overlap = worker.spec.overlap;
            worker.reason = Some(why.clone());
            watcher.rolling.insert(id.slot);
            self.emit(Fact::WorkerRetiring { worker: id.clone(), why });
            // Without overlap the old one goes first; its requests wait in the front.
            self.drive(&id, if overlap { Input::Recycle } else { Input::Stop });
        }
    }
}
