//! A developer's directory becomes the current plugin of its name.

use std::path::Path;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_supervisor::Until;

use super::Node;
use super::conduct::Done;
use super::running::Running;
use super::switch::{serve, take_routes};
use super::verdict::Named;

/// Links the directory, and lets it serve.
pub async fn link<N: Node>(
    node: &N,
    op: &Running,
    plugin: &str,
    dir: &Path,
) -> Result<Done, Diagnostic> {
    let claim = op.claim(node, plugin).await?;
    let turn = op.unless_cancelled(node.turn()).await?;
    claim.may_link(dir)?;
    take_routes(node, op, &turn, (plugin, dir)).await?;
    op.commit()?;
    op.step(format!("linking {plugin} to {}", dir.display()));
    claim.link(dir)?;
    let mut served = serve(node, op, turn, Named::Plugin(plugin)).await;
    // Linked again, it may be what runs already, and fail: then it is tried anew.
    let own = node.find(&[plugin.to_string()]).unwrap_or_default();
    let settled = node.wait(Until::Settled, own.clone(), Duration::ZERO).await;
    if served.problem.is_none() && !op.patience().is_zero() && settled.is_err() {
        node.restart(own.clone());
        served.problem = op.wait(node, (Until::Settled, "workers are ready"), own).await.err();
    }
    Ok(Done::of(&claim, served))
}
