//! When the memory of processes with limits is measured: of workers, and of the runs of jobs, each
//! with their own [`Sampling`]. What a measurement of a worker means is decided in
//! `watcher/memory.rs`.

use std::time::Duration;

use mfserv_core::memory::{Mechanism, MemoryControl, OutOfMemory};
use mfserv_platform::memory::{self, Meter};
use tokio::time::Instant;

/// So often processes are measured.
const EVERY: Duration = Duration::from_secs(1);

/// So often while one that no kernel limits uses more than three quarters of its limit.
const EVERY_NEAR: Duration = Duration::from_millis(200);

/// Measuring takes at most this part of the time: after it, this many times as long is waited.
const REST: u32 = 20;

/// A process that is to be measured, with all that it has started.
pub struct ToMeasure<Id> {
    /// Whose it is.
    pub id: Id,
    /// The process.
    pub pid: u32,
    /// Its limits, and what enforces them.
    pub control: MemoryControl,
}

/// What was measured of a process.
#[derive(Debug, Clone)]
pub struct Measured<Id> {
    /// Whose it is.
    pub id: Id,
    /// Anonymous and shared memory, bytes; `None` if it has gone.
    pub used_bytes: Option<u64>,
    /// The kernel has killed a process of it.
    pub out_of_memory: Option<OutOfMemory>,
    /// It may soon be above a limit that no kernel enforces.
    pub is_near: bool,
}

/// The present measurement and the next one.
pub struct Sampling {
    next: Instant,
    is_under_way: bool,
}

impl Default for Sampling {
    fn default() -> Self {
        Sampling { next: Instant::now(), is_under_way: false }
    }
}

impl Sampling {
    /// When the next one is due.
    pub fn due(&self) -> Option<Instant> {
        (!self.is_under_way).then_some(self.next)
    }

    /// Measures these on a thread of its own: the table of processes may be long, and the kernel
    /// may let a reader wait for a process that swaps. `tell` gets what was found, and how long
    /// that took; then [`Sampling::ended`] is to be called.
    pub fn begin<Id: Send + 'static>(
        &mut self,
        processes: Vec<ToMeasure<Id>>,
        tell: impl FnOnce(Vec<Measured<Id>>, Duration) + Send + 'static,
    ) {
        self.is_under_way = true;
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let measured = measure(processes);
            tell(measured, began.elapsed());
        });
    }

    /// A measurement has ended.
    pub fn ended<Id>(&mut self, measured: &[Measured<Id>], took: Duration) {
        let is_near = measured.iter().any(|one| one.is_near);
        let pause = if is_near { EVERY_NEAR } else { EVERY };
        self.next = Instant::now() + pause.max(took * REST);
        self.is_under_way = false;
    }
}

fn measure<Id>(processes: Vec<ToMeasure<Id>>) -> Vec<Measured<Id>> {
    let meter = Meter::new("/proc");
    let of = |process: ToMeasure<Id>| {
        let ToMeasure { id, pid, control } = process;
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
    processes.into_iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use mfserv_core::memory::MemoryLimits;

    use super::*;

    fn own(limit: u64) -> ToMeasure<&'static str> {
        let control = MemoryControl::sampling(MemoryLimits { limit, high: 0 }, "");
        ToMeasure { id: "own", pid: std::process::id(), control }
    }

    #[tokio::test(start_paused = true)]
    async fn near_its_limit_a_process_is_measured_more_often_and_that_takes_a_twentieth_of_the_time()
     {
        let [far, near] = [1 << 40, 1 << 10].map(|limit| measure(vec![own(limit)]));
        assert!(far[0].used_bytes.is_some_and(|used| used > 100_000), "{far:?}");
        assert_eq!((far[0].is_near, near[0].is_near), (false, true));
        let mut sampling = Sampling::default();
        let mut pause = |measured: &[Measured<_>], took| {
            sampling.ended(measured, Duration::from_millis(took));
            (sampling.due().unwrap() - Instant::now()).as_millis()
        };
        assert_eq!((pause(&far, 2), pause(&near, 2)), (1000, 200));
        assert_eq!((pause(&far, 80), pause(&near, 80)), (1600, 1600));
    }
}
