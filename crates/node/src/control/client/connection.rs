//! One connection to a daemon.

use std::path::Path;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use mfserv_core::job::{JobStatus, Run};
use mfserv_core::plan::preview::PlanPreview;
use mfserv_core::status::Status;
use mfserv_core::{Diagnostic, Kind};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

use super::other_version;
use crate::control::legacy;
use crate::control::problem;
use crate::control::protocol::{
    About, Accepted, JSON, MAX_ANSWER, NDJSON, PROTOCOL_HEADER, VERSION_HEADER, Version,
};
use crate::control::route::is_job;
use crate::daemon::History;
use crate::operations::{OperationId, Record, Submission};

/// A connection to the daemon, which has said which version it has.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: AbortHandle,
    own: Version,
    /// `None`: a daemon from before the HTTP API.
    daemon: Option<Version>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Connection {
    /// Connects, as a client of this version, and learns the version of the daemon.
    /// [`Kind::NotRunning`] when nobody listens on `socket`.
    pub async fn open(socket: &Path, own: Version) -> Result<Connection, Diagnostic> {
        let stream = UnixStream::connect(socket).await.map_err(|e| not_running(socket, &e))?;
        let (sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| broke(&e))?;
        let driver = tokio::spawn(driver).abort_handle();
        let mut connection = Connection { sender, driver, own, daemon: None };
        let (status, body) = connection.exchange(Method::GET, "/v1", None).await?;
        let about = serde_json::from_slice::<About>(&body).ok();
        connection.daemon = about.filter(|_| status == StatusCode::OK).map(|about| about.version);
        Ok(connection)
    }

    /// The version of the daemon; `None` for one from before the HTTP API.
    pub fn daemon(&self) -> Option<&Version> {
        self.daemon.as_ref()
    }

    /// The observed node. Of a daemon of another version: what this one understands of it.
    pub async fn status(&mut self) -> Result<Status, Diagnostic> {
        let body = match self.daemon {
            Some(_) => self.get("/v1/status").await?,
            None => self.ask_legacy(&json!({"ask": "status"})).await?,
        };
        match serde_json::from_slice(&body) {
            Ok(status) => Ok(status),
            Err(_) if self.daemon.as_ref() != Some(&self.own) => status_of_another_version(&body),
            Err(error) => Err(not_understood(&error)),
        }
    }

    /// Stops the node, whatever the version of its daemon; returns when it has stopped.
    pub async fn stop(mut self, command: &str) -> Result<(), Diagnostic> {
        if self.daemon.is_none() {
            return self.ask_legacy(&json!({"ask": "stop"})).await.map(drop);
        }
        let stop = json!({"operation": "stop", "who": {"command": command}});
        let body = self.send(Method::POST, "/v1/operations", Some(&stop)).await?;
        let accepted: Accepted = serde_json::from_slice(&body).map_err(|e| not_understood(&e))?;
        let mut events = self.events(&accepted.id).await?;
        loop {
            let event = events.next().await?.ok_or_else(|| broke(&"it closed the connection"))?;
            if event["event"] == "outcome" {
                return match event["ok"] == true {
                    true => Ok(()),
                    false => Err(problem_in(&event["problem"])),
                };
            }
        }
    }

    /// Submits an operation; returns its id at once.
    pub async fn submit(&mut self, submission: &Submission) -> Result<OperationId, Diagnostic> {
        self.refuse_another_version()?;
        let body = serde_json::to_value(submission).map_err(|e| not_understood(&e))?;
        let answer = self.send(Method::POST, "/v1/operations", Some(&body)).await?;
        let accepted: Accepted = serde_json::from_slice(&answer).map_err(|e| not_understood(&e))?;
        Ok(accepted.id)
    }

    /// Cancels an operation; refused once it is committed.
    pub async fn cancel(&mut self, id: &OperationId) -> Result<(), Diagnostic> {
        self.refuse_another_version()?;
        self.send(Method::DELETE, &format!("/v1/operations/{id}"), None).await.map(drop)
    }

    /// The latest operations, the newest first.
    pub async fn recent(&mut self, limit: usize) -> Result<Vec<Record>, Diagnostic> {
        self.refuse_another_version()?;
        let body = self.get(&format!("/v1/operations?limit={limit}")).await?;
        serde_json::from_slice(&body).map_err(|e| not_understood(&e))
    }

    /// What a reload would do.
    pub async fn preview(&mut self) -> Result<PlanPreview, Diagnostic> {
        self.refuse_another_version()?;
        let body = self.get("/v1/plan").await?;
        serde_json::from_slice(&body).map_err(|e| not_understood(&e))
    }

    /// All jobs.
    pub async fn jobs(&mut self) -> Result<Vec<JobStatus>, Diagnostic> {
        self.refuse_another_version()?;
        let body = self.get("/v1/jobs").await?;
        serde_json::from_slice(&body).map_err(|e| not_understood(&e))
    }

    /// A job with its last runs.
    pub async fn job(&mut self, name: &str) -> Result<History, Diagnostic> {
        self.refuse_another_version()?;
        let body = self.get(&format!("/v1/jobs/{}", checked(name)?)).await?;
        serde_json::from_slice(&body).map_err(|e| not_understood(&e))
    }

    /// Starts a run of a job; returns when it is written down.
    pub async fn run_job(&mut self, name: &str) -> Result<Run, Diagnostic> {
        self.refuse_another_version()?;
        let path = format!("/v1/jobs/{}/runs", checked(name)?);
        let body = self.send(Method::POST, &path, None).await?;
        serde_json::from_slice(&body).map_err(|e| not_understood(&e))
    }

    /// The answer to a message of Circus.
    pub async fn circus(&mut self, message: &Value) -> Result<Map<String, Value>, Diagnostic> {
        self.refuse_another_version()?;
        let body = self.send(Method::POST, "/v1/circus", Some(message)).await?;
        serde_json::from_slice(&body).map_err(|e| not_understood(&e))
    }

    /// The events of an operation, from the first one.
    pub async fn events(mut self, id: &OperationId) -> Result<Events, Diagnostic> {
        let path = format!("/v1/operations/{id}/events");
        let response = self.request(Method::GET, &path, NDJSON, None).await?;
        let status = response.status();
        let body = response.into_body();
        match status {
            StatusCode::OK => Ok(Events { body, unread: Vec::new(), _connection: self }),
            _ => Err(error_of(status, &whole(body).await?)),
        }
    }

    async fn ask_legacy(&mut self, ask: &Value) -> Result<Bytes, Diagnostic> {
        let (status, body) = self.exchange(Method::POST, legacy::PATH, Some(ask)).await?;
        match status {
            StatusCode::OK => Ok(body),
            _ => Err(serde_json::from_slice(&body).unwrap_or_else(|_| error_of(status, &body))),
        }
    }

    /// Refuses a daemon of another version.
    pub(super) fn refuse_another_version(&self) -> Result<(), Diagnostic> {
        match self.daemon.as_ref() {
            Some(daemon) if *daemon == self.own => Ok(()),
            daemon => Err(other_version(Some(&self.own), daemon)),
        }
    }

    async fn get(&mut self, path: &str) -> Result<Bytes, Diagnostic> {
        self.send(Method::GET, path, None).await
    }

    /// The body of a successful answer; an error answer is the error.
    async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Bytes, Diagnostic> {
        let (status, body) = self.exchange(method, path, body).await?;
        if status.is_success() { Ok(body) } else { Err(error_of(status, &body)) }
    }

    async fn exchange(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), Diagnostic> {
        let response = self.request(method, path, JSON, body).await?;
        let status = response.status();
        Ok((status, whole(response.into_body()).await?))
    }

    async fn request(
        &mut self,
        method: Method,
        path: &str,
        accept: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, Diagnostic> {
        let bytes = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "mfserv")
            .header(USER_AGENT, format!("mfserv/{}", self.own.version))
            .header(VERSION_HEADER, &self.own.version)
            .header(PROTOCOL_HEADER, self.own.protocol)
            .header(ACCEPT, accept);
        if body.is_some() {
            request = request.header(CONTENT_TYPE, JSON);
        }
        let request = request.body(Full::new(Bytes::from(bytes))).map_err(|e| broke(&e))?;
        self.sender.ready().await.map_err(|e| broke(&e))?;
        self.sender.send_request(request).await.map_err(|e| broke(&e))
    }
}

