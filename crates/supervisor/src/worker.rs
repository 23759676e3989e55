//! One worker: the only place where a phase changes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::event::EndReason;
use mfserv_core::names::WorkerId;
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::wire::keeper::Process;
use mfserv_core::worker::{Effect, Input, Phase, Want, step};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::spawn::Note;
use mfserv_platform::clock::now_ms;

/// How often a killed worker that does not go is killed again.
const KILL_AGAIN: Duration = Duration::from_secs(2);

/// One incarnation.
pub(crate) struct Worker {
    pub id: WorkerId,
    /// What it runs. The environment is not known of one that was adopted.
    pub spec: Arc<WatcherSpec>,
    /// The [`WatcherSpec::fingerprint`] of what it runs.
    pub fingerprint: u64,
    phase: Phase,
    pub want: Want,
    /// Since when it is in its phase.
    pub since_ms: u64,
    /// When the patience of its phase ends.
    pub deadline: Option<Instant>,
    /// Its process, once the keeper has said so.
    pub process: Option<Process>,
    /// Why we end it; `None` as long as an end would be a crash.
    pub reason: Option<EndReason>,
    /// Since when it is ready.
    pub ready_at: Option<Instant>,
    /// When it is too old.
    pub expires: Option<Instant>,
    /// It is started for a plan that is not in force yet, and gets no request before
    /// that. Until then nobody needs it: it is not wanted.
    pub prepared: bool,
    /// The worker that it replaces as soon as it is ready.
    pub replaces: Option<WorkerId>,
    /// What its probe saw last.
    pub saw: Arc<Mutex<String>>,
    pub probe: Option<AbortHandle>,
    /// When its process was asked for.
    pub started: Instant,
}

impl Worker {
    /// A worker that is not started yet; with a wait, it starts when that is over.
    pub fn new(
        id: WorkerId,
        spec: Arc<WatcherSpec>,
        fingerprint: u64,
        wait: Option<Duration>,
    ) -> Self {
        let now = Instant::now();
        Worker {
            id,
            spec,
            fingerprint,
            phase: if wait.is_some() { Phase::Backoff } else { Phase::Down },
            want: Want::Up,
            since_ms: now_ms(),
            deadline: wait.map(|wait| now + wait),
            process: None,
            reason: None,
            ready_at: None,
            expires: None,
            prepared: false,
            replaces: None,
            saw: Arc::default(),
            probe: None,
            started: now,
        }
    }

    /// A worker that lives already, found again: ready if it has traffic, else to be probed.
    pub fn adopted(id: WorkerId, note: Note, process: Process, ready: bool) -> Self {
        let mut worker = Worker::new(id, Arc::new(note.spec), note.fingerprint, None);
        let started_ms = process.started_ms;
        worker.process = Some(process);
        worker.enter(if ready { Phase::Ready } else { Phase::Starting });
        // It is as old as its process, whoever looks at it.
        worker.since_ms = started_ms;
        let age = Duration::from_millis(now_ms().saturating_sub(started_ms));
        worker.expires = worker.expires.map(|at| at.checked_sub(age).unwrap_or(at));
        worker
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// It is needed and serves.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready && self.want == Want::Up
    }

    /// Something happens to it: its phase and patience change; what is left to do is returned.
    pub fn advance(&mut self, input: Input) -> Effect {
        let (next, effect) = step(self.phase, self.want, input);
        if next != self.phase || effect == Effect::Kill {
            self.enter(next);
        }
        effect
    }

    fn enter(&mut self, phase: Phase) {
        let now = Instant::now();
        if phase != self.phase {
            self.since_ms = now_ms();
        }
        if self.phase == Phase::Starting && phase != Phase::Starting {
            if let Some(probe) = self.probe.take() {
                probe.abort();
            }
        }
        if phase == Phase::Ready {
            self.ready_at = Some(now);
            self.expires = self.draw_expiry(now);
        }
        self.deadline = self.patience(phase).map(|patience| now + patience);
        self.phase = phase;
    }

    fn patience(&self, phase: Phase) -> Option<Duration> {
        let ms = match phase {
            Phase::Starting => self.spec.start_timeout_ms,
            Phase::Draining => self.spec.drain_timeout_ms,
            Phase::Stopping if self.spec.stop_timeout_ms > 0 => self.spec.stop_timeout_ms,
            Phase::Killing => return Some(KILL_AGAIN),
            Phase::Stopping | Phase::Down | Phase::Ready | Phase::Backoff => return None,
        };
        Some(Duration::from_millis(ms))
    }

    /// A life between once and twice `max_age`, drawn once per process.
    fn draw_expiry(&self, now: Instant) -> Option<Instant> {
        let max_age = Duration::from_secs(self.spec.max_age_s);
        (!max_age.is_zero()).then(|| now + max_age + max_age.mul_f64(random_fraction()))
    }

    /// Its age counts from now.
    pub fn renew_expiry(&mut self) {
        self.expires = self.draw_expiry(Instant::now());
    }

    /// How long it was ready, milliseconds; `None` if it never was.
    pub fn ready_ms(&self) -> Option<u64> {
        self.ready_at.map(|at| at.elapsed().as_millis() as u64)
    }
}

/// A number in 0..1, unpredictable enough to keep workers from expiring together.
fn random_fraction() -> f64 {
    use std::hash::{BuildHasher, Hasher};
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    bits as f64 / u64::MAX as f64
}
