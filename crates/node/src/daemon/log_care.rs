//! Rotated log files: compressed, and removed when all logs together are too large, as the plan
//! in force says. A thread of its own does it, since compressing takes a while; a daemon that
//! is killed meanwhile leaves every line where it was.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::output::LogCare;
use mfserv_core::plan::Plan;
use mfserv_logfile::Cared;
use tokio::sync::watch;

use super::node::Node;

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(60);
/// The most files that an event names.
const MOST_NAMED: usize = 10;

/// Looks after the logs for as long as the daemon lives. `plans` has the plan in force.
pub async fn run(node: Node, mut plans: watch::Receiver<Option<Arc<Plan>>>) {
    let mut complained = String::new();
    loop {
        let wanted = plans.borrow_and_update().as_ref().map(|plan| plan.log_care);
        let wanted = wanted.unwrap_or_default();
        let is_idle = wanted == LogCare::default();
        if !is_idle {
            let directory = node.parts.options.places.log();
            let care = move || mfserv_logfile::care(&directory, wanted);
            if let Ok(Ok(done)) = tokio::task::spawn_blocking(care).await {
                report(&node, &done, &mut complained);
            }
        }
        tokio::select! {
            changed = plans.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(EVERY), if !is_idle => {}
        }
    }
}

/// Records what was removed, and the first trouble, unless it is the same as last time.
fn report(node: &Node, done: &Cared, complained: &mut String) {
    if !done.removed.is_empty() {
        let named = done.removed.iter().take(MOST_NAMED).map(|(path, _)| name(path));
        node.parts.events.record(Fact::LogsRemoved {
            files: named.collect(),
            more: done.removed.len().saturating_sub(MOST_NAMED) as u32,
            bytes: done.removed.iter().map(|(_, bytes)| bytes).sum(),
        });
    }
    let trouble = done.troubles.first();
    let text = trouble.map_or_else(String::new, |(path, error)| {
        format!("the log {} can be neither compressed nor removed: {error}", name(path))
    });
    if text != *complained && !text.is_empty() {
        node.parts.events.record(Fact::Note { text: text.clone() });
    }
    *complained = text;
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
