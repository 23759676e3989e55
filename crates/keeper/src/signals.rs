//! Signals that the keeper obeys, as bytes in a socket.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

pub(crate) struct Signals {
    wake: UnixStream,
    end: Arc<AtomicBool>,
    hangup: Arc<AtomicBool>,
    /// SIGHUP was ignored when the process was started.
    pub ignored_hangup: bool,
}

impl Signals {
    pub fn register() -> io::Result<Self> {
        let ignored_hangup = ignores(SIGHUP);
        let (wake, writes) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        writes.set_nonblocking(true)?;
        let (end, hangup) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        for (signal, flag) in [(SIGTERM, &end), (SIGINT, &end), (SIGHUP, &hangup)] {
            // Before the byte, which is what makes somebody look at it.
            signal_hook::flag::register(signal, flag.clone())?;
            pipe::register(signal, writes.try_clone()?)?;
        }
        pipe::register(SIGCHLD, writes)?;
        // A file larger than RLIMIT_FSIZE is to be an error of write(2), not the end.
        signal_hook::flag::register(Signal::XFSZ.as_raw(), Arc::default())?;
        Ok(Self { wake, end, hangup, ignored_hangup })
    }

    /// Readable when a signal has arrived.
    pub fn wakeup(&self) -> &UnixStream {
        &self.wake
    }

    /// True if we have been asked to end since the last time.
    pub fn take_end(&mut self) -> bool {
        while matches!(self.wake.read(&mut [0; 256]), Ok(1..)) {}
        self.end.swap(false, Ordering::SeqCst)
    }

    /// True if SIGHUP has arrived since the last time.
    pub fn take_hangup(&mut self) -> bool {
        self.hangup.swap(false, Ordering::SeqCst)
    }
}

/// This process ignores a signal (proc_pid_status(5)).
fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (signal - 1)) != 0)
}
