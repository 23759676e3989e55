//! The steps that operations on releases share: a release is tried beside the one that serves,
//! becomes current, and serves.

use std::path::Path;
use std::sync::Arc;

use mfserv_core::diff::Changes;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::store::Claim;
use mfserv_supervisor::Until;

use super::running::{Running, blocking};
use super::verdict::{Before, Named};
use super::{Applied, Node, Trial};
use crate::taking;

/// How often a release is tried again because the node has changed meanwhile.
const TRIES: u32 = 5;

/// A trial, given up when it is dropped: what has become current by then is no trial any more.
pub struct Attempt<N: Node> {
    node: N,
    trial: Trial,
}

impl<N: Node> Drop for Attempt<N> {
    fn drop(&mut self) {
        self.node.abandon(&self.trial);
    }
}

/// What came of applying a plan.
pub struct Served {
    /// What the node did; `None` when it does not run.
    pub applied: Option<Applied>,
    /// Why it is not served.
    pub problem: Option<Diagnostic>,
    /// What was down before, and still is.
    pub warnings: Vec<Diagnostic>,
}

/// Starts the workers of a release beside those that serve, and waits until all are ready.
/// Returns with the turn, in which nothing else changes the node before the release becomes
/// current.
pub async fn try_beside<N: Node>(
    node: &N,
    op: &Running,
    plugin: &str,
    dir: &Path,
) -> Result<(N::Turn, Attempt<N>), Diagnostic> {
    for _ in 0..TRIES {
        let attempt = begin(node, op, plugin, dir).await?;
        all_ready(op, &attempt).await?;
        let turn = op.unless_cancelled(node.turn()).await?;
        // Another operation may have come between, and changed what this release would run.
        if op.patience().is_zero() || node.fits(&turn, &attempt.trial, plugin, dir).await? {
            take_routes(node, op, &turn, (plugin, dir)).await?;
            return Ok((turn, attempt));
        }
    }
    Err(Diagnostic::error(format!("the release of {plugin} could not be tried"))
        .kind(Kind::Refused)
        .because(format!("other changes of the node came between, {TRIES} times"))
        .help("try again"))
}

/// Refuses to take routes from other plugins, unless the asker insists on it. It is looked at in
/// the turn in which the directory becomes current: no other operation comes between.
pub async fn take_routes<N: Node>(
    node: &N,
    op: &Running,
    turn: &N::Turn,
    (plugin, dir): (&str, &Path),
) -> Result<(), Diagnostic> {
    let taken = op.unless_cancelled(node.taken(turn, plugin, dir)).await?;
    if !op.submission().request.may_take_routes() {
        return taking::refuse(plugin, &taken);
    }
    let (places, plugin) = (node.places().clone(), plugin.to_string());
    blocking(move || match taken.is_empty() {
        true => Ok(()),
        false => taking::remember(&places, &plugin, &taken),
    })
    .await
}

async fn begin<N: Node>(
    node: &N,
    op: &Running,
    plugin: &str,
    dir: &Path,
) -> Result<Attempt<N>, Diagnostic> {
    let mut attempt = Attempt { node: node.clone(), trial: Trial::default() };
    if !op.patience().is_zero() {
        let turn = op.unless_cancelled(node.turn()).await?;
        attempt.trial = op.unless_cancelled(node.start_beside(&turn, plugin, dir)).await?;
        if attempt.trial.workers() > 0 {
            op.step("starting the new release beside the old one");
        }
    }
    Ok(attempt)
}

async fn all_ready<N: Node>(op: &Running, attempt: &Attempt<N>) -> Result<(), Diagnostic> {
    let Attempt { node, trial } = attempt;
    let what = (Until::Prepared, "new workers are ready");
    op.unless_cancelled(op.wait(node, what, trial.watchers())).await
}

/// Makes the release the current one, by the renaming of one link. On an error nothing has
/// changed. Returns the warnings.
pub async fn commit(
    op: &Running,
    claim: &Arc<Claim>,
    release: u32,
) -> Result<Vec<Diagnostic>, Diagnostic> {
    op.commit()?;
    op.step(format!("making release {release} of {} current", claim.plugin()));
    let claim = claim.clone();
    blocking(move || claim.commit(release)).await
}

/// Applies what should be, and waits until it is served and what it replaces has ended. `named` is
/// what the asker has named.
pub async fn serve<N: Node>(node: &N, op: &Running, turn: N::Turn, named: Named<'_>) -> Served {
    op.step("applying what has changed");
    let before = Before::look(node, named).await;
    match node.apply(&turn).await {
        Ok(changes) => {
            drop(turn);
            follow(node, op, &changes, &before).await
        }
        Err(problem) => Served { applied: None, problem: Some(problem), warnings: Vec::new() },
    }
}

/// Waits until what was applied is served and what it replaces has ended.
pub async fn follow<N: Node>(node: &N, op: &Running, changes: &Changes, before: &Before) -> Served {
    let waited = match op.patience().is_zero() {
        true => Ok(Vec::new()),
        false => until_served(node, op, changes, before).await,
    };
    let applied = node.applied(changes);
    match waited {
        Ok(warnings) => Served { applied, problem: None, warnings },
        Err(problem) => Served { applied, problem: Some(problem), warnings: Vec::new() },
    }
}

async fn until_served<N: Node>(
    node: &N,
    op: &Running,
    changes: &Changes,
    before: &Before,
) -> Result<Vec<Diagnostic>, Diagnostic> {
    let (touched, stopped) = (changes.touched(), changes.stop.clone());
    let mut warnings = Vec::new();
    if !touched.is_empty() {
        op.step("waiting until it is served");
        warnings = before.settle(node, op, "workers are ready", touched).await?;
    }
    if !stopped.is_empty() {
        op.step("waiting until its workers have ended");
        op.wait(node, (Until::Gone, "workers have ended"), stopped).await?;
    }
    Ok(warnings)
}
