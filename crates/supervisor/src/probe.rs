//! Readiness probes: a worker is ready when it has been observed to be.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::watcher::Probe;
use mfserv_platform::sync::lock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixDatagram, UnixStream};
use tokio::time::Instant;

/// The longest head of an answer to a probe, bytes.
const LONGEST_HEAD: usize = 32 * 1024;

/// What a probe saw last, as a text for people.
pub(crate) type Saw = Arc<Mutex<String>>;

/// What a probe needs, made before the worker starts.
pub(crate) enum Prepared {
    Notify(UnixDatagram),
    Ask(PathBuf),
    Nothing,
}

/// Prepares the probe of a worker. A worker with [`Probe::Notify`] needs the notify socket
/// before it starts.
pub(crate) fn prepare(
    probe: &Probe,
    socket: Option<PathBuf>,
    notify: &Path,
) -> std::io::Result<Prepared> {
    match probe {
        Probe::Notify => {
            let _ = std::fs::remove_file(notify);
            Ok(Prepared::Notify(UnixDatagram::bind(notify)?))
        }
        Probe::Http { .. } | Probe::Connect => Ok(socket.map_or(Prepared::Nothing, Prepared::Ask)),
        Probe::Told | Probe::Alive { .. } => Ok(Prepared::Nothing),
    }
}

/// Returns once the worker is ready. The start timeout of the worker ends it otherwise.
pub(crate) async fn until_ready(probe: Probe, prepared: Prepared, saw: Saw) {
    match (probe, prepared) {
        (Probe::Http { path }, Prepared::Ask(socket)) => {
            ask_until(&socket, Some(&path), &saw).await
        }
        (Probe::Connect, Prepared::Ask(socket)) => ask_until(&socket, None, &saw).await,
        (_, Prepared::Notify(socket)) => notified_ready(&socket, &saw).await,
        (Probe::Alive { for_ms }, _) => tokio::time::sleep(Duration::from_millis(for_ms)).await,
        _ => std::future::pending().await,
    }
}

async fn ask_until(socket: &Path, path: Option<&str>, saw: &Saw) {
    let began = Instant::now();
    loop {
        let seen = match path {
            Some(path) => head(socket, path).await,
            None => UnixStream::connect(socket).await.map(|_| ()).map_err(|e| not_listening(&e)),
        };
        match seen {
            Ok(()) => return,
            Err(what) => say(saw, what),
        }
        tokio::time::sleep(pause(began.elapsed())).await;
    }
}

/// A worker is stuck after so many probes without an answer.
const MISSES: u32 = 3;
/// How long each of them waits for an answer.
const MISS: Duration = Duration::from_secs(1);
/// The pause after a probe that was refused at once.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);

/// Asks a worker that was ready. Returns what was seen if it does not answer, three times in 3 s
/// at most. A process that a debugger holds is not asked; one that has ended is not stuck: the
/// keeper reports its end.
pub(crate) async fn is_stuck(
    probe: &Probe,
    socket: &Path,
    pid: Option<u32>,
    saw: &Saw,
) -> Option<String> {
    for _ in 0..MISSES {
        if pid.is_some_and(|pid| is_traced(pid) || has_ended(pid)) {
            return None;
        }
        let silent = format!("connected, but no answer within {} s", MISS.as_secs());
        let (what, pause) = match tokio::time::timeout(MISS, ask_once(socket, probe)).await {
            Ok(Ok(())) => return None,
            Ok(Err(what)) => (what, REFUSED_PAUSE),
            Err(_) => (silent, Duration::ZERO),
        };
        say(saw, what);
        tokio::time::sleep(pause).await;
    }
    let is_excused = |pid| is_traced(pid) || has_ended(pid);
    (!pid.is_some_and(is_excused)).then(|| lock(saw).clone())
}

async fn ask_once(socket: &Path, probe: &Probe) -> Result<(), String> {
    match probe {
        Probe::Http { path } => head(socket, path).await,
        _ => UnixStream::connect(socket).await.map(drop).map_err(|e| not_listening(&e)),
    }
}

/// The debugger of a process is looked for in so many of its descendants at most.
const DESCENDANTS: usize = 64;

