//! One worker: the only place where a phase changes.

use std::sync::Arc;
use std::time::Duration;

use mfserv_core::event::EndReason;
use mfserv_core::names::WorkerId;
use mfserv_core::status::{WorkerMemory, WorkerStatus};
use mfserv_core::watcher::{Probe, WatcherSpec};
use mfserv_core::wire::front::Address;
use mfserv_core::wire::keeper::Process;
use mfserv_core::worker::{Effect, Input, Phase, Want, step};
use mfserv_platform::clock::now_ms;
use mfserv_platform::loopback::ReservedPort;
use mfserv_platform::sync::lock;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::memory::Memory;
use crate::context::Context;
use crate::place::Place;
use crate::probe::Saw;
use crate::spawn::Note;

/// A worker that survives SIGKILL (its process hangs in the kernel) is killed again after this
/// time.
const KILL_AGAIN: Duration = Duration::from_secs(2);

/// A prepared worker that is ready is given up if no plan comes in this time.
const PLAN_TIMEOUT: Duration = Duration::from_secs(120);

/// A worker that was ready is being asked.
pub(super) struct Check {
    /// The task that asks.
    pub task: AbortHandle,
    /// It had nothing in hand when it was asked.
    pub was_idle: bool,
    /// When it was asked.
    pub since: Instant,
}

/// A worker with nothing in hand did not answer.
pub(super) struct Silent {
    /// What was seen.
    pub saw: String,
    /// When it was asked.
    pub since: Instant,
}

/// The port of a worker.
struct Port {
    number: u16,
    /// No other node or worker gets it. `None`: one has had it before this daemon came.
    _reserved: Option<ReservedPort>,
}

impl Port {
    fn new() -> std::io::Result<Self> {
        let reserved = ReservedPort::new()?;
        Ok(Port { number: reserved.number(), _reserved: Some(reserved) })
    }

    fn adopted(number: u16) -> Self {
        Port { number, _reserved: ReservedPort::of(number) }
    }
}

/// One incarnation of a slot.
pub(super) struct Worker {
    pub id: WorkerId,
    /// What it runs. The environment of an adopted worker is not known.
    pub spec: Arc<WatcherSpec>,
    /// The [`WatcherSpec::fingerprint`] of what it runs, environment included.
    pub fingerprint: u64,
    phase: Phase,
    pub want: Want,
    /// The beginning of its phase, milliseconds since the Unix epoch.
    since_ms: u64,
    /// The end of the time that its phase may take.
    pub deadline: Option<Instant>,
    /// The port that it listens on, if that is no socket.
    port: Option<Port>,
    /// Its process, once the keeper has answered.
    pub process: Option<Process>,
    /// Why the supervisor ends it; `None` as long as its end would be a crash.
    pub reason: Option<EndReason>,
    /// Why it was killed for its memory.
    pub killed_for: Option<EndReason>,
    /// What it uses, if that is measured.
    pub memory: Memory,
    /// When it became ready.
    ready_at: Option<Instant>,
    /// When it is too old; of a prepared worker, when it has waited long enough for its plan.
    pub expires: Option<Instant>,
    /// It has not listened within its start timeout, and need not: it gets no requests.
    pub is_deaf: bool,
    /// It runs a release whose plan is not in force: it gets no request, and its slot does not
    /// need it (its [`Want`] is `Down`).
    pub prepared: bool,
    /// The worker that is retired as soon as this one is ready.
    pub replaces: Option<WorkerId>,
    /// What its probe saw last.
    pub saw: Saw,
    /// The task that waits for its readiness.
    pub probe: Option<AbortHandle>,
    /// The task that asks whether it still answers.
    pub check: Option<Check>,
    /// Its last turn among the idle workers that are asked, or when it became ready.
    pub probed: Instant,
    /// When it last answered as an idle worker.
    pub answered: Option<Instant>,
    /// It did not answer as an idle worker: it is stuck if the fronts say that it had nothing in
    /// hand all the time.
    pub silent: Option<Silent>,
    /// When its process was asked for.
    pub started: Instant,
}

