//! Which function carries out which request.

use mfserv_core::Diagnostic;
use mfserv_plugin::store::{Claim, Installed};

use super::running::Running;
use super::switch::Served;
use super::{Applied, FinishedBy, Node, Outcome, Request, Staging};
use super::{deploy, env, link, maintenance, reload, restart, rollback, scale, stop, uninstall};
use crate::maintenance::Wanted;

/// What an operation did. It may have a problem and have changed something all the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Done {
    /// What is installed now; of an uninstallation, what was.
    pub plugin: Option<Installed>,
    /// What is doubtful.
    pub warnings: Vec<Diagnostic>,
    /// What the node did.
    pub applied: Option<Applied>,
    /// What did not go well after the commit.
    pub problem: Option<Diagnostic>,
}

impl Done {
    /// The plugin is current, and this came of serving it.
    pub fn of(claim: &Claim, served: Served) -> Done {
        let plugin = claim.current().ok();
        Done { plugin, ..Done::served(served) }
    }

    /// This came of serving what was applied.
    pub fn served(Served { applied, problem, warnings }: Served) -> Done {
        Done { applied, problem, warnings, ..Done::default() }
    }

    /// There are more warnings; what is known already is not repeated.
    pub fn warn(mut self, more: Vec<Diagnostic>) -> Done {
        for warning in more {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        self
    }
}

/// Carries out an operation. An error means that nothing has changed.
pub async fn conduct<N: Node>(node: &N, op: &Running) -> Result<Done, Diagnostic> {
    let done = carry_out(node, op).await?;
    let changes_tables = match &op.submission().request {
        Request::Restart { .. } | Request::Scale { .. } | Request::Set { .. } | Request::Stop => {
            false
        }
        _ => done.applied.is_some(),
    };
    match changes_tables {
        true => Ok(done.warn(node.left_out_by_fronts().await)),
        false => Ok(done),
    }
}

async fn carry_out<N: Node>(node: &N, op: &Running) -> Result<Done, Diagnostic> {
    match op.submission().request.clone() {
        Request::Deploy { plugin, release, .. } => deploy::deploy(node, op, &plugin, release).await,
        Request::DeployPackage { file, new_name, clean, replace, take_route } => {
            let package = Staging::Package { file, new_name, clean, replace, take_route };
            deploy::deploy_package(node, op, package).await
        }
        Request::Rollback { plugin, release, checked, .. } => {
            rollback::rollback(node, op, &plugin, release, checked).await
        }
        Request::Uninstall { plugin, clean } => {
            uninstall::uninstall(node, op, &plugin, clean).await
        }
        Request::Link { plugin, dir, .. } => link::link(node, op, &plugin, &dir).await,
        Request::Env { plugin, .. } => env::change(node, op, &plugin).await,
        Request::Reload => reload::reload(node, op).await,
        Request::Restart { apps } => restart::restart(node, op, &apps).await,
        Request::Scale { app, count, keep } => scale::scale(node, op, &app, count, keep).await,
        Request::Set { app, options } => scale::set(node, op, &app, options).await,
        Request::Maintenance { app, on, hold, page } => {
            let wanted = if on { Wanted::On { hold, page } } else { Wanted::Off };
            maintenance::change(node, op, app.as_deref(), wanted).await
        }
        Request::Stop => stop::stop(node, op).await,
    }
}

/// How it ended, for those who follow.
pub fn outcome(done: Result<Done, Diagnostic>, finished_by: FinishedBy) -> Outcome {
    let done = done.unwrap_or_else(|problem| Done { problem: Some(problem), ..Done::default() });
    Outcome {
        ok: done.problem.is_none(),
        plugin: done.plugin,
        warnings: done.warnings,
        applied: done.applied,
        problem: done.problem,
        finished_by,
    }
}
