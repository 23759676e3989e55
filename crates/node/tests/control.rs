//! The control API over a real socket, with a played node behind it: routes, errors, bounds,
//! versions, and how a client follows an operation past the death of its daemon.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test may stop at the first thing that is wrong"
)]

#[path = "control/following.rs"]
mod following;
#[path = "control/jobs.rs"]
mod jobs;
#[path = "control/reading.rs"]
mod reading;
#[path = "control/status.rs"]
mod status;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::plan::preview::PlanPreview;
use mfserv_core::status::Status;
use mfserv_core::{Diagnostic, Kind};
use mfserv_node::control::client::{self, Connection, Follow};
use mfserv_node::control::protocol::Version;
use mfserv_node::control::server::{self, Server};
use mfserv_node::control::{Api, Exposition, Pending};
use mfserv_node::operations::{
    Event, FinishedBy, OperationId, Outcome, Record, Request, StepState, Submission, Who,
};
use mfserv_plugin::Cancel;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;

use status::status;

const PATIENCE: Duration = Duration::from_secs(20);

/// A node whose operations are what a test has put into it.
#[derive(Default)]
struct Played {
    submitted: Mutex<Vec<Submission>>,
    /// The events of each operation that is known.
    events: Mutex<BTreeMap<OperationId, Vec<Event>>>,
    /// Streams stay open after the events that are known.
    open: Mutex<Vec<mpsc::Sender<Event>>>,
    stays_open: bool,
    committed: bool,
}

impl Api for Played {
    fn status(&self) -> Pending<'_, Status> {
        Box::pin(async { serde_json::from_value(status()).unwrap() })
    }

    fn preview(&self) -> Pending<'_, Result<PlanPreview, Diagnostic>> {
        Box::pin(async {
            Err(Diagnostic::error("the port is no number").kind(Kind::BadConfiguration))
        })
    }

    fn metrics(&self, accept: String) -> Pending<'_, Result<Exposition, Diagnostic>> {
        let text = format!("# for {accept}\n").into_bytes();
        Box::pin(async { Ok(Exposition { media_type: "text/plain; version=0.0.4".into(), text }) })
    }

    fn submit(&self, submission: Submission) -> Pending<'_, Result<OperationId, Diagnostic>> {
        Box::pin(async move {
            if submission.request == Request::Reload {
                return Err(Diagnostic::error("no").kind(Kind::BadConfiguration).help("mend it"));
            }
            let id = submission.id.clone().unwrap_or_default();
            self.submitted.lock().unwrap().push(submission);
            let mut known = self.events.lock().unwrap();
            known.entry(id.clone()).or_insert_with(|| vec![outcome(true)]);
            Ok(id)
        })
    }

    fn follow<'a>(
        &'a self,
        id: &'a OperationId,
    ) -> Pending<'a, Result<mpsc::Receiver<Event>, Diagnostic>> {
        let events = self.events.lock().unwrap()[id].clone();
        let (sender, receiver) = mpsc::channel(events.len() + 1);
        events.into_iter().for_each(|event| sender.try_send(event).unwrap());
        if self.stays_open {
            self.open.lock().unwrap().push(sender);
        }
        Box::pin(async { Ok(receiver) })
    }

    fn cancel<'a>(&'a self, _: &'a OperationId) -> Pending<'a, Result<(), Diagnostic>> {
        Box::pin(async {
            match self.committed {
                true => Err(Diagnostic::error("it is committed").kind(Kind::Refused)),
                false => Ok(()),
            }
        })
    }

    fn find<'a>(&'a self, id: &'a OperationId) -> Pending<'a, Option<Record>> {
        let known = self.events.lock().unwrap().contains_key(id);
        Box::pin(async move { known.then(|| record(id)) })
    }

    fn recent(&self, limit: usize) -> Pending<'_, Vec<Record>> {
        let ids: Vec<OperationId> = self.events.lock().unwrap().keys().cloned().collect();
        Box::pin(async move { ids.iter().take(limit).map(record).collect() })
    }
}

