//! What a session asks of its node: what it serves as it is, and its end.

use std::path::PathBuf;

use mfserv_core::Diagnostic;
use mfserv_node::daemon::plan_in_force;
use mfserv_node::places::Places;
use mfserv_plugin::guard::Guard;

use crate::cli::progress::Steps;
use crate::cli::stop;

/// The directories whose files the front serves for a plugin.
pub(super) fn served_dirs(places: &Places, plugin: &str) -> Vec<PathBuf> {
    let routes = plan_in_force(places).map(|plan| plan.table.routes).unwrap_or_default();
    let own = routes.into_iter().filter(|route| route.plugin == plugin);
    let mut dirs: Vec<PathBuf> = own.filter_map(|route| route.target.dir()).collect();
    dirs.dedup();
    dirs
}

/// Stops the node when this session is killed: it runs for this alone.
pub(super) fn stops_node(places: &Places) -> Option<Guard> {
    let program = mfserv_node::program();
    let words =
        [program.as_os_str(), "--home".as_ref(), places.home().as_os_str(), "stop".as_ref()];
    Guard::running(words).ok()
}

/// Stops the node that was started for the session.
pub(super) fn stop_node(places: &Places) -> Result<(), Diagnostic> {
    let mut steps = Steps::new();
    stop::stop(places, false, &mut steps)?;
    steps.finish();
    Ok(())
}
