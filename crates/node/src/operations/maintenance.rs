//! Apps are in maintenance from now on, or not any more.

use mfserv_core::Diagnostic;
use mfserv_core::maintenance::ALL;

use super::Node;
use super::conduct::Done;
use super::running::{Running, blocking};
use super::switch::serve;
use crate::maintenance::{self, Wanted};

/// Writes down what is wanted of the app (`None`: of all), and has the fronts obey it. Workers are
/// not touched.
pub async fn change<N: Node>(
    node: &N,
    op: &Running,
    app: Option<&str>,
    wanted: Wanted,
) -> Result<Done, Diagnostic> {
    let key = app.map_or(Ok(ALL.to_string()), |app| node.part(app))?;
    let turn = op.unless_cancelled(node.turn()).await?;
    op.commit()?;
    let places = node.places().clone();
    let (before, said) = blocking(move || maintenance::change(&places, &key, wanted)).await?;
    op.step(said);
    let served = serve(node, op, turn).await;
    let is_refused = served.applied.is_none() && served.problem.is_some();
    let places = node.places().clone();
    blocking(move || {
        if is_refused {
            maintenance::write(&places, &before)?;
        }
        maintenance::remove_old_pages(&places);
        Ok(())
    })
    .await?;
    Ok(Done { applied: served.applied, problem: served.problem, ..Done::default() })
}
