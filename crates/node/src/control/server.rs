//! The daemon's side of the control API: connections and requests.
//!
//! Everything is bounded: clients, streams, the time of a head and of a body, the size of a
//! body. Only the user that runs the node, and root, may use the socket: its mode is 0600, and
//! the kernel says who each client is (SO_PEERCRED).

use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::{ACCEPT, HeaderMap};
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::socket::PrivateSocket;
use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::answer::{self, Answer};
use super::api::Api;
use super::legacy;
use super::problem::Problem;
use super::protocol::{About, JSON, NDJSON, PROTOCOL_HEADER, VERSION_HEADER, Version};
use super::request::{check_accept, check_content_type, limit_of, read_body};
use super::route::Route;
use crate::operations::{self, OperationId, Submission, Who};

/// At most this many clients at a time; others wait in the backlog of the socket.
const MAX_CLIENTS: usize = 64;
/// At most this many of them follow an operation, so that `status` always finds a place.
const MAX_STREAMS: usize = 32;
/// A client has this long for the head of a request; an idle connection is closed after it too.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest head of a request, bytes.
const MAX_HEAD: usize = 16 * 1024;
/// The pause after a connection could not be accepted (no file descriptor is free).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// So often it is looked whether the socket is still there: a cleaner of old files may remove it.
const LOOK: Duration = Duration::from_secs(2);

/// Binds the control socket, which only this user may open.
pub fn bind(path: &Path) -> Result<PrivateSocket, Diagnostic> {
    PrivateSocket::listen(path)
        .map_err(|e| Diagnostic::error(format!("cannot listen on {}", path.display())).because(e))
}

/// The server. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    closing: watch::Sender<bool>,
    clients: Arc<Semaphore>,
}

/// What each request needs.
struct Shared {
    api: Arc<dyn Api>,
    version: Version,
    streams: Arc<Semaphore>,
}

impl Server {
    /// Serves `api` in a task of its own, as a daemon of this version.
    pub fn start(listener: PrivateSocket, api: Arc<dyn Api>, version: Version) -> Server {
        let (closing, _) = watch::channel(false);
        let server = Server { closing, clients: Arc::new(Semaphore::new(MAX_CLIENTS)) };
        let shared = Shared { api, version, streams: Arc::new(Semaphore::new(MAX_STREAMS)) };
        tokio::spawn(server.clone().accept(listener, Arc::new(shared)));
        server
    }

    /// Accepts nobody any more and waits until every answer that was begun has gone out, at most
    /// `patience`: a client that does not read must not keep the daemon alive.
    pub async fn close(&self, patience: Duration) {
        self.closing.send_replace(true);
        let all = self.clients.acquire_many(MAX_CLIENTS as u32);
        let _ = tokio::time::timeout(patience, all).await;
    }

    async fn accept(self, mut listener: PrivateSocket, shared: Arc<Shared>) {
        let mut closing = self.closing.subscribe();
        loop {
            let next = async {
                let place = self.clients.clone().acquire_owned().await.ok()?;
                Some((place, listener.accept().await))
            };
            let next = tokio::select! {
                next = next => next,
                _ = closing.wait_for(|closing| *closing) => return,
                () = tokio::time::sleep(LOOK) => {
                    listener.look_after();
                    continue;
                }
            };
            match next {
                Some((place, Ok(stream))) => {
                    let client = connection(stream, shared.clone(), closing.clone(), place);
                    tokio::spawn(client);
                }
                Some((_, Err(_))) => tokio::time::sleep(ACCEPT_PAUSE).await,
                None => return,
            }
        }
    }
}

