//! One line of the journal.

use mfserv_plugin::store::Owner;
use serde::{Deserialize, Serialize};

use super::{Event, OperationId, Outcome, Request, Who};

/// What is remembered of an operation: one line of `var/operations.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Its id.
    pub id: OperationId,
    /// Who asked for it.
    pub who: Who,
    /// What was asked for.
    pub request: Request,
    /// When it was accepted, milliseconds since the Unix epoch.
    pub began_ms: u64,
    /// The process that conducts it.
    #[serde(default)]
    pub conductor: Option<Owner>,
    /// When it ended; `None` while it runs.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// What it reported, the outcome excluded: of a step that got on, its last text.
    #[serde(default)]
    pub steps: Vec<Event>,
    /// How it ended; `None` while it runs.
    #[serde(default)]
    pub outcome: Option<Outcome>,
}
