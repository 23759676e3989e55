//! How the node ends: which step is due when. The steps are carried out by the loop.
//!
//! ```text
//! Serving ──signal──► Waiting ──grace over, or a second signal──► Stopping ──► Killing ──► Over
//!    └───────────────shutdown asked for──────────────────────────────▲
//! ```

use std::time::{Duration, Instant};

/// Processes that do not die of SIGKILL (a broken disk, a kernel bug) are waited for so long.
const KILLING: Duration = Duration::from_secs(10);
/// So often it is looked whether what was killed has gone.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A client that asked for the shutdown, and the number of its request.
pub(crate) type Asker = (u64, u64);

/// How far the node is with its end.
#[derive(Debug)]
pub(crate) struct Ending {
    stage: Stage,
    /// How long after SIGTERM processes may take.
    stop: Duration,
    /// To be answered when nothing is left.
    askers: Vec<Asker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Serving,
    /// A signal has arrived; the daemon stops the node in order until then.
    Waiting {
        until: Instant,
    },
    /// Everything was sent SIGTERM and may take until then.
    Stopping {
        until: Instant,
    },
    /// Everything is killed, again and again, until then at most.
    Killing {
        until: Instant,
    },
    Over,
}

/// What the loop has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Nothing,
    /// Say to those who watch that the node ends.
    Announce,
    /// Kill the daemon, and send everything else SIGTERM.
    Terminate,
    /// Kill everything, and say by [`Ending::killed`] what is left.
    Kill,
}

/// What still lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alive {
    /// Processes that the keeper has started, or their output is not read to its end.
    Processes,
    /// Nothing, and no daemon will be started.
    Nothing,
    /// Nothing, but the daemon is started again when it ends.
    DaemonOnly,
}

impl Ending {
    /// A node that is not ending. After SIGTERM its processes may take `stop`.
    pub fn new(stop: Duration) -> Self {
        Self { stage: Stage::Serving, stop, askers: Vec::new() }
    }

    /// A signal to end has arrived. The daemon may take `grace`; a second signal
    /// ends it.
    pub fn signalled(&mut self, now: Instant, grace: Duration) -> Step {
        if self.stage != Stage::Serving {
            return self.terminate(now);
        }
        self.stage = Stage::Waiting { until: now + grace };
        Step::Announce
    }

    /// A client asks for the end of the node: at once.
    pub fn shut_down(&mut self, now: Instant, asker: Asker) -> Step {
        self.askers.push(asker);
        self.terminate(now)
    }

    fn terminate(&mut self, now: Instant) -> Step {
        match self.stage {
            Stage::Serving | Stage::Waiting { .. } => {
                self.stage = Stage::Stopping { until: now + self.stop };
                Step::Terminate
            }
            Stage::Stopping { .. } | Stage::Killing { .. } | Stage::Over => Step::Nothing,
        }
    }

    /// What is due now. The daemon may still have something to do for a node without
    /// processes: it is waited for until it asks for the shutdown, or its grace is over.
    pub fn advance(&mut self, now: Instant, alive: Alive) -> Step {
        match self.stage {
            Stage::Serving | Stage::Over => Step::Nothing,
            Stage::Waiting { until } if until <= now || alive == Alive::Nothing => {
                self.terminate(now)
            }
            Stage::Waiting { .. } => Step::Nothing,
            Stage::Stopping { until } if until <= now || alive != Alive::Processes => {
                self.stage = Stage::Killing { until: now + KILLING };
                Step::Kill
            }
            Stage::Stopping { .. } => Step::Nothing,
            Stage::Killing { .. } => Step::Kill,
        }
    }

    /// Everything was sent SIGKILL. The node is over when nothing is left, or it took too
    /// long.
    pub fn killed(&mut self, now: Instant, nothing_is_left: bool) {
        if matches!(self.stage, Stage::Killing { until } if nothing_is_left || until <= now) {
            self.stage = Stage::Over;
        }
    }

    /// Those who wait for the end of the node.
    pub fn take_askers(&mut self) -> Vec<Asker> {
        std::mem::take(&mut self.askers)
    }

    /// When [`Ending::advance`] is to be called even if nothing happens.
    pub fn next_moment(&self, now: Instant) -> Option<Instant> {
        match self.stage {
            Stage::Waiting { until } | Stage::Stopping { until } => Some(until),
            Stage::Killing { .. } => Some(now + LOOK_AGAIN),
            Stage::Serving | Stage::Over => None,
        }
    }

