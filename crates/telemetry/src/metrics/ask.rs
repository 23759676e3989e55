//! Asks the telemetry role for metrics.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};

use super::alerts::Status;
use super::exposition::Format;

/// How long the role may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The metrics of a node as text. `socket`: where its telemetry role listens.
pub fn ask(socket: &Path, format: Format) -> Result<String, Diagnostic> {
    get(socket, "/metrics", format.content_type(), PATIENCE)
}

/// The history of a node as JSON, an [`Answer`](super::Answer). `question`:
/// `plugin=&app=&since=&until=&step=`, or `window=`. `patience`: how long the role may take.
pub fn ask_history(
    socket: &Path,
    question: &str,
    patience: Duration,
) -> Result<String, Diagnostic> {
    get(socket, &format!("/history?{question}"), "application/json", patience)
}

/// The alerts of a node, and what they do. `socket`: where its telemetry role listens.
pub fn ask_alerts(socket: &Path) -> Result<Vec<Status>, Diagnostic> {
    let text = get(socket, "/alerts", "application/json", PATIENCE)?;
    serde_json::from_str(&text)
        .map_err(|why| Diagnostic::error("the alerts cannot be read").because(why))
}

fn get(socket: &Path, path: &str, accept: &str, patience: Duration) -> Result<String, Diagnostic> {
    let what = match path {
        "/metrics" => "the metrics cannot be read",
        "/alerts" => "the alerts cannot be read",
        _ => "the history cannot be read",
    };
    let answer = exchange(socket, path, accept, patience).map_err(|why| {
        Diagnostic::error(what)
            .kind(Kind::NotRunning)
            .because(format!("{}: {why}", socket.display()))
            .help("start the node (`mfserv start`); if it runs, look at log/telemetry.log")
    })?;
    let refused = |why: String| Diagnostic::error(what).because(why);
    let Some((head, text)) = answer.split_once("\r\n\r\n") else {
        return Err(refused("the answer of the telemetry role has no end".into()));
    };
    match head {
        head if head.starts_with("HTTP/1.1 200 ") => Ok(text.into()),
        // The role says what is wrong with the question.
        head if head.starts_with("HTTP/1.1 400 ") => {
            Err(refused(text.trim().into()).kind(Kind::Usage))
        }
        _ => Err(refused(format!("the telemetry role answered: {}", text.trim()))),
    }
}

fn exchange(socket: &Path, path: &str, accept: &str, patience: Duration) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