/// The name of a job, as a part of a path.
fn checked(name: &str) -> Result<&str, Diagnostic> {
    let problem = || {
        Diagnostic::error(format!("{name:?} is not the name of a job"))
            .kind(Kind::Usage)
            .help("a job is named PLUGIN.NAME or PLUGIN.crontab:LINE; `mfserv jobs` lists them")
    };
    is_job(name).then_some(name).ok_or_else(problem)
}

/// The events of an operation as they arrive.
pub struct Events {
    body: Incoming,
    unread: Vec<u8>,
    _connection: Connection,
}

impl Events {
    /// The next one; `None` when the stream has ended.
    pub async fn next(&mut self) -> Result<Option<Value>, Diagnostic> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line).map(Some).map_err(|e| not_understood(&e));
            }
            if self.unread.len() > MAX_ANSWER {
                return Err(not_understood(&"an event is too long"));
            }
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let frame = frame.map_err(|e| broke(&e))?;
            if let Some(data) = frame.data_ref() {
                self.unread.extend_from_slice(data);
            }
        }
    }
}

async fn whole(body: Incoming) -> Result<Bytes, Diagnostic> {
    let body = Limited::new(body, MAX_ANSWER).collect().await;
    body.map(|body| body.to_bytes()).map_err(|e| broke(&e))
}