fn outcome(ok: bool) -> Event {
    let problem = (!ok).then(|| Diagnostic::error("it does not start").kind(Kind::Failed));
    Event::Outcome(Box::new(Outcome {
        ok,
        plugin: None,
        warnings: Vec::new(),
        applied: None,
        problem,
        finished_by: FinishedBy::Daemon,
    }))
}

fn step(n: u32, text: &str) -> Event {
    Event::Step { n, of: Some(2), text: text.into(), state: StepState::Started }
}

fn record(id: &OperationId) -> Record {
    Record {
        conductor: None,
        id: id.clone(),
        who: Who::default(),
        request: Request::Stop,
        began_ms: 1,
        ended_ms: None,
        steps: Vec::new(),
        outcome: None,
    }
}

fn id(text: &str) -> OperationId {
    text.parse().unwrap()
}

fn other() -> Version {
    Version { version: "9.9.9".into(), protocol: 99 }
}

/// A daemon with a played node, on a socket of its own.
struct Daemon {
    dir: tempfile::TempDir,
    node: Arc<Played>,
    server: Server,
}

impl Daemon {
    fn start() -> Daemon {
        Daemon::with(Played::default(), Version::own())
    }

    fn with(node: Played, version: Version) -> Daemon {
        let dir = tempfile::tempdir().unwrap();
        let node = Arc::new(node);
        let listener = server::bind(&dir.path().join("control.sock")).unwrap();
        let server = Server::start(listener, node.clone(), version);
        Daemon { dir, node, server }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("control.sock")
    }

    async fn exchange(&self, request: &str) -> Answer {
        exchange(&self.socket(), request).await
    }
}

/// An answer as it is on the wire.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {:?}", self.body))
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// Sends bytes and reads until the server closes the connection.
async fn exchange(socket: &Path, request: &str) -> Answer {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    // A server that refuses a body need not read it.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut bytes)).await;
    read.expect("an answer in time").ok();
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head: head.into(), body: body.into() }
}

fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{headers}\r\n")
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: m\r\nConnection: close\r\nContent-Length: {length}\r\n\
         {headers}\r\n{body}"
    )
}

const JSON: &str = "Content-Type: application/json\r\n";

// ---- routes ----

#[tokio::test]
async fn the_root_of_the_api_says_who_answers() {
    let daemon = Daemon::start();
    let answer = daemon.exchange(&get("/v1", "")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(answer.json()["pid"], std::process::id());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("mfserv-version"), Some(env!("CARGO_PKG_VERSION")));
}

#[tokio::test]
async fn an_operation_is_created_where_its_location_says() {
    let daemon = Daemon::start();
    let body = r#"{"operation": "stop", "id": "mine", "who": {"command": "curl", "uid": 4242}}"#;
    let answer = daemon.exchange(&post("/v1/operations", JSON, body)).await;
    assert_eq!((answer.status, answer.json()), (201, json!({"id": "mine"})));
    assert_eq!(answer.header("location"), Some("/v1/operations/mine"));
    let record = daemon.exchange(&get("/v1/operations/mine", "")).await;
    assert_eq!(record.json()["id"], "mine");
    let list = daemon.exchange(&get("/v1/operations?limit=1", "")).await;
    assert_eq!(list.json()[0]["id"], "mine");
}

#[tokio::test]
async fn who_asks_is_what_the_kernel_says_and_not_what_the_body_says() {
    let daemon = Daemon::start();
    let body = r#"{"operation": "stop", "who":
        {"command": "curl", "user": "nobody", "uid": 4242, "pid": 4242}}"#;
    daemon.exchange(&post("/v1/operations", JSON, body)).await;
    let who = daemon.node.submitted.lock().unwrap()[0].who.clone();
    assert_eq!(who.command, "curl");
    assert_eq!(who.uid, rustix::process::getuid().as_raw());
    assert_eq!(who.pid, std::process::id());
    assert_ne!(who.user, "nobody");
}

