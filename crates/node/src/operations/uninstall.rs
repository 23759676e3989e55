//! A plugin is removed: its link first, then its workers, then its files.

use std::sync::Arc;

use mfserv_core::Diagnostic;
use mfserv_plugin::store::{Claim, Origin};
use mfserv_supervisor::Until;

use super::Node;
use super::conduct::Done;
use super::running::{Running, blocking};
use super::switch::serve;
use super::verdict::Named;
use crate::maintenance;

/// Removes the link, waits until the workers have finished their requests, and removes the
/// files. With `clean`, of a plugin that is not installed any more, what had been kept of it.
pub async fn uninstall<N: Node>(
    node: &N,
    op: &Running,
    plugin: &str,
    clean: bool,
) -> Result<Done, Diagnostic> {
    let claim = op.claim(node, plugin).await?;
    if clean && remove_kept(op, &claim).await? {
        return Ok(Done::default());
    }
    claim.current()?;
    let turn = op.unless_cancelled(node.turn()).await?;
    op.commit()?;
    op.step(format!("unlinking {plugin}"));
    let installed = claim.unlink()?;
    let warnings = forget_maintenance(node, plugin).await;
    let served = serve(node, op, turn, Named::Plugin(plugin)).await;
    let mut done = Done::served(served).warn(warnings);
    if done.problem.is_none() {
        node.jobs_gone(plugin, op.patience()).await;
        done = done.warn(remove_files(op, &claim, installed.origin, clean).await?);
    }
    Ok(Done { plugin: Some(installed), ..done })
}

/// A plugin that was unlinked when its daemon died: the rest of [`uninstall`].
pub async fn finish<N: Node>(
    node: &N,
    op: &Running,
    plugin: &str,
    clean: bool,
) -> Result<Done, Diagnostic> {
    let claim = op.claim(node, plugin).await?;
    op.commit()?;
    let turn = node.turn().await?;
    let warnings = forget_maintenance(node, plugin).await;
    let served = serve(node, op, turn, Named::Plugin(plugin)).await;
    node.wait(Until::Gone, node.living(plugin).await, op.patience()).await?;
    node.jobs_gone(plugin, op.patience()).await;
    let done = Done::served(served).warn(warnings);
    Ok(done.warn(remove_files(op, &claim, claim.origin_before(), clean).await?))
}

/// Within the turn: no other operation writes that down meanwhile. What does not go well is no reason
/// to keep the plugin.
async fn forget_maintenance<N: Node>(node: &N, plugin: &str) -> Vec<Diagnostic> {
    let (places, plugin) = (node.places().clone(), plugin.to_string());
    let forgotten = blocking(move || maintenance::forget(&places, &plugin)).await;
    forgotten.err().into_iter().collect()
}

async fn remove_kept(op: &Running, claim: &Arc<Claim>) -> Result<bool, Diagnostic> {
    op.unless_cancelled(async { Ok(()) }).await?;
    let claim = claim.clone();
    blocking(move || claim.remove_kept()).await
}

async fn remove_files(
    op: &Running,
    claim: &Arc<Claim>,
    origin: Origin,
    clean: bool,
) -> Result<Vec<Diagnostic>, Diagnostic> {
    op.step("removing its files");
    let claim = claim.clone();
    blocking(move || claim.remove_unlinked(origin, clean)).await
}
