//! Workers that were ready and do not answer any more.
//!
//! A worker is suspected when a front could not reach it or got no answer in time, when its
//! socket has gone, or when a signal has stopped its process. Then it is asked; three misses in 3 s
//! end it. It is replaced like an outdated one: after its successor is ready, one at a time.

use std::io;

use mfserv_core::event::EndReason;
use mfserv_core::names::WorkerId;
use mfserv_platform::disk;
use mfserv_platform::sync::lock;

use super::Watcher;
use super::worker::Worker;
use crate::context::Context;
use crate::probe::is_stopped;

/// Set in the environment of an app that is being debugged.
const DEBUG: &str = "MFSERV_CURRENT_APP_DEBUG";

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
        let debugged = self.spec.env.get(DEBUG).is_some_and(|value| value == "1");
        let Some(worker) = self.workers.get_mut(id) else { return };
        let is_known = worker.check.is_some() || self.replacements.concerns(id.slot);
        if !worker.is_ready() || worker.prepared || is_known || debugged {
            return;
        }
        lock(&worker.saw).clear();
        let pid = worker.process.as_ref().map(|process| process.pid);
        worker.check = context.check(&worker.spec, (id, pid), &worker.saw);
    }

    /// It was asked. `stuck` says what was seen if it does not answer.
    pub fn checked(&mut self, id: &WorkerId, stuck: Option<String>, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.check = None;
        if let Some(saw) = stuck.filter(|_| worker.is_ready()) {
            self.replace(vec![id.clone()], &EndReason::Stuck { saw }, context);
        }
    }
}

fn is_gone(path: &std::path::Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
}
