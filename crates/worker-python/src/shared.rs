//! What the threads of a worker share with signal handlers and with the one that watches the clocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use rustix::pipe::{PipeFlags, pipe_with};

/// How long a worker that was told to stop goes on serving who has connected, and how long it
/// waits for a client that neither sends nor reads.
pub const FLUSH: Duration = Duration::from_secs(5);

/// Connections that are accepted in one turn of the event loop, at most.
pub const ACCEPTS: usize = 64;
/// How long nobody is accepted after the process had no descriptor left for it.
pub const PAUSE: Duration = Duration::from_millis(100);
/// How long after a line that says so the next one is written.
pub const QUIET: Duration = Duration::from_secs(10);

/// How long after a request a worker sees to what the app has left behind.
pub const SETTLE: Duration = Duration::from_secs(1);

/// The state of a worker.
pub struct Shared {
    /// Wakes the main thread when a signal has arrived, whichever thread it came to.
    pub wake: Wake,
    /// The worker was told to stop.
    is_asked: AtomicBool,
    /// When the worker, which has left its loop, begins no other request.
    deadline: OnceLock<Instant>,
    /// This is a child that the app has forked.
    is_forked: AtomicBool,
    /// The thread that serves, or leads those that do.
    main: ThreadId,
    /// Readable from when it was asked to stop: several threads may wait for it.
    bell: OwnedFd,
}

impl Shared {
    /// A worker that serves nobody yet; the calling thread will.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            wake: Wake::new()?,
            is_asked: AtomicBool::new(false),
            deadline: OnceLock::new(),
            is_forked: AtomicBool::new(false),
            main: std::thread::current().id(),
            bell: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        })
    }

    /// Asks it to stop once the running request is over. Its main thread may be about to wait.
    pub fn ask(&self) {
        self.is_asked.store(true, SeqCst);
        self.wake.wake();
        // It is readable already, or will be.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }

    /// Readable once it was asked to stop.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// It stops: the time to serve who has connected begins.
    pub fn stop(&self) {
        self.is_asked.store(true, SeqCst);
        let _ = self.deadline.set(Instant::now() + FLUSH);
    }

    /// True once it was asked or told to stop.
    pub fn is_stopping(&self) -> bool {
        self.is_asked.load(SeqCst)
    }

    /// True once the time to stop is over.
    pub fn is_stopped(&self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }

    /// How long it may still serve, if it stops.
    pub fn left(&self) -> Option<Duration> {
        Some(self.deadline.get()?.saturating_duration_since(Instant::now()))
    }

    /// True on the main thread.
    pub fn is_main(&self) -> bool {
        std::thread::current().id() == self.main
    }

    /// This process is a child of the worker from now on.
    pub fn fork(&self) {
        self.is_forked.store(true, SeqCst);
    }

    /// True in a child that the app has forked.
    pub fn is_forked(&self) -> bool {
        self.is_forked.load(SeqCst)
    }
}

/// A pipe that signal handlers write to.
pub struct Wake {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Wake {
    fn new() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Self { reader, writer })
    }

    /// Readable when a signal has arrived.
    pub fn reader(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }

    /// The end for `signal.set_wakeup_fd`.
    pub fn writer(&self) -> BorrowedFd<'_> {
        self.writer.as_fd()
    }

    /// Makes the reader readable.
    pub fn wake(&self) {
        // A full pipe is readable already.
        let _ = rustix::io::write(&self.writer, &[0]);
    }

    /// Forgets the signals that have arrived.
    pub fn clear(&self) {
        let mut space = [0; 64];
        while matches!(rustix::io::read(&self.reader, &mut space), Ok(count) if count == space.len())
        {
        }
    }
}
