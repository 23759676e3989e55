//! The wire of the versions before the HTTP API: `POST /v1/ask` with `{"ask":"status"}` or
//! `{"ask":"stop"}`. A command line of such a version can look at and stop a daemon of this one
//! (and so upgrade it), and a command line of this version such a daemon.
//!
//! Answers are JSON; an error is a [`Diagnostic`] as it is, with a status that tells its kind.

use hyper::body::Incoming;
use hyper::{Request, StatusCode};
use mfserv_core::{Diagnostic, Kind};
use serde::Serialize;
use serde_json::Value;

use super::answer::{self, Answer};
use super::api::Api;
use super::client::other_version;
use super::protocol::{JSON, Version};
use super::request::read_body;
use crate::operations::{self, Applied, Event, Submission, Who};

/// The path.
pub const PATH: &str = "/v1/ask";

/// Answers a request of this wire.
pub(super) async fn answer(
    api: &dyn Api,
    request: Request<Incoming>,
    own: &Version,
    who: Who,
) -> Answer {
    match dispatch(api, request, own, who).await {
        Ok(value) => answer::value(StatusCode::OK, &value),
        Err(problem) => {
            let body = serde_json::to_vec(&problem).unwrap_or_default();
            answer::with(status_of(problem.kind), JSON, body)
        }
    }
}

async fn dispatch(
    api: &dyn Api,
    request: Request<Incoming>,
    own: &Version,
    who: Who,
) -> Result<Value, Diagnostic> {
    let body = read_body(request).await.map_err(|problem| *problem.diagnostic)?;
    let wrong = || Diagnostic::error("the request is not understood").kind(Kind::Usage);
    let body: Value = serde_json::from_slice(&body).map_err(|e| wrong().because(e))?;
    match body["ask"].as_str().ok_or_else(wrong)? {
        "status" => to_value(&api.status().await),
        "stop" => stop(api, who).await,
        _ => Err(other_version(None, Some(own))),
    }
}

/// Returns when the node has stopped: with what an operation that changed nothing answers.
async fn stop(api: &dyn Api, who: Who) -> Result<Value, Diagnostic> {
    let stop = Submission { id: None, request: operations::Request::Stop, who, patience_s: 0 };
    let id = api.submit(stop).await?;
    let mut events = api.follow(&id).await?;
    while let Some(event) = events.recv().await {
        if let Event::Outcome(outcome) = event {
            return match outcome.problem {
                Some(problem) => Err(problem),
                None => to_value(&Applied::default()),
            };
        }
    }
    Err(Diagnostic::error("the operation has no outcome"))
}

fn to_value<T: Serialize>(value: &T) -> Result<Value, Diagnostic> {
    serde_json::to_value(value).map_err(|e| Diagnostic::error("cannot answer").because(e))
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
