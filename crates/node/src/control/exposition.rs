//! The metrics of a node, passed on from the telemetry role: whoever may use the control socket
//! needs no other one.

use std::io;
use std::path::Path;
use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long the role may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer, bytes: tens of thousands of samples are a few MB.
const LONGEST: u64 = 64 << 20;

/// What is counted, as the role has written it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exposition {
    /// The value of `Content-Type`.
    pub media_type: String,
    /// The text.
    pub text: Vec<u8>,
}

/// Asks the role that listens on this socket.
///
/// # Errors
/// Kind `NotRunning` if nobody listens there, and `Timeout` if nobody answers.
pub async fn read(socket: &Path, accept: &str) -> Result<Exposition, Diagnostic> {
    let failed = |kind, why: &dyn std::fmt::Display| {
        Diagnostic::error("the metrics cannot be read")
            .kind(kind)
            .because(format!("the telemetry role, {}: {why}", socket.display()))
            .help("it is started again within seconds: ask again; log/telemetry.log says why it ended")
    };
    let answer = timeout(PATIENCE, exchange(socket, accept)).await;
    let bytes = answer
        .map_err(|_| failed(Kind::Timeout, &"it does not answer"))?
        .map_err(|why| failed(Kind::NotRunning, &why))?;
    parse(bytes).ok_or_else(|| failed(Kind::Failed, &"its answer is not understood"))
}

async fn exchange(socket: &Path, accept: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    let request = format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(LONGEST).read_to_end(&mut answer).await?;
    Ok(answer)
}

/// An answer of the role: it has a length, and its connection ends after it.
fn parse(mut bytes: Vec<u8>) -> Option<Exposition> {
    let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let field = |wanted: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value)
    };
    let length: usize = field("content-length")?.parse().ok()?;
    let text = bytes.split_off(end + 4);
    let is_whole = head.starts_with("HTTP/1.1 200 ") && text.len() == length;
    is_whole.then(|| Some(Exposition { media_type: field("content-type")?.into(), text }))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_if_it_is_whole_and_good() {
        let answer = |status: &str, length: usize| {
            let head = format!("HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\n");
            format!("{head}Content-Length: {length}\r\n\r\na 1\n").into_bytes()
        };
        let whole = parse(answer("200 OK", 4)).unwrap();
        assert_eq!(whole.media_type, "text/plain; version=0.0.4");
        assert_eq!(whole.text, b"a 1\n");
        for broken in [answer("503 No", 4), answer("200 OK", 5), b"HTTP/1.1 200 OK\r\n".to_vec()] {
            assert_eq!(parse(broken), None);
        }
    }
}