/// Each part of the status that this version understands, and a note about the rest.
fn status_of_another_version(body: &[u8]) -> Result<Status, Diagnostic> {
    let mut status: Value = serde_json::from_slice(body).map_err(|e| not_understood(&e))?;
    let mut left_out = 0;
    keep_understood::<mfserv_core::status::PluginStatus>(&mut status["plugins"], &mut left_out);
    keep_understood::<mfserv_core::status::WatcherStatus>(&mut status["watchers"], &mut left_out);
    keep_understood::<Diagnostic>(&mut status["problems"], &mut left_out);
    let mut status: Status = serde_json::from_value(status).map_err(|e| not_understood(&e))?;
    status.notes.push(format!(
        "the daemon is of another version: {left_out} entries of its status are not understood \
         and left out; run `mfserv upgrade`"
    ));
    Ok(status)
}

fn keep_understood<T: DeserializeOwned>(list: &mut Value, left_out: &mut usize) {
    let Value::Array(entries) = list else {
        *list = json!([]);
        return;
    };
    let all = entries.len();
    entries.retain(|entry| serde_json::from_value::<T>(entry.clone()).is_ok());
    *left_out += all - entries.len();
}

fn error_of(status: StatusCode, body: &[u8]) -> Diagnostic {
    problem::read(body).unwrap_or_else(|| {
        Diagnostic::error("the daemon's answer is not understood")
            .because(format!("HTTP status {status}"))
            .help("the daemon may be of another version: `mfserv upgrade`")
    })
}

fn problem_in(value: &Value) -> Diagnostic {
    serde_json::from_value(value.clone()).unwrap_or_else(|_| Diagnostic::error("it failed"))
}

pub(super) fn not_understood(error: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::error("the daemon's answer is not understood")
        .because(error)
        .help("the daemon may be of another version: `mfserv upgrade`")
}

pub(super) fn broke(error: &dyn std::fmt::Display) -> Diagnostic {
    Diagnostic::error("the daemon went away before it answered")
        .kind(Kind::NotRunning)
        .because(error)
        .help("the keeper restarts it: try again")
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
