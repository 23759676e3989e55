//! The command line's side of the control link.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::Cancel;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::protocol::{Ask, MAX_BODY};

/// Asks the daemon that listens on `socket`, and waits for its answer, at most `patience`.
/// [`Kind::NotRunning`] when there is none.
pub fn ask<T: DeserializeOwned>(
    socket: &Path,
    ask: &Ask,
    patience: Duration,
) -> Result<T, Diagnostic> {
    ask_unless(socket, ask, patience, &Cancel::default())
}

/// [`fn@ask`], unless the user has enough of waiting: then the daemon sees that nobody waits.
pub fn ask_unless<T: DeserializeOwned>(
    socket: &Path,
    ask: &Ask,
    patience: Duration,
    cancel: &Cancel,
) -> Result<T, Diagnostic> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Diagnostic::error("cannot start").because(e))?;
    runtime.block_on(async {
        let late = |_| {
            Diagnostic::error("the daemon does not answer in time")
                .kind(Kind::Timeout)
                .because(format!("no answer within {} s", patience.as_secs()))
                .help("`mfserv events` shows what it is doing")
        };
        tokio::select! {
            answer = tokio::time::timeout(patience, exchange(socket, ask)) => {
                answer.map_err(late)?
            }
            () = cancelled(cancel) => Err(Diagnostic::error("interrupted")),
        }
    })
}

async fn cancelled(cancel: &Cancel) {
    while !cancel.is_cancelled() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn exchange<T: DeserializeOwned>(socket: &Path, ask: &Ask) -> Result<T, Diagnostic> {
    let stream = UnixStream::connect(socket).await.map_err(|e| not_running(socket, &e))?;
    let broke = |e: &dyn std::fmt::Display| {
        Diagnostic::error("the daemon went away before it answered")
            .because(e)
            .help("it is restarted by itself; try again")
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| broke(&e))?;
    let connection = tokio::spawn(connection);
    let body = serde_json::to_vec(ask).unwrap_or_default();
    let request = Request::post("/v1/ask")
        .header("host", "mfserv")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| broke(&e))?;
    let response = sender.send_request(request).await.map_err(|e| broke(&e))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    let body = body.map_err(|e| broke(&e))?.to_bytes();
    connection.abort();
    let unreadable = |e: serde_json::Error| {
        Diagnostic::error("the daemon's answer is not understood")
            .because(e)
            .help("the daemon may be of another version: `mfserv upgrade`")
    };
    match status {
        StatusCode::OK => serde_json::from_slice(&body).map_err(unreadable),
        _ => Err(serde_json::from_slice(&body).map_err(unreadable)?),
    }
}

fn not_running(socket: &Path, error: &std::io::Error) -> Diagnostic {
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return Diagnostic::error("the node cannot be asked")
            .kind(Kind::Refused)
            .because(format!("{}: {error}", socket.display()))
            .help("ask as the user that started it");
    }
    Diagnostic::error("the node is not running")
        .kind(Kind::NotRunning)
        .because(format!("{}: {error}", socket.display()))
        .help("start it with `mfserv start`")
}
