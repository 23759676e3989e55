//! The wire of the versions before the HTTP API: `POST /v1/ask` with `{"ask":"status"}` or
//! `{"ask":"stop"}`. A command line of such a version can look at and stop a daemon of this one
//! (and so upgrade it), and a command line of this version such a daemon.
//!
//! Answers are JSON; an error is a [`Diagnostic`] as it is, with a status that tells its kind.

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
