//! The time that the running request has left.
//!
//! A request costs no system call and reads no clock: a thread looks every [`TICK`] which
//! request runs, and adds up how long it has seen the same one. It interrupts the main thread
//! by a signal, so that a system call that waits ends too. At the hard limit it ends the process.
//! The thread needs no Python: it also sees a request that holds the interpreter's lock.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;
use std::time::{Duration, Instant};

use crate::family;
use crate::shared::Shared;

/// How often the thread looks while a request runs.
const TICK: Duration = Duration::from_millis(50);
/// How long after the soft limit a request is ended with its process.
const HARD: Duration = Duration::from_secs(1);

/// What the main thread and the watching thread know of the running request.
#[derive(Default)]
pub struct Clock {
    /// The number of the last request that has begun.
    begun: AtomicU64,
    /// The number of the running request; 0 = none.
    running: AtomicU64,
    /// Code of the app runs: the only time to interrupt it.
    in_app: AtomicBool,
    /// The worker waits for the other end of the connection: that is not the time of the app.
    waits: AtomicBool,
    /// The request that is to be interrupted; 0 = none.
    late: AtomicU64,
    /// The last request that was interrupted.
    interrupted: AtomicU64,
    /// The watching thread sleeps until a request begins.
    sleeps: AtomicBool,
    watcher: OnceLock<Thread>,
}

impl Clock {
    /// A request begins.
    pub fn begin(&self) {
        let number = self.begun.load(SeqCst) + 1;
        self.begun.store(number, SeqCst);
        self.running.store(number, SeqCst);
        if self.sleeps.load(SeqCst) {
            if let Some(watcher) = self.watcher.get() {
                watcher.unpark();
            }
        }
    }

    /// The request is over.
    pub fn end(&self) {
        self.running.store(0, SeqCst);
    }

    /// Runs code of the app.
    pub fn in_app<T>(&self, code: impl FnOnce() -> T) -> T {
        self.in_app.store(true, SeqCst);
        let result = code();
        self.in_app.store(false, SeqCst);
        result
    }

    /// Waits for the other end of the connection, also from within the app.
    pub fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.waits.store(true, SeqCst);
        let result = wait();
        self.waits.store(false, SeqCst);
        result
    }

    /// Called when the signal arrives: whether the running request is the late one, and code
    /// of the app runs. True once for each request: its `close()` can clean up.
    pub fn interrupts(&self) -> bool {
        let running = self.running.load(SeqCst);
        running != 0
            && self.late.load(SeqCst) == running
            && self.in_app.load(SeqCst)
            && self.interrupted.swap(running, SeqCst) != running
    }

    fn look(&self, seen: &mut Seen, limit: Duration, interrupt: &dyn Fn()) {
        let running = self.running.load(SeqCst);
        if running == 0 {
            self.sleep();
            seen.looked = Instant::now();
        } else if running != seen.request {
            *seen = Seen { request: running, spent: Duration::ZERO, looked: Instant::now() };
        } else {
            let now = Instant::now();
            if !self.waits.load(SeqCst) {
                seen.spent += now - seen.looked;
            }
            seen.looked = now;
        }
        if running != 0 && seen.spent >= limit + HARD {
            family::end(limit + HARD);
        }
        let is_late = running != 0 && limit > Duration::ZERO && seen.spent >= limit;
        if is_late && self.interrupted.load(SeqCst) != running {
            self.late.store(running, SeqCst);
            interrupt();
        }
        std::thread::sleep(TICK);
    }

    /// Sleeps until a request begins. It may have begun before this thread is seen to sleep.
    fn sleep(&self) {
        self.sleeps.store(true, SeqCst);
        while self.running.load(SeqCst) == 0 {
            std::thread::park();
        }
        self.sleeps.store(false, SeqCst);
    }
}

/// Starts the thread. `limit`: the soft limit, zero for none; `signal` interrupts the calling
/// thread.
pub fn watch(shared: &Arc<Shared>, limit: Duration, signal: i32) -> io::Result<()> {
    let worker = Arc::clone(shared);
    let main = rustix::thread::gettid().as_raw_nonzero().get();
    let thread = std::thread::Builder::new().name("mfserv-clock".into());
    let handle = thread.spawn(move || {
        let mut seen = Seen { request: 0, spent: Duration::ZERO, looked: Instant::now() };
        loop {
            worker.clock.look(&mut seen, limit, &|| interrupt(main, signal));
        }
    })?;
    let _ = shared.clock.watcher.set(handle.thread().clone());
    Ok(())
}

/// What the thread has seen of a request.
struct Seen {
    request: u64,
    spent: Duration,
    looked: Instant,
}

fn interrupt(thread: i32, signal: i32) {
    let process = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: tgkill takes three numbers, and reaches no memory.
    unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) };
}
