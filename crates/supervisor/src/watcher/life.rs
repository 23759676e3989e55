//! The effects of the phase table ([`mfserv_core::worker::step`]), carried out.

use std::time::Duration;

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::names::WorkerId;
use mfserv_core::wire::keeper::{Answer, Process};
use mfserv_core::worker::{Effect, Input, Phase};
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::sync::lock;
use tokio::time::Instant;

use super::Watcher;
use super::worker::Worker;
use crate::context::Context;

impl Watcher {
    /// Something happens to a worker: its phase changes, and the effect is carried out.
    pub fn drive(&mut self, id: &WorkerId, input: Input, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let effect = worker.advance(input);
        context.changed = true;
        match effect {
            Effect::Nothing => {}
            Effect::Spawn => self.spawn(id, context),
            Effect::Admit => self.admit(id, context),
            Effect::Drain => self.drain(id, context),
            Effect::Signal => self.signal(id, context),
            Effect::Kill => self.kill(id, context),
            Effect::Replace => self.start_in(id.slot, None, Some(id.clone()), context),
            Effect::Restart => self.restart_slot(id, context),
            Effect::Gone => self.remove(id, context),
        }
    }

    /// The time that its phase may take is over.
    pub(super) fn time_out(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.deadline = None;
        if worker.phase() == Phase::Starting && !self.has_served && worker.is_a_daemon() {
            context.emit(Fact::Problem { problem: gets_no_request(worker) });
            worker.is_deaf = true;
            return self.drive(id, Input::Ready, context);
        }
        if worker.phase() == Phase::Starting {
            let last = lock(&worker.saw).text.clone();
            let limit = format!("not ready within _start_timeout={}", worker.start_timeout_s());
            let saw = if last.is_empty() { limit } else { format!("{limit}: {last}") };
            worker.reason = Some(EndReason::FailedProbe { saw });
        }
        self.drive(id, Input::Timeout, context);
    }

    /// A new worker in a slot, which starts at once or after a wait.
    pub(super) fn start_in(
        &mut self,
        slot: u32,
        wait: Option<Duration>,
        replaces: Option<WorkerId>,
        context: &mut Context,
    ) {
        let id = self.next_id(slot);
        let mut worker = Worker::new(id.clone(), self.spec.clone(), self.fingerprint, wait);
        worker.replaces = replaces;
        self.workers.insert(id.clone(), worker);
        if wait.is_none() {
            self.drive(&id, Input::Start, context);
        }
    }

    pub(super) fn spawn(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        // The configuration may have changed while the worker waited for its start.
        if !worker.prepared {
            worker.spec = self.spec.clone();
            worker.fingerprint = self.fingerprint;
        }
        worker.started = Instant::now();
        if let Err(why) = worker.take_port() {
            worker.reason = Some(EndReason::NotStarted { why: format!("no port for it: {why}") });
            return self.ended(id, None, context);
        }
        worker.observe(context);
        context.spawn(&worker.spec, id, worker.prepared, worker.port_number());
    }

    /// Another process listens on the port of a worker that is starting: its successor gets
    /// another port.
    pub fn port_taken(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if worker.phase() == Phase::Starting {
            let saw = lock(&worker.saw).text.clone();
            worker.reason = Some(EndReason::FailedProbe { saw });
            self.drive(id, Input::Timeout, context);
        }
    }

    /// The keeper has answered a [`Context::spawn`].
    pub fn spawned(
        &mut self,
        id: &WorkerId,
        answer: Result<Answer, Diagnostic>,
        context: &mut Context,
    ) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let why = match answer {
            Ok(Answer::Spawned(process)) => return self.has_process(id, process, context),
            // The keeper is away. When it is back, its list of processes decides.
            Err(problem) if problem.kind == Kind::NotRunning => return,
            Err(problem) => problem.what,
            Ok(answer) => format!("unexpected answer of the keeper: {answer:?}"),
        };
        worker.reason = Some(EndReason::NotStarted { why });
        self.ended(id, None, context);
    }

    fn has_process(&mut self, id: &WorkerId, process: Process, context: &mut Context) {
        context.emit(Fact::WorkerStarted { worker: id.clone(), pid: process.pid });
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.has_process(process);
        self.signal_again(id, context);
    }

    pub(super) fn admit(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        if worker.prepared {
            return worker.wait_for_plan();
        }
        let after_ms = worker.started.elapsed().as_millis() as u64;
        context.emit(Fact::WorkerReady { worker: id.clone(), after_ms });
        self.has_served |= worker.address().is_some();
        context.admit(&worker.spec, id, (worker.address(), worker.pid()));
        self.retire_replaced(id, context);
        self.replacements.end(id.slot);
        self.roll(context);
    }

    /// A worker that had not listened in time does so now: it gets requests.
    pub(super) fn listens_at_last(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.is_deaf = false;
        self.has_served = true;
        context.admit(&worker.spec, id, (worker.address(), worker.pid()));
    }

    /// This worker is ready: the one that it replaces is not needed any more.
    pub(super) fn retire_replaced(&mut self, id: &WorkerId, context: &mut Context) {
        if let Some(old) = self.workers.get_mut(id).and_then(|w| w.replaces.take()) {
            self.retire(&old, context);
        }
    }
}

/// What is said of a worker that lives and listens on nothing.
fn gets_no_request(worker: &Worker) -> Diagnostic {
    let (watcher, limit) = (&worker.id.watcher, worker.start_timeout_s());
    Diagnostic::warning(format!("{watcher} never gets a request"))
        .because(format!(
            "its process lives, but has listened on nothing within _start_timeout={limit}"
        ))
        .help(
            "if it serves no HTTP, put it into an [extra_daemon_…] section; else have it listen on \
             {unix_socket_path} or {port}",
        )
        .about(watcher.plugin().unwrap_or_default())
}