#[tokio::test]
async fn events_are_one_json_object_a_line_up_to_the_outcome() {
    let daemon = Daemon::start();
    let events = vec![step(1, "starting"), step(2, "committing"), outcome(true)];
    daemon.node.events.lock().unwrap().insert(id("one"), events.clone());
    let answer = daemon.exchange(&get("/v1/operations/one/events", "")).await;
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let got = dechunked(&answer.body);
    let got: Vec<Event> = got.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(got, events);
}

fn dechunked(body: &str) -> String {
    let mut text = String::new();
    let mut rest = body;
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        text.push_str(&after[..size]);
        rest = &after[size + 2..];
        if size == 0 {
            break;
        }
    }
    text
}

#[tokio::test]
async fn an_operation_is_cancelled_until_it_is_committed() {
    for (committed, status) in [(false, 200), (true, 409)] {
        let daemon = Daemon::with(Played { committed, ..Played::default() }, Version::own());
        daemon.node.events.lock().unwrap().insert(id("one"), Vec::new());
        let delete = get("/v1/operations/one", "").replace("GET", "DELETE");
        let answer = daemon.exchange(&delete).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
}

// ---- errors ----

#[tokio::test]
async fn what_is_wrong_with_a_request_is_a_problem_with_the_status_that_http_has_for_it() {
    let daemon = Daemon::start();
    let long = "x".repeat(2 << 20);
    for (request, status, member) in [
        (get("/", ""), 404, "about:blank"),
        (get("/v1/operations/unknown", ""), 404, "about:blank"),
        (get("/v1/operations/unknown/events", ""), 404, "about:blank"),
        (get("/v1/operations/unknown", "").replace("GET", "DELETE"), 404, "about:blank"),
        (get("/v1/status", "").replace("GET", "PUT"), 405, "about:blank"),
        (get("/v1/status", "Accept: text/html\r\n"), 406, "about:blank"),
        (get("/v1/operations?limit=x", ""), 400, "urn:mfserv:problem:usage"),
        (get("/v1/plan", ""), 422, "urn:mfserv:problem:bad-configuration"),
        (post("/v1/operations", "", "{}"), 415, "about:blank"),
        (post("/v1/operations", JSON, "{"), 400, "urn:mfserv:problem:usage"),
        (
            post("/v1/operations", JSON, r#"{"operation": "dance"}"#),
            400,
            "urn:mfserv:problem:usage",
        ),
        (post("/v1/operations", JSON, &long), 413, "about:blank"),
        (
            post("/v1/operations", JSON, r#"{"operation": "reload"}"#),
            422,
            "urn:mfserv:problem:bad-configuration",
        ),
    ] {
        let first = request.lines().next().unwrap_or_default().to_string();
        let answer = daemon.exchange(&request).await;
        assert_eq!(answer.status, status, "{first}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{first}");
        let problem = answer.json();
        assert_eq!((&problem["status"], &problem["type"]), (&json!(status), &json!(member)));
        assert!(problem["detail"].is_string() && problem["title"].is_string(), "{problem}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_told_the_right_ones() {
    let daemon = Daemon::start();
    let answer = daemon.exchange(&get("/v1/operations", "").replace("GET", "PATCH")).await;
    assert_eq!(answer.header("allow"), Some("GET, HEAD, POST"));
}

// ---- bounds ----

#[tokio::test]
async fn a_body_without_a_length_is_not_read_beyond_the_limit() {
    let daemon = Daemon::start();
    let head = format!(
        "POST /v1/operations HTTP/1.1\r\nHost: m\r\nConnection: close\r\n{JSON}\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    let chunk = format!("{:x}\r\n{}\r\n", 65536, "x".repeat(65536));
    let answer = daemon.exchange(&format!("{head}{}", chunk.repeat(20))).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn those_who_follow_operations_leave_places_for_others() {
    let daemon = Daemon::with(Played { stays_open: true, ..Played::default() }, Version::own());
    daemon.node.events.lock().unwrap().insert(id("one"), vec![step(1, "starting")]);
    let mut followers = Vec::new();
    for _ in 0..32 {
        let connection = Connection::open(&daemon.socket(), Version::own()).await.unwrap();
        let mut events = connection.events(&id("one")).await.unwrap();
        events.next().await.unwrap().unwrap();
        followers.push(events);
    }
    let answer = daemon.exchange(&get("/v1/operations/one/events", "")).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(daemon.exchange(&get("/v1/status", "")).await.status, 200);
    followers.pop();
    tokio::time::timeout(PATIENCE, async {
        while daemon.exchange_status("/v1/operations/one/events").await != 200 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a place that is left is free again");
}

impl Daemon {
    /// The status alone: the stream does not end.
    async fn exchange_status(&self, path: &str) -> u16 {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        stream.write_all(get(path, "").as_bytes()).await.unwrap();
        let mut head = [0; 12];
        stream.read_exact(&mut head).await.unwrap();
        std::str::from_utf8(&head[9..]).unwrap().parse().unwrap()
    }
}

// ---- the end of a daemon ----

#[tokio::test]
async fn a_server_that_closes_finishes_the_answer_in_progress() {
    let daemon = Daemon::with(Played { stays_open: true, ..Played::default() }, Version::own());
    daemon.node.events.lock().unwrap().insert(id("one"), vec![step(1, "stopping")]);
    let connection = Connection::open(&daemon.socket(), Version::own()).await.unwrap();
    let mut events = connection.events(&id("one")).await.unwrap();
    events.next().await.unwrap().unwrap();
    let server = daemon.server.clone();
    let closing = tokio::spawn(async move { server.close(PATIENCE).await });
    // The server has begun to close when it accepts nobody any more.
    tokio::time::timeout(PATIENCE, async {
        while UnixStream::connect(daemon.socket()).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("a server that closes accepts nobody");
    assert!(!closing.is_finished(), "an answer is still in progress");
    let sender = daemon.node.open.lock().unwrap().pop().unwrap();
    sender.send(outcome(true)).await.unwrap();
    drop(sender);
    assert_eq!(events.next().await.unwrap().unwrap()["event"], "outcome");
    assert_eq!(events.next().await.unwrap(), None);
    tokio::time::timeout(PATIENCE, closing).await.expect("then it is closed").unwrap();
}

#[tokio::test]
async fn a_client_that_reads_nothing_does_not_hold_up_a_server_that_closes() {
    let daemon = Daemon::with(Played { stays_open: true, ..Played::default() }, Version::own());
    daemon.node.events.lock().unwrap().insert(id("one"), vec![step(1, "stopping")]);
    let connection = Connection::open(&daemon.socket(), Version::own()).await.unwrap();
    let _held = connection.events(&id("one")).await.unwrap();
    let closing = daemon.server.close(Duration::from_millis(1));
    tokio::time::timeout(PATIENCE, closing).await.expect("it is given up");
}

// ---- versions ----

#[tokio::test]
async fn a_client_of_another_version_gets_the_status_and_can_stop_the_node() {
    let daemon = Daemon::start();
    let mut connection = Connection::open(&daemon.socket(), other()).await.unwrap();
    assert_eq!(connection.status().await.unwrap().generation, 7);
    connection.stop("mfserv stop").await.unwrap();
    assert_eq!(daemon.node.submitted.lock().unwrap()[0].request, Request::Stop);
}

#[tokio::test]
async fn the_server_refuses_everything_else_of_a_client_of_another_version() {
    let daemon = Daemon::start();
    daemon.node.events.lock().unwrap().insert(id("one"), vec![outcome(true)]);
    let version = "Mfserv-Version: 9.9.9\r\nMfserv-Protocol: 99\r\n";
    let body = r#"{"operation": "restart"}"#;
    for (request, status) in [
        (get("/v1", version), 200),
        (get("/v1/operations/one/events", version), 200),
        (get("/v1/operations", version), 409),
        (get("/v1/operations/one", version), 409),
        (get("/v1/operations/one", version).replace("GET", "DELETE"), 409),
        (post("/v1/operations", &format!("{JSON}{version}"), body), 409),
        (post("/v1/operations", &format!("{JSON}{version}"), "{}"), 409),
        // A client that states no version is a third party: it relies on the documentation.
        (post("/v1/operations", JSON, body), 201),
    ] {
        let answer = daemon.exchange(&request).await;
        assert_eq!(answer.status, status, "{request}");
        if status == 409 {
            let problem = answer.json();
            assert_eq!(problem["type"], "urn:mfserv:problem:version-mismatch");
            assert!(problem["help"].as_str().unwrap().contains("mfserv upgrade"), "{problem}");
        }
    }
}

#[tokio::test]
async fn the_client_refuses_everything_else_of_a_daemon_of_another_version() {
    let daemon = Daemon::with(Played::default(), other());
    let mut connection = Connection::open(&daemon.socket(), Version::own()).await.unwrap();
    let restart = Submission {
        id: None,
        request: Request::Restart { apps: Vec::new() },
        who: Who::default(),
        patience_s: 1,
    };
    let refused = connection.submit(&restart).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Refused);
    assert!(refused.help.unwrap().contains("mfserv upgrade"));
    assert!(connection.cancel(&id("one")).await.is_err());
    assert!(connection.recent(1).await.is_err());
    assert!(daemon.node.submitted.lock().unwrap().is_empty(), "nothing was sent");
    assert_eq!(connection.status().await.unwrap().generation, 7);
    connection.stop("mfserv stop").await.unwrap();
    assert_eq!(daemon.node.submitted.lock().unwrap().len(), 1);
}

/// Answers each request with the next of these bodies, as another program would.
fn play(listener: UnixListener, answers: Vec<(u16, String)>) {
    tokio::spawn(async move {
        let mut answers = answers.into_iter();
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let mut seen = Vec::new();
        loop {
            let mut bytes = [0; 4096];
            match stream.read(&mut bytes).await {
                Ok(0) | Err(_) => return,
                Ok(n) => seen.extend_from_slice(&bytes[..n]),
            }
            let text = String::from_utf8_lossy(&seen).into_owned();
            let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() < length.map_or(0, |length| length.parse().unwrap()) {
                continue;
            }
            seen.clear();
            let Some((status, answer)) = answers.next() else { return };
            let length = answer.len();
            let text = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\n\r\n{answer}");
            stream.write_all(text.as_bytes()).await.unwrap();
        }
    });
}

const NOT_UNDERSTOOD: &str =
    r#"{"severity":"error","kind":"usage","what":"the request is not understood"}"#;

#[tokio::test]
async fn a_daemon_from_before_the_api_is_looked_at_and_stopped_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    play(listener, vec![(400, NOT_UNDERSTOOD.into()), (200, status().to_string())]);
    let mut connection = Connection::open(&socket, Version::own()).await.unwrap();
    assert_eq!(connection.daemon(), None);
    let refused = connection.recent(1).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Refused);
    assert_eq!(connection.status().await.unwrap().generation, 7);
    std::fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    let stopped = r#"{"generation":0,"changes":"","problems":[]}"#;
    play(listener, vec![(400, NOT_UNDERSTOOD.into()), (200, stopped.into())]);
    let connection = Connection::open(&socket, Version::own()).await.unwrap();
    connection.stop("mfserv stop").await.unwrap();
}

#[tokio::test]
async fn a_client_from_before_the_api_gets_what_it_always_got() {
    let daemon = Daemon::start();
    // As it was sent then: no Content-Type, no version.
    let answer = daemon.exchange(&post("/v1/ask", "", r#"{"ask":"status"}"#)).await;
    assert_eq!((answer.status, answer.json()["generation"].clone()), (200, json!(7)));
    let answer = daemon.exchange(&post("/v1/ask", "", r#"{"ask":"stop"}"#)).await;
    assert_eq!((answer.status, answer.json()["changes"].clone()), (200, json!("")));
    assert_eq!(daemon.node.submitted.lock().unwrap()[0].request, Request::Stop);
    for (body, status, kind) in [
        (r#"{"ask":"reload","wait_s":0}"#, 409, Kind::Refused),
        (r#"{"ask":7}"#, 400, Kind::Usage),
        ("{", 400, Kind::Usage),
    ] {
        let answer = daemon.exchange(&post("/v1/ask", "", body)).await;
        let error: Diagnostic = serde_json::from_str(&answer.body).unwrap();
        assert_eq!((answer.status, error.kind), (status, kind), "{body}");
        assert_eq!(status == 409, error.help.is_some_and(|help| help.contains("upgrade")));
    }
}

#[tokio::test]
async fn of_the_status_of_a_later_daemon_what_is_understood_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("control.sock");
    let mut later = status();
    later["new_field"] = json!({"a": 1});
    let mut strange = later["watchers"][0].clone();
    strange["last_end"] = json!({"reason": "of the future"});
    later["watchers"].as_array_mut().unwrap().push(strange);
    let about = r#"{"version":"9.9.9","protocol":99,"pid":1}"#;
    let listener = UnixListener::bind(&socket).unwrap();
    play(listener, vec![(200, about.into()), (200, later.to_string())]);
    let mut connection = Connection::open(&socket, Version::own()).await.unwrap();
    let status = connection.status().await.unwrap();
    assert_eq!(status.watchers.len(), 1);
    let note = status.notes.last().unwrap();
    assert!(note.contains("1 entries") && note.contains("mfserv upgrade"), "{note}");
}

// ---- following ----

/// Follows in a thread, as the command line does.
async fn followed(
    socket: PathBuf,
    patience: Duration,
    cancel: Cancel,
) -> (Result<Outcome, Diagnostic>, Vec<Event>) {
    let following = tokio::task::spawn_blocking(move || {
        let id = id("one");
        let follow = Follow { socket: &socket, id: &id, patience, cancel: &cancel };
        let mut events = Vec::new();
        let outcome = client::follow(&follow, &mut |event| events.push(event.clone()));
        (outcome, events)
    });
    following.await.unwrap()
}

#[tokio::test]
async fn a_follower_reports_each_event_and_returns_the_outcome() {
    let daemon = Daemon::start();
    let events = vec![step(1, "starting"), step(2, "committing"), outcome(false)];
    daemon.node.events.lock().unwrap().insert(id("one"), events.clone());
    let (outcome, reported) = followed(daemon.socket(), PATIENCE, Cancel::default()).await;
    assert_eq!(reported, events);
    assert_eq!(outcome.unwrap().problem.unwrap().what, "it does not start");
}

#[tokio::test]
async fn a_follower_goes_on_with_the_next_daemon_and_reports_nothing_twice() {
    let first = Daemon::with(Played { stays_open: true, ..Played::default() }, Version::own());
    first.node.events.lock().unwrap().insert(id("one"), vec![step(1, "starting")]);
    let socket = first.socket();
    let following = tokio::spawn(followed(socket.clone(), PATIENCE, Cancel::default()));
    let followers = || first.node.open.lock().unwrap().len();
    tokio::time::timeout(PATIENCE, async {
        while followers() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("it is followed");
    // The daemon dies: the stream breaks off, and its socket refuses.
    first.node.open.lock().unwrap().clear();
    first.server.close(PATIENCE).await;
    let node = Played::default();
    let events = vec![step(1, "starting"), step(2, "undoing"), outcome(false)];
    node.events.lock().unwrap().insert(id("one"), events.clone());
    let _second = Server::start(server::bind(&socket).unwrap(), Arc::new(node), Version::own());
    let (outcome, reported) = following.await.unwrap();
    assert_eq!(reported, events);
    assert!(!outcome.unwrap().ok);
}
