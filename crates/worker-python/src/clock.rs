//! The time that running requests have left.
//!
//! A request costs no system call and reads no clock: a thread looks every [`TICK`] which
//! requests run, and adds up how long it has seen the same ones. It has a late one interrupted. At
//! the hard limit it ends the process, once the others are over.
//! The thread needs no Python: it also sees a request that holds the interpreter's lock.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::{Thread, ThreadId};
use std::time::{Duration, Instant};

use pyo3::ffi;

use crate::family;
use crate::shared::{FLUSH, Shared};

/// How often the thread looks while a request runs.
const TICK: Duration = Duration::from_millis(50);
/// How long after the soft limit a request is ended with its process.
const HARD: Duration = Duration::from_secs(1);

/// What a thread that serves and the watching thread know of the running request.
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
    /// The thread that serves, once it does.
    owner: OnceLock<ThreadId>,
    /// Its number in the system; 0 = not known yet.
    tid: AtomicI32,
    /// What Python calls it; 0 = it is the main thread, which a signal interrupts.
    ident: AtomicU64,
    watcher: Arc<Watcher>,
}

/// The watching thread.
#[derive(Default)]
pub struct Watcher {
    /// It sleeps until a request begins.
    sleeps: AtomicBool,
    thread: OnceLock<Thread>,
}

impl Clock {
    /// The clock of a thread that serves nobody yet.
    pub fn new(watcher: &Arc<Watcher>) -> Self {
        Self {
            begun: AtomicU64::new(0),
            running: AtomicU64::new(0),
            in_app: AtomicBool::new(false),
            waits: AtomicBool::new(false),
            late: AtomicU64::new(0),
            interrupted: AtomicU64::new(0),
            owner: OnceLock::new(),
            tid: AtomicI32::new(0),
            ident: AtomicU64::new(0),
            watcher: Arc::clone(watcher),
        }
    }

    /// The calling thread serves. `ident`: its `threading.get_ident()` if it is not the main
    /// thread, else 0.
    pub fn adopt(&self, ident: u64) {
        let _ = self.owner.set(std::thread::current().id());
        self.tid.store(rustix::thread::gettid().as_raw_nonzero().get(), SeqCst);
        self.ident.store(ident, SeqCst);
    }

    /// True on the thread that serves.
    pub fn is_own(&self) -> bool {
        self.owner.get() == Some(&std::thread::current().id())
    }

    /// A request begins.
    pub fn begin(&self) {
        let number = self.begun.load(SeqCst) + 1;
        self.begun.store(number, SeqCst);
        self.running.store(number, SeqCst);
        self.watcher.wake();
    }

    /// The request is over.
    pub fn end(&self) {
        self.running.store(0, SeqCst);
    }

    /// Runs code of the app, with the interpreter's lock.
    pub fn in_app<T>(&self, code: impl FnOnce() -> T) -> T {
        self.in_app.store(true, SeqCst);
        let result = code();
        self.in_app.store(false, SeqCst);
        let ident = self.ident.load(SeqCst);
        if ident != 0 && self.interrupted.load(SeqCst) == self.running.load(SeqCst) {
            // What the app has not noticed must not interrupt anything else.
            // SAFETY: the lock is held, and no exception takes the place of the one that was set.
            unsafe { ffi::PyThreadState_SetAsyncExc(ident as _, std::ptr::null_mut()) };
        }
        result
    }

    /// Waits for the other end of the connection, also from within the app.
    pub fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.waits.store(true, SeqCst);
        let result = wait();
        self.waits.store(false, SeqCst);
        result
    }

    /// Whether the running request is the late one, and code of the app runs: it is to be
    /// interrupted now. True once for each request: its `close()` can clean up. The caller has the
    /// interpreter's lock, so that neither can change.
    pub fn interrupts(&self) -> bool {
        let running = self.running.load(SeqCst);
        running != 0
            && self.late.load(SeqCst) == running
            && self.in_app.load(SeqCst)
            && self.interrupted.swap(running, SeqCst) != running
    }

    /// What Python calls the thread that serves; 0 = the main thread.
    pub fn ident(&self) -> u64 {
        self.ident.load(SeqCst)
    }

    /// Adds the time since the last look. Returns how long the running request has taken.
    fn look(&self, seen: &mut Seen) -> Option<Duration> {
        let running = self.running.load(SeqCst);
        let now = Instant::now();
        if running != seen.request {
            *seen = Seen { request: running, spent: Duration::ZERO, looked: now };
        } else if running != 0 && !self.waits.load(SeqCst) {
            seen.spent += now - seen.looked;
        }
        seen.looked = now;
        (running != 0).then_some(seen.spent)
    }

    /// The request that was seen is late. Returns whether it was not interrupted so far.
    fn be_late(&self, request: u64) -> bool {
        self.late.store(request, SeqCst);
        self.interrupted.load(SeqCst) != request
    }
}

