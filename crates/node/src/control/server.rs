//! The daemon's side of the control link.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mfserv_core::{Diagnostic, Kind};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::protocol::{Ask, MAX_BODY};

/// At most this many clients at a time.
const MAX_CLIENTS: usize = 64;

/// The answer to an [`Ask`], as JSON.
pub type Answer = Result<serde_json::Value, Diagnostic>;

/// Answers requests.
pub type Answerer = Arc<dyn Fn(Ask) -> Pin<Box<dyn Future<Output = Answer> + Send>> + Send + Sync>;

/// Binds the control socket, which only this user may open.
pub fn bind(path: &Path) -> Result<UnixListener, Diagnostic> {
    use std::os::unix::fs::PermissionsExt;
    let failed = |e: std::io::Error| {
        Diagnostic::error(format!("cannot listen on {}", path.display())).because(e)
    };
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}

/// Serves until the daemon ends.
pub async fn serve(listener: UnixListener, answerer: Answerer) {
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            continue;
        };
        let answerer = answerer.clone();
        tokio::spawn(async move {
            let answer = service_fn(move |request| respond(request, answerer.clone()));
            let connection = hyper::server::conn::http1::Builder::new();
            let _ = connection.serve_connection(TokioIo::new(stream), answer).await;
            drop(place);
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    answerer: Answerer,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let answer = match read(request).await {
        Ok(ask) => answerer(ask).await,
        Err(problem) => Err(problem),
    };
    let (status, body) = match &answer {
        Ok(value) => (StatusCode::OK, serde_json::to_vec(value)),
        Err(problem) => (status_of(problem.kind), serde_json::to_vec(problem)),
    };
    let body = Full::new(Bytes::from(body.unwrap_or_default()));
    let mut response = Response::new(body);
    *response.status_mut() = status;
    Ok(response)
}

async fn read(request: Request<Incoming>) -> Result<Ask, Diagnostic> {
    let bad = |e: &dyn std::fmt::Display| {
        Diagnostic::error("the request is not understood").kind(Kind::Usage).because(e)
    };
    let body = Limited::new(request.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|e| bad(&e))?.to_bytes();
    serde_json::from_slice(&body).map_err(|e| bad(&e))
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
