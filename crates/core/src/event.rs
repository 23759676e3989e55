//! Whatever happens is an event: a fact with a time.

mod end_reason;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, Severity};
use crate::job::{RunResult, Trigger};
use crate::names::{WatcherName, WorkerId};
use crate::node_state::NodeState;
use crate::wire::front::TroubleCause;
use crate::wire::keeper::Ended;

pub use end_reason::{EndReason, signal_name};

/// A fact with a time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// The end of a process of nginx.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NginxEnd {
    /// Its process id.
    pub pid: u32,
    /// It was a worker of nginx, and not its master.
    pub is_worker: bool,
    /// It was to end with its last request: no other one takes its place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_leaving: bool,
    /// Why.
    pub why: EndReason,
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
    /// A worker uses more than its `memory_high`, and is not replaced yet: the one before it did
    /// so as soon.
    MemoryHigh {
        /// The worker.
        worker: WorkerId,
        /// What it uses, bytes.
        used_bytes: u64,
        /// `memory_high`, bytes.
        high_bytes: u64,
        /// Milliseconds until it is replaced, if it goes on so.
        replaced_in_ms: u64,
    },
    /// A worker ended.
    WorkerEnded {
        /// The worker.
        worker: WorkerId,
        /// Why.
        why: EndReason,
        /// How its process ended; `None` if it had none, or nobody saw it end.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ended: Option<Ended>,
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
        /// More words, with the path and the id of the request that met it.
        #[serde(default, skip_serializing_if = "String::is_empty")]
        detail: String,
    },
    /// A process of nginx ended although nobody has asked it to, or before it was to.
    NginxEnded(NginxEnd),
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
    /// An alert of the configuration fires.
    AlertFiring {
        /// Its name.
        alert: String,
        /// The plugin; empty for the node.
        plugin: String,
        /// The app; empty for the node.
        app: String,
        /// Its condition, as it is written.
        condition: String,
        /// The value, with its unit.
        value: String,
    },
    /// It does not fire any more.
    AlertResolved {
        /// Its name.
        alert: String,
        /// The plugin; empty for the node.
        plugin: String,
        /// The app; empty for the node.
        app: String,
        /// How long it fired, milliseconds.
        after_ms: u64,
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
            | Fact::MemoryHigh { .. }
            | Fact::NginxEnded(_)
            | Fact::AlertFiring { .. }
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
            | Fact::AlertResolved { .. }
            | Fact::Note { .. } => None,
        }
    }
}
