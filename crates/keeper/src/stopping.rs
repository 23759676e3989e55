//! The end of the node.

use std::fs;
use std::time::{Duration, Instant};

use mfserv_core::wire::keeper::{Answer, Notice};
use rustix::process::Signal;

use crate::containment;
use crate::copying::Copier;
use crate::ends::Living;
use crate::keeper::{Keeper, remark, sd_notify};
use crate::{DAEMON, listening, procfs};

/// Processes that do not die of SIGKILL (a broken disk, a kernel bug) are waited for so long.
const KILLING: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Answers are given so long to reach those who asked.
const FAREWELL: Duration = Duration::from_secs(1);

/// How far the keeper is with ending.
pub(crate) enum Stage {
    /// Not ending.
    Serving,
    /// Asked to end by a signal: the daemon stops the node in order until then.
    Waiting { until: Instant },
    /// Everything has been sent SIGTERM and may take until then.
    Stopping { until: Instant, askers: Vec<(u64, u64)> },
    /// Everything is killed, again and again, until then at most.
    Killing { until: Instant, askers: Vec<(u64, u64)> },
    /// Nothing is left.
    Over,
}

impl Stage {
    pub fn next_moment(&self) -> Option<Instant> {
        match self {
            Stage::Waiting { until } | Stage::Stopping { until, .. } => Some(*until),
            Stage::Killing { .. } => Some(Instant::now() + LOOK_AGAIN),
            Stage::Serving | Stage::Over => None,
        }
    }

    /// For a client that begins to watch while the grace runs.
    pub fn grace_left_ms(&self) -> Option<u64> {
        let Stage::Waiting { until } = self else { return None };
        Some(until.saturating_duration_since(Instant::now()).as_millis() as u64)
    }
}

impl Keeper {
    /// SIGTERM, SIGINT or SIGHUP. A second one ends the grace; with no daemon and nobody
    /// who watches there is none.
    pub fn asked_to_end(&mut self) {
        if !matches!(self.stage, Stage::Serving) {
            return self.begin_stopping(None);
        }
        sd_notify("STOPPING=1\n");
        let grace_ms = self.options.grace_ms;
        self.notify(Notice::Ending { grace_ms });
        let somebody_acts = self.daemon.is_some() || self.clients.iter().any(|c| c.watches);
        let grace = if somebody_acts { Duration::from_millis(grace_ms) } else { Duration::ZERO };
        self.stage = Stage::Waiting { until: Instant::now() + grace };
    }

    /// Kills the daemon and asks everything else to end.
    pub fn begin_stopping(&mut self, asker: Option<(u64, u64)>) {
        match &mut self.stage {
            Stage::Stopping { askers, .. } | Stage::Killing { askers, .. } => askers.extend(asker),
            Stage::Over => {}
            Stage::Serving | Stage::Waiting { .. } => {
                for living in self.processes.values().filter(|living| living.end.is_none()) {
                    let is_daemon = living.process.id == DAEMON;
                    self.signal_tree(living, if is_daemon { Signal::KILL } else { Signal::TERM });
                }
                let until = Instant::now() + Duration::from_millis(self.options.stop_ms);
                self.stage = Stage::Stopping { until, askers: asker.into_iter().collect() };
            }
        }
    }

    pub fn go_on_stopping(&mut self) {
        match &mut self.stage {
            Stage::Serving | Stage::Over => {}
            Stage::Waiting { until } => {
                let only_daemon = self.processes.keys().all(|id| id == DAEMON);
                // The daemon may still have something to do for a node without workers:
                // it says so by not asking for the shutdown before the grace is over.
                if *until <= Instant::now() || (only_daemon && self.daemon.is_none()) {
                    self.begin_stopping(None);
                }
            }
            Stage::Stopping { until, askers } => {
                if self.processes.is_empty() || *until <= Instant::now() {
                    let askers = std::mem::take(askers);
                    self.stage = Stage::Killing { until: Instant::now() + KILLING, askers };
                    self.kill_all();
                }
            }
            Stage::Killing { .. } => self.kill_all(),
        }
    }

    /// Kills what lives; when nothing does, or it has taken too long, it is over.
    fn kill_all(&mut self) {
        let Stage::Killing { until, askers } = &self.stage else { return };
        let (until, askers) = (*until, askers.clone());
        for living in self.processes.values().filter(|living: &&Living| living.end.is_none()) {
            self.signal_tree(living, Signal::KILL);
        }
        let left = containment::whole_node(&self.hash);
        let late = until <= Instant::now();
        let done = left.is_empty() && self.processes.is_empty();
        if !late && !done {
            for stat in &left {
                procfs::signal(stat, Signal::KILL);
            }
            return;
        }
        if late {
            remark(format_args!("{} processes do not end, even killed", left.len()));
        }
        self.clean_up();
        for (client, seq) in askers {
            if let Some(client) = self.client(client) {
                client.answer(seq, Answer::Done);
            }
        }
        self.stage = Stage::Over;
    }

    /// Removes all traces from the disk, so that a `Done` means that there are none.
    fn clean_up(&mut self) {
        if let Some(Err(_)) = self.copier.take().map(Copier::pause) {
            remark(format_args!("output that still waits for the disk is lost"));
        }
        self.reap();
        for (_, held) in std::mem::take(&mut self.listeners) {
            drop(held.socket);
            listening::remove_file(&held.address);
        }
        self.cgroups.remove_all();
        let _ = fs::remove_dir_all(&self.paths.fifos);
        let _ = fs::remove_file(&self.paths.state);
        let _ = fs::remove_file(&self.paths.socket);
    }

    /// The last words reach those who listen.
    pub fn leave(&mut self) {
        let end = Instant::now() + FAREWELL;
        while self.clients.iter().any(|c| c.wants_to_write() && !c.broken) && Instant::now() < end {
            self.clients.iter_mut().for_each(crate::connection::Connection::flush);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
