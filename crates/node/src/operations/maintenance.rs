//! Apps are in maintenance from now on, or not any more.

use mfserv_core::Diagnostic;
use mfserv_core::maintenance::ALL;

use super::conduct::Done;
use super::running::{Running, blocking};
use super::switch::{Served, follow};
use super::verdict::{Before, Named};
use super::{Applied, Node};
use crate::maintenance::{self, Wanted};

/// Writes down what is wanted of the app (`None`: of all), has the fronts obey it, and waits until
/// workers have answered what they had. Workers are not touched.
pub async fn change<N: Node>(
    node: &N,
    op: &Running,
    app: Option<&str>,
    wanted: Wanted,
) -> Result<Done, Diagnostic> {
    let begins = matches!(wanted, Wanted::On { .. });
    let turn = op.unless_cancelled(node.turn()).await?;
    let key = key_of(node, app, begins).await?;
    op.commit()?;
    let (places, part) = (node.places().clone(), key.clone());
    let (before, said) = blocking(move || maintenance::change(&places, &part, wanted)).await?;
    op.step(said.clone());
    let down = Before::look(node, Named::Nothing).await;
    let applied = node.apply(&turn).await;
    let undone = applied.is_err().then_some(before);
    let places = node.places().clone();
    // In the same turn: what another operation writes down is not lost.
    blocking(move || {
        undone.map_or(Ok(()), |before| maintenance::write(&places, &before))?;
        maintenance::remove_old_pages(&places);
        Ok(())
    })
    .await?;
    drop(turn);
    let changes = match applied {
        Ok(changes) => changes,
        Err(problem) => return Ok(Done { problem: Some(problem), ..Done::default() }),
    };
    let served = follow(node, op, &changes, &down).await;
    let applied = match &served.applied {
        Some(applied) => Applied { changes: said, ..applied.clone() },
        None => Applied { changes: format!("{said}, once the node runs"), ..Applied::default() },
    };
    let running = if begins { still_running(node, op, &key).await } else { Vec::new() };
    let served = Served { applied: Some(applied), ..served };
    Ok(Done::served(served).warn(running))
}

/// What is meant. The end of maintenance can also be that of something that is gone.
async fn key_of<N: Node>(node: &N, app: Option<&str>, begins: bool) -> Result<String, Diagnostic> {
    let Some(app) = app else { return Ok(ALL.to_string()) };
    let (node, app) = (node.clone(), app.to_string());
    blocking(move || {
        node.part(&app).or_else(|problem| match begins {
            true => Err(problem),
            false => maintenance::marked(node.places(), &app).ok_or(problem),
        })
    })
    .await
}

/// Waits until no worker has a request that came before; says how many have one still.
async fn still_running<N: Node>(node: &N, op: &Running, key: &str) -> Vec<Diagnostic> {
    if op.patience().is_zero() {
        return Vec::new();
    }
    op.step("waiting until workers have answered the requests that they have");
    let left = node.requests_done(key, op.patience()).await;
    let sentence = match left {
        0 => return Vec::new(),
        1 => "1 request that came before still runs".to_string(),
        count => format!("{count} requests that came before still run"),
    };
    let seconds = op.patience().as_secs();
    vec![
        Diagnostic::warning(sentence)
            .because(format!("workers have not answered within {seconds} s; WebSockets go on too"))
            .help("`mfserv status` shows how many there are; --timeout waits longer"),
    ]
}
