//! The variables of a plugin change, without losing a request.

use std::sync::Arc;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_platform::clock;
use mfserv_plugin::store::{self, Claim, Edit, Owner, claim_within};
use mfserv_plugin::{Cancel, Home, Silent};

use super::Node;
use super::conduct::Done;
use super::running::{Running, blocking};
use super::switch::{serve, try_beside};
use super::verdict::Named;

/// How long somebody else who changes the plugin is waited for before a change is staged: shorter
/// than an asker waits until its operation is accepted, so that it learns who that is.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts workers with the change beside those that serve, puts it in force, and lets them serve.
/// Until then nothing has changed, and the change is forgotten if it does not come so far.
pub async fn change<N: Node>(node: &N, op: &Running, plugin: &str) -> Result<Done, Diagnostic> {
    let claim = op.claim(node, plugin).await?;
    let changed = try_and_serve(node, op, &claim).await;
    if changed.is_err() {
        give_up(op, &claim).await;
    }
    changed
}

/// Stages the undoing of the last change of the variables of a plugin; `None`: there is none since
/// its release is current.
pub fn stage_undo(home: &Home, plugin: &str, owner: &Owner) -> Result<Option<String>, Diagnostic> {
    if store::History::read(home, plugin)?.undoable(home, plugin).is_none() {
        return Ok(None);
    }
    let claim = claim_within(home, plugin, owner, PATIENCE, &Cancel::default(), &mut Silent)?;
    claim.stage_variables(Edit::Undo, clock::now_ms()).map(Some)
}

/// Forgets a change that was staged and is not in force.
pub async fn undo<N: Node>(node: &N, op: &Running, plugin: &str) {
    if let Ok(claim) = op.claim(node, plugin).await {
        give_up(op, &claim).await;
    }
}

async fn give_up(op: &Running, claim: &Arc<Claim>) {
    let id = op.id().to_string();
    // What cannot be forgotten now is put in force by nobody else.
    let _ = with(claim, move |claim| claim.give_up_variables(&id)).await;
}

async fn try_and_serve<N: Node>(
    node: &N,
    op: &Running,
    claim: &Arc<Claim>,
) -> Result<Done, Diagnostic> {
    let dir = claim.current()?.dir;
    let (turn, _trial) = try_beside(node, op, claim.plugin(), &dir).await?;
    op.commit()?;
    op.step(format!("putting the variables of {} in force", claim.plugin()));
    let id = op.id().to_string();
    with(claim, move |claim| claim.commit_variables(&id)).await?;
    let served = serve(node, op, turn, Named::Plugin(claim.plugin())).await;
    Ok(Done::of(claim, served))
}

/// A change that was in force when its daemon died: the rest of [`change`].
pub async fn finish<N: Node>(node: &N, op: &Running, plugin: &str) -> Result<Done, Diagnostic> {
    let claim = op.claim(node, plugin).await?;
    op.commit()?;
    let served = serve(node, op, node.turn().await?, Named::Plugin(plugin)).await;
    Ok(Done::of(&claim, served))
}

async fn with(
    claim: &Arc<Claim>,
    work: impl FnOnce(&Claim) -> Result<(), Diagnostic> + Send + 'static,
) -> Result<(), Diagnostic> {
    let claim = claim.clone();
    blocking(move || work(&claim)).await
}
