//! Answers: their headers and bodies.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body, Bytes, Frame, SizeHint};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION};
use hyper::{Response, StatusCode};
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::problem::Problem;
use super::protocol::{JSON, NDJSON, PROBLEM, PROTOCOL_HEADER, VERSION_HEADER, Version};
use crate::operations::{Event, OperationId};

/// An answer.
pub type Answer = Response<AnswerBody>;

/// The body of an answer.
pub enum AnswerBody {
    /// Bytes that are there.
    Whole(Option<Bytes>),
    /// The events of an operation, each as a line, until the outcome. The permit is one of the
    /// places for streams.
    Events(mpsc::Receiver<Event>, #[allow(dead_code, reason = "held")] OwnedSemaphorePermit),
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            AnswerBody::Whole(bytes) => Poll::Ready(bytes.take().map(|b| Ok(Frame::data(b)))),
            AnswerBody::Events(events, _) => {
                let event = std::task::ready!(events.poll_recv(context));
                Poll::Ready(event.map(|event| Ok(Frame::data(line(&event)))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, AnswerBody::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            AnswerBody::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            AnswerBody::Events(..) => SizeHint::default(),
        }
    }
}

fn line(event: &Event) -> Bytes {
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line.into()
}

/// An answer that holds a value.
pub fn value<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    match serde_json::to_vec(value) {
        Ok(bytes) => with(status, JSON, bytes),
        Err(error) => {
            let problem = mfserv_core::Diagnostic::error("the answer cannot be written");
            self::problem(&problem.because(error).into())
        }
    }
}

/// 201: the operation is accepted.
pub fn accepted(id: &OperationId) -> Answer {
    let accepted = super::protocol::Accepted { id: id.clone() };
    let mut answer = value(StatusCode::CREATED, &accepted);
    header(&mut answer, LOCATION, &format!("/v1/operations/{id}"));
    answer
}

/// The events of an operation.
pub fn events(events: mpsc::Receiver<Event>, place: OwnedSemaphorePermit) -> Answer {
    let mut answer = Response::new(AnswerBody::Events(events, place));
    header(&mut answer, CONTENT_TYPE, NDJSON);
    answer
}

/// An error.
pub fn problem(problem: &Problem) -> Answer {
    let body = problem.to_json().to_string().into_bytes();
    with(problem.status, PROBLEM, body)
}

/// 405, with the methods that there are.
pub fn method_not_allowed(allow: &str) -> Answer {
    let diagnostic = mfserv_core::Diagnostic::error("the resource does not have this method")
        .kind(mfserv_core::Kind::Usage)
        .help(format!("it has {allow}"));
    let mut answer = problem(&Problem::http(StatusCode::METHOD_NOT_ALLOWED, diagnostic));
    header(&mut answer, ALLOW, allow);
    answer
}

/// An answer with a body of this type.
pub fn with(status: StatusCode, media_type: &str, body: Vec<u8>) -> Answer {
    let mut answer = Response::new(AnswerBody::Whole(Some(body.into())));
    *answer.status_mut() = status;
    header(&mut answer, CONTENT_TYPE, media_type);
    answer
}

/// What every answer states: the version of the daemon, and that no cache may keep it.
pub fn sign(answer: &mut Answer, version: &Version) {
    header(answer, HeaderName::from_static(VERSION_HEADER), &version.version);
    header(answer, HeaderName::from_static(PROTOCOL_HEADER), &version.protocol.to_string());
    header(answer, CACHE_CONTROL, "no-store");
}

fn header(answer: &mut Answer, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
}
