//! Asks the telemetry role for metrics.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use mfserv_core::{Diagnostic, Kind};

use super::alerts::Status;
use super::exposition::Format;

/// How long the role may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause before the next try, while the role is being replaced.
const PAUSE: Duration = Duration::from_millis(50);

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
    let answer = keep_asking(socket, path, accept, patience).map_err(|why| {
        let problem = Diagnostic::error(what);
        match why.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                problem.kind(Kind::Timeout).because(no_answer(socket, patience)).help(
                    "one that hangs is replaced within half a minute: ask again then; \
                     `mfserv restart telemetry` replaces it at once",
                )
            }
            _ => problem
                .kind(Kind::NotRunning)
                .because(format!("{}: {why}", socket.display()))
                .help("start the node (`mfserv start`); if it runs, look at log/telemetry.log"),
        }
    })?;
    let refused = |why: String| Diagnostic::error(what).because(why);
    let (head, text) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    match head {
        head if head.starts_with("HTTP/1.1 200 ") => Ok(text.into()),
        // The role says what is wrong with the question.
        head if head.starts_with("HTTP/1.1 400 ") => {
            Err(refused(text.trim().into()).kind(Kind::Usage))
        }
        _ => Err(refused(format!("the telemetry role answered: {}", text.trim()))),
    }
}

/// What is known of a role that does not answer. It writes its history each second.
fn no_answer(socket: &Path, patience: Duration) -> String {
    let waited = format!("the telemetry role does not answer ({} s waited)", patience.as_secs());
    let history = socket.ancestors().nth(2).map(|var| var.join("telemetry/history"));
    let files = history.and_then(|dir| std::fs::read_dir(dir).ok()).into_iter().flatten().flatten();
    let written = files.filter_map(|file| file.metadata().ok()?.modified().ok()).max();
    match written.and_then(|last| last.elapsed().ok()) {
        Some(since) => format!("{waited}; it wrote its history {} s ago", since.as_secs()),
        None => waited,
    }
}

/// Asks, and again while the role is being replaced: it was there, and has ended.
fn keep_asking(socket: &Path, path: &str, accept: &str, patience: Duration) -> io::Result<String> {
    let end = Instant::now() + patience;
    let mut has_ended = false;
    loop {
        let left = end.saturating_duration_since(Instant::now()).max(PAUSE);
        let why = match exchange(socket, path, accept, left) {
            Ok(answer) => return Ok(answer),
            Err(why) => why,
        };
        has_ended |= matches!(
            why.kind(),
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
        );
        if !has_ended || Instant::now() + PAUSE >= end {
            return Err(why);
        }
        std::thread::sleep(PAUSE);
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
    match answer.contains("\r\n\r\n") {
        true => Ok(answer),
        false => Err(io::Error::new(ErrorKind::UnexpectedEof, "it has ended")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn of_a_role_that_does_not_answer_is_said_for_how_long_and_what_to_do() {
        let home = tempfile::tempdir().unwrap();
        let (run, history) =
            (home.path().join("var/run"), home.path().join("var/telemetry/history"));
        std::fs::create_dir_all(&run).unwrap();
        std::fs::create_dir_all(&history).unwrap();
        let socket = run.join("telemetry.sock");
        let ask = || ask_history(&socket, "window=5s", Duration::from_millis(100)).unwrap_err();
        assert_eq!(ask().kind, Kind::NotRunning, "nobody listens");
        let _silent = UnixListener::bind(&socket).unwrap();
        let problem = ask();
        assert_eq!(problem.kind, Kind::Timeout);
        assert!(problem.because[0].contains("does not answer"), "{problem}");
        assert!(problem.to_string().contains("mfserv restart telemetry"), "{problem}");
        let ticks = std::fs::File::create(history.join("1s-0000000000.ticks")).unwrap();
        ticks.set_modified(std::time::SystemTime::now() - Duration::from_secs(42)).unwrap();
        assert!(ask().because[0].contains("wrote its history 42 s ago"), "{}", ask());
    }

    #[test]
    fn a_role_that_ends_before_it_answers_is_asked_again_when_there_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("telemetry.sock");
        let first = UnixListener::bind(&socket).unwrap();
        let path = socket.clone();
        let roles = std::thread::spawn(move || {
            drop(first.accept().unwrap());
            drop(first);
            std::fs::remove_file(&path).unwrap();
            let (mut stream, _) = UnixListener::bind(&path).unwrap().accept().unwrap();
            let mut request = [0; 1024];
            assert!(stream.read(&mut request).unwrap() > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n[]").unwrap();
        });
        assert_eq!(ask_alerts(&socket).unwrap(), []);
        roles.join().unwrap();
    }
}
