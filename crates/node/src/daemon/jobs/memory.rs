//! Runs that use more memory than their job may.

use std::time::Duration;

use mfserv_core::job::RunResult;
use mfserv_core::memory::{Mechanism, MemoryControl, OutOfMemory};
use mfserv_core::wire::keeper::{Ask, Scope};
use mfserv_supervisor::{Measured, ToMeasure};
use tokio::time::Instant;

use super::Message;
use super::actor::Actor;
use super::runs::{Live, Step};

const SIGKILL: i32 = 9;
/// A tree that was killed and still lives is killed again after so long.
const KILL_AGAIN: Duration = Duration::from_secs(1);

impl Live {
    /// What is measured, unless the kernel ends all of it in time: cgroup v2 does.
    fn to_measure(&self) -> Option<(u32, &MemoryControl)> {
        let (pid, control) = self.memory.as_ref()?;
        let is_needed = control.limits.limit > 0 && control.mechanism != Mechanism::CgroupV2;
        is_needed.then_some((*pid, control))
    }

    /// The result of a run that the kernel has killed.
    pub fn out_of_memory(&self, why: OutOfMemory) -> RunResult {
        let limit = self.memory.as_ref().map(|(_, control)| control.limits.limit);
        RunResult::OutOfMemory { limit_bytes: limit.filter(|_| why == OutOfMemory::Limit) }
    }

    /// Why it is to be killed.
    fn excess(&self, measured: &Measured<String>) -> Option<RunResult> {
        let (_, control) = self.to_measure()?;
        if let Some(why) = measured.out_of_memory {
            return Some(self.out_of_memory(why));
        }
        let limit_bytes = control.limits.limit;
        let is_sampled = control.mechanism == Mechanism::Sampling;
        let used_bytes = measured.used_bytes.filter(|used| is_sampled && *used > limit_bytes)?;
        Some(RunResult::OverMemoryLimit { used_bytes, limit_bytes })
    }
}

impl Actor {
    /// When the memory of runs is measured next.
    pub fn measured_next(&self) -> Option<Instant> {
        let is_limited = || self.live.values().any(|live| live.to_measure().is_some());
        self.sampling.due().filter(|_| is_limited())
    }

    /// Measures runs, when it is time.
    pub fn measure(&mut self) {
        let is_due = self.measured_next().is_some_and(|at| at <= Instant::now());
        let Some(own) = self.own.upgrade().filter(|_| is_due) else { return };
        let of = |(process, live): (&String, &Live)| {
            let (pid, control) = live.to_measure()?;
            Some(ToMeasure { id: process.clone(), pid, control: control.clone() })
        };
        let runs = self.live.iter().filter_map(of).collect();
        self.sampling.begin(runs, move |measured, took| {
            // Without the task nobody limits them: the next daemon does.
            let _ = own.send(Message::Measured(measured, took));
        });
    }

    /// Kills the runs that were found to use too much.
    pub fn measured(&mut self, measured: &[Measured<String>], took: Duration) {
        self.sampling.ended(measured, took);
        for one in measured {
            let Some(live) = self.live.get_mut(&one.id) else { continue };
            let Some(result) = live.excess(one) else { continue };
            // One that is being ended already has its result.
            if !matches!(live.step, Step::Ends { .. }) {
                live.step = Step::Ends { result, kill_at: Instant::now() + KILL_AGAIN };
            }
            let (id, scope) = (one.id.clone(), Scope::Tree);
            self.world.keeper.send(Ask::Signal { id, signal: SIGKILL, scope });
        }
    }
}