impl Worker {
    /// A worker that is not started yet. With a wait, it starts when that is over.
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
            port: None,
            process: None,
            reason: None,
            killed_for: None,
            memory: Memory::default(),
            ready_at: None,
            expires: None,
            is_deaf: false,
            prepared: false,
            replaces: None,
            saw: Saw::default(),
            probe: None,
            check: None,
            probed: now,
            answered: None,
            silent: None,
            started: now,
        }
    }

    /// A worker whose process lives already: ready if it has traffic, else still starting.
    pub fn adopted(id: WorkerId, note: Note, process: Process, ready: bool) -> Self {
        let mut worker = Worker::new(id, Arc::new(note.spec), note.fingerprint, None);
        let started_ms = process.started_ms;
        worker.port = note.port.map(Port::adopted);
        worker.has_process(process);
        worker.enter(if ready { Phase::Ready } else { Phase::Starting });
        // The age of a worker is the age of its process, also for the next daemon.
        worker.since_ms = started_ms;
        let age = Duration::from_millis(now_ms().saturating_sub(started_ms));
        worker.expires = worker.expires.map(|at| at.checked_sub(age).unwrap_or(at));
        worker
    }

    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// It is needed and serves.
    pub fn is_ready(&self) -> bool {
        self.phase == Phase::Ready && self.want == Want::Up
    }

    /// Something happens to it: changes its phase, and returns the effect to be carried out.
    pub fn advance(&mut self, input: Input) -> Effect {
        let (next, effect) = step(self.phase, self.want, input);
        if next != self.phase || effect == Effect::Kill {
            self.enter(next);
        }
        effect
    }

    fn enter(&mut self, phase: Phase) {
        if phase != self.phase {
            self.since_ms = now_ms();
        }
        if self.phase == Phase::Starting && phase != Phase::Starting {
            if let Some(probe) = self.probe.take() {
                probe.abort();
            }
        }
        if phase != Phase::Ready {
            self.end_check();
        }
        if phase == Phase::Ready {
            self.ready_at = Some(Instant::now());
            self.probed = Instant::now();
            self.begin_life();
        }
        self.deadline = self.patience(phase).map(|patience| Instant::now() + patience);
        self.phase = phase;
    }

    /// It is not asked any more.
    pub fn end_check(&mut self) {
        if let Some(check) = self.check.take() {
            check.task.abort();
        }
    }

    /// `_start_timeout` of its app, seconds.
    pub fn start_timeout_s(&self) -> u64 {
        self.spec.start_timeout_ms / 1000
    }

    /// It serves nothing, as far as can be seen: it lives, has to listen nowhere, and does not.
    pub fn is_a_daemon(&self) -> bool {
        self.spec.need_not_listen && lock(&self.saw).listens_nowhere
    }

    /// How long a phase may take.
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

    /// Its age counts from now.
    pub fn begin_life(&mut self) {
        self.expires = self.spec.life_of(&self.id).map(|life| Instant::now() + life);
    }

    /// It is ready, and the plan that it was prepared for is to come.
    pub fn wait_for_plan(&mut self) {
        self.expires = Some(Instant::now() + PLAN_TIMEOUT);
    }

    /// The keeper has its process.
    pub fn has_process(&mut self, process: Process) {
        lock(&self.saw).pid = Some(process.pid);
        self.process = Some(process);
    }

    /// Takes a port that nobody has, if it is to listen on one.
    pub fn take_port(&mut self) -> std::io::Result<()> {
        self.port = None;
        if self.spec.on_port {
            self.port = Some(Port::new()?);
        }
        Ok(())
    }

    /// The port that it was given.
    pub fn port_number(&self) -> Option<u16> {
        self.port.as_ref().map(|port| port.number)
    }

    /// Where it is asked.
    pub fn place(&self) -> Option<Place> {
        let socket = || self.spec.socket_of(&self.id).map(Place::Socket);
        self.port_number().map(Place::Port).or_else(socket)
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid)
    }

    /// Where the fronts reach it.
    pub fn address(&self) -> Option<Address> {
        if self.is_deaf {
            return None;
        }
        let uid = || match &lock(&self.saw).listener {
            Some(listener) => listener.uid,
            // Nobody has looked: it had requests before this daemon came.
            None => rustix::process::geteuid().as_raw(),
        };
        Some(match self.place()? {
            Place::Socket(path) => Address::Socket(path),
            Place::Port(port) => Address::Port { port, uid: uid() },
        })
    }

    /// Watches for its readiness from now on.
    pub fn observe(&mut self, context: &Context) {
        self.observe_by(self.spec.probe.clone(), context);
    }

    /// The same, by another probe than the one of its app.
    pub fn observe_by(&mut self, probe: Probe, context: &Context) {
        let probe = context.probe(probe, &self.id, self.place(), &self.saw);
        if let Some(before) = std::mem::replace(&mut self.probe, probe) {
            before.abort();
        }
    }

    /// How long it has been ready, milliseconds; `None` if it never was.
    pub fn ready_ms(&self) -> Option<u64> {
        self.ready_at.map(|at| at.elapsed().as_millis() as u64)
    }

    /// How long it took to become ready.
    pub fn start_time(&self) -> Duration {
        self.ready_at.map_or(Duration::ZERO, |at| at.saturating_duration_since(self.started))
    }

    /// What its probe sees is of interest: it is starting, or may be stuck.
    fn is_being_asked(&self) -> bool {
        let is_stuck = || matches!(self.reason, Some(EndReason::Stuck { .. }));
        self.phase == Phase::Starting || self.check.is_some() || is_stuck()
    }

    /// What is seen from outside, without memory and CPU.
    pub fn status(&self) -> WorkerStatus {
        let process = self.process.as_ref();
        let saw = lock(&self.saw).text.clone();
        WorkerStatus {
            id: self.id.clone(),
            pid: process.map(|p| p.pid),
            phase: self.phase,
            want: self.want,
            since_ms: self.since_ms,
            started_ms: process.map_or(0, |p| p.started_ms),
            memory_bytes: None,
            memory: self.memory_control().map(|control| WorkerMemory {
                used_bytes: None,
                replaced_after_ms: self.memory.waits_until.map(|life| life.as_millis() as u64),
                control,
            }),
            cpu_ms: None,
            containment: process.map_or_else(String::new, |p| p.containment.clone()),
            adopted: process.is_some_and(|p| p.adopted),
            probe: (!saw.is_empty() && self.is_being_asked()).then_some(saw),
            listens: lock(&self.saw).listener.map(|listener| listener.address),
        }
    }
}
