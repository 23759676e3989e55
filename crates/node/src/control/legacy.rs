//! The wire of the versions before the HTTP API: `POST /v1/ask` with `{"ask":"status"}` or
//! `{"ask":"stop"}`. A command line of such a version can look at and stop a daemon of this one
//! (and so upgrade it), and a command line of this version such a daemon.
//!
//! Answers are JSON; an error is a [`Diagnostic`] as it is, with a status that tells its kind.

use std::path::PathBuf;

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use mfserv_core::{Diagnostic, Kind};
use serde::{Deserialize, Serialize};

use super::answer::{self, Answer};
use super::api::Api;
use super::protocol::JSON;
use super::server::read_body;
use crate::operations::Who;

/// The path.
pub const PATH: &str = "/v1/ask";

/// A request to the daemon.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// The observed node: a [`mfserv_core::status::Status`].
    Status,
    /// Read everything again and apply what changed: an [`crate::operations::Applied`].
    Reload {
        /// Wait at most this long until what changed is served, seconds; 0 = do not wait.
        wait_s: u64,
    },
    /// Replace the workers of these apps, one after the other.
    Restart {
        /// Plugins (`foo`), apps (`foo.main`, `foo/main`) or watchers; empty = every app.
        apps: Vec<String>,
        /// Wait at most this long, seconds; 0 = do not wait.
        wait_s: u64,
    },
    /// Keep this many workers of an app from now on.
    Scale {
        /// The app, as in `Restart`.
        app: String,
        /// How many; `None` = what its configuration says.
        count: Option<u32>,
        /// Wait at most this long, seconds; 0 = do not wait.
        wait_s: u64,
    },
    /// Start the workers of a staged release beside those that serve, and wait until all
    /// are ready. If one fails, nothing has changed.
    Prepare {
        /// The plugin.
        plugin: String,
        /// The staged release.
        dir: PathBuf,
        /// Wait at most this long, seconds.
        wait_s: u64,
    },
    /// Stop everything in order.
    Stop,
}

/// The answer to an [`Ask`].
pub type AskAnswer = Result<serde_json::Value, Diagnostic>;

/// Answers a request of this wire.
pub(super) async fn answer(api: &dyn Api, request: Request<Incoming>, _who: Who) -> Answer {
    let answered = match read(request).await {
        Ok(ask) => api.ask(ask).await,
        Err(problem) => Err(problem),
    };
    match answered {
        Ok(value) => answer::value(StatusCode::OK, &value),
        Err(problem) => {
            let body = serde_json::to_vec(&problem).unwrap_or_default();
            answer::with(status_of(problem.kind), JSON, body)
        }
    }
}

async fn read(request: Request<Incoming>) -> Result<Ask, Diagnostic> {
    let body = read_body(request).await.map_err(|problem| *problem.diagnostic)?;
    serde_json::from_slice(&body).map_err(|e| {
        Diagnostic::error("the request is not understood").kind(Kind::Usage).because(e)
    })
}

fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::Usage => StatusCode::BAD_REQUEST,
        Kind::NotRunning => StatusCode::NOT_FOUND,
        Kind::BadConfiguration => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Refused => StatusCode::CONFLICT,
        Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
