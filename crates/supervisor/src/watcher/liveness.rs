//! Workers that were ready and do not answer any more.
//!
//! A worker is suspected when a front could not reach it or got no answer in time, when its
//! socket has gone, or when a signal has stopped its process. Then it is asked; three refusals, or
//! 3 s without an answer, end it. It is replaced like an outdated one: after its successor is
//! ready, one at a time.
//!
//! A worker whose port has another listener than before only has to be the owner of that one: it
//! may be busy. It is ended if nobody listens there, or another process.
//!
//! A worker without requests has its turn every 10 s. The fronts say whether it has nothing in
//! hand, before it is asked and after it has not answered: a busy worker is never ended by this. A
//! server with one connection at a time is asked only when the fronts keep no connection to it.
//! What it is asked is a request like others, so it has the timeout of its app to answer: a page
//! may be slow, and work may go on after a complete answer.
//!
//! A role that is asked on a socket of its own serves no requests of fronts: it is asked every 10 s.
//!
//! Such a request must do no harm to an app: where its page does not exist, it would be a warning
//! in a log each time. Then the worker only has to take a connection.

use std::time::Duration;

use mfserv_core::event::EndReason;
use mfserv_core::names::WorkerId;
use mfserv_core::watcher::Probe;
use mfserv_platform::disk;
use mfserv_platform::sync::lock;
use tokio::time::Instant;

use super::Watcher;
use super::worker::{Check, Silent, Worker};
use crate::context::Context;
use crate::place::{Place, is_listened_on};
use crate::probe::{Asked, Checked, Question, is_stopped};

/// Set in the environment of an app that is being debugged.
const DEBUG: &str = "MFSERV_CURRENT_APP_DEBUG";

/// So often a worker without requests has its turn to be asked.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// A worker that got no request since it answered is not asked again before: with turns every
/// 10 s, at the third one.
const STILL_QUIET: Duration = Duration::from_secs(25);

/// A suspected worker has so long to answer: a request of it had the timeout of its app already.
const SUSPECTED: Duration = Duration::from_secs(3);

/// Fronts keep a connection to a worker no longer than this after its last request.
const UNCONNECTED: Duration = Duration::from_secs(2);

/// Why a worker is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Why {
    /// It has its turn, and nothing in hand.
    Turn,
    /// It may be stuck.
    Suspected,
    /// Its port has another listener.
    Listener,
}