/// Serves one client until it goes, or until the server is closed and the answer in progress
/// has been written.
async fn connection(
    stream: UnixStream,
    shared: Arc<Shared>,
    mut closing: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let Ok(peer) = stream.peer_cred() else { return };
    let peer = Peer { uid: peer.uid(), pid: peer.pid().and_then(|pid| pid.try_into().ok()) };
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move {
            let mut answer = shared.answer(request, peer).await;
            answer::sign(&mut answer, &shared.version);
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(MAX_HEAD);
    let serving = builder.serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        _ = serving.as_mut() => return,
        _ = closing.wait_for(|closing| *closing) => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

/// Who a client is, as the kernel says.
#[derive(Debug, Clone, Copy)]
struct Peer {
    uid: u32,
    pid: Option<u32>,
}

impl Peer {
    /// The user that runs the node, or root.
    fn may_ask(self, owner: u32) -> bool {
        self.uid == owner || self.uid == 0
    }

    fn who(self, command: String) -> Who {
        let user = crate::host::user_name(self.uid).unwrap_or_else(|| self.uid.to_string());
        Who { command, user, uid: self.uid, pid: self.pid.unwrap_or(0) }
    }
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>, peer: Peer) -> Answer {
        if !peer.may_ask(rustix::process::geteuid().as_raw()) {
            return answer::problem(&forbidden(peer));
        }
        let Some(route) = Route::at(request.uri().path()) else {
            return answer::problem(&not_found("there is no such resource"));
        };
        if !route.methods().contains(request.method()) {
            return answer::method_not_allowed(&route.allow());
        }
        if route == Route::Ask {
            // Of the two requests of this wire one is an operation.
            let who = peer.who("mfserv stop".into());
            return legacy::answer(self.api.as_ref(), request, &self.version, who).await;
        }
        match self.dispatch(&route, request, peer).await {
            Ok(answer) => answer,
            Err(problem) => answer::problem(&problem),
        }
    }

    async fn dispatch(
        &self,
        route: &Route,
        request: Request<Incoming>,
        peer: Peer,
    ) -> Result<Answer, Problem> {
        let offered = if matches!(route, Route::Events(_)) { NDJSON } else { JSON };
        if *route == Route::Metrics {
            let accept = request.headers().get(ACCEPT).and_then(|value| value.to_str().ok());
            let found = self.api.metrics(accept.unwrap_or_default().to_owned()).await?;
            return Ok(answer::with(StatusCode::OK, &found.media_type, found.text));
        }
        check_accept(request.headers(), offered)?;
        let other = self.other_version(request.headers());
        match (route, request.method()) {
            (Route::Operations, &Method::POST) => self.submit(request, other, peer).await,
            (Route::About, _) => {
                let about = About { version: self.version.clone(), pid: std::process::id() };
                Ok(answer::value(StatusCode::OK, &about))
            }
            (Route::Status, _) => Ok(answer::value(StatusCode::OK, &self.api.status().await)),
            // Between versions `stop` is followed too.
            (Route::Events(id), _) => self.follow(id).await,
            (Route::Plan | Route::Operations | Route::Operation(_), _)
            | (Route::Jobs | Route::Job(_) | Route::Runs(_) | Route::Circus, _)
                if other.is_some() =>
            {
                Err(self.mismatch(other))
            }
            (Route::Plan, _) => Ok(answer::value(StatusCode::OK, &self.api.preview().await?)),
            (Route::Jobs, _) => Ok(answer::value(StatusCode::OK, &self.api.jobs().await)),
            (Route::Job(name), _) => {
                Ok(answer::value(StatusCode::OK, &self.api.job(name).await.map_err(no_job)?))
            }
            (Route::Runs(name), _) => Ok(answer::value(
                StatusCode::ACCEPTED,
                &self.api.run_job(name).await.map_err(no_job)?,
            )),
            (Route::Circus, _) => self.circus(request, peer).await,
            (Route::Operations, _) => {
                let limit = limit_of(request.uri().query().unwrap_or_default())?;
                Ok(answer::value(StatusCode::OK, &self.api.recent(limit).await))
            }
            (Route::Operation(id), method) => {
                if *method == Method::DELETE {
                    self.find(id).await?;
                    self.api.cancel(id).await?;
                }
                Ok(answer::value(StatusCode::OK, &self.find(id).await?))
            }
            (Route::Ask | Route::Metrics, _) => Err(not_found("there is no such resource")),
        }
    }

    async fn find(&self, id: &OperationId) -> Result<operations::Record, Problem> {
        self.api.find(id).await.ok_or_else(|| no_operation(id))
    }

    async fn follow(&self, id: &OperationId) -> Result<Answer, Problem> {
        self.find(id).await?;
        let place = self.streams.clone().try_acquire_owned().map_err(|_| {
            let diagnostic = Diagnostic::error("too many clients follow operations")
                .kind(Kind::NotRunning)
                .because(format!("{MAX_STREAMS} do"))
                .help("try again later, or ask for the operation without its events");
            Problem::http(StatusCode::SERVICE_UNAVAILABLE, diagnostic)
        })?;
        Ok(answer::events(self.api.follow(id).await?, place))
    }

    async fn submit(
        &self,
        request: Request<Incoming>,
        other: Option<Version>,
        peer: Peer,
    ) -> Result<Answer, Problem> {
        check_content_type(request.headers())?;
        let body = read_body(request).await?;
        let submission = match other {
            None => serde_json::from_slice(&body).map_err(not_understood)?,
            Some(_) => stop_in(&body).ok_or_else(|| self.mismatch(other))?,
        };
        let who = peer.who(submission.who.command.clone());
        let id = self.api.submit(Submission { who, ..submission }).await?;
        Ok(answer::accepted(&id))
    }

    async fn circus(&self, request: Request<Incoming>, peer: Peer) -> Result<Answer, Problem> {
        check_content_type(request.headers())?;
        let message = read_body(request).await?.to_vec();
        let answered = self.api.circus(message, peer.who("circusctl".into())).await;
        Ok(answer::value(StatusCode::OK, &answered.unwrap_or_default()))
    }

    /// The version of a client that is another one than ours. A client that does not state its
    /// version relies on what `docs/api.md` promises, and is not compared.
    fn other_version(&self, headers: &HeaderMap) -> Option<Version> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let version = text(VERSION_HEADER)?.to_string();
        let protocol = text(PROTOCOL_HEADER).and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(Version { version, protocol }).filter(|version| *version != self.version)
    }

    fn mismatch(&self, client: Option<Version>) -> Problem {
        let own = Some(&self.version);
        Problem::version_mismatch(super::client::other_version(client.as_ref(), own))
    }
}

