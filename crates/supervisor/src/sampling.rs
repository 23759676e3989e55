//! When the memory of workers with limits is measured. What a measurement means is decided in
//! `watcher/memory.rs`.

use std::time::Duration;

use mfserv_core::memory::{Mechanism, MemoryControl, OutOfMemory};
use mfserv_core::names::WorkerId;
use mfserv_platform::memory::{self, Meter};
use tokio::time::Instant;

use crate::handle::{Handle, Message};

/// So often workers are measured.
const EVERY: Duration = Duration::from_secs(1);

/// So often while one that no kernel limits uses more than three quarters of its limit.
const EVERY_NEAR: Duration = Duration::from_millis(200);

/// Measuring takes at most this part of the time: after it, this many times as long is waited.
const REST: u32 = 20;

/// A worker that is to be measured.
pub(crate) struct ToMeasure {
    pub id: WorkerId,
    pub pid: u32,
    pub control: MemoryControl,
}

impl ToMeasure {
    /// What is measured of it decides something, if its kernel limit alone does not.
    pub fn is_needed(control: &MemoryControl) -> bool {
        // Cgroup v2 ends all processes by itself.
        control.mechanism != Mechanism::CgroupV2 || control.limits.high > 0
    }
}

/// What was measured of a worker.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub id: WorkerId,
    /// Anonymous and shared memory, bytes; `None` if it has gone.
    pub used_bytes: Option<u64>,
    /// The kernel has killed a process of it.
    pub out_of_memory: Option<OutOfMemory>,
    /// It may soon be above a limit that no kernel enforces.
    pub is_near: bool,
}

/// The present measurement and the next one.
pub(crate) struct Sampling {
    next: Instant,
    is_under_way: bool,
}

impl Sampling {
    pub fn new() -> Self {
        Sampling { next: Instant::now(), is_under_way: false }
    }

    /// When the next one is due.
    pub fn due(&self) -> Option<Instant> {
        (!self.is_under_way).then_some(self.next)
    }

    /// Measures these workers beside the task of the supervisor, which gets
    /// [`Message::Measured`].
    pub fn begin(&mut self, workers: Vec<ToMeasure>, handle: &Handle) {
        self.is_under_way = true;
        let handle = handle.clone();
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let measured = measure(workers);
            handle.send(Message::Measured(measured, began.elapsed()));
        });
    }

    /// A measurement has ended.
    pub fn ended(&mut self, measured: &[Measured], took: Duration) {
        let is_near = measured.iter().any(|worker| worker.is_near);
        let pause = if is_near { EVERY_NEAR } else { EVERY };
        self.next = Instant::now() + pause.max(took * REST);
        self.is_under_way = false;
    }
}

fn measure(workers: Vec<ToMeasure>) -> Vec<Measured> {
    let meter = Meter::new("/proc");
    let of = |worker: ToMeasure| {
        let ToMeasure { id, pid, control } = worker;
        let limit = control.limits.limit;
        let used_bytes = meter.used(pid, &control);
        let is_high = used_bytes.is_some_and(|used| limit > 0 && used > limit / 4 * 3);
        Measured {
            id,
            used_bytes,
            out_of_memory: memory::out_of_memory(&control),
            is_near: is_high && control.mechanism == Mechanism::Sampling,
        }
    };
    workers.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use mfserv_core::memory::MemoryLimits;
    use mfserv_core::names::WatcherName;

    use super::*;

    fn worker(limit: u64) -> ToMeasure {
        let control = MemoryControl::sampling(MemoryLimits { limit, high: 0 }, "");
        let id = WorkerId::new(WatcherName::app("p", "a"), 1, 1);
        ToMeasure { id, pid: std::process::id(), control }
    }

    #[test]
    fn a_worker_near_its_limit_is_measured_more_often_and_measuring_takes_a_twentieth_of_the_time()
    {
        let [far, near] = [1 << 40, 1 << 10].map(|limit| measure(vec![worker(limit)]));
        assert!(far[0].used_bytes.is_some_and(|used| used > 100_000), "{far:?}");
        assert_eq!((far[0].is_near, near[0].is_near), (false, true));
        let mut sampling = Sampling::new();
        let mut pause = |measured: &[Measured], took| {
            sampling.ended(measured, Duration::from_millis(took));
            let due = sampling.due().unwrap();
            due.saturating_duration_since(Instant::now()).as_millis().div_ceil(100) * 100
        };
        assert_eq!((pause(&far, 2), pause(&near, 2)), (1000, 200));
        assert_eq!((pause(&far, 80), pause(&near, 80)), (1600, 1600));
    }
}
