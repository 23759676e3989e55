//! What the daemon answers over the control socket.

use mfserv_core::Diagnostic;
use mfserv_core::status::Status;
use tokio::sync::mpsc;

use super::node::Node;
use crate::control::legacy::{Ask, AskAnswer};
use crate::control::{Api, Pending};
use crate::operations::{
    Applied, Event, OperationId, Operations, Record, Request, Submission, Who,
};

/// The node and its operations, as the control API sees them.
pub struct Service {
    pub node: Node,
    pub operations: Operations<Node>,
}

impl Api for Service {
    fn status(&self) -> Pending<'_, Status> {
        Box::pin(self.node.observed())
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

    fn ask(&self, ask: Ask) -> Pending<'_, AskAnswer> {
        Box::pin(async move {
            match ask {
                Ask::Status => json(&self.node.observed().await),
                Ask::Stop => self.stop().await,
            }
        })
    }
}

impl Service {
    /// A command of an older version stops the node; answered when it has stopped.
    async fn stop(&self) -> AskAnswer {
        let who = Who { command: "mfserv stop".into(), ..Who::default() };
        let stop = Submission { id: None, request: Request::Stop, who, patience_s: 0 };
        let id = self.operations.submit(stop).await?;
        let mut events = self.operations.follow(&id).await?;
        while let Some(event) = events.recv().await {
            if let Event::Outcome(outcome) = event {
                return match outcome.problem {
                    Some(problem) => Err(problem),
                    None => json(&Applied::default()),
                };
            }
        }
        Err(Diagnostic::error("the operation has no outcome"))
    }
}

fn json<T: serde::Serialize>(value: &T) -> AskAnswer {
    serde_json::to_value(value).map_err(|e| Diagnostic::error("cannot answer").because(e))
}
