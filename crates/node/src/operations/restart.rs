//! Workers are replaced, one after the other.

use std::collections::BTreeSet;

use mfserv_core::Diagnostic;
use mfserv_core::diff::Changes;
use mfserv_core::names::WatcherName;

use super::Node;
use super::conduct::Done;
use super::running::Running;
use super::verdict::{Before, Named};

/// The roles that are workers: their names among the apps.
const ROLES: [&str; 3] = ["front", "telemetry", "telegraf"];

/// Reads the configuration as a reload does, so that new workers get the environment of today, then
/// replaces the workers of some apps; without names, those of all, then the roles. With a
/// configuration that is refused, they are replaced by workers of the one in force.
pub async fn restart<N: Node>(node: &N, op: &Running, apps: &[String]) -> Result<Done, Diagnostic> {
    let found = node.find(apps)?;
    let plugins: BTreeSet<&str> = found.iter().filter_map(WatcherName::plugin).collect();
    let mut claims = Vec::new();
    for plugin in plugins.iter().filter(|_| !apps.is_empty()) {
        claims.push(op.claim(node, plugin).await?);
    }
    let turn = op.unless_cancelled(node.turn()).await?;
    op.commit()?;
    if !apps.is_empty() {
        // Who names an app wants it to run, as with systemctl.
        node.start_stopped(&found)?;
    }
    let named = if apps.is_empty() { Named::Nothing } else { Named::Watchers(&found) };
    let before = Before::look(node, named).await;
    let (mut changes, problem) = match plugins.is_empty() {
        true => (Changes::default(), None),
        false => match node.apply(&turn).await {
            Ok(changes) => (changes, None),
            Err(problem) => (Changes::default(), Some(problem)),
        },
    };
    let mut replaced = still_to_do(node, op, found).await;
    replaced.retain(|name| !changes.stop.contains(name));
    node.restart(replaced.clone());
    drop(turn);
    let touched = [&replaced[..], &changes.touched()].concat();
    let mut warnings = until_replaced(node, op, &before, touched).await?;
    if apps.is_empty() {
        // A node may have none of them ([nginx] flag=0).
        let roles = ROLES.iter().filter_map(|role| node.find(&[role.to_string()]).ok());
        let roles = still_to_do(node, op, roles.flatten().collect()).await;
        node.restart(roles.clone());
        warnings.extend(until_replaced(node, op, &before, roles.clone()).await?);
        replaced.extend(roles);
    }
    replaced.retain(|name| !changes.start.contains(name) && !changes.replace.contains(name));
    changes.replace.extend(replaced);
    Ok(Done { applied: node.applied(&changes), problem, warnings, ..Done::default() })
}

/// All of them; of a restart that an earlier daemon has begun, those that have older workers.
async fn still_to_do<N: Node>(
    node: &N,
    op: &Running,
    watchers: Vec<WatcherName>,
) -> Vec<WatcherName> {
    match op.is_resumed() {
        true => node.older(watchers, op.began_ms()).await,
        false => watchers,
    }
}

async fn until_replaced<N: Node>(
    node: &N,
    op: &Running,
    before: &Before,
    watchers: Vec<WatcherName>,
) -> Result<Vec<Diagnostic>, Diagnostic> {
    if op.patience().is_zero() || watchers.is_empty() {
        return Ok(Vec::new());
    }
    op.step("replacing workers, one after the other");
    before.settle(node, op, "workers replaced", watchers).await
}
