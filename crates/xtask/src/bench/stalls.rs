//! When the machine itself stood still: a thread that sleeps a millisecond at a time and
//! writes down when it woke late. On a machine that is shared, this is the noise.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use mfserv_core::Diagnostic;

use super::client::now_ns;

/// How long the watch sleeps.
const NAP_NS: u64 = 1_000_000;
/// Waking later than this is a stall.
const LATE_NS: u64 = 1_000_000;

/// When nothing was run that should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stall {
    /// When the watch should have woken, nanoseconds of the monotonic clock.
    pub from_ns: u64,
    /// When it did.
    pub to_ns: u64,
}

/// A watch that runs.
#[derive(Debug)]
pub struct Watch {
    ended: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Stall>>,
}

impl Watch {
    /// Starts it.
    pub fn start() -> Result<Self, Diagnostic> {
        let ended = Arc::new(AtomicBool::new(false));
        let theirs = ended.clone();
        let thread = std::thread::Builder::new().spawn(move || watch(&theirs));
        let thread = thread.map_err(|e| Diagnostic::error("cannot start a thread").because(e))?;
        Ok(Self { ended, thread })
    }

    /// Ends it; what it has seen.
    pub fn stop(self) -> Vec<Stall> {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

fn watch(ended: &AtomicBool) -> Vec<Stall> {
    let mut stalls = Vec::new();
    while !ended.load(Ordering::Relaxed) {
        let due = now_ns() + NAP_NS;
        std::thread::sleep(Duration::from_nanos(NAP_NS));
        let woke = now_ns();
        if woke > due + LATE_NS {
            stalls.push(Stall { from_ns: due, to_ns: woke });
        }
    }
    stalls
}
