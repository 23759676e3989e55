//! A staged release becomes the current one of its plugin, without losing a request.

use std::sync::Arc;

use mfserv_core::Diagnostic;
use mfserv_plugin::Home;
use mfserv_plugin::store::{self, Claim};

use super::conduct::Done;
use super::running::{Running, blocking};
use super::switch::{commit, serve, try_beside};
use super::verdict::Named;
use super::{Node, OperationId, Staging};

/// Tries the release beside the one that serves, makes it current, lets it serve, and retires
/// what is too old. Until the commit nothing has changed, and the staged release is removed if
/// it does not come so far.
pub async fn deploy<N: Node>(
    node: &N,
    op: &Running,
    plugin: &str,
    release: u32,
) -> Result<Done, Diagnostic> {
    let deployed = try_and_serve(node, op, plugin, release).await;
    if deployed.is_err() {
        undo(node, plugin, release).await;
    }
    deployed
}

/// The same, of a package that is staged first by a process of its own.
pub async fn deploy_package<N: Node>(
    node: &N,
    op: &Running,
    package: Staging,
) -> Result<Done, Diagnostic> {
    let (plugin, release) = stage(node, op, package).await?;
    deploy(node, op, &plugin, release).await
}

async fn try_and_serve<N: Node>(
    node: &N,
    op: &Running,
    plugin: &str,
    release: u32,
) -> Result<Done, Diagnostic> {
    let claim = op.claim(node, plugin).await?;
    let staged = claim.staged(release)?;
    let (turn, _trial) = try_beside(node, op, plugin, &staged.dir).await?;
    let warnings = commit(op, &claim, release).await?;
    let served = serve(node, op, turn, Named::Plugin(plugin)).await;
    let kept = retire(op, &claim, staged.clean).await;
    Ok(Done::of(&claim, served).warn(staged.warnings).warn(warnings).warn(kept))
}

/// A release that had become current when its daemon died: the rest of [`deploy`].
pub async fn finish<N: Node>(
    node: &N,
    op: &Running,
    plugin: &str,
    release: u32,
    clean: bool,
) -> Result<Done, Diagnostic> {
    let claim = op.claim(node, plugin).await?;
    let warnings = commit(op, &claim, release).await?;
    let served = serve(node, op, node.turn().await?, Named::Plugin(plugin)).await;
    let kept = retire(op, &claim, clean).await;
    Ok(Done::of(&claim, served).warn(warnings).warn(kept))
}

/// Removes a release that was staged and has not become current.
pub async fn undo<N: Node>(node: &N, plugin: &str, release: u32) {
    let (home, plugin) = (Home::new(node.places().home()), plugin.to_string());
    let given_up = blocking(move || {
        store::give_up(&home, &plugin, release);
        Ok(())
    });
    // What cannot be removed now is removed by the next operation on the plugin.
    let _ = given_up.await;
}

/// Has something staged. From then on it belongs to the operation.
pub async fn stage<N: Node>(
    node: &N,
    op: &Running,
    staging: Staging,
) -> Result<(String, u32), Diagnostic> {
    op.step(match &staging {
        Staging::Package { file, .. } => format!("staging {}", file.display()),
        Staging::Release { plugin, .. } => format!("checking the release of {plugin}"),
    });
    let id: &OperationId = op.id();
    op.unless_cancelled(node.stage(id, staging)).await
}

/// Removes the oldest releases, beyond those that can be gone back to.
async fn retire(op: &Running, claim: &Arc<Claim>, clean: bool) -> Vec<Diagnostic> {
    op.step("removing the oldest releases");
    let claim = claim.clone();
    blocking(move || Ok(claim.collect(clean))).await.unwrap_or_else(|problem| vec![problem])
}
