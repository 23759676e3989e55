//! Errors as `application/problem+json` (RFC 9457).
//!
//! A [`Diagnostic`] becomes a problem whose `detail` is the diagnostic's `what`; its other
//! fields (`kind`, `because`, `help`, `at`, …) are extension members. Reading a problem gives
//! the diagnostic again, so that the command line prints what the daemon has found.

use hyper::StatusCode;
use mfserv_core::{Diagnostic, Kind};
use serde_json::{Map, Value, json};

/// An error as the API answers it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The HTTP status.
    pub status: StatusCode,
    /// `type`: which problem it is.
    pub uri: &'static str,
    /// `title`: the type in words; the same for each problem of a type.
    pub title: &'static str,
    /// What, why, where, and what to do.
    pub diagnostic: Box<Diagnostic>,
}

/// The type of the problem "client and daemon have different versions".
pub const VERSION_MISMATCH: &str = "urn:mfserv:problem:version-mismatch";

impl Problem {
    /// A problem that HTTP itself has a status for: `type` is `about:blank`, and `title` is the
    /// phrase of the status, as RFC 9457 (4.2.1) asks.
    pub fn http(status: StatusCode, diagnostic: Diagnostic) -> Problem {
        let title = status.canonical_reason().unwrap_or("Error");
        Problem { status, uri: "about:blank", title, diagnostic: Box::new(diagnostic) }
    }

    /// The client has another version than the daemon, and asks for more than the operations
    /// that work between versions.
    pub fn version_mismatch(diagnostic: Diagnostic) -> Problem {
        Problem {
            status: StatusCode::CONFLICT,
            uri: VERSION_MISMATCH,
            title: "Client and daemon have different versions",
            diagnostic: Box::new(diagnostic),
        }
    }

    /// The body.
    pub fn to_json(&self) -> Value {
        let mut members = match serde_json::to_value(&*self.diagnostic) {
            Ok(Value::Object(members)) => members,
            Ok(_) | Err(_) => Map::new(),
        };
        members.remove("what");
        members.insert("type".into(), json!(self.uri));
        members.insert("title".into(), json!(self.title));
        members.insert("status".into(), json!(self.status.as_u16()));
        members.insert("detail".into(), json!(self.diagnostic.what));
        Value::Object(members)
    }
}

impl From<Diagnostic> for Problem {
    /// The type follows from the diagnostic's kind.
    fn from(diagnostic: Diagnostic) -> Problem {
        let (status, uri, title) = match diagnostic.kind {
            Kind::Failed => (500, "urn:mfserv:problem:failed", "The operation failed"),
            Kind::Usage => (400, "urn:mfserv:problem:usage", "The request is wrong"),
            Kind::NotRunning => {
                (503, "urn:mfserv:problem:not-running", "What is needed does not run")
            }
            Kind::BadConfiguration => {
                (422, "urn:mfserv:problem:bad-configuration", "A configuration is wrong")
            }
            Kind::Refused => (409, "urn:mfserv:problem:refused", "The request is refused"),
            Kind::Timeout => (504, "urn:mfserv:problem:timeout", "The operation took too long"),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Problem { status, uri, title, diagnostic: Box::new(diagnostic) }
    }
}

/// The diagnostic in the body of an error; `None` if the body is no problem. A member that is
/// missing or not understood is left out: problems of other versions can be read too.
pub fn read(body: &[u8]) -> Option<Diagnostic> {
    let mut members: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let detail = members.remove("detail").or_else(|| members.remove("title"))?;
    members.insert("what".into(), detail);
    members.entry("severity").or_insert(json!("error"));
    members.entry("kind").or_insert(json!("failed"));
    let whole = serde_json::from_value(Value::Object(members.clone()));
    whole.ok().or_else(|| {
        let what = members.get("what")?.as_str()?.to_string();
        let text = |name: &str| members.get(name).and_then(Value::as_str).map(str::to_owned);
        let kind = members.get("kind").and_then(|kind| serde_json::from_value(kind.clone()).ok());
        let diagnostic = Diagnostic::error(what).kind(kind.unwrap_or(Kind::Failed));
        Some(match text("help") {
            Some(help) => diagnostic.help(help),
            None => diagnostic,
        })
    })
}

#[cfg(test)]
mod tests {
    use mfserv_core::Location;

    use super::*;

    #[test]
    fn a_diagnostic_survives_its_way_through_a_problem() {
        let kinds = [
            (Kind::Failed, 500),
            (Kind::Usage, 400),
            (Kind::NotRunning, 503),
            (Kind::BadConfiguration, 422),
            (Kind::Refused, 409),
            (Kind::Timeout, 504),
        ];
        for (kind, status) in kinds {
            let diagnostic = Diagnostic::error("plugin foo is refused")
                .kind(kind)
                .because("unknown key")
                .at(Location::new("config.ini", 12))
                .help("remove it");
            let problem = Problem::from(diagnostic.clone());
            assert_eq!(problem.status.as_u16(), status);
            let json = problem.to_json();
            assert_eq!(json["status"], status);
            assert_eq!(json["detail"], "plugin foo is refused");
            assert_eq!(json["because"][0], "unknown key");
            assert_eq!(json["at"]["line"], 12);
            assert!(json.get("what").is_none(), "one member says what is wrong: {json}");
            assert_eq!(read(json.to_string().as_bytes()), Some(diagnostic));
        }
    }

    #[test]
    fn a_problem_with_members_that_this_version_does_not_know_is_read_as_far_as_it_goes() {
        let body = json!({
            "type": "urn:mfserv:problem:new", "title": "t", "status": 418, "detail": "too new",
            "kind": "a_kind_of_the_future", "help": "mfserv upgrade", "because": {"not": "a list"},
        });
        let read = read(body.to_string().as_bytes()).unwrap();
        assert_eq!(read, Diagnostic::error("too new").help("mfserv upgrade"));
    }

    #[test]
    fn what_is_no_problem_is_not_read_as_one() {
        for body in ["", "null", "[]", "{}", "<html>", "{\"detail\": 3}"] {
            assert_eq!(read(body.as_bytes()), None, "{body}");
        }
    }
}
