//! What the control API needs of the node. The daemon's node implements it; tests play it.

use std::future::Future;
use std::pin::Pin;

use mfserv_core::Diagnostic;
use mfserv_core::job::{JobStatus, Run};
use mfserv_core::plan::preview::PlanPreview;
use mfserv_core::status::Status;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::exposition::Exposition;
use crate::daemon::History;
use crate::operations::{Event, OperationId, Record, Submission, Who};

/// An answer that is being made.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The node, as the control API sees it.
pub trait Api: CircusApi + JobsApi + Send + Sync + 'static {
    /// The observed node.
    fn status(&self) -> Pending<'_, Status>;

    /// What a reload would do.
    fn preview(&self) -> Pending<'_, Result<PlanPreview, Diagnostic>>;

    /// What the telemetry role has counted, in a text format of Prometheus. `accept`: what the
    /// client takes; empty: anything.
    fn metrics(&self, accept: String) -> Pending<'_, Result<Exposition, Diagnostic>>;

    /// Accepts an operation; returns its id at once. An id that is known joins that operation.
    fn submit(&self, submission: Submission) -> Pending<'_, Result<OperationId, Diagnostic>>;

    /// The events of an operation: from the first one, up to the outcome. The server has made
    /// sure that the operation is known.
    fn follow<'a>(
        &'a self,
        id: &'a OperationId,
    ) -> Pending<'a, Result<mpsc::Receiver<Event>, Diagnostic>>;

    /// Cancels an operation; refused once it is committed.
    fn cancel<'a>(&'a self, id: &'a OperationId) -> Pending<'a, Result<(), Diagnostic>>;

    /// One operation; `None` if none has this id.
    fn find<'a>(&'a self, id: &'a OperationId) -> Pending<'a, Option<Record>>;

    /// The latest operations, the newest last.
    fn recent(&self, limit: usize) -> Pending<'_, Vec<Record>>;
}

/// The commands of Circus, as the control API sees them.
pub trait CircusApi {
    /// The answer to a message of Circus, which is JSON; `None` if it wants none.
    fn circus(&self, message: Vec<u8>, who: Who) -> Pending<'_, Option<Map<String, Value>>>;
}

/// The jobs of the node, as the control API sees them.
pub trait JobsApi {
    /// All jobs.
    fn jobs(&self) -> Pending<'_, Vec<JobStatus>>;

    /// A job with its last runs.
    fn job<'a>(&'a self, name: &'a str) -> Pending<'a, Result<History, Diagnostic>>;

    /// Starts a run of a job; returns when it is written down.
    fn run_job<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Run, Diagnostic>>;
}
