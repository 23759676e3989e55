//! Everything is read again, and what has changed is applied.

use mfserv_core::Diagnostic;

use super::Node;
use super::conduct::Done;
use super::running::Running;
use super::switch::serve;
use super::verdict::Named;

/// Reads the configuration and the plugins, and lets what has changed serve. Counts of workers
/// that are in no configuration end; a stopped app stays stopped.
pub async fn reload<N: Node>(node: &N, op: &Running) -> Result<Done, Diagnostic> {
    let turn = op.unless_cancelled(node.turn()).await?;
    op.commit()?;
    let counts = node.forget_counts()?;
    let served = serve(node, op, turn, Named::Nothing).await;
    if served.applied.is_none() {
        // Refused: nothing has changed.
        node.restore_counts(&counts)?;
    }
    Ok(Done::served(served))
}
