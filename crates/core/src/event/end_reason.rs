//! Why workers end.

use serde::{Deserialize, Serialize};

use crate::memory::size_text;
use crate::wire::keeper::Ended;

/// Why a worker ended, in words that are shown, logged and counted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum EndReason {
    /// It exited by itself with this code.
    Exited {
        /// The exit code.
        code: i32,
    },
    /// A signal that we did not send ended it.
    Signalled {
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
    /// It used more than its `memory_high`, and was replaced.
    OverMemoryHigh {
        /// What it used, bytes.
        used_bytes: u64,
        /// `memory_high`, bytes.
        high_bytes: u64,
    },
    /// The machine had no memory left, and the kernel has killed a process that it had started: it
    /// was replaced.
    PartKilled,
    /// It had reached its maximum age.
    TooOld,
    /// Somebody asked (stop, restart, scale, reload).
    Asked {
        /// What was asked for.
        what: String,
    },
    /// Its files changed.
    FilesChanged,
    /// It did not become ready in time, or its probe failed.
    FailedProbe {
        /// What the last probe saw.
        saw: String,
    },
    /// It was ready, and does not answer any more.
    Stuck {
        /// What the probe saw.
        saw: String,
    },
    /// It could not be started at all.
    NotStarted {
        /// Why.
        why: String,
    },
    /// It is gone; how cannot be known, because an earlier keeper started it.
    UnknownAdopted,
}

impl EndReason {
    /// What the keeper saw, when nothing else explains the end.
    pub fn of(ended: &Ended) -> Self {
        match ended {
            Ended::Exited { code } => EndReason::Exited { code: *code },
            Ended::Signalled { signal } => EndReason::Signalled { signal: *signal },
            Ended::Unknown => EndReason::UnknownAdopted,
        }
    }

    /// The reason in one word, as the events and metrics have it.
    pub fn as_str(&self) -> &'static str {
        match self {
            EndReason::Exited { .. } => "exited",
            EndReason::Signalled { .. } => "signalled",
            EndReason::OutOfMemory { .. } => "out_of_memory",
            EndReason::OverMemoryLimit { .. } => "over_memory_limit",
            EndReason::OverMemoryHigh { .. } => "over_memory_high",
            EndReason::PartKilled => "part_killed",
            EndReason::TooOld => "too_old",
            EndReason::Asked { .. } => "asked",
            EndReason::FilesChanged => "files_changed",
            EndReason::FailedProbe { .. } => "failed_probe",
            EndReason::Stuck { .. } => "stuck",
            EndReason::NotStarted { .. } => "not_started",
            EndReason::UnknownAdopted => "unknown_adopted",
        }
    }

    /// It was killed since it used more than its limit.
    pub fn is_memory_limit(&self) -> bool {
        matches!(
            self,
            EndReason::OverMemoryLimit { .. } | EndReason::OutOfMemory { limit_bytes: Some(_) }
        )
    }

    /// It is not wanted any more, and not replaced.
    pub fn is_stop(&self) -> bool {
        matches!(self, EndReason::Asked { what } if what == "stop")
    }

    /// The worker ended although mfserv had no reason to end it: the end counts as a crash,
    /// delays the next start, and its last output is worth showing. A worker that is stopped,
    /// restarted, too old, above `memory_high` or outdated by an edit has not crashed.
    pub fn is_crash(&self) -> bool {
        !matches!(
            self,
            EndReason::Asked { .. }
                | EndReason::TooOld
                | EndReason::OverMemoryHigh { .. }
                | EndReason::PartKilled
                | EndReason::FilesChanged
        )
    }
}

impl std::fmt::Display for EndReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EndReason::Exited { code } => write!(f, "exited with code {code}"),
            EndReason::Signalled { signal } => write!(f, "killed by {}", signal_name(*signal)),
            EndReason::OutOfMemory { limit_bytes: Some(limit) } => {
                write!(f, "out of memory at {}", size_text(*limit))
            }
            EndReason::OutOfMemory { limit_bytes: None } => {
                f.write_str("killed by the kernel: the machine was out of memory")
            }
            EndReason::OverMemoryLimit { used_bytes, limit_bytes } => {
                let (used, limit) = (size_text(*used_bytes), size_text(*limit_bytes));
                write!(f, "over memory limit {limit} (it used {used})")
            }
            EndReason::OverMemoryHigh { used_bytes, high_bytes } => {
                let (used, high) = (size_text(*used_bytes), size_text(*high_bytes));
                write!(f, "over memory_high {high} (it used {used})")
            }
            EndReason::PartKilled => {
                f.write_str("the kernel had killed a process of it: the machine was out of memory")
            }
            EndReason::TooOld => f.write_str("too old"),
            EndReason::Asked { what } => write!(f, "asked ({what})"),
            EndReason::FilesChanged => f.write_str("files changed"),
            EndReason::FailedProbe { saw } => write!(f, "failed its probe ({saw})"),
            EndReason::Stuck { saw } => write!(f, "does not answer any more ({saw})"),
            EndReason::NotStarted { why } => write!(f, "could not be started ({why})"),
            EndReason::UnknownAdopted => f.write_str("ended (status unknown: adopted)"),
        }
    }
}

/// A signal's usual name, `SIGKILL` for 9.
pub fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        10 => "SIGUSR1",
        11 => "SIGSEGV",
        12 => "SIGUSR2",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        25 => "SIGXFSZ",
        31 => "SIGSYS",
        other => return format!("signal {other}"),
    };
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_crash_unless_mfserv_had_a_reason_for_it() {
        let asked = EndReason::Asked { what: "restart".into() };
        let high = EndReason::OverMemoryHigh { used_bytes: 2, high_bytes: 1 };
        let planned = [EndReason::PartKilled, EndReason::TooOld, EndReason::FilesChanged];
        for reason in planned.into_iter().chain([asked, high]) {
            assert!(!reason.is_crash(), "{reason}");
        }
        let crashes = [
            EndReason::OutOfMemory { limit_bytes: Some(1 << 29) },
            EndReason::OverMemoryLimit { used_bytes: 2, limit_bytes: 1 },
            EndReason::Exited { code: 0 },
            EndReason::Signalled { signal: 15 },
            EndReason::FailedProbe { saw: "silence".into() },
            EndReason::NotStarted { why: "no such program".into() },
            EndReason::UnknownAdopted,
        ];
        for reason in crashes {
            assert!(reason.is_crash(), "{reason}");
        }
    }
}
