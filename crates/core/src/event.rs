//! Whatever happens is an event: a fact with a time.

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Severity};
use crate::job::{RunResult, Trigger};
use crate::names::{WatcherName, WorkerId};
use crate::node_state::NodeState;
use crate::wire::front::TroubleCause;
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
            EndReason::TooOld => "too_old",
            EndReason::Asked { .. } => "asked",
            EndReason::FilesChanged => "files_changed",
            EndReason::FailedProbe { .. } => "failed_probe",
            EndReason::Stuck { .. } => "stuck",
            EndReason::NotStarted { .. } => "not_started",
            EndReason::UnknownAdopted => "unknown_adopted",
        }
    }

    /// The worker ended although mfserv had no reason to end it: the end counts as a crash,
    /// delays the next start, and its last output is worth showing. A worker that is stopped,
    /// restarted, too old or outdated by an edit has not crashed.
    pub fn is_crash(&self) -> bool {
        !matches!(self, EndReason::Asked { .. } | EndReason::TooOld | EndReason::FilesChanged)
    }
}

impl std::fmt::Display for EndReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            EndReason::Exited { code } => write!(f, "exited with code {code}"),
            EndReason::Signalled { signal } => write!(f, "killed by {}", signal_name(*signal)),
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

/// A fact with a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Fact {
    /// The daemon started and knows the node again.
    DaemonStarted {
        /// Its process id.
        pid: u32,
        /// Workers that already lived.
        adopted: u32,
    },
    /// The node's state changed.
    NodeState {
        /// The new state.
        #[serde(rename = "word")]
        state: NodeState,
    },
    /// A plan was applied.
    PlanApplied {
        /// Its generation.
        generation: u64,
        /// What changed, in a few words.
        changes: String,
    },
    /// A problem in a configuration.
    Problem {
        /// The problem.
        problem: Diagnostic,
    },
    /// A worker was started.
    WorkerStarted {
        /// The worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
    },
    /// A worker is ready.
    WorkerReady {
        /// The worker.
        worker: WorkerId,
        /// From start to ready, milliseconds.
        after_ms: u64,
    },
    /// A worker lives and was found again by a new daemon.
    WorkerAdopted {
        /// The worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
    },
    /// A worker is being replaced or stopped.
    WorkerRetiring {
        /// The worker.
        worker: WorkerId,
        /// Why.
        why: EndReason,
    },
    /// A worker ended.
    WorkerEnded {
        /// The worker.
        worker: WorkerId,
        /// Why.
        why: EndReason,
        /// The last lines of its output.
        last_output: String,
        /// Processes it had left behind, killed.
        left_behind: u32,
        /// Milliseconds until the next start in this slot; `None` when none is wanted.
        restart_in_ms: Option<u64>,
    },
    /// Files of a plugin changed: its workers are about to be renewed.
    FilesChanged {
        /// The plugin.
        plugin: String,
        /// Some of the files, below the plugin's directory.
        files: Vec<String>,
        /// How many others.
        more: u32,
    },
    /// The new code of a plugin serves.
    Renewed {
        /// The plugin.
        plugin: String,
        /// Since the first change, milliseconds.
        after_ms: u64,
    },
    /// The new code of a plugin does not start: what served before goes on serving.
    NotRenewed {
        /// The plugin.
        plugin: String,
        /// Why, with the last lines of what did not start.
        problem: Diagnostic,
    },
    /// Output of a worker was dropped (the disk is slower than it writes).
    OutputDropped {
        /// The process.
        id: String,
        /// How much.
        bytes: u64,
    },
    /// All log files together were larger than `[log] max_total_size`: the oldest were removed.
    LogsRemoved {
        /// Some of the files, by name.
        files: Vec<String>,
        /// How many others.
        more: u32,
        /// How large all of them were.
        bytes: u64,
    },
    /// A log cannot be written; its output is copied again when it can.
    LogTrouble {
        /// The log.
        file: String,
        /// Why.
        reason: String,
    },
    /// A watcher changed its wanted count.
    Scaled {
        /// The watcher.
        watcher: WatcherName,
        /// The wanted number of workers.
        count: u32,
    },
    /// The front reported trouble with a worker.
    WorkerTrouble {
        /// The worker.
        worker: WorkerId,
        /// What the worker did.
        cause: TroubleCause,
    },
    /// An operation begins.
    OperationBegan {
        /// Its id.
        id: String,
        /// What it does: `deploy foo 3`.
        what: String,
        /// Who asked for it.
        who: String,
    },
    /// An operation has ended.
    OperationEnded {
        /// Its id.
        id: String,
        /// What it did.
        what: String,
        /// It did what was asked for.
        ok: bool,
        /// Why not, if it did not.
        problem: Option<Diagnostic>,
        /// How long it took, milliseconds.
        after_ms: u64,
    },
    /// The daemon that conducted an operation died; the next one finishes or undoes it.
    OperationRecovered {
        /// Its id.
        id: String,
        /// What it does.
        what: String,
        /// True: it is finished. False: it had changed nothing, and is undone.
        finished: bool,
    },
    /// A run of a job was started.
    JobStarted {
        /// The job, `PLUGIN.NAME`.
        job: String,
        /// The run.
        run: String,
        /// Why there is one.
        trigger: Trigger,
        /// Its process id.
        pid: u32,
    },
    /// A run of a job has ended, or was not started.
    JobEnded {
        /// The job, `PLUGIN.NAME`.
        job: String,
        /// The run.
        run: String,
        /// What became of it.
        #[serde(flatten)]
        result: RunResult,
        /// How long it took, milliseconds; `None` if it was not started.
        after_ms: Option<u64>,
        /// The last lines of its output, if it did not go well.
        last_output: String,
        /// Processes it had left behind, killed.
        left_behind: u32,
    },
    /// Anything about the roles themselves: keeper lost and found, front replaced…
    Note {
        /// A sentence.
        text: String,
    },
}

impl Fact {
    /// How bad it is; `None` for what is no trouble.
    pub fn severity(&self) -> Option<Severity> {
        match self {
            Fact::Problem { problem } => Some(problem.severity),
            Fact::NotRenewed { .. } | Fact::OperationEnded { ok: false, .. } => {
                Some(Severity::Error)
            }
            Fact::WorkerEnded { why, .. } => why.is_crash().then_some(Severity::Warning),
            Fact::JobEnded { result, .. } => result.is_trouble().then_some(Severity::Warning),
            Fact::OutputDropped { .. }
            | Fact::LogsRemoved { .. }
            | Fact::LogTrouble { .. }
            | Fact::WorkerTrouble { .. }
            | Fact::OperationRecovered { .. } => Some(Severity::Warning),
            Fact::DaemonStarted { .. }
            | Fact::NodeState { .. }
            | Fact::PlanApplied { .. }
            | Fact::WorkerStarted { .. }
            | Fact::WorkerReady { .. }
            | Fact::WorkerAdopted { .. }
            | Fact::WorkerRetiring { .. }
            | Fact::FilesChanged { .. }
            | Fact::Renewed { .. }
            | Fact::JobStarted { .. }
            | Fact::Scaled { .. }
            | Fact::OperationBegan { .. }
            | Fact::OperationEnded { .. }
            | Fact::Note { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_crash_unless_mfserv_had_a_reason_for_it() {
        let asked = EndReason::Asked { what: "restart".into() };
        for reason in [asked, EndReason::TooOld, EndReason::FilesChanged] {
            assert!(!reason.is_crash(), "{reason}");
        }
        let crashes = [
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
