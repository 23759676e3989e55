//! One GET of a page of this node.

use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use mfserv_core::{Diagnostic, Kind};
use tokio::net::TcpStream;

/// The longest page that is read, bytes.
const LONGEST: usize = 16 * 1024 * 1024;

/// An answer.
pub struct Page {
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Asks `http://ADDRESS` (`HOST:PORT`) for a path, within `patience`. `redirects`: requests in
/// clear may be redirected to TLS; this one asks in the name of a client that has come over it.
pub fn get(
    address: &str,
    path: &str,
    patience: Duration,
    redirects: bool,
) -> Result<Page, Diagnostic> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Diagnostic::error("cannot start").because(e))?;
    let failed = |e: &dyn std::fmt::Display| {
        Diagnostic::error(format!("http://{address}{path} does not answer")).because(e)
    };
    runtime.block_on(async {
        let exchange = async {
            let stream = TcpStream::connect(address).await.map_err(|e| failed(&e))?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream))
                    .await
                    .map_err(|e| failed(&e))?;
            tokio::spawn(connection);
            let request = Request::get(path)
                .header("host", address)
                .header("connection", "close")
                .header("x-forwarded-proto", if redirects { "https" } else { "http" })
                .body(Empty::<Bytes>::new())
                .map_err(|e| failed(&e))?;
            let response = sender.send_request(request).await.map_err(|e| failed(&e))?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), LONGEST).collect().await;
            let body = body.map_err(|e| failed(&e))?.to_bytes();
            Ok(Page { status, body: String::from_utf8_lossy(&body).into_owned() })
        };
        let late = |_| failed(&format!("no answer within {} s", patience.as_secs()));
        tokio::time::timeout(patience, exchange)
            .await
            .map_err(late)?
            .map_err(|p: Diagnostic| p.kind(Kind::Failed))
    })
}
