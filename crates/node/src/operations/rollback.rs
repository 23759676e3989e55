//! An earlier release becomes the current one again, without losing a request.

use mfserv_core::Diagnostic;

use super::conduct::Done;
use super::deploy::stage;
use super::running::Running;
use super::switch::{commit, serve, try_beside};
use super::verdict::Named;
use super::{Node, Staging};

/// Checks the release, tries it beside the one that serves, makes it current and lets it serve.
/// The others stay: a rollback can be taken back.
pub async fn rollback<N: Node>(
    node: &N,
    op: &Running,
    plugin: &str,
    release: Option<u32>,
    checked: bool,
) -> Result<Done, Diagnostic> {
    if !checked {
        let take_route = op.submission().request.may_take_routes();
        stage(node, op, Staging::Release { plugin: plugin.into(), release, take_route }).await?;
    }
    let claim = op.claim(node, plugin).await?;
    let chosen = claim.choose(release)?;
    let (turn, _trial) = try_beside(node, op, plugin, &chosen.dir).await?;
    let warnings = commit(op, &claim, chosen.number).await?;
    let served = serve(node, op, turn, Named::Plugin(plugin)).await;
    Ok(Done::of(&claim, served).warn(warnings))
}

/// A release that had become current when its daemon died: the rest of [`rollback`].
pub async fn finish<N: Node>(
    node: &N,
    op: &Running,
    plugin: &str,
    release: u32,
) -> Result<Done, Diagnostic> {
    let claim = op.claim(node, plugin).await?;
    let warnings = commit(op, &claim, release).await?;
    let served = serve(node, op, node.turn().await?, Named::Plugin(plugin)).await;
    Ok(Done::of(&claim, served).warn(warnings))
}
