//! How workers end: why, what it costs, and who comes next.

use std::time::Duration;

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::status::LastEnd;
use mfserv_core::wire::keeper::{Ask, Exit};
use mfserv_core::worker::{Input, Phase, Want};

use crate::supervisor::Supervisor;
use crate::watcher::Watcher;
use mfserv_platform::clock::now_ms;

use crate::spawn;

impl Supervisor {
    pub(crate) fn exited(&mut self, exit: Exit) {
        self.keeper.tell(Ask::Forget { id: exit.id.clone() });
        if let Ok(id) = exit.id.parse::<WorkerId>() {
            self.ended(&id, Some(exit));
        }
    }

    pub(crate) fn ended(&mut self, id: &WorkerId, exit: Option<Exit>) {
        let Some(worker) = self.worker(id) else { return };
        let why = match (&worker.reason, &exit) {
            // A worker that still serves beside its replacement ends for reasons of its own.
            (Some(reason), _) if worker.phase() != Phase::Ready => reason.clone(),
            (_, Some(exit)) => EndReason::of(&exit.ended),
            (_, None) => EndReason::UnknownAdopted,
        };
        let (ready_ms, upstream) = (worker.ready_ms(), worker.spec.upstream.clone());
        if let Some(upstream) = upstream {
            self.traffic.forget(&upstream, id);
        }
        let (last_output, left_behind) =
            exit.map_or_else(Default::default, |e| (e.last_output, e.left_behind));
        let crash = why.is_crash().then(|| LastEnd {
            worker: id.clone(),
            why: why.clone(),
            at_ms: now_ms(),
            last_output: last_output.clone(),
        });
        let wait = crash.and_then(|end| self.crashed(id, end, ready_ms));
        if let Some(worker) = self.worker(id) {
            worker.reason = Some(why.clone());
        }
        let needed = self.worker(id).is_some_and(|w| w.want == Want::Up);
        self.emit(Fact::WorkerEnded {
            worker: id.clone(),
            why,
            last_output,
            left_behind,
            restart_in_ms: needed.then_some(wait.map_or(0, |w| w.as_millis() as u64)),
        });
        self.drive(id, Input::Exited);
    }

    /// Counts a crash; returns how long its slot waits, if it does.
    pub(crate) fn crashed(
        &mut self,
        id: &WorkerId,
        end: LastEnd,
        ready_ms: Option<u64>,
    ) -> Option<Duration> {
        let watcher = self.watchers.get_mut(&id.watcher)?;
        watcher.crashes += 1;
        watcher.last_end = Some(end);
        let failed = u64::from(ready_ms.is_none());
        if watcher.workers.get(id).is_some_and(|w| w.prepared) {
            watcher.failed_prepared += failed;
            return None;
        }
        watcher.failed_starts += failed;
        let wait = watcher.backoffs.entry(id.slot).or_default().crashed(ready_ms);
        (wait > 0).then(|| Duration::from_millis(wait))
    }

    /// A needed worker has ended: another one takes its slot, unless one is there already.
    pub(crate) fn restart_slot(&mut self, id: &WorkerId) {
        let Some(watcher) = self.watchers.get_mut(&id.watcher) else { return };
        let replaces = watcher.workers.get(id).and_then(|w| w.replaces.clone());
        let reason = watcher.workers.get(id).and_then(|w| w.reason.as_ref());
        let crashed = reason.is_none_or(EndReason::is_crash);
        let wait = watcher.backoffs.get(&id.slot).map_or(0, |b| b.wait_ms());
        let wait = (wait > 0 && crashed).then(|| Duration::from_millis(wait));
        // The one it was to replace may still serve: then this is one more try.
        let replaces = replaces.filter(|old| watcher.workers.contains_key(old));
        let covered = watcher
            .needed(id.slot)
            .any(|other| other.id != *id && Some(&other.id) != replaces.as_ref());
        self.remove(id);
        if !covered && self.planned {
            self.start_in(&id.watcher, id.slot, wait, replaces);
        }
    }

    pub(crate) fn gone(&mut self, id: &WorkerId) {
        self.remove(id);
        self.forget_watcher_if_over(&id.watcher);
    }

    /// Forgets a worker that has no process, and its sockets.
    pub(crate) fn remove(&mut self, id: &WorkerId) {
        let Some(watcher) = self.watchers.get_mut(&id.watcher) else { return };
        let Some(worker) = watcher.workers.remove(id) else { return };
        if let Some(probe) = &worker.probe {
            probe.abort();
        }
        let _ = std::fs::remove_file(spawn::notify_path(&self.run_dir, id));
        let socket = spawn::socket_path(&worker.spec, id);
        if let (Some(socket), Some(link)) = (socket, spawn::socket_link(&worker.spec, id)) {
            let _ = std::fs::remove_file(&socket);
            if std::fs::read_link(&link).is_ok_and(|to| to == socket) {
                let _ = std::fs::remove_file(link);
            }
        }
        self.unsaved();
    }

    pub(crate) fn forget_watcher_if_over(&mut self, name: &WatcherName) {
        if self.watchers.get(name).is_some_and(Watcher::is_over) {
            if let Some(watcher) = self.watchers.remove(name) {
                self.remembered.insert(name.clone(), watcher.to_remember());
            }
        }
    }
}