impl Watcher {
    fn wake(&self) {
        if self.sleeps.load(SeqCst) {
            if let Some(thread) = self.thread.get() {
                thread.unpark();
            }
        }
    }

    /// Sleeps until a request begins. It may have begun before this thread is seen to sleep.
    fn sleep(&self, clocks: &[Arc<Clock>]) {
        self.sleeps.store(true, SeqCst);
        while clocks.iter().all(|clock| clock.running.load(SeqCst) == 0) {
            std::thread::park();
        }
        self.sleeps.store(false, SeqCst);
    }
}

/// Starts the thread. `limit`: the soft limit, zero for none; `signal` interrupts the main
/// thread.
pub fn watch(
    shared: &Arc<Shared>,
    clocks: &[Arc<Clock>],
    limit: Duration,
    signal: i32,
) -> io::Result<()> {
    let Some(first) = clocks.first() else { return Ok(()) };
    let watcher = Arc::clone(&first.watcher);
    let (shared, clocks) = (Arc::clone(shared), clocks.to_vec());
    let thread = std::thread::Builder::new().name("mfserv-clock".into());
    let own = Arc::clone(&watcher);
    let handle = thread.spawn(move || {
        let mut round = Round { limit, signal, seen: Vec::new(), doomed: None };
        round.seen.resize_with(clocks.len(), Seen::default);
        loop {
            round.look(&shared, &clocks);
            if round.seen.iter().all(|seen| seen.request == 0) {
                own.sleep(&clocks);
                round.seen.iter_mut().for_each(|seen| seen.looked = Instant::now());
            }
            std::thread::sleep(TICK);
        }
    })?;
    let _ = watcher.thread.set(handle.thread().clone());
    Ok(())
}

/// What the thread has seen of a request.
struct Seen {
    request: u64,
    spent: Duration,
    looked: Instant,
}

impl Default for Seen {
    fn default() -> Self {
        Self { request: 0, spent: Duration::ZERO, looked: Instant::now() }
    }
}

/// What the thread has seen of all.
struct Round {
    limit: Duration,
    signal: i32,
    seen: Vec<Seen>,
    /// Since when one of them is beyond the hard limit.
    doomed: Option<Instant>,
}

impl Round {
    fn look(&mut self, shared: &Shared, clocks: &[Arc<Clock>]) {
        let hard = self.limit + HARD;
        let (mut running, mut over) = (0, 0);
        for (clock, seen) in clocks.iter().zip(&mut self.seen) {
            let Some(spent) = clock.look(seen) else { continue };
            running += 1;
            over += usize::from(spent >= hard);
            if !self.limit.is_zero() && spent >= self.limit && clock.be_late(seen.request) {
                interrupt(shared, clock, self.signal);
            }
        }
        if over == 0 {
            // None, or it has come to its end meanwhile.
            return;
        }
        let since = *self.doomed.get_or_insert_with(|| {
            // The others may come to their end; nobody new does.
            shared.ask();
            Instant::now()
        });
        if over == running || since.elapsed() >= FLUSH {
            family::end(hard);
        }
    }
}

/// A signal interrupts the main thread, also in a system call. It sees to the other ones.
fn interrupt(shared: &Shared, clock: &Clock, signal: i32) {
    if clock.ident() != 0 {
        return shared.wake.wake();
    }
    let process = rustix::process::getpid().as_raw_nonzero().get();
    // SAFETY: tgkill takes three numbers, and reaches no memory.
    unsafe { libc::syscall(libc::SYS_tgkill, process, clock.tid.load(SeqCst), signal) };
}
