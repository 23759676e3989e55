//! Rotated log files: compressed, and removed when all logs together are too large, as the plan
//! in force says. A thread of its own does it, since compressing takes a while; a daemon that
//! is killed meanwhile leaves every line where it was.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::event::Fact;
use mfserv_core::output::LogCare;
use mfserv_core::plan::Plan;
use mfserv_logfile::Cared;
use tokio::sync::watch;
use tokio::task::JoinError;

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
            let done = tokio::task::spawn_blocking(care).await;
            report(&node, &done, &mut complained);
        }
        tokio::select! {
            changed = plans.changed() => if changed.is_err() {
                return;
            },
            () = tokio::time::sleep(EVERY), if !is_idle => {}
        }
    }
}

type Done = Result<io::Result<Cared>, JoinError>;

/// Records what was removed, and the first trouble, unless it is the same as last time.
fn report(node: &Node, done: &Done, complained: &mut String) {
    if let Some(done) = removed(done) {
        let named = done.removed.iter().take(MOST_NAMED).map(|(path, _)| name(path));
        node.parts.events.record(Fact::LogsRemoved {
            files: named.collect(),
            more: done.removed.len().saturating_sub(MOST_NAMED) as u32,
            bytes: done.removed.iter().map(|(_, bytes)| bytes).sum(),
        });
    }
    let text = trouble(done);
    if text != *complained && !text.is_empty() {
        node.parts.events.record(Fact::Note { text: text.clone() });
    }
    *complained = text;
}

fn removed(done: &Done) -> Option<&Cared> {
    done.as_ref().ok()?.as_ref().ok().filter(|done| !done.removed.is_empty())
}

/// What went wrong first; empty if nothing did.
fn trouble(done: &Done) -> String {
    let nothing = |why: &dyn Display| {
        format!("rotated logs can be neither compressed nor bounded by max_total_size: {why}")
    };
    match done {
        Ok(Ok(done)) => done.troubles.first().map_or_else(String::new, |(path, error)| {
            format!("the log {} can be neither compressed nor removed: {error}", name(path))
        }),
        Ok(Err(error)) => nothing(error),
        // The daemon ends.
        Err(stopped) if stopped.is_cancelled() => String::new(),
        Err(panicked) => nothing(panicked),
    }
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_that_cannot_be_looked_after_are_said_with_the_reason() {
        let home = tempfile::tempdir().unwrap();
        let wanted = LogCare { compress: true, max_bytes: 1 };
        let care = |directory: &Path| Ok(mfserv_logfile::care(directory, wanted));
        assert_eq!(trouble(&care(home.path())), "");
        let missing = trouble(&care(&home.path().join("log")));
        assert!(
            missing.contains("max_total_size") && missing.contains("No such file"),
            "{missing}"
        );
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let panics = || -> io::Result<Cared> { panic!("on purpose") };
        let panicked = runtime.block_on(async { tokio::task::spawn_blocking(panics).await });
        assert!(trouble(&panicked).contains("on purpose"), "{}", trouble(&panicked));
        std::fs::create_dir(home.path().join("a.log.20260101000000")).unwrap();
        std::fs::write(home.path().join("a.log.20260102000000"), "x").unwrap();
        let one = trouble(&care(home.path()));
        assert!(one.contains("the log a.log.20260101000000"), "{one}");
    }
}
