//! What the daemon answers over the control socket.

use mfserv_core::Diagnostic;
use mfserv_core::job::{JobStatus, Run};
use mfserv_core::plan::preview::PlanPreview;
use mfserv_core::status::Status;
use serde_json::{Map, Value};
use tokio::sync::mpsc;

use super::circus::{Access, Circus};
use super::jobs::History;
use super::node::Node;
use crate::control::{Api, CircusApi, Exposition, JobsApi, Pending, exposition};
use crate::operations::{Event, OperationId, Operations, Record, Submission, Who};

/// The node and its operations, as the control API sees them.
pub struct Service {
    node: Node,
    operations: Operations<Node>,
    circus: Circus,
}

impl Service {
    /// Answers for this node.
    pub fn new(node: Node, operations: Operations<Node>, circus: Circus) -> Service {
        Service { node, operations, circus }
    }
}

impl Api for Service {
    fn status(&self) -> Pending<'_, Status> {
        Box::pin(self.node.observed())
    }

    fn preview(&self) -> Pending<'_, Result<PlanPreview, Diagnostic>> {
        Box::pin(self.node.preview())
    }

    fn metrics(&self, accept: String) -> Pending<'_, Result<Exposition, Diagnostic>> {
        let socket = self.node.parts.options.places.telemetry_socket();
        Box::pin(async move { exposition::read(&socket, &accept).await })
    }

    fn submit(&self, submission: Submission) -> Pending<'_, Result<OperationId, Diagnostic>> {
        Box::pin(self.operations.submit(submission))
    }

    fn follow<'a>(
        &'a self,
        id: &'a OperationId,
    ) -> Pending<'a, Result<mpsc::Receiver<Event>, Diagnostic>> {
        Box::pin(self.operations.follow(id))
    }

    fn cancel<'a>(&'a self, id: &'a OperationId) -> Pending<'a, Result<(), Diagnostic>> {
        Box::pin(self.operations.cancel(id))
    }

    fn find<'a>(&'a self, id: &'a OperationId) -> Pending<'a, Option<Record>> {
        Box::pin(self.operations.find(id))
    }

    fn recent(&self, limit: usize) -> Pending<'_, Vec<Record>> {
        Box::pin(self.operations.recent(limit))
    }
}

impl CircusApi for Service {
    fn circus(&self, message: Vec<u8>, who: Who) -> Pending<'_, Option<Map<String, Value>>> {
        Box::pin(self.circus.answer(message, Access::Full(who)))
    }
}

impl JobsApi for Service {
    fn jobs(&self) -> Pending<'_, Vec<JobStatus>> {
        Box::pin(self.node.parts.jobs.list())
    }

    fn job<'a>(&'a self, name: &'a str) -> Pending<'a, Result<History, Diagnostic>> {
        Box::pin(self.node.parts.jobs.history(name))
    }

    fn run_job<'a>(&'a self, name: &'a str) -> Pending<'a, Result<Run, Diagnostic>> {
        Box::pin(self.node.parts.jobs.run(name))
    }
}