    /// For a client that begins to watch during the grace: what is left of it, milliseconds.
    pub fn grace_left_ms(&self, now: Instant) -> Option<u64> {
        let Stage::Waiting { until } = self.stage else { return None };
        Some(until.saturating_duration_since(now).as_millis() as u64)
    }

    /// Returns true if processes may still be started: also during the grace, in which the
    /// daemon may need some to stop the node in order.
    pub fn permits_starts(&self) -> bool {
        matches!(self.stage, Stage::Serving | Stage::Waiting { .. })
    }

    /// Returns true if nobody has asked for the end.
    pub fn is_serving(&self) -> bool {
        self.stage == Stage::Serving
    }

    /// Returns true if nothing is left to do.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STOP: Duration = Duration::from_secs(3);
    const GRACE: Duration = Duration::from_secs(60);

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn a_signal_gives_the_daemon_its_grace_then_sigterm_then_sigkill() {
        let (mut ending, start) = (Ending::new(STOP), Instant::now());
        assert_eq!(ending.advance(start, Alive::Processes), Step::Nothing);
        assert_eq!(ending.signalled(start, GRACE), Step::Announce);
        assert!(ending.permits_starts());
        assert_eq!(ending.grace_left_ms(start + seconds(20)), Some(40_000));
        assert_eq!(ending.next_moment(start), Some(start + GRACE));
        assert_eq!(ending.advance(start + seconds(59), Alive::Processes), Step::Nothing);
        let stopped = start + GRACE;
        assert_eq!(ending.advance(stopped, Alive::Processes), Step::Terminate);
        assert!(!ending.permits_starts() && ending.grace_left_ms(stopped).is_none());
        assert_eq!(ending.advance(stopped + seconds(2), Alive::Processes), Step::Nothing);
        assert_eq!(ending.advance(stopped + STOP, Alive::Processes), Step::Kill);
        ending.killed(stopped + STOP, false);
        assert_eq!(ending.advance(stopped + STOP, Alive::DaemonOnly), Step::Kill);
        ending.killed(stopped + STOP, true);
        assert!(ending.is_over());
    }

    #[test]
    fn a_second_signal_ends_the_grace_and_a_third_changes_nothing() {
        let (mut ending, start) = (Ending::new(STOP), Instant::now());
        assert_eq!(ending.signalled(start, GRACE), Step::Announce);
        assert_eq!(ending.signalled(start + seconds(1), GRACE), Step::Terminate);
        assert_eq!(ending.signalled(start + seconds(2), GRACE), Step::Nothing);
        assert_eq!(ending.next_moment(start), Some(start + seconds(1) + STOP));
    }

    #[test]
    fn the_grace_ends_early_only_if_no_daemon_could_use_it() {
        for (alive, expected) in [
            (Alive::Nothing, Step::Terminate),
            (Alive::DaemonOnly, Step::Nothing),
            (Alive::Processes, Step::Nothing),
        ] {
            let (mut ending, start) = (Ending::new(STOP), Instant::now());
            ending.signalled(start, GRACE);
            assert_eq!(ending.advance(start, alive), expected, "{alive:?}");
        }
    }

    #[test]
    fn a_shutdown_stops_everything_at_once_and_all_who_asked_are_answered() {
        let (mut ending, start) = (Ending::new(STOP), Instant::now());
        assert_eq!(ending.shut_down(start, (1, 10)), Step::Terminate);
        assert_eq!(ending.shut_down(start, (2, 20)), Step::Nothing);
        assert_eq!(ending.advance(start, Alive::DaemonOnly), Step::Kill, "nothing has to end");
        assert_eq!(ending.shut_down(start, (3, 30)), Step::Nothing);
        ending.killed(start, true);
        assert_eq!(ending.take_askers(), [(1, 10), (2, 20), (3, 30)]);
        assert!(ending.is_over() && ending.next_moment(start).is_none());
    }

    #[test]
    fn a_process_that_cannot_be_killed_holds_the_end_up_for_ten_seconds() {
        let (mut ending, start) = (Ending::new(STOP), Instant::now());
        ending.shut_down(start, (1, 1));
        assert_eq!(ending.advance(start, Alive::Nothing), Step::Kill);
        ending.killed(start + seconds(9), false);
        assert!(!ending.is_over());
        assert_eq!(ending.next_moment(start), Some(start + LOOK_AGAIN));
        ending.killed(start + KILLING, false);
        assert!(ending.is_over());
    }
}
