//! Workers that use much memory.
//!
//! Above `memory_high` a worker is replaced as one that is too old: its successor starts first,
//! then it is drained. That helps a worker that leaks. One that uses so much from its start is
//! not helped: after a worker that was above it within 10 s, its successor serves for at least
//! 10 s before it is replaced, the next one for 20 s, up to 10 minutes. A worker whose memory
//! grows so fast that it would be killed first does not wait.
//!
//! Above `memory_limit` a worker is killed with all that it has started: by the kernel, or by us
//! where no cgroup limits it, or where the kernel has killed a part of it.

use std::collections::BTreeMap;
use std::time::Duration;

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::memory::{Mechanism, MemoryControl, OutOfMemory};
use mfserv_core::names::WorkerId;
use tokio::time::Instant;

use super::Watcher;
use super::worker::Worker;
use crate::context::Context;
use crate::sampling::{Measured, ToMeasure};

/// A worker that is above `memory_high` in this time is not helped by its replacement.
const SOON: Duration = Duration::from_secs(10);

/// The longest time that the next worker of its slot serves before it is replaced.
const LONGEST: Duration = Duration::from_secs(600);

/// A measurement is compared with one that is at least this old.
const INTERVAL: Duration = Duration::from_millis(500);

/// From a measurement to the beginning of a replacement, with the time of a busy machine.
const REACTION: Duration = Duration::from_secs(3);

/// How long workers of each slot serve at least before they are replaced for their memory.
#[derive(Default)]
pub(super) struct Pace(BTreeMap<u32, Duration>);

impl Pace {
    fn of(&self, slot: u32) -> Duration {
        self.0.get(&slot).copied().unwrap_or_default()
    }

    /// A worker of this slot is replaced, or could be, after it has served for so long.
    fn served(&mut self, slot: u32, life: Duration) {
        let before = self.of(slot);
        if life > SOON && life > before * 2 {
            self.0.remove(&slot);
        } else {
            self.0.insert(slot, (before * 2).clamp(SOON, LONGEST));
        }
    }

    /// Nothing says that the new configuration needs as much.
    pub fn forgive(&mut self) {
        self.0.clear();
    }
}

/// What is known of the memory of a worker.
#[derive(Default)]
pub(super) struct Memory {
    last: Option<(Instant, u64)>,
    /// Bytes a second, in the last two intervals.
    growth: [f64; 2],
    /// It is above `memory_high`, and is not replaced before it has served for so long.
    pub waits_until: Option<Duration>,
}

impl Memory {
    fn measured(&mut self, now: Instant, used: u64) {
        let Some((at, before)) = self.last else {
            self.last = Some((now, used));
            return;
        };
        let interval = now.saturating_duration_since(at);
        if interval >= INTERVAL {
            let grown = (used as f64 - before as f64) / interval.as_secs_f64();
            self.growth = [self.growth[1], grown];
            self.last = Some((now, used));
        }
    }

    /// When it will use this much, if it goes on as in both of the last intervals: what a program
    /// loads once is no leak.
    fn reaches(&self, used: u64, ceiling: u64) -> Option<Duration> {
        let growth = self.growth[0].min(self.growth[1]);
        let left = ceiling.saturating_sub(used) as f64;
        (growth > 0.0).then(|| Duration::try_from_secs_f64(left / growth).unwrap_or(Duration::MAX))
    }
}

impl Worker {
    /// How its memory is limited. Keepers of earlier versions limit none.
    pub(super) fn memory_control(&self) -> Option<MemoryControl> {
        let limits = self.spec.rlimits.memory;
        let process = self.process.as_ref()?;
        let why = "it was started by a keeper of an earlier version";
        let sampled = || (!limits.is_none()).then(|| MemoryControl::sampling(limits, why));
        process.memory.clone().or_else(sampled)
    }

    fn to_measure(&self) -> Option<ToMeasure> {
        let control = self.memory_control().filter(ToMeasure::is_needed)?;
        let pid = self.process.as_ref()?.pid;
        Some(ToMeasure { id: self.id.clone(), pid, control })
    }
}

impl Watcher {
    /// Its workers that are to be measured.
    pub fn to_measure(&self) -> impl Iterator<Item = ToMeasure> + '_ {
        // Those of earlier configurations live too.
        self.workers.values().filter_map(Worker::to_measure)
    }

    /// A worker was measured.
    pub fn measured(&mut self, measured: Measured, context: &mut Context) {
        let id = measured.id;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(control) = worker.memory_control() else { return };
        if let Some(why) = measured.out_of_memory {
            let why = worker.out_of_memory(why);
            return self.kill_for_memory(&id, why, context);
        }
        let Some(used_bytes) = measured.used_bytes else { return };
        worker.memory.measured(Instant::now(), used_bytes);
        let limit_bytes = control.limits.limit;
        let is_sampled = control.mechanism == Mechanism::Sampling;
        if is_sampled && limit_bytes > 0 && used_bytes > limit_bytes {
            let why = EndReason::OverMemoryLimit { used_bytes, limit_bytes };
            return self.kill_for_memory(&id, why, context);
        }
        if control.limits.high > 0 && used_bytes > control.limits.high {
            self.above_high(&id, used_bytes, &control, context);
        } else {
            worker.memory.waits_until = None;
        }
    }

    fn kill_for_memory(&mut self, id: &WorkerId, why: EndReason, context: &mut Context) {
        let Some(worker) = self.workers.get_mut(id) else { return };
        worker.killed_for.get_or_insert(why);
        context.kill_tree(id);
    }

    /// It is replaced, unless that would not help.
    fn above_high(
        &mut self,
        id: &WorkerId,
        used_bytes: u64,
        control: &MemoryControl,
        context: &mut Context,
    ) {
        let turns = u64::from(self.count).div_ceil(self.spec.rolling_width() as u64) as u32;
        let Some(worker) = self.workers.get_mut(id) else { return };
        let Some(ready_ms) = worker.ready_ms().filter(|_| worker.is_ready()) else { return };
        if worker.prepared || self.replacements.concerns(id.slot) {
            return;
        }
        let life = Duration::from_millis(ready_ms);
        // Without a hard limit, twice as much is as bad as that.
        let limits = control.limits;
        let ceiling = if limits.limit > 0 { limits.limit } else { limits.high.saturating_mul(2) };
        // Others of its app may grow as fast and be replaced before it.
        let needed = REACTION + worker.start_time() * (turns + 1);
        let is_urgent = worker.memory.reaches(used_bytes, ceiling).is_some_and(|at| at < needed);
        let mut least = self.memory_pace.of(id.slot);
        if least.is_zero() && life < REACTION {
            // It was above from its start.
            least = SOON;
        }
        if life >= least || is_urgent {
            self.memory_pace.served(id.slot, life);
            let why = EndReason::OverMemoryHigh { used_bytes, high_bytes: limits.high };
            return self.replace(vec![id.clone()], &why, context);
        }
        if worker.memory.waits_until.replace(least).is_none() {
            let replaced_in_ms = (least - life).as_millis() as u64;
            let high_bytes = limits.high;
            let worker = id.clone();
            context.emit(Fact::MemoryHigh { worker, used_bytes, high_bytes, replaced_in_ms });
        }
    }
}

impl Worker {
    /// The reason for the kernel's kill.
    pub(super) fn out_of_memory(&self, why: OutOfMemory) -> EndReason {
        let limit = self.spec.rlimits.memory.limit;
        EndReason::OutOfMemory { limit_bytes: (why == OutOfMemory::Limit).then_some(limit) }
    }
}
