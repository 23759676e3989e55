//! The life of a worker: the table says what is to be done, here it is done.

use std::time::Duration;

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::{WatcherName, WorkerId};
use mfserv_core::wire::front::Peer;
use mfserv_core::wire::keeper::{Answer, Ask, Process, Scope};
use mfserv_core::worker::{Effect, Input, Phase};
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk;
use tokio::time::Instant;

use crate::handle::Message;
use crate::supervisor::Supervisor;
use crate::worker::Worker;
use crate::{probe, spawn};

impl Supervisor {
    /// Something happens to a worker: ask the table, carry out the effect.
    pub(crate) fn drive(&mut self, id: &WorkerId, input: Input) {
        let Some(worker) = self.worker(id) else { return };
        let effect = worker.advance(input);
        self.unsaved();
        match effect {
            Effect::Nothing => {}
            Effect::Spawn => self.spawn(id),
            Effect::Admit => self.admit(id),
            Effect::Drain => self.drain(id),
            Effect::Signal => self.signal(id),
            Effect::Kill => self.kill(id),
            Effect::Replace => self.start_in(&id.watcher, id.slot, None, Some(id.clone())),
            Effect::Restart => self.restart_slot(id),
            Effect::Gone => self.gone(id),
        }
    }

    pub(crate) fn out_of_patience(&mut self, id: &WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        worker.deadline = None;
        if worker.phase() == Phase::Starting {
            let saw = worker.saw.lock().map(|saw| saw.clone()).unwrap_or_default();
            worker.reason = Some(EndReason::FailedProbe { saw });
        }
        self.drive(id, Input::Timeout);
    }

    /// A new worker in a slot: at once, or after a wait.
    pub(crate) fn start_in(
        &mut self,
        name: &WatcherName,
        slot: u32,
        wait: Option<Duration>,
        replaces: Option<WorkerId>,
    ) {
        let Some(watcher) = self.watchers.get_mut(name) else { return };
        let id = watcher.next_id(slot);
        let mut worker = Worker::new(id.clone(), watcher.spec.clone(), watcher.fingerprint, wait);
        worker.replaces = replaces;
        watcher.workers.insert(id.clone(), worker);
        if wait.is_none() {
            self.drive(&id, Input::Start);
        }
    }

    pub(crate) fn spawn(&mut self, id: &WorkerId) {
        let Some(watcher) = self.watchers.get_mut(&id.watcher) else { return };
        let (spec, fingerprint) = (watcher.spec.clone(), watcher.fingerprint);
        let Some(worker) = watcher.workers.get_mut(id) else { return };
        // One that has waited for its start starts as what is wanted now.
        if !worker.prepared {
            worker.spec = spec;
            worker.fingerprint = fingerprint;
        }
        worker.started = Instant::now();
        let (spec, prepared) = (worker.spec.clone(), worker.prepared);
        self.probe(id);
        let spec = Box::new(spawn::process_spec(&spec, id, &self.run_dir, prepared));
        let (keeper, handle, id) = (self.keeper.clone(), self.handle.clone(), id.clone());
        tokio::spawn(async move {
            let answer = keeper.ask(Ask::Spawn { spec }).await;
            handle.send(Message::Spawned(id, answer));
        });
    }

    /// Watches for readiness, until ready or out of patience.
    pub(crate) fn probe(&mut self, id: &WorkerId) {
        let notify = spawn::notify_path(&self.run_dir, id);
        let handle = self.handle.clone();
        let Some(worker) = self.worker(id) else { return };
        let socket = spawn::socket_path(&worker.spec, id);
        let kind = worker.spec.probe.clone();
        let prepared = match probe::prepare(&kind, socket, &notify) {
            Ok(prepared) => prepared,
            Err(error) => {
                // It will run out of patience; this is why.
                if let Ok(mut saw) = worker.saw.lock() {
                    *saw = format!("its {} cannot be made: {error}", notify.display());
                }
                return;
            }
        };
        let (saw, id) = (worker.saw.clone(), id.clone());
        let task = tokio::spawn(async move {
            probe::until_ready(kind, prepared, saw).await;
            handle.send(Message::Ready(id));
        });
        if let Some(before) = worker.probe.replace(task.abort_handle()) {
            before.abort();
        }
    }

    pub(crate) fn spawned(&mut self, id: &WorkerId, answer: Result<Answer, Diagnostic>) {
        if self.worker(id).is_none() && matches!(answer, Ok(Answer::Spawned(_))) {
            // Given up in the meantime: nobody would ever stop it.
            let tree = Ask::Signal { id: id.to_string(), signal: 9, scope: Scope::Tree };
            self.keeper.tell(tree);
        }
        let Some(worker) = self.worker(id) else { return };
        match answer {
            Ok(Answer::Spawned(process)) => self.has_process(id, process),
            // The keeper is away; when it is back, what it says decides.
            Err(problem) if problem.kind == Kind::NotRunning => {}
            other => {
                let why = match other {
                    Err(problem) => problem.what,
                    Ok(answer) => format!("unexpected answer of the keeper: {answer:?}"),
                };
                worker.reason = Some(EndReason::NotStarted { why });
                self.ended(id, None);
            }
        }
    }

    pub(crate) fn has_process(&mut self, id: &WorkerId, process: Process) {
        self.emit(Fact::WorkerStarted { worker: id.clone(), pid: process.pid });
        let Some(worker) = self.worker(id) else { return };
        worker.process = Some(process);
        // Stopped while it was being started: what was asked then is done now.
        match worker.phase() {
            Phase::Stopping => self.signal(id),
            Phase::Killing => self.kill(id),
            _ => {}
        }
    }

    pub(crate) fn admit(&mut self, id: &WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        if worker.prepared {
            return self.wait_for_plan(id);
        }
        let after_ms = worker.started.elapsed().as_millis() as u64;
        let (spec, slot) = (worker.spec.clone(), id.slot);
        self.emit(Fact::WorkerReady { worker: id.clone(), after_ms });
        if let (Some(upstream), Some(socket)) = (&spec.upstream, spawn::socket_path(&spec, id)) {
            if let Some(link) = spawn::socket_link(&spec, id) {
                // A probe of the socket follows, which reports what is missing.
                let _ = disk::relink(&link, &socket);
            }
            self.traffic.admit(upstream, Peer { worker: id.clone(), socket });
        }
        self.retire_replaced(id);
        if let Some(watcher) = self.watchers.get_mut(&id.watcher) {
            watcher.rolling.remove(&slot);
        }
        self.roll(&id.watcher);
    }

    pub(crate) fn drain(&mut self, id: &WorkerId) {
        let upstream = self.worker(id).and_then(|w| w.spec.upstream.clone());
        match upstream {
            Some(upstream) => self.traffic.drain(&upstream, id),
            None => self.drive(id, Input::Drained),
        }
    }

    pub(crate) fn signal(&mut self, id: &WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        let signal = worker.spec.stop_signal;
        if worker.process.is_some() {
            self.keeper.tell(Ask::Signal { id: id.to_string(), signal, scope: Scope::Process });
        }
    }

    pub(crate) fn kill(&mut self, id: &WorkerId) {
        let Some(worker) = self.worker(id) else { return };
        if worker.process.is_some() {
            self.keeper.tell(Ask::Signal { id: id.to_string(), signal: 9, scope: Scope::Tree });
        } else {
            // Its start was never answered (the keeper is away): nothing to kill.
            self.ended(id, None);
        }
    }
}
