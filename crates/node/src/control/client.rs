//! The client's side of the control API.
//!
//! [`Connection`] is one connection to a daemon, for any version of it. The functions are what
//! a program without a runtime of its own calls: each connects, asks, and waits.

mod connection;
mod follow;

use std::future::Future;
use std::path::Path;
use std::time::Duration;

use mfserv_core::job::{JobStatus, Run};
use mfserv_core::plan::preview::PlanPreview;
use mfserv_core::status::Status;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::Cancel;
use serde_json::{Map, Value};

pub use connection::Connection;
pub use follow::{Follow, follow};

use super::protocol::Version;
use crate::daemon::History;
use crate::operations::{OperationId, Record, Submission};

/// The observed node; of a daemon of another version as much of it as this one understands.
pub fn status(socket: &Path, patience: Duration) -> Result<Status, Diagnostic> {
    within(patience, async {
        let mut connection = Connection::open(socket, Version::own()).await?;
        connection.status().await
    })
}

/// Stops the node, whatever the version of its daemon; returns when it has stopped.
/// [`Kind::NotRunning`] if it does not run, or ended while it was followed.
pub fn stop(socket: &Path, command: &str, patience: Duration) -> Result<(), Diagnostic> {
    within(patience, async {
        let connection = Connection::open(socket, Version::own()).await?;
        connection.stop(command).await
    })
}

/// Submits an operation; returns its id at once. See [`follow()`].
pub fn submit(
    socket: &Path,
    submission: &Submission,
    patience: Duration,
) -> Result<OperationId, Diagnostic> {
    within(patience, async {
        let mut connection = Connection::open(socket, Version::own()).await?;
        connection.submit(submission).await
    })
}

/// The latest operations, the newest first.
pub fn recent(socket: &Path, limit: usize, patience: Duration) -> Result<Vec<Record>, Diagnostic> {
    within(patience, async {
        let mut connection = Connection::open(socket, Version::own()).await?;
        connection.recent(limit).await
    })
}

/// What a reload would do.
pub fn preview(socket: &Path, patience: Duration) -> Result<PlanPreview, Diagnostic> {
    within(patience, async { Connection::open(socket, Version::own()).await?.preview().await })
}

/// All jobs.
pub fn jobs(socket: &Path, patience: Duration) -> Result<Vec<JobStatus>, Diagnostic> {
    within(patience, async { Connection::open(socket, Version::own()).await?.jobs().await })
}

/// A job with its last runs.
pub fn job(socket: &Path, name: &str, patience: Duration) -> Result<History, Diagnostic> {
    within(patience, async { Connection::open(socket, Version::own()).await?.job(name).await })
}

/// Starts a run of a job; returns when it is written down.
pub fn run_job(socket: &Path, name: &str, patience: Duration) -> Result<Run, Diagnostic> {
    within(patience, async { Connection::open(socket, Version::own()).await?.run_job(name).await })
}

/// The answer to a message of Circus.
pub fn circus(
    socket: &Path,
    message: &Value,
    patience: Duration,
) -> Result<Map<String, Value>, Diagnostic> {
    within(patience, async {
        Connection::open(socket, Version::own()).await?.circus(message).await
    })
}

/// Refuses a daemon of another version, before work begins that it would refuse. No daemon at
/// all is fine.
pub fn check_version(socket: &Path, patience: Duration) -> Result<(), Diagnostic> {
    let checked = within(patience, async {
        Connection::open(socket, Version::own()).await?.refuse_another_version()
    });
    match checked {
        Err(problem) if problem.kind == Kind::NotRunning => Ok(()),
        checked => checked,
    }
}

/// Runs the future to its end, or until the patience ends.
fn within<T>(
    patience: Duration,
    work: impl Future<Output = Result<T, Diagnostic>>,
) -> Result<T, Diagnostic> {
    block_on(async {
        tokio::time::timeout(patience, work).await.unwrap_or_else(|_| Err(late(patience)))
    })
}

fn block_on<T>(work: impl Future<Output = Result<T, Diagnostic>>) -> Result<T, Diagnostic> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Diagnostic::error("cannot start").because(e))?;
    runtime.block_on(work)
}

fn late(patience: Duration) -> Diagnostic {
    Diagnostic::error("the daemon does not answer in time")
        .kind(Kind::Timeout)
        .because(format!("no answer within {} s", patience.as_secs()))
        .help("`mfserv events` shows what it is doing")
}

/// How often it is looked whether the user has pressed Ctrl-C: a signal handler sets a flag.
const CANCEL_LOOK: Duration = Duration::from_millis(20);

async fn cancelled(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(CANCEL_LOOK).await;
    }
}

/// Why a request is refused between versions: `status`, `stop` and `upgrade` are all that works.
/// `None` is a version from before the HTTP API.
pub(super) fn other_version(command: Option<&Version>, daemon: Option<&Version>) -> Diagnostic {
    let name = |version: Option<&Version>| match version {
        Some(version) => format!("version {version}"),
        None => "a version from before the control API".into(),
    };
    Diagnostic::error("the daemon is of another version than this command")
        .kind(Kind::Refused)
        .because(format!("the command has {}, the daemon {}", name(command), name(daemon)))
        .help("run `mfserv upgrade`: it brings the node to the version of the command")
}
