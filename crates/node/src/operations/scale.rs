//! An app has another number of workers from now on.

use mfserv_core::Diagnostic;

use super::Node;
use super::conduct::Done;
use super::running::Running;
use super::switch::serve;

/// Remembers the number, and starts or ends workers.
pub async fn scale<N: Node>(
    node: &N,
    op: &Running,
    app: &str,
    count: Option<u32>,
) -> Result<Done, Diagnostic> {
    let app = node.find_one(app)?;
    let _claim = match app.plugin() {
        Some(plugin) => Some(op.claim(node, plugin).await?),
        None => None,
    };
    let turn = op.unless_cancelled(node.turn()).await?;
    op.commit()?;
    op.step(format!("scaling {app}"));
    node.remember_count(&app, count)?;
    let served = serve(node, op, turn).await;
    Ok(Done { applied: served.applied, problem: served.problem, ..Done::default() })
}
