//! What a request must have: `Accept`, `Content-Type`, a body of bounded size, a valid query.

use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use hyper::{Request, StatusCode};
use mfserv_core::{Diagnostic, Kind};

use super::problem::Problem;
use super::protocol::{DEFAULT_LIMIT, JSON, MAX_LIMIT, MAX_REQUEST_BODY};

/// A client has this long for the body of a request.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// 406 unless the client accepts this media type. Without `Accept` everything is accepted.
pub(super) fn check_accept(headers: &HeaderMap, offered: &str) -> Result<(), Problem> {
    let mut ranges = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let Some(first) = ranges.next() else { return Ok(()) };
    let ranges = std::iter::once(first).chain(ranges).flat_map(|value| value.split(','));
    let accepts = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let refused = parts
            .any(|part| part.strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()) == Some(0.0));
        let matches =
            name.eq_ignore_ascii_case(offered) || ["*/*", "application/*"].contains(&name);
        matches && !refused
    };
    if ranges.into_iter().any(accepts) {
        return Ok(());
    }
    let diagnostic = Diagnostic::error("the client does not accept the type of the answer")
        .kind(Kind::Usage)
        .help(format!("send Accept: {offered}, or no Accept"));
    Err(Problem::http(StatusCode::NOT_ACCEPTABLE, diagnostic))
}

/// 415 unless the body is JSON.
pub(super) fn check_content_type(headers: &HeaderMap) -> Result<(), Problem> {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let name = value.split(';').next().unwrap_or_default().trim();
    if name.eq_ignore_ascii_case(JSON) {
        return Ok(());
    }
    let diagnostic = Diagnostic::error("the body has a type that is not read here")
        .kind(Kind::Usage)
        .because(format!("Content-Type is {value:?}"))
        .help(format!("send Content-Type: {JSON}"));
    Err(Problem::http(StatusCode::UNSUPPORTED_MEDIA_TYPE, diagnostic))
}

/// The body of a request: of bounded size, within bounded time.
pub(super) async fn read_body(request: Request<Incoming>) -> Result<Bytes, Problem> {
    let too_large = || {
        let diagnostic = Diagnostic::error("the body is too large")
            .kind(Kind::Usage)
            .because(format!("at most {MAX_REQUEST_BODY} bytes are read"));
        Problem::http(StatusCode::PAYLOAD_TOO_LARGE, diagnostic)
    };
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    if announced > MAX_REQUEST_BODY {
        return Err(too_large());
    }
    let body = Limited::new(request.into_body(), MAX_REQUEST_BODY).collect();
    let slow = || {
        let diagnostic = Diagnostic::error("the body did not arrive in time").kind(Kind::Timeout);
        Problem::http(StatusCode::REQUEST_TIMEOUT, diagnostic)
    };
    match tokio::time::timeout(BODY_TIMEOUT, body).await.map_err(|_| slow())? {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(error) => {
            let diagnostic = Diagnostic::error("the body cannot be read").kind(Kind::Usage);
            Err(diagnostic.because(error).into())
        }
    }
}

/// `limit` of a query; other parameters are ignored.
pub(super) fn limit_of(query: &str) -> Result<usize, Problem> {
    let limit = query.split('&').find_map(|pair| pair.strip_prefix("limit="));
    let Some(text) = limit else { return Ok(DEFAULT_LIMIT) };
    text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| {
        let diagnostic = Diagnostic::error(format!("{text:?} is no limit"))
            .kind(Kind::Usage)
            .help(format!("a limit is a number from 1 to {MAX_LIMIT}"));
        diagnostic.into()
    })
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn accept_is_obeyed_as_http_says() {
        for (accept, ok) in [
            (None, true),
            (Some("*/*"), true),
            (Some("application/*"), true),
            (Some("application/json"), true),
            (Some("text/html, application/json;q=0.5"), true),
            (Some("text/html"), false),
            (Some("application/json;q=0"), false),
            (Some(""), false),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(check_accept(&headers, JSON).is_ok(), ok, "{accept:?}");
        }
    }

    #[test]
    fn a_limit_is_a_number_in_its_range() {
        for (query, limit) in [
            ("", Some(DEFAULT_LIMIT)),
            ("x=1", Some(DEFAULT_LIMIT)),
            ("limit=1", Some(1)),
            ("x=1&limit=1000", Some(1000)),
            ("limit=0", None),
            ("limit=1001", None),
            ("limit=", None),
            ("limit=many", None),
        ] {
            assert_eq!(limit_of(query).ok(), limit, "{query}");
        }
    }
}
