//! What an operation reports while it runs.

use mfserv_core::Diagnostic;
use mfserv_plugin::store::Installed;
use serde::{Deserialize, Serialize};

use super::{OperationId, Who};

/// One report of an operation. [`Event::Outcome`] is always the last one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The operation is known to the node: always the first one.
    Accepted {
        /// Its id.
        operation: OperationId,
    },
    /// It waits for another operation on the same plugin.
    Waiting {
        /// How long it has waited, seconds.
        seconds: u64,
        /// The operation that it waits for.
        #[serde(rename = "for")]
        for_operation: OperationId,
        /// Who asked for that one.
        who: Who,
    },
    /// A step begins, gets on (the same `n` again, with another text), or is done.
    Step {
        /// Its number, from 1.
        n: u32,
        /// How many steps there are, if that is known.
        of: Option<u32>,
        /// What it does: `starting release 3 of foo`, `3 of 21 workers replaced`.
        text: String,
        /// Where it is.
        state: StepState,
    },
    /// From here on it cannot be cancelled any more.
    Committed,
    /// It is over.
    Outcome(Box<Outcome>),
}

/// Where a step is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// It has begun, and is not done.
    Started,
    /// It is done.
    Done,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// It did what was asked for.
    pub ok: bool,
    /// What is installed now; of an uninstallation, what was; `null` where no plugin is
    /// concerned, or when only what had been kept of one was removed.
    #[serde(default)]
    pub plugin: Option<Installed>,
    /// What is doubtful: of the package, of its files, of what stays.
    #[serde(default)]
    pub warnings: Vec<Diagnostic>,
    /// What the node did; `null` when it does not run, or did nothing.
    #[serde(default)]
    pub applied: Option<Applied>,
    /// Why it failed, if it did.
    #[serde(default)]
    pub problem: Option<Diagnostic>,
    /// Who brought it to its end.
    pub finished_by: FinishedBy,
}

/// Who brought an operation to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FinishedBy {
    /// The command that asked for it: no node ran.
    Asker,
    /// The daemon that accepted it.
    Daemon,
    /// A later one: the daemon that accepted it had died.
    NextDaemon,
}

/// What the node did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Applied {
    /// The generation of the plan that is now in force.
    pub generation: u64,
    /// What changed, in a few words.
    pub changes: String,
    /// Problems of the present configuration.
    pub problems: Vec<Diagnostic>,
}