impl Watcher {
    /// Something of it can be looked at.
    pub fn can_be_looked_at(&self) -> bool {
        (self.spec.probe.asks() || self.spec.on_port) && self.workers.values().any(Worker::is_ready)
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
            if disk::is_gone(&link) && !disk::is_gone(&socket) {
                let _ = disk::relink(&link, &socket);
            }
        }
        let is_dead = |worker: &Worker| {
            let has_left = match worker.place() {
                Some(Place::Socket(socket)) => disk::is_gone(&socket),
                Some(Place::Port(_)) | None => false,
            };
            let pid = worker.pid();
            has_left || pid.is_some_and(is_stopped)
        };
        for id in self.ids(|worker| worker.is_ready() && is_dead(worker)) {
            self.suspect(&id, context);
        }
        let has_another = |worker: &Worker| match worker.place() {
            Some(Place::Port(port)) if worker.is_deaf => is_listened_on(port),
            Some(Place::Port(port)) => !lock(&worker.saw).still_listens_on(port),
            _ => false,
        };
        for id in self.ids(|worker| worker.is_ready() && has_another(worker)) {
            self.ask(&id, Why::Listener, context);
        }
        let now = Instant::now();
        let is_due = |worker: &Worker| worker.is_ready() && worker.probed + PROBE_EVERY <= now;
        if matches!(self.spec.probe, Probe::HttpAt { .. }) {
            for id in self.ids(is_due) {
                self.begin_probe(&id, now);
                self.ask(&id, Why::Turn, context);
            }
        }
    }

    /// This worker may be stuck: it is asked, unless a person debugs it.
    pub fn suspect(&mut self, id: &WorkerId, context: &mut Context) {
        self.ask(id, Why::Suspected, context);
    }

    fn ask(&mut self, id: &WorkerId, why: Why, context: &mut Context) {
        let was_idle = why == Why::Turn;
        let debugged = self.is_debugged();
        let patience = if was_idle { self.answer_timeout() } else { SUSPECTED };
        let Some(worker) = self.workers.get_mut(id) else { return };
        // A suspicion does not wait for the answer of an idle worker, which may take long.
        let is_asked = |check: &Check| was_idle || !check.was_idle;
        let is_known =
            worker.check.as_ref().is_some_and(is_asked) || self.replacements.concerns(id.slot);
        let is_deaf = worker.is_deaf && why != Why::Listener;
        if !worker.is_ready() || worker.prepared || is_known || debugged || is_deaf {
            return;
        }
        let Some(question) = question(worker, why, patience) else { return };
        worker.end_check();
        lock(&worker.saw).text.clear();
        let task = context.check(id, question, was_idle, &worker.saw);
        worker.check = Some(Check { task, was_idle, since: Instant::now() });
    }

    /// The longest wait for an answer of its workers.
    fn answer_timeout(&self) -> Duration {
        let of_start = self.spec.start_timeout_ms;
        Duration::from_millis(match self.spec.answer_timeout_ms {
            0 => of_start,
            ms => ms,
        })
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

    /// This worker has its turn: the fronts are asked whether it has nothing in hand, if it serves
    /// their requests.
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
        let has_answered = |at: Instant| at.elapsed() < STILL_QUIET && idle >= at.elapsed();
        match worker.silent.take() {
            // It had been idle for longer than this when it was asked; the fronts measure their own.
            Some(silent) if idle >= silent.since.elapsed() + UNCONNECTED / 2 => {
                self.end_stuck(id, silent.saw, context);
            }
            Some(_) => {}
            None if worker.answered.is_some_and(has_answered) => {}
            None if idle >= UNCONNECTED => self.ask(id, Why::Turn, context),
            None => {}
        }
    }

    fn end_stuck(&mut self, id: &WorkerId, saw: String, context: &mut Context) {
        if let Some(worker) = self.workers.get(id).filter(|worker| worker.is_ready()) {
            if let Some(signal) = worker.spec.stack_signal {
                context.signal(id, signal);
            }
            self.replace(vec![id.clone()], &EndReason::Stuck { saw }, context);
        }
    }

    fn is_debugged(&self) -> bool {
        self.spec.env.get(DEBUG).is_some_and(|value| value == "1")
    }

    /// It was asked.
    pub fn checked(
        &mut self,
        id: &WorkerId,
        was_idle: bool,
        checked: Checked,
        context: &mut Context,
    ) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        // Another check has taken the place of this one.
        let Some(check) = worker.check.take_if(|check| check.was_idle == was_idle) else { return };
        let now = Instant::now();
        match (checked, worker.spec.upstream.clone()) {
            (Checked::Answers, _) if was_idle => worker.answered = Some(now),
            (Checked::Answers, _) if worker.is_deaf => self.listens_at_last(id, context),
            (Checked::Answers | Checked::Excused, _) => {}
            (Checked::Stuck(saw), Some(upstream)) if was_idle => {
                // Its next turn comes after the answer of the fronts.
                worker.probed = now;
                worker.silent = Some(Silent { saw, since: check.since });
                context.traffic.ask_idle([(upstream, vec![id.clone()])].into());
            }
            (Checked::Stuck(saw), _) => self.end_stuck(id, saw, context),
        }
    }
}

/// What this worker is asked; `None` if it cannot be asked.
fn question(worker: &Worker, why: Why, patience: Duration) -> Option<Question> {
    let place = match &worker.spec.probe {
        Probe::HttpAt { socket } => Place::Socket(socket.clone()),
        _ => worker.place()?,
    };
    let has_page = lock(&worker.saw).status.is_none_or(|status| status < 400);
    let asked = match &worker.spec.probe {
        _ if why == Why::Listener => Asked::Listen,
        Probe::Http { path, named } if why != Why::Turn || *named || has_page => {
            Asked::Answer(path.clone())
        }
        Probe::HttpAt { .. } => Asked::Answer("/".into()),
        Probe::Http { .. } | Probe::Connect => Asked::Connect,
        Probe::Notify | Probe::Told | Probe::Alive { .. } => return None,
    };
    let pid = worker.pid();
    Some(Question { place, asked, patience, pid })
}
