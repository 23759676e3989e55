//! An app has another number of workers, or runs with other options, from now on.

use mfserv_core::Diagnostic;
use mfserv_core::plan::HeldOptions;

use super::Node;
use super::conduct::Done;
use super::running::Running;
use super::switch::serve;
use super::verdict::Named;

/// Writes the number into the override file (`keep`) or only remembers it, and starts or ends
/// workers.
pub async fn scale<N: Node>(
    node: &N,
    op: &Running,
    app: &str,
    count: Option<u32>,
    keep: bool,
) -> Result<Done, Diagnostic> {
    let app = node.find_one(app)?;
    let _claim = match app.plugin() {
        Some(plugin) => Some(op.claim(node, plugin).await?),
        None => None,
    };
    let turn = op.unless_cancelled(node.turn()).await?;
    op.commit()?;
    op.step(format!("scaling {app}"));
    match keep {
        true => op.step(node.write_count(&app, count).await?),
        false => node.hold_count(&app, count)?,
    }
    let named = Named::Watchers(std::slice::from_ref(&app));
    Ok(Done::served(serve(node, op, turn, named).await))
}

/// Remembers options of an app until its configuration changes, and replaces its workers by such
/// as run with them.
pub async fn set<N: Node>(
    node: &N,
    op: &Running,
    app: &str,
    options: HeldOptions,
) -> Result<Done, Diagnostic> {
    let app = node.find_one(app)?;
    let _claim = match app.plugin() {
        Some(plugin) => Some(op.claim(node, plugin).await?),
        None => None,
    };
    let turn = op.unless_cancelled(node.turn()).await?;
    op.commit()?;
    op.step(format!("setting {options} of {app}"));
    node.hold_options(&app, options)?;
    let named = Named::Watchers(std::slice::from_ref(&app));
    Ok(Done::served(serve(node, op, turn, named).await))
}
