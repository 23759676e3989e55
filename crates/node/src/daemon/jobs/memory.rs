//! Runs that use more memory than their job may.

use std::time::Duration;

use mfserv_core::job::RunResult;
use mfserv_core::memory::{Mechanism, MemoryControl, OutOfMemory};
use mfserv_core::wire::keeper::{Ask, Scope};
use mfserv_platform::memory::{self, Meter};
use tokio::time::Instant;

use super::actor::Actor;
use super::runs::{Live, Step};

const SIGKILL: i32 = 9;
/// So often the memory of runs is measured, where that is needed.
const EVERY: Duration = Duration::from_secs(1);
/// After a measurement this many times as long is waited.
const REST: u32 = 20;

impl Live {
    /// Nobody else ends all of it in time: cgroup v2 does.
    pub fn is_measured(&self) -> bool {
        let limited = |(_, control): &(u32, MemoryControl)| {
            control.limits.limit > 0 && control.mechanism != Mechanism::CgroupV2
        };
        self.memory.as_ref().is_some_and(limited)
    }

    /// The result of a run that the kernel has killed.
    pub fn out_of_memory(&self, why: OutOfMemory) -> RunResult {
        let limit = self.memory.as_ref().map(|(_, control)| control.limits.limit);
        RunResult::OutOfMemory { limit_bytes: limit.filter(|_| why == OutOfMemory::Limit) }
    }

    /// Why it is to be killed.
    fn excess(&self, meter: &Meter) -> Option<RunResult> {
        let (pid, control) = self.memory.as_ref().filter(|_| self.is_measured())?;
        if let Some(why) = memory::out_of_memory(control) {
            return Some(self.out_of_memory(why));
        }
        let (limit_bytes, is_sampled) =
            (control.limits.limit, control.mechanism == Mechanism::Sampling);
        let used_bytes =
            meter.used(*pid, control).filter(|used| is_sampled && *used > limit_bytes)?;
        Some(RunResult::OverMemoryLimit { used_bytes, limit_bytes })
    }
}

impl Actor {
    /// Kills runs that use too much, when it is time.
    pub fn end_greedy(&mut self) {
        if self.measure_at > Instant::now() || !self.live.values().any(Live::is_measured) {
            return;
        }
        let began = std::time::Instant::now();
        let meter = Meter::new("/proc");
        for (process, live) in &mut self.live {
            let Some(result) = live.excess(&meter) else { continue };
            // One that is being ended already has its result.
            if !matches!(live.step, Step::Ends { .. }) {
                live.step = Step::Ends { result, kill_at: Instant::now() + EVERY };
            }
            let (id, scope) = (process.clone(), Scope::Tree);
            self.world.keeper.send(Ask::Signal { id, signal: SIGKILL, scope });
        }
        self.measure_at = Instant::now() + EVERY.max(began.elapsed() * REST);
    }
}
