//! When the daemon is started again.

use std::time::{Duration, Instant};

use mfserv_core::wire::keeper::ProcessSpec;

use crate::DAEMON;

/// A daemon that lives shorter is started again with a growing wait.
const QUICK_END_MS: u64 = 1000;
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A daemon that was seen stopped by a signal so many times in a row, 2 s apart, is killed.
const STOPS: u32 = 3;

/// The daemon: what it runs, and when it is started.
pub(crate) struct Daemon {
    spec: ProcessSpec,
    /// So many times in a row it ended within [`QUICK_END_MS`].
    quick_ends: u32,
    /// `None` while it lives.
    start_at: Option<Instant>,
    /// So many times in a row it was seen stopped by a signal.
    stops: u32,
}

impl Daemon {
    /// A daemon that is not started yet.
    pub fn new(spec: ProcessSpec) -> Self {
        Self {
            spec: ProcessSpec { id: DAEMON.to_owned(), ..spec },
            quick_ends: 0,
            start_at: None,
            stops: 0,
        }
    }

    /// It is to be started at `now`.
    pub fn start_at(&mut self, now: Instant) {
        self.start_at = Some(now);
    }

    /// It has ended, or could not be started (`lived_ms` 0): the first time it is started
    /// again at once, then after 100 ms, 200 ms and so on up to [`LONGEST_WAIT`].
    pub fn ended(&mut self, now: Instant, lived_ms: u64) {
        self.quick_ends = if lived_ms < QUICK_END_MS { self.quick_ends + 1 } else { 0 };
        let wait = match self.quick_ends {
            0 | 1 => Duration::ZERO,
            more => LONGEST_WAIT.min(Duration::from_millis(100 << (more - 2).min(6))),
        };
        self.start_at = Some(now + wait);
    }

    /// It was seen, stopped by a signal or not. Returns true if it is to be killed.
    pub fn was_stopped(&mut self, is_stopped: bool) -> bool {
        self.stops = if is_stopped { self.stops + 1 } else { 0 };
        self.stops >= STOPS
    }

    /// What is to be started now, if its time has come.
    pub fn take_due(&mut self, now: Instant) -> Option<ProcessSpec> {
        self.start_at.take_if(|at| *at <= now).map(|_| self.spec.clone())
    }

    /// When it is to be started.
    pub fn next_moment(&self) -> Option<Instant> {
        self.start_at
    }
}

#[cfg(test)]
mod tests {
    use mfserv_core::output::{Output, Rotation};

    use super::*;

    fn daemon() -> Daemon {
        Daemon::new(ProcessSpec {
            id: "another".into(),
            argv: vec!["true".into()],
            env: Default::default(),
            cwd: "/".into(),
            release: String::new(),
            listeners: Vec::new(),
            output: Output { stdout: "log".into(), stderr: None, rotation: Rotation::default() },
            rlimits: Default::default(),
            note: String::new(),
            stdin: String::new(),
            nice: 0,
            once: false,
        })
    }

    /// The waits before so many starts, if each daemon lives so long.
    fn waits(lives_ms: &[u64]) -> Vec<u64> {
        let mut daemon = daemon();
        let now = Instant::now();
        let mut wait = |lived_ms: &u64| {
            daemon.ended(now, *lived_ms);
            let at = daemon.next_moment().unwrap();
            assert!(daemon.take_due(at - Duration::from_nanos(1)).is_none() || at == now);
            (at - now).as_millis() as u64
        };
        lives_ms.iter().map(&mut wait).collect()
    }

    #[test]
    fn a_daemon_that_ends_at_once_is_started_after_growing_waits_up_to_five_seconds() {
        assert_eq!(waits(&[0; 10]), [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
    }

    #[test]
    fn a_daemon_that_lived_a_second_is_started_at_once() {
        assert_eq!(waits(&[0, 0, 0, 1000, 0, 999]), [0, 100, 200, 0, 0, 100]);
    }

    #[test]
    fn a_daemon_that_stays_stopped_is_killed_and_one_that_goes_on_is_not() {
        let mut daemon = daemon();
        let seen = [true, true, false, true, true, true];
        let killed = seen.map(|is_stopped| daemon.was_stopped(is_stopped));
        assert_eq!(killed, [false, false, false, false, false, true]);
    }

    #[test]
    fn a_start_is_due_once_under_the_name_of_the_daemon() {
        let (mut daemon, now) = (daemon(), Instant::now());
        assert!(daemon.take_due(now).is_none(), "nobody wants it yet");
        daemon.start_at(now);
        assert_eq!(daemon.take_due(now).map(|spec| spec.id), Some(DAEMON.to_owned()));
        assert!(daemon.take_due(now).is_none() && daemon.next_moment().is_none());
    }
}
