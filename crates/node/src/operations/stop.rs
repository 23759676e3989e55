//! The node is stopped in order.

use mfserv_core::Diagnostic;

use super::conduct::Done;
use super::running::Running;
use super::{Applied, Node};

/// Health first says no; then the front finishes what it holds; then the workers end. Keeper and
/// daemon are left: they end when the outcome is written.
pub async fn stop<N: Node>(node: &N, op: &Running) -> Result<Done, Diagnostic> {
    op.commit()?;
    op.step("stopping: requests are finished first");
    let problem = node.stop().await.err();
    Ok(Done { applied: Some(Applied::default()), problem, ..Done::default() })
}