/// A submission of another version, if it is `stop`: the one operation whose form never changes.
fn stop_in(body: &[u8]) -> Option<Submission> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let command = text(&body["who"]["command"]).unwrap_or_default();
    let stop = || Submission {
        id: text(&body["id"]).and_then(|id| id.parse().ok()),
        request: operations::Request::Stop,
        who: Who { command, ..Who::default() },
        patience_s: body["patience_s"].as_u64().unwrap_or_default(),
    };
    (body["operation"] == "stop").then(stop)
}

fn not_understood(error: serde_json::Error) -> Diagnostic {
    Diagnostic::error("the body is not understood").kind(Kind::Usage).because(error)
}

fn forbidden(peer: Peer) -> Problem {
    let diagnostic = Diagnostic::error("this user may not use the control API")
        .kind(Kind::Refused)
        .because(format!("the client runs as uid {}", peer.uid))
        .help("ask as the user that started the node");
    Problem::http(StatusCode::FORBIDDEN, diagnostic)
}

fn not_found(what: &str) -> Problem {
    let diagnostic = Diagnostic::error(what).kind(Kind::Usage);
    Problem::http(StatusCode::NOT_FOUND, diagnostic)
}

fn no_operation(id: &OperationId) -> Problem {
    not_found(&format!("no operation has the id {id}"))
}

/// What the client names in its path is not there.
fn no_job(diagnostic: Diagnostic) -> Problem {
    match diagnostic.kind {
        Kind::Usage => Problem::http(StatusCode::NOT_FOUND, diagnostic),
        _ => diagnostic.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_owner_and_root_may_ask_and_nobody_else() {
        let peer = |uid| Peer { uid, pid: Some(1) };
        for (uid, owner, may) in
            [(1000, 1000, true), (0, 1000, true), (1001, 1000, false), (1000, 0, false)]
        {
            assert_eq!(peer(uid).may_ask(owner), may, "uid {uid}, owner {owner}");
        }
        assert_eq!(forbidden(peer(1001)).status, StatusCode::FORBIDDEN);
    }
}
