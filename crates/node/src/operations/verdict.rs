//! What an operation answers for: what it was asked to do, and what it has made worse. An app that
//! was down before, and that nobody has named, fails by itself.

use std::collections::BTreeSet;

use mfserv_core::names::WatcherName;
use mfserv_core::{Diagnostic, Severity};
use mfserv_supervisor::Until;
use tokio::task::JoinSet;

use super::Node;
use super::running::Running;

/// What somebody has named who asked for an operation.
#[derive(Debug, Clone, Copy)]
pub enum Named<'a> {
    /// Nothing: the operation is about the whole node.
    Nothing,
    /// A plugin.
    Plugin(&'a str),
    /// Apps, extra daemons, roles.
    Watchers(&'a [WatcherName]),
}

impl Named<'_> {
    fn has(self, watcher: &WatcherName) -> bool {
        match self {
            Named::Nothing => false,
            Named::Plugin(plugin) => watcher.plugin() == Some(plugin),
            Named::Watchers(watchers) => watchers.contains(watcher),
        }
    }
}

/// How a node was before an operation changed it.
pub struct Before {
    /// Down, and not named.
    down: BTreeSet<WatcherName>,
}

impl Before {
    /// As the node is now. Roles are never excused: each operation needs them.
    pub async fn look<N: Node>(node: &N, named: Named<'_>) -> Before {
        let down = node.down().await.into_iter();
        let excused = |one: &WatcherName| one.plugin().is_some() && !named.has(one);
        Before { down: down.filter(excused).collect() }
    }

    /// Waits until watchers serve. An error is what the operation has not brought about; a warning
    /// is an app that was down before, and still is.
    pub async fn settle<N: Node>(
        &self,
        node: &N,
        op: &Running,
        what: &str,
        watchers: Vec<WatcherName>,
    ) -> Result<Vec<Diagnostic>, Diagnostic> {
        let (down, others): (BTreeSet<_>, BTreeSet<_>) =
            watchers.into_iter().partition(|one| self.down.contains(one));
        // All at once: what does not start is no reason to wait longer for the next one.
        let mut tries = JoinSet::new();
        for watcher in down {
            let (node, patience) = (node.clone(), op.patience());
            tries.spawn(async move {
                let tried = node.wait(Until::Settled, vec![watcher.clone()], patience).await;
                tried.err().map(|problem| still_down(&watcher, problem))
            });
        }
        if !others.is_empty() {
            op.wait(node, (Until::Settled, what), others.into_iter().collect()).await?;
        }
        let mut warnings = Vec::new();
        while let Some(tried) = tries.join_next().await {
            warnings.extend(tried.ok().flatten());
        }
        warnings.sort_by(|one, other| one.what.cmp(&other.what));
        Ok(warnings)
    }
}

fn still_down(watcher: &WatcherName, problem: Diagnostic) -> Diagnostic {
    let what = format!("{watcher} was down before, and still is");
    let mut because = problem.because;
    // `app.foo.main does not start` says no more than that.
    if !problem.what.starts_with(watcher.as_str()) {
        because.insert(0, problem.what);
    }
    let help = format!("`mfserv logs {}` shows why", watcher.plugin().unwrap_or(watcher.as_str()));
    Diagnostic { severity: Severity::Warning, what, because, help: Some(help), ..problem }
}
