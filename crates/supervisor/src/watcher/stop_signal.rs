//! How a worker is stopped: it is drained, gets its stop signal, and is killed when its time is
//! over. The phase table decides when.

use mfserv_core::event::EndReason;
use mfserv_core::names::WorkerId;
use mfserv_core::worker::{Input, Phase};

use super::Watcher;
use super::worker::Worker;
use crate::context::Context;
use crate::probe::is_stopped;

impl Watcher {
    pub(super) fn drain(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(worker) = self.workers.get(id) else { return };
        match &worker.spec.upstream {
            Some(upstream) => context.traffic.drain(upstream, id),
            None => self.drive(id, Input::Drained, context),
        }
    }

    pub(super) fn signal(&self, id: &WorkerId, context: &Context) {
        let Some(worker) = self.workers.get(id) else { return };
        let Some(process) = &worker.process else { return };
        if matches!(worker.reason, Some(EndReason::Stuck { .. })) || is_stopped(process.pid) {
            // It holds no request any more, and obeys nothing.
            context.kill_tree(id);
        } else {
            context.signal(id, worker.spec.stop_signal);
        }
    }

    pub(super) fn kill(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(worker) = self.workers.get(id) else { return };
        match worker.process.is_some() {
            true => context.kill_tree(id),
            // The keeper has not answered the start, so there is nothing to kill.
            false => self.ended(id, None, context),
        }
    }

    /// Repeats a signal that could not be sent: there was no process yet, or no keeper.
    pub(super) fn signal_again(&mut self, id: &WorkerId, context: &mut Context) {
        match self.workers.get(id).map(Worker::phase) {
            Some(Phase::Stopping) => self.signal(id, context),
            Some(Phase::Killing) => self.kill(id, context),
            _ => {}
        }
    }
}
