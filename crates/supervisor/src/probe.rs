//! Readiness probes: a worker is ready when it has been observed to be.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mfserv_core::watcher::Probe;
use mfserv_platform::loopback::Listener;
use mfserv_platform::sync::lock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixDatagram;
use tokio::time::Instant;

use crate::place::{Miss, Place, Stream, elsewhere};

/// The longest head of an answer to a probe, bytes.
const LONGEST_HEAD: usize = 32 * 1024;

/// So often it is looked where a worker listens that does not listen on its port.
const LOOK_ELSEWHERE: Duration = Duration::from_secs(1);

/// What the probes of a worker have seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// What the last one saw, as a text for people.
    pub text: String,
    /// The status of the last HTTP answer.
    pub status: Option<u16>,
    /// Its process, once there is one.
    pub pid: Option<u32>,
    /// The socket of it that listens on its port.
    pub listener: Option<Listener>,
    /// It has no socket that listens, neither on its port nor elsewhere.
    pub listens_nowhere: bool,
}

/// What the probes of a worker have seen, shared with the task that probes.
pub(crate) type Saw = Arc<Mutex<Seen>>;

/// What a probe needs, made before the worker starts.
pub(crate) enum Prepared {
    /// The worker says it here; one on a port also has to listen there.
    Notify(UnixDatagram, Option<Place>),
    Ask(Place),
    Nothing,
}

/// Prepares the probe of a worker. A worker with [`Probe::Notify`] needs the notify socket
/// before it starts.
pub(crate) fn prepare(
    probe: &Probe,
    place: Option<Place>,
    notify: &Path,
) -> std::io::Result<Prepared> {
    match probe {
        Probe::Notify => {
            let _ = std::fs::remove_file(notify);
            Ok(Prepared::Notify(UnixDatagram::bind(notify)?, place))
        }
        Probe::HttpAt { socket } => Ok(Prepared::Ask(Place::Socket(socket.clone()))),
        Probe::Http { .. } | Probe::Connect => Ok(place.map_or(Prepared::Nothing, Prepared::Ask)),
        Probe::Told | Probe::Alive { .. } => Ok(Prepared::Nothing),
    }
}

/// What the wait for a worker has come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It is ready.
    Ready,
    /// It will never be: another process listens on its port.
    PortTaken,
}

/// Returns once the worker is ready. The start timeout of the worker ends it otherwise.
pub(crate) async fn until_ready(probe: Probe, prepared: Prepared, saw: Saw) -> Found {
    match (probe, prepared) {
        (Probe::Http { path, .. }, Prepared::Ask(place)) => {
            return ask_until(&place, &Asked::Answer(path), &saw).await;
        }
        (Probe::HttpAt { .. }, Prepared::Ask(place)) => {
            return ask_until(&place, &Asked::Answer("/".into()), &saw).await;
        }
        (Probe::Connect, Prepared::Ask(place)) => {
            return ask_until(&place, &Asked::Connect, &saw).await;
        }
        (_, Prepared::Notify(socket, place)) => {
            notified_ready(&socket, &saw).await;
            if let Some(place) = place {
                // Nothing is sent to another process on its port.
                return ask_until(&place, &Asked::Listen, &saw).await;
            }
        }
        (Probe::Alive { for_ms }, _) => tokio::time::sleep(Duration::from_millis(for_ms)).await,
        _ => std::future::pending().await,
    }
    Found::Ready
}

async fn ask_until(place: &Place, asked: &Asked, saw: &Saw) -> Found {
    let began = Instant::now();
    let mut look_at = began + LOOK_ELSEWHERE;
    loop {
        let miss = match ask_once(place, asked, saw).await {
            Ok(()) => return Found::Ready,
            Err(miss) => miss,
        };
        // What was found elsewhere is said until it is looked for again.
        if !lock(saw).text.starts_with(&miss.to_string()) {
            say(saw, miss.to_string());
        }
        if let Miss::PortTaken(_) = miss {
            return Found::PortTaken;
        }
        let pid = lock(saw).pid;
        if let (Place::Port(_), Some(pid), true) = (place, pid, look_at <= Instant::now()) {
            look_at = Instant::now() + LOOK_ELSEWHERE;
            let address = elsewhere(pid).await;
            lock(saw).listens_nowhere = address.is_none();
            if let Some(address) = address {
                say(saw, format!("{miss}; it listens on {address}"));
            }
        }
        tokio::time::sleep(pause(began.elapsed())).await;
    }
}

/// How a worker that was ready is asked whether it still answers.
pub(crate) struct Question {
    /// Where.
    pub place: Place,
    /// What it has to do.
    pub asked: Asked,
    /// It is stuck after so long without an answer.
    pub patience: Duration,
    /// Its process.
    pub pid: Option<u32>,
}

/// What a worker has to do.
pub(crate) enum Asked {
    /// To listen on its port; it may be too busy for more.
    Listen,
    /// To take a connection.
    Connect,
    /// To answer a request of this path.
    Answer(String),
}