/// A debugger is attached to the process, or to one that it started: servers like gunicorn
/// answer in a child.
fn is_traced(pid: u32) -> bool {
    let mut processes = vec![pid];
    for at in 0..DESCENDANTS {
        let Some(pid) = processes.get(at).copied() else { return false };
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
        if tracer.is_some_and(|tracer| tracer.trim() != "0") {
            return true;
        }
        let threads =
            std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        for thread in threads {
            let children = std::fs::read_to_string(thread.path().join("children"));
            let children = children.unwrap_or_default();
            processes.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    false
}

/// A signal (SIGSTOP) has stopped the process.
pub(crate) fn is_stopped(pid: u32) -> bool {
    state(pid) == Some('T')
}

/// The process has ended, and its parent has not reaped it yet.
fn has_ended(pid: u32) -> bool {
    matches!(state(pid), Some('Z' | 'X'))
}

/// The state of a process: field 3 of proc_pid_stat(5).
fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next())
}

/// The pause between two tries. It is short at first, because the start of a worker is the
/// time that its slot is empty after a crash.
fn pause(age: Duration) -> Duration {
    match age.as_millis() {
        0..500 => Duration::from_millis(5),
        500..5_000 => Duration::from_millis(20),
        _ => Duration::from_millis(100),
    }
}

/// Asks `HEAD path`. Any HTTP answer counts, also an error status.
async fn head(socket: &Path, path: &str) -> Result<(), String> {
    let mut stream = UnixStream::connect(socket).await.map_err(|e| not_listening(&e))?;
    let request = format!(
        "HEAD {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: mfserv-probe\r\nConnection: close\r\n\r\n"
    );
    let silent = |e: std::io::Error| format!("connected, but no answer: {e}");
    stream.write_all(request.as_bytes()).await.map_err(silent)?;
    let mut answer = Vec::with_capacity(1024);
    while !answer.windows(4).any(|four| four == b"\r\n\r\n") {
        let n = stream.read_buf(&mut answer).await.map_err(silent)?;
        if n == 0 || answer.len() > LONGEST_HEAD {
            break;
        }
    }
    if answer.starts_with(b"HTTP/1.") {
        return Ok(());
    }
    Err(match answer.is_empty() {
        true => "connected, but it closed without an answer".into(),
        false => format!(
            "answered, but not HTTP: {}",
            String::from_utf8_lossy(&answer[..answer.len().min(40)])
        ),
    })
}

fn not_listening(error: &std::io::Error) -> String {
    format!("not listening on its socket: {error}")
}

async fn notified_ready(socket: &UnixDatagram, saw: &Saw) {
    let mut buffer = [0; 4096];
    while let Ok(n) = socket.recv(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..n]);
        if text.lines().any(|line| line == "READY=1") {
            return;
        }
        if let Some(status) = text.lines().find_map(|line| line.strip_prefix("STATUS=")) {
            say(saw, status.chars().take(200).collect());
        }
    }
    std::future::pending().await
}

fn say(saw: &Saw, what: String) {
    *lock(saw) = what;
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    fn place(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("mfserv-probe-{}-{name}.sock", std::process::id()))
    }

    async fn serve(path: PathBuf, answers: Vec<&'static [u8]>) {
        let listener = UnixListener::bind(&path).unwrap();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
        }
    }

    #[tokio::test]
    async fn listening_is_not_being_ready() {
        let path = place("slow");
        let saw = Saw::default();
        let prepared = Prepared::Ask(path.clone());
        let probe = until_ready(Probe::Http { path: "/p".into() }, prepared, saw.clone());
        let server = serve(path.clone(), vec![b"", b"garbage", b"HTTP/1.0 500 No\r\n\r\n"]);
        let both = async { tokio::join!(probe, server) };
        tokio::time::timeout(Duration::from_secs(10), both).await.expect("ready in the end");
        assert!(saw.lock().unwrap().contains("not HTTP"));
        std::fs::remove_file(path).unwrap();
    }

    #[tokio::test]
    async fn a_worker_can_say_by_itself_that_it_is_ready() {
        let path = place("notify");
        let prepared = prepare(&Probe::Notify, None, &path).unwrap();
        let worker = UnixDatagram::unbound().unwrap();
        worker.send_to(b"STATUS=warming up", &path).await.unwrap();
        worker.send_to(b"MAINPID=1\nREADY=1\n", &path).await.unwrap();
        let ready = until_ready(Probe::Notify, prepared, Saw::default());
        tokio::time::timeout(Duration::from_secs(10), ready).await.expect("ready");
        std::fs::remove_file(path).unwrap();
    }
}
