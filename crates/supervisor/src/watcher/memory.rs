//! Workers that use much memory.
//!
//! Above `memory_high` a worker is replaced as one that is too old: its successor starts first,
//! then it is drained. That helps a worker that leaks. One that uses so much from its start is
//! not helped: after a worker that was above it within 10 s (a minute without `memory_limit`), its
//! successor serves for at least 10 s before it is replaced, the next one for 20 s, up to 10
//! minutes. A worker whose memory
//! grows so fast that it would be killed first does not wait, for a few workers of a slot.
//!
//! Above `memory_limit` a worker is killed with all that it has started: by the kernel, or by us
//! where no cgroup limits it, or where the kernel has killed a part of it at that limit. If the
//! machine had no memory left, the main process may serve on: the worker is replaced.

use std::collections::BTreeMap;
use std::time::Duration;

use mfserv_core::event::{EndReason, Fact};
use mfserv_core::memory::{Mechanism, MemoryControl, OutOfMemory};
use mfserv_core::names::WorkerId;
use mfserv_core::wire::keeper::{Ended, Exit};
use mfserv_core::worker::Phase;
use tokio::time::Instant;

use super::Watcher;
use super::worker::Worker;
use crate::context::Context;
use crate::sampling::{Measured, ToMeasure};

const SIGKILL: i32 = 9;

/// A worker that is above `memory_high` in this time is not helped by its replacement.
const SOON: Duration = Duration::from_secs(10);

/// The same where nobody would kill it: its memory need not grow, it may be a cache that fills.
const SOON_WITHOUT_LIMIT: Duration = Duration::from_secs(60);

/// The longest time that the next worker of its slot serves before it is replaced.
const LONGEST: Duration = Duration::from_secs(600);

/// A measurement is compared with one that is at least this old.
const INTERVAL: Duration = Duration::from_millis(500);

/// From a measurement to the beginning of a replacement, with the time of a busy machine.
const REACTION: Duration = Duration::from_secs(3);

/// So many workers of a slot are replaced before their time, since they would be killed: it may be
/// no leak that ends only at the limit. Once one was killed, that is known.
const URGENT: u32 = 5;

/// How workers of each slot are replaced for their memory.
#[derive(Default)]
pub(super) struct Pace(BTreeMap<u32, SlotPace>);

#[derive(Default, Clone, Copy)]
struct SlotPace {
    /// They serve at least so long before.
    least: Duration,
    /// So many did not.
    urgent: u32,
}

impl Pace {
    fn of(&self, slot: u32) -> SlotPace {
        self.0.get(&slot).copied().unwrap_or_default()
    }

    /// A worker of this slot that has served for so long may be replaced.
    fn allows(&self, slot: u32, life: Duration, is_urgent: bool) -> bool {
        let pace = self.of(slot);
        life >= pace.least || (is_urgent && pace.urgent < URGENT)
    }

    /// A worker of this slot is replaced after it has served for so long. `has_limit`: it would
    /// be killed some time.
    fn served(&mut self, slot: u32, life: Duration, has_limit: bool) {
        let SlotPace { least, urgent } = self.of(slot);
        let soon = if has_limit { SOON } else { SOON_WITHOUT_LIMIT };
        if life > soon && life > least * 2 {
            self.0.remove(&slot);
        } else {
            let urgent = urgent + u32::from(life < least);
            self.0.insert(slot, SlotPace { least: (least * 2).clamp(SOON, LONGEST), urgent });
        }
    }

    /// A worker of this slot was killed at its limit.
    pub fn killed(&mut self, slot: u32) {
        if let Some(pace) = self.0.get_mut(&slot) {
            pace.urgent = 0;
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

    fn to_measure(&self) -> Option<ToMeasure<WorkerId>> {
        // Cgroup v2 ends all processes at a hard limit by itself.
        let is_needed = |control: &MemoryControl| {
            control.mechanism != Mechanism::CgroupV2 || control.limits.high > 0
        };
        let control = self.memory_control().filter(is_needed)?;
        let pid = self.process.as_ref()?.pid;
        Some(ToMeasure { id: self.id.clone(), pid, control })
    }
}

impl Watcher {
    /// Its workers that are to be measured.
    pub fn to_measure(&self) -> impl Iterator<Item = ToMeasure<WorkerId>> + '_ {
        // Those of earlier configurations live too.
        self.workers.values().filter_map(Worker::to_measure)
    }

    /// A worker was measured.
    pub fn measured(&mut self, measured: Measured<WorkerId>, context: &mut Context) {
        let id = measured.id;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(control) = worker.memory_control() else { return };
        match measured.out_of_memory {
            Some(OutOfMemory::Limit) => {
                let why = worker.out_of_memory(OutOfMemory::Limit);
                return self.kill_for_memory(&id, why, context);
            }
            Some(OutOfMemory::Machine) => return self.lost_a_part(&id, context),
            None => {}
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

    /// The time that a worker has served, if it may be replaced for its memory.
    fn replaceable(&self, id: &WorkerId) -> Option<Duration> {
        let worker = self.workers.get(id).filter(|worker| worker.is_ready())?;
        let is_due = !worker.prepared && !self.replacements.concerns(id.slot);
        worker.ready_ms().filter(|_| is_due).map(Duration::from_millis)
    }

    /// The kernel has killed a process of it, and it serves: only it can know whether that
    /// matters.
    fn lost_a_part(&mut self, id: &WorkerId, context: &mut Context) {
        let Some(life) = self.replaceable(id) else { return };
        if self.memory_pace.allows(id.slot, life, false) {
            self.memory_pace.served(id.slot, life, false);
            self.replace(vec![id.clone()], &EndReason::PartKilled, context);
        }
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
        let Some(life) = self.replaceable(id) else { return };
        let Some(worker) = self.workers.get_mut(id) else { return };
        let limits = control.limits;
        // Others of its app may grow as fast and be replaced before it.
        let needed = REACTION + worker.start_time() * (turns + 1);
        let dies_in = worker.memory.reaches(used_bytes, limits.limit);
        // Without a hard limit nobody kills it.
        let is_urgent = limits.limit > 0 && dies_in.is_some_and(|at| at < needed);
        let least = self.memory_pace.of(id.slot).least;
        let is_allowed = self.memory_pace.allows(id.slot, life, is_urgent);
        // Else it was above from its start.
        let has_grown = !least.is_zero() || life >= REACTION;
        if is_allowed && (has_grown || is_urgent) {
            self.memory_pace.served(id.slot, life, limits.limit > 0);
            let why = EndReason::OverMemoryHigh { used_bytes, high_bytes: limits.high };
            return self.replace(vec![id.clone()], &why, context);
        }
        let least = least.max(SOON);
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
    fn out_of_memory(&self, why: OutOfMemory) -> EndReason {
        let limit = self.spec.rlimits.memory.limit;
        EndReason::OutOfMemory { limit_bytes: (why == OutOfMemory::Limit).then_some(limit) }
    }

    /// The kernel has ended it for its memory. Where the machine had none left, it may have killed
    /// another process of the worker long before.
    pub(super) fn killed_for_memory(&self, exit: &Exit) -> Option<EndReason> {
        let why = exit.out_of_memory?;
        let is_asked = self.reason.is_some() && self.phase() != Phase::Ready;
        let is_killed = exit.ended == Ended::Signalled { signal: SIGKILL } && !is_asked;
        (why == OutOfMemory::Limit || is_killed).then(|| self.out_of_memory(why))
    }
}