/// What has come of asking a worker that was ready.
pub(crate) enum Checked {
    /// It has answered.
    Answers,
    /// Nothing can be said: a debugger holds it, or it has ended.
    Excused,
    /// It does not answer; what was seen.
    Stuck(String),
}

/// A worker is stuck after so many connections that it refused, or ended without an answer.
const MISSES: u32 = 3;
/// The pause after such a connection.
const REFUSED_PAUSE: Duration = Duration::from_millis(200);
/// After so long without an answer the status says so.
const SILENCE: Duration = Duration::from_secs(1);

/// Asks a worker that was ready. It is stuck if it refuses three connections, or does not answer
/// within the patience of the question. One request is kept all that time: requests
/// that were given up and asked again would wait in the worker, each behind the other.
///
/// A process that a debugger holds is not asked; one that has ended is not stuck: the keeper
/// reports its end.
pub(crate) async fn check(question: &Question, saw: &Saw) -> Checked {
    let deadline = Instant::now() + question.patience;
    for _ in 0..MISSES {
        if question.pid.is_some_and(|pid| has_ended(pid) || has_tracer(pid)) {
            return Checked::Excused;
        }
        match tokio::time::timeout_at(deadline, keep_asking(question, saw)).await {
            Ok(Ok(())) => return Checked::Answers,
            Ok(Err(miss)) => say(saw, miss.to_string()),
            Err(_) => {
                say(saw, no_answer_within(question.patience));
                break;
            }
        }
        tokio::time::sleep(REFUSED_PAUSE).await;
    }
    match is_excused(question.pid).await {
        true => Checked::Excused,
        false => Checked::Stuck(lock(saw).text.clone()),
    }
}

/// Waits for the answer to one request.
async fn keep_asking(question: &Question, saw: &Saw) -> Result<(), Miss> {
    let answer = ask_once(&question.place, &question.asked, saw);
    tokio::pin!(answer);
    tokio::select! {
        answered = &mut answer => return answered,
        () = tokio::time::sleep(SILENCE) => say(saw, no_answer_within(SILENCE)),
    }
    answer.await
}

fn no_answer_within(time: Duration) -> String {
    format!("connected, but no answer within {} s", time.as_secs())
}

async fn ask_once(place: &Place, asked: &Asked, saw: &Saw) -> Result<(), Miss> {
    if let Asked::Listen = asked {
        return place.is_its_own(saw).await;
    }
    let stream = place.connect(saw).await?;
    if let Asked::Answer(path) = asked {
        let status = head(stream, path).await.map_err(Miss::Silent)?;
        lock(saw).status = status;
    }
    Ok(())
}

/// The process has ended, or a debugger is attached to it or to one that it started. Such a tree
/// can be large, and reading it takes the locks of its processes: another thread reads it.
async fn is_excused(pid: Option<u32>) -> bool {
    let Some(pid) = pid.filter(|pid| state(*pid).is_some()) else { return false };
    has_ended(pid) || tokio::task::spawn_blocking(move || is_traced(pid)).await.unwrap_or(false)
}

/// The debugger of a process is looked for in so many of its descendants at most.
const DESCENDANTS: usize = 64;

/// A debugger is attached to the process, or to one that it started: servers like gunicorn
/// answer in a child.
fn is_traced(pid: u32) -> bool {
    let mut processes = vec![pid];
    for at in 0..DESCENDANTS {
        let Some(pid) = processes.get(at).copied() else { return false };
        if has_tracer(pid) {
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

/// A debugger is attached to this process.
fn has_tracer(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:"));
    tracer.is_some_and(|tracer| tracer.trim() != "0")
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

/// Asks `HEAD path`. Any HTTP answer counts, also an error status. Returns the status, if the
/// answer has one.
async fn head(mut stream: Box<dyn Stream>, path: &str) -> Result<Option<u16>, String> {
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
        let status = answer.split(|byte| *byte == b' ').nth(1).and_then(|word| word.get(..3));
        return Ok(status.and_then(|word| std::str::from_utf8(word).ok()?.parse().ok()));
    }
    Err(match answer.is_empty() {
        true => "connected, but it closed without an answer".into(),
        false => format!(
            "answered, but not HTTP: {}",
            String::from_utf8_lossy(&answer[..answer.len().min(40)])
        ),
    })
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
    lock(saw).text = what;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;
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
        let prepared = Prepared::Ask(Place::Socket(path.clone()));
        let probe =
            until_ready(Probe::Http { path: "/p".into(), named: false }, prepared, saw.clone());
        let server = serve(path.clone(), vec![b"", b"garbage", b"HTTP/1.0 500 No\r\n\r\n"]);
        let both = async { tokio::join!(probe, server) };
        tokio::time::timeout(Duration::from_secs(10), both).await.expect("ready in the end");
        let saw = saw.lock().unwrap();
        assert!(saw.text.contains("not HTTP"));
        assert_eq!(saw.status, Some(500));
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
