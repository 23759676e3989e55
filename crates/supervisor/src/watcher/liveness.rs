//! Workers that were ready and do not answer any more.
//!
//! A worker is suspected when a front could not reach it or got no answer in time, when its
//! socket has gone, or when a signal has stopped its process. Then it is asked; three misses in 3 s
//! end it. It is replaced like an outdated one: after its successor is ready, one at a time.
//!
//! A worker without requests is asked every 10 s. The fronts say whether it has nothing in hand,
//! before it is asked and after it has not answered: a busy worker is never ended by this. A
//! server with one connection at a time is asked only when the fronts keep no connection to it.

use std::io;
use std::time::Duration;

use mfserv_core::event::EndReason;
use mfserv_core::names::WorkerId;
use mfserv_platform::disk;
use mfserv_platform::sync::lock;
use tokio::time::Instant;

use super::Watcher;
use super::worker::{Check, Worker};
use crate::context::Context;
use crate::probe::is_stopped;

/// Set in the environment of an app that is being debugged.
const DEBUG: &str = "MFSERV_CURRENT_APP_DEBUG";

/// So often a worker without requests is asked.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// Fronts keep a connection to a worker no longer than this after its last request.
const UNCONNECTED: Duration = Duration::from_secs(2);

impl Watcher {
    /// Something of it can be looked at.
    pub fn can_be_looked_at(&self) -> bool {
        self.spec.probe.asks() && self.workers.values().any(Worker::is_ready)
    }

    /// Looks at its ready workers without asking them: costs two system calls for each.
    pub fn look(&mut self, context: &mut Context) {
        if !self.can_be_looked_at() {
            return;
        }
        for worker in self.workers.values().filter(|worker| worker.is_ready()) {
            let (Some(socket), Some(link)) =
                (worker.spec.socket_of(&worker.id), worker.spec.socket_link_of(&worker.id))
            else {
                continue;
            };
            // Only people use the link; the newest worker of the slot has it.
            if is_gone(&link) && !is_gone(&socket) {
                let _ = disk::relink(&link, &socket);
            }
        }
        let is_dead = |worker: &Worker| {
            let socket = worker.spec.socket_of(&worker.id);
            let pid = worker.process.as_ref().map(|process| process.pid);
            socket.is_some_and(|socket| is_gone(&socket)) || pid.is_some_and(is_stopped)
        };
        for id in self.ids(|worker| worker.is_ready() && is_dead(worker)) {
            self.suspect(&id, context);
        }
    }

    /// This worker may be stuck: it is asked, unless a person debugs it.
    pub fn suspect(&mut self, id: &WorkerId, context: &mut Context) {
        self.ask(id, false, context);
    }

    fn ask(&mut self, id: &WorkerId, was_idle: bool, context: &mut Context) {
        let debugged = self.is_debugged();
        let Some(worker) = self.workers.get_mut(id) else { return };
        let is_known = worker.check.is_some() || self.replacements.concerns(id.slot);
        if !worker.is_ready() || worker.prepared || is_known || debugged {
            return;
        }
        lock(&worker.saw).clear();
        let pid = worker.process.as_ref().map(|process| process.pid);
        let task = context.check(&worker.spec, (id, pid), &worker.saw);
        worker.check = task.map(|task| Check { task, was_idle });
    }

    /// Its workers that have not been probed for long: when they were, and their upstream.
    pub fn due_for_probe(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (Instant, String, WorkerId)> + '_ {
        let asks = self.spec.probe.asks() && !self.is_debugged();
        let due = move |w: &&Worker| {
            asks && w.is_ready()
                && !w.prepared
                && w.check.is_none()
                && w.probed + PROBE_EVERY <= now
        };
        let named = |w: &Worker| Some((w.probed, w.spec.upstream.clone()?, w.id.clone()));
        self.workers.values().filter(due).filter_map(named)
    }

    /// The fronts are asked whether this worker has nothing in hand.
    pub fn begin_probe(&mut self, id: &WorkerId, now: Instant) {
        if let Some(worker) = self.workers.get_mut(id) {
            worker.probed = now;
            worker.silent = None;
        }
    }

    /// The fronts say that this worker has nothing in hand, and since when: it is asked, or it
    /// is stuck.
    pub fn is_idle(&mut self, id: &WorkerId, idle: Duration, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let asked_for = worker.probed.elapsed();
        match worker.silent.take() {
            // It had been idle for longer than this when it was asked; the fronts measure their own.
            Some(saw) if idle >= asked_for + UNCONNECTED / 2 => self.end_stuck(id, saw, context),
            Some(_) => {}
            None if idle >= UNCONNECTED => self.ask(id, true, context),
            None => {}
        }
    }

    fn end_stuck(&mut self, id: &WorkerId, saw: String, context: &mut Context) {
        if self.workers.get(id).is_some_and(Worker::is_ready) {
            self.replace(vec![id.clone()], &EndReason::Stuck { saw }, context);
        }
    }

    fn is_debugged(&self) -> bool {
        self.spec.env.get(DEBUG).is_some_and(|value| value == "1")
    }

    /// It was asked. `stuck` says what was seen if it does not answer.
    pub fn checked(&mut self, id: &WorkerId, stuck: Option<String>, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        let was_idle = worker.check.take().is_some_and(|check| check.was_idle);
        let Some(saw) = stuck else { return };
        match worker.spec.upstream.clone().filter(|_| was_idle) {
            Some(upstream) => {
                worker.silent = Some(saw);
                context.traffic.ask_idle([(upstream, vec![id.clone()])].into());
            }
            None => self.end_stuck(id, saw, context),
        }
    }
}

fn is_gone(path: &std::path::Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
