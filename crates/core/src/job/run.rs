//! Runs of jobs: why there is one, and what became of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::event::EndReason;
use crate::wire::keeper::Ended;

/// The exit code that stands for a run that took too long: the one of `cronwrap.sh`.
pub const TIMED_OUT: i32 = 12;

/// Why there is a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// Its time had come.
    Schedule,
    /// Its time had come while the node was down.
    CatchUp,
    /// The run before it failed.
    Retry,
    /// Somebody asked for it.
    Asked,
}

impl Trigger {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Trigger::Schedule => "schedule",
            Trigger::CatchUp => "catch up",
            Trigger::Retry => "retry",
            Trigger::Asked => "asked",
        }
    }
}

/// What became of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum RunResult {
    /// It exited with code 0.
    Ok,
    /// It exited with another code.
    Failed {
        /// The exit code.
        code: i32,
    },
    /// A signal that mfserv did not send ended it.
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// The kernel has killed a process of it for its memory.
    OutOfMemory {
        /// Its `memory_limit`, bytes, if it was at that; `None` if the machine had no memory left.
        limit_bytes: Option<u64>,
    },
    /// It used more than its `memory_limit`, and was killed.
    OverMemoryLimit {
        /// What it used, bytes.
        used_bytes: u64,
        /// The limit, bytes.
        limit_bytes: u64,
    },
    /// It took too long, and was killed.
    TimedOut {
        /// Its time, seconds.
        after_s: u64,
    },
    /// mfserv ended it.
    Stopped {
        /// Why.
        why: String,
    },
    /// It was not started, because as many runs as may live did.
    Skipped {
        /// How many.
        running: u32,
    },
    /// It was not started, because the node was down.
    Missed {
        /// How many times came meanwhile; this is the last of them.
        times: u64,
    },
    /// It could not be started.
    NotStarted {
        /// Why.
        why: String,
    },
    /// It ended while nobody was there to see how.
    Unknown,
}

impl RunResult {
    /// What the keeper saw.
    pub fn of(ended: &Ended) -> Self {
        match ended {
            Ended::Exited { code: 0 } => RunResult::Ok,
            Ended::Exited { code } => RunResult::Failed { code: *code },
            Ended::Signalled { signal } => RunResult::Killed { signal: *signal },
            Ended::Unknown => RunResult::Unknown,
        }
    }

    /// The result in one word, as events and metrics have it.
    pub fn as_str(&self) -> &'static str {
        match self {
            RunResult::Ok => "ok",
            RunResult::Failed { .. } => "failed",
            RunResult::Killed { .. } => "killed",
            RunResult::OutOfMemory { .. } => "out_of_memory",
            RunResult::OverMemoryLimit { .. } => "over_memory_limit",
            RunResult::TimedOut { .. } => "timed_out",
            RunResult::Stopped { .. } => "stopped",
            RunResult::Skipped { .. } => "skipped",
            RunResult::Missed { .. } => "missed",
            RunResult::NotStarted { .. } => "not_started",
            RunResult::Unknown => "unknown",
        }
    }

    /// It did not do its work, by itself: a repetition may help.
    pub fn is_failure(&self) -> bool {
        matches!(
            self,
            RunResult::Failed { .. }
                | RunResult::Killed { .. }
                | RunResult::OutOfMemory { .. }
                | RunResult::OverMemoryLimit { .. }
                | RunResult::TimedOut { .. }
                | RunResult::NotStarted { .. }
        )
    }

    /// Work that was due was not done.
    pub fn is_trouble(&self) -> bool {
        let was_left_out = matches!(self, RunResult::Skipped { .. } | RunResult::Missed { .. });
        was_left_out || self.is_failure()
    }

    /// The exit code for whoever has waited for the run.
    pub fn exit_code(&self) -> u8 {
        let code = match self {
            RunResult::Ok => 0,
            RunResult::Failed { code } => *code,
            RunResult::Killed { signal } => 128 + signal,
            RunResult::OutOfMemory { .. } | RunResult::OverMemoryLimit { .. } => 128 + 9,
            RunResult::TimedOut { .. } => TIMED_OUT,
            _ => 1,
        };
        u8::try_from(code).unwrap_or(1)
    }
}

impl fmt::Display for RunResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RunResult::Ok => f.write_str("ok"),
            RunResult::Failed { code } => write!(f, "failed with code {code}"),
            RunResult::Killed { signal } => {
                write!(f, "killed by {}", crate::event::signal_name(*signal))
            }
            RunResult::OutOfMemory { limit_bytes } => {
                EndReason::OutOfMemory { limit_bytes: *limit_bytes }.fmt(f)
            }
            RunResult::OverMemoryLimit { used_bytes: used, limit_bytes: limit } => {
                EndReason::OverMemoryLimit { used_bytes: *used, limit_bytes: *limit }.fmt(f)
            }
            RunResult::TimedOut { after_s } => write!(f, "killed: it took more than {after_s} s"),
            RunResult::Stopped { why } => write!(f, "stopped ({why})"),
            RunResult::Skipped { running: 1 } => f.write_str("skipped: it still ran"),
            RunResult::Skipped { running } => write!(f, "skipped: {running} runs still ran"),
            RunResult::Missed { times: 1 } => f.write_str("missed: the node was down"),
            RunResult::Missed { times } => write!(f, "missed {times} times: the node was down"),
            RunResult::NotStarted { why } => write!(f, "not started: {why}"),
            RunResult::Unknown => f.write_str("ended (how is unknown)"),
        }
    }
}

/// A run of a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What tells it from the other runs of its job.
    pub id: String,
    /// Why there is one.
    pub trigger: Trigger,
    /// Which repetition it is; 0 = the first try.
    #[serde(default)]
    pub attempt: u32,
    /// The minute for which it was started, milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_ms: Option<u64>,
    /// When mfserv began to start it, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// Which keeper was asked to start it: another one cannot know whether it was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub keeper: String,
    /// Its process, once it is started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How it ended; `None` while it runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<RunEnd>,
}

impl Run {
    /// How long after its minute it was begun, milliseconds; `None` if it has none.
    pub fn late_ms(&self) -> Option<u64> {
        Some(self.began_ms.saturating_sub(self.due_ms?))
    }

    /// Something of it was or is alive.
    pub fn was_started(&self) -> bool {
        self.pid.is_some()
    }

    /// How long it took, milliseconds; `None` while it runs, and if it never did.
    pub fn took_ms(&self) -> Option<u64> {
        let end = self.end.as_ref().filter(|_| self.was_started())?;
        Some(end.at_ms.saturating_sub(self.began_ms))
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunEnd {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What became of it.
    #[serde(flatten)]
    pub result: RunResult,
    /// The last lines of its output.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// Processes that it had left behind, killed.
    #[serde(default)]
    pub left_behind: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_waits_gets_the_exit_code_of_the_run() {
        for (result, code) in [
            (RunResult::Ok, 0),
            (RunResult::Failed { code: 7 }, 7),
            (RunResult::Killed { signal: 9 }, 137),
            (RunResult::OutOfMemory { limit_bytes: None }, 137),
            (RunResult::TimedOut { after_s: 1 }, 12),
            (RunResult::Unknown, 1),
        ] {
            assert_eq!(result.exit_code(), code, "{result}");
        }
    }
}
