//! Workers of the next release. They start beside those that serve and are ready before the
//! first request goes to any of them. When their plan comes into force they take over all at
//! once; until then nothing depends on them.

use std::sync::Arc;

use mfserv_core::event::EndReason;
use mfserv_core::names::WorkerId;
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::worker::{Input, Phase, Want};

use super::Watcher;
use super::worker::Worker;
use crate::context::Context;

impl Watcher {
    /// Starts the workers of this spec beside those that serve. An earlier preparation is given
    /// up.
    pub fn prepare(&mut self, spec: WatcherSpec, context: &mut Context) {
        self.abandon(context);
        let fingerprint = spec.fingerprint();
        let spec = Arc::new(spec);
        for slot in 1..=spec.count {
            let id = self.next_id(slot);
            let mut worker = Worker::new(id.clone(), spec.clone(), fingerprint, None);
            worker.prepared = true;
            worker.want = Want::Down;
            self.workers.insert(id.clone(), worker);
            self.drive(&id, Input::Start, context);
        }
    }

    /// Gives up the prepared workers, and forgets that some have failed.
    pub fn abandon(&mut self, context: &mut Context) {
        self.crashes.failed_preparations = 0;
        for id in self.ids(|w| w.prepared) {
            let Some(worker) = self.workers.get_mut(&id) else { continue };
            worker.prepared = false;
            worker.reason = Some(EndReason::Asked { what: "not needed".into() });
            self.give_up(&id, context);
        }
    }

    /// Retires a worker. A worker that is still starting is killed: it has served nobody, and
    /// what it would print about the interruption only confuses.
    fn give_up(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.want = Want::Down;
        match worker.phase() {
            Phase::Starting => self.drive(id, Input::Timeout, context),
            _ => self.retire(id, context),
        }
    }

    /// A plan has come into force that wants something else of this watcher. The prepared
    /// workers take over if they run what it wants and are ready in every slot; else they are
    /// given up. (A plan that changes nothing here leaves a preparation alone.)
    pub(super) fn promote(&mut self, context: &mut Context) {
        let fresh = self
            .ids(|w| w.prepared && w.phase() == Phase::Ready && w.fingerprint == self.fingerprint);
        let whole = (1..=self.count).all(|slot| fresh.iter().any(|id| id.slot == slot));
        match whole && self.count > 0 {
            true => {
                self.take_over(&fresh, &EndReason::Asked { what: "new release".into() }, context)
            }
            false => self.abandon(context),
        }
    }

    /// Fresh code on the same plan: the prepared workers that are ready take over from all that
    /// serve, and the other slots are started anew. False if no prepared worker is ready.
    pub fn renew(&mut self, why: &EndReason, context: &mut Context) -> bool {
        let fresh = self.ids(|w| w.prepared && w.phase() == Phase::Ready);
        if fresh.is_empty() {
            return false;
        }
        self.take_over(&fresh, why, context);
        self.reconcile(context);
        true
    }

    fn take_over(&mut self, fresh: &[WorkerId], why: &EndReason, context: &mut Context) {
        // A restart that is under way ends here: each admission below would go on with it.
        self.replacements.clear();
        let before = self.ids(|w| w.want == Want::Up);
        let count = self.count;
        for id in fresh.iter().filter(|id| id.slot <= count) {
            if let Some(worker) = self.workers.get_mut(id) {
                worker.prepared = false;
                worker.want = Want::Up;
                worker.begin_life();
            }
            self.admit(id, context);
        }
        for id in before {
            if let Some(worker) = self.workers.get_mut(&id) {
                worker.reason = Some(why.clone());
            }
            self.give_up(&id, context);
        }
        self.abandon(context);
    }
}
