//! Which core does what: a front has one for itself, upstream and clients the other.

use mfserv_core::Diagnostic;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores of a bench. Threads and programs that are started inherit the core of the
/// thread that starts them.
#[derive(Debug, Clone, Copy)]
pub struct Pinning {
    front: usize,
    bench: usize,
}

impl Pinning {
    /// Puts this thread, and what it starts from now on, on the bench's core.
    pub fn begin() -> Result<Self, Diagnostic> {
        let allowed = sched_getaffinity(None).map_err(failed)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let (Some(front), Some(bench)) = (cores.next(), cores.next()) else {
            return Err(Diagnostic::error("this bench needs two cores")
                .help("the front has one of them for itself"));
        };
        let pinning = Self { front, bench };
        stay_on(bench)?;
        Ok(pinning)
    }

    /// Does something on the front's core: starts a front.
    pub fn on_front_core<T>(
        self,
        work: impl FnOnce() -> Result<T, Diagnostic>,
    ) -> Result<T, Diagnostic> {
        stay_on(self.front)?;
        let done = work();
        stay_on(self.bench)?;
        done
    }
}

fn stay_on(core: usize) -> Result<(), Diagnostic> {
    let mut cores = CpuSet::new();
    cores.set(core);
    sched_setaffinity(None, &cores).map_err(failed)
}

fn failed(why: rustix::io::Errno) -> Diagnostic {
    Diagnostic::error("cannot choose the cores").because(why)
}
