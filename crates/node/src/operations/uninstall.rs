//! A plugin is removed: its link first, then its workers, then its files.

use std::sync::Arc;

use mfserv_core::Diagnostic;
use mfserv_plugin::store::{Claim, Origin};
use mfserv_supervisor::Until;

use super::Node;
use super::conduct::Done;
use super::running::{Running, blocking};
use super::switch::serve;
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
    let served = serve(node, op, turn).await;
    let mut done = Done { applied: served.applied, problem: served.problem, ..Done::default() };
    if done.problem.is_none() {
        node.jobs_gone(plugin, op.patience()).await;
        forget_maintenance(node, plugin).await?;
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
    let served = serve(node, op, node.turn().await?).await;
    node.wait(Until::Gone, node.living(plugin).await, op.patience()).await?;
    node.jobs_gone(plugin, op.patience()).await;
    forget_maintenance(node, plugin).await?;
    let done = Done { applied: served.applied, problem: served.problem, ..Done::default() };
    Ok(done.warn(remove_files(op, &claim, claim.origin_before(), clean).await?))
}

async fn forget_maintenance<N: Node>(node: &N, plugin: &str) -> Result<(), Diagnostic> {
    let (places, plugin) = (node.places().clone(), plugin.to_string());
    blocking(move || maintenance::forget(&places, &plugin)).await
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
