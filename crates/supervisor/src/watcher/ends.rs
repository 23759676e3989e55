//! How workers end: the reason, its cost, and the next worker of the slot.

use std::collections::BTreeMap;
use std::time::Duration;

use mfserv_core::backoff::Backoff;
use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::WorkerId;
use mfserv_core::status::LastEnd;
use mfserv_core::wire::keeper::Exit;
use mfserv_core::worker::{Input, Phase, Want};
use mfserv_platform::clock::now_ms;
use tokio::task::AbortHandle;

use super::Watcher;
use super::worker::Worker;
use crate::context::Context;

/// The crashes of a watcher, counted.
#[derive(Default)]
pub(super) struct Crashes {
    /// Crashes and failed starts since the node started.
    pub total: u64,
    /// Starts that never became ready, of workers that were to serve at once.
    pub failed_starts: u64,
    /// Starts that never became ready, of prepared workers.
    pub failed_preparations: u64,
    /// The last of all of them.
    pub last_end: Option<LastEnd>,
    /// By slot: how long its next start waits.
    backoffs: BTreeMap<u32, Backoff>,
}

impl Crashes {
    /// What an earlier daemon has counted.
    pub fn known(total: u64, last_end: Option<LastEnd>) -> Self {
        Crashes { total, last_end, ..Crashes::default() }
    }

    /// Counts a crash.
    fn count(&mut self, worker: &Worker, end: LastEnd) {
        let ready_ms = worker.ready_ms();
        let failed = u64::from(ready_ms.is_none());
        self.total += 1;
        self.last_end = Some(end);
        match worker.prepared {
            // A release that nobody uses yet delays no start of the present one.
            true => self.failed_preparations += 1,
            false => {
                self.failed_starts += failed;
                self.backoffs.entry(worker.id.slot).or_default().crashed(ready_ms);
            }
        }
    }

    /// How long the next start of a slot waits after a crash; `None`: it starts at once.
    pub fn wait(&self, slot: u32) -> Option<Duration> {
        let ms = self.backoffs.get(&slot).map_or(0, Backoff::wait_ms);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// The next start of every slot is immediate.
    pub fn forgive(&mut self) {
        self.backoffs.clear();
    }
}

impl Watcher {
    /// The keeper says that a worker's process has ended.
    pub fn exited(&mut self, id: &WorkerId, exit: Exit, context: &mut Context) {
        self.ended(id, Some(exit), context);
    }

    /// A worker has ended. Without an [`Exit`], its process is gone or never was.
    pub(super) fn ended(&mut self, id: &WorkerId, exit: Option<Exit>, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let of_memory = exit.as_ref().and_then(|exit| worker.killed_for_memory(exit));
        let of_memory = of_memory.or_else(|| worker.killed_for.clone());
        let why = match (of_memory, &worker.reason, &exit) {
            (Some(why), _, _) => why,
            // A worker that still serves beside its replacement ends for reasons of its own.
            (_, Some(reason), _) if worker.phase() != Phase::Ready => reason.clone(),
            (_, _, Some(exit)) => EndReason::of(&exit.ended),
            (_, _, None) => EndReason::UnknownAdopted,
        };
        worker.reason = Some(why.clone());
        if let Some(upstream) = &worker.spec.upstream {
            context.traffic.forget(upstream, id);
        }
        let ended = exit.as_ref().map(|exit| exit.ended.clone());
        let (last_output, left_behind) =
            exit.map_or_else(Default::default, |exit| (exit.last_output, exit.left_behind));
        if why.is_memory_limit() {
            self.memory_pace.killed(id.slot);
        }
        if why.is_crash() {
            let (why, last_output) = (why.clone(), last_output.clone());
            let end = LastEnd { worker: id.clone(), why, at_ms: now_ms(), last_output };
            self.crashes.count(worker, end);
        }
        let needed = worker.want == Want::Up;
        let wait = self.wait_after(id.slot, &why);
        context.emit(Fact::WorkerEnded {
            worker: id.clone(),
            why,
            ended,
            last_output,
            left_behind,
            restart_in_ms: needed.then_some(wait.map_or(0, |wait| wait.as_millis() as u64)),
        });
        self.drive(id, Input::Exited, context);
    }

    /// How long the slot waits for its next worker after such an end.
    fn wait_after(&self, slot: u32, why: &EndReason) -> Option<Duration> {
        if why.is_crash() { self.crashes.wait(slot) } else { None }
    }

    /// A needed worker has ended: starts a replacement, unless the slot has a live worker.
    pub(super) fn restart_slot(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(worker) = self.workers.get(id) else { return };
        let wait = worker.reason.as_ref().and_then(|why| self.wait_after(id.slot, why));
        // If it was itself a replacement and the old worker still serves, its successor
        // replaces that worker.
        let replaces = worker.replaces.clone().filter(|old| self.has(old));
        let covered = self
            .needed(id.slot)
            .any(|other| other.id != *id && Some(&other.id) != replaces.as_ref());
        self.remove(id, context);
        if !covered && self.planned {
            self.start_in(id.slot, wait, replaces, context);
        }
    }

    /// Forgets a worker that has no process, and removes its sockets.
    pub(super) fn remove(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(worker) = self.workers.remove(id) else { return };
        let check = worker.check.as_ref().map(|check| &check.task);
        worker.probe.iter().chain(check).for_each(AbortHandle::abort);
        context.remove_sockets(&worker.spec, id);
        context.changed = true;
    }
}
