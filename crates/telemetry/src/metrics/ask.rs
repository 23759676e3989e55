//! Asks the telemetry role for metrics.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};

use super::exposition::Format;

/// How long the role may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The metrics of a node as text. `socket`: where its telemetry role listens.
pub fn ask(socket: &Path, format: Format) -> Result<String, Diagnostic> {
    let answer = exchange(socket, format).map_err(|why| {
        Diagnostic::error("the metrics cannot be read")
            .kind(Kind::NotRunning)
            .because(format!("{}: {why}", socket.display()))
            .help("start the node (`mfserv start`); if it runs, look at log/telemetry.log")
    })?;
    let refused = |why: String| Diagnostic::error("the metrics cannot be read").because(why);
    let Some((head, text)) = answer.split_once("\r\n\r\n") else {
        return Err(refused("the answer of the telemetry role has no end".into()));
    };
    match head.starts_with("HTTP/1.1 200 ") {
        true => Ok(text.into()),
        false => Err(refused(format!("the telemetry role answered: {}", text.trim()))),
    }
}

fn exchange(socket: &Path, format: Format) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let accept = format.content_type();
    let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
