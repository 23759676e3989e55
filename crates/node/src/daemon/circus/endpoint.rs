//! The sockets of Circus: opened as the plan says, and served.
//!
//! Everything is bounded: clients, the time of a handshake, the size of a message, the topics
//! of a subscriber, the events that wait for it, the time in which it takes one.

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use mfserv_core::circus::{Circus as Settings, Endpoint};
use mfserv_core::event::Fact;
use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::socket::PrivateSocket;
use mfserv_zmtp::{Connection, Event, Limits, Role};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, broadcast};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::events::{Published, Publisher};
use super::{Access, Circus, ini};
use crate::operations::Who;

/// At most this many clients of a socket at a time; others wait in its backlog.
const MAX_CLIENTS: usize = 64;
/// A client has this long for greeting and handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that has asked nothing for so long is disconnected; ZeroMQ connects again by itself.
const IDLE: Duration = Duration::from_secs(600);
/// A client has this long to take what it is sent.
const TAKEN: Duration = Duration::from_secs(10);
/// What a client may send at a time.
const LIMITS: Limits = Limits { message: 64 * 1024, frames: 8 };
/// The most topics of a subscriber.
const MAX_TOPICS: usize = 64;
/// The pause after a connection could not be accepted (no file descriptor is free).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// So often it is looked whether the sockets are still there, and what the plan says.
const LOOK: Duration = Duration::from_secs(2);

/// Why a connection ended: the peer has gone, broke the protocol, or took too long.
struct Closed;

/// A connection with a client.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Serves the endpoints of the plan in force, and shows its watchers in `circus.ini`, for ever.
pub async fn run(circus: Circus) {
    let node = circus.node.clone();
    let mut plans = node.parts.plans.subscribe();
    let mut publisher = Publisher::new(&node).await;
    let (mut commands, mut events) = (Opened::default(), Opened::default());
    let mut shown = ini::Shown::default();
    loop {
        // A daemon that goes on with an earlier plan has not announced it.
        if let Ok(plan) = node.shown_plan() {
            publisher.planned(&plan);
            let settings = &plan.circus;
            let access = Reach { tcp_may_change: settings.tcp_may_change };
            let serving = circus.clone();
            let mut troubles =
                vec![commands.follow(&settings.endpoint, access, move |stream, access| {
                    answer_client(stream, serving.clone(), access)
                })];
            let feed = publisher.feed();
            let pubsub =
                settings.pubsub.clone().filter(|it| settings.endpoint.as_ref() != Some(it));
            troubles.push(events.follow(&pubsub, access, move |stream, _| {
                serve_subscriber(stream, feed.subscribe())
            }));
            for problem in troubles.into_iter().flatten() {
                node.parts.events.record(Fact::Problem { problem });
            }
            let trouble = [&commands.trouble, &events.trouble].into_iter().flatten();
            let mut notes: Vec<String> = trouble
                .map(|trouble| format!("{}: {}", trouble.what, trouble.because.join(", ")))
                .collect();
            if settings.endpoint.is_some() && settings.endpoint == settings.pubsub {
                notes.push("events of Circus: [circus] pubsub_endpoint is endpoint too".into());
            }
            if let Ok(mut known) = node.circus_notes.lock() {
                *known = notes;
            }
            shown.follow(&node, &plan);
        }
        tokio::select! {
            changed = plans.changed() => if changed.is_err() { return },
            () = publisher.relay() => {}
            () = sleep(LOOK) => {}
        }
    }
}

/// How far clients of a socket may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    tcp_may_change: bool,
}

/// An endpoint as it is served now.
#[derive(Default)]
struct Opened {
    what: Option<(Endpoint, Reach)>,
    task: Option<AbortHandle>,
    /// What was wrong at the last try.
    trouble: Option<Diagnostic>,
}

impl Opened {
    /// Serves this endpoint from now on, in place of another one. Returns trouble that is new.
    fn follow<F, S>(
        &mut self,
        wanted: &Option<Endpoint>,
        reach: Reach,
        serve: F,
    ) -> Option<Diagnostic>
    where
        F: Fn(Box<dyn Stream>, Access) -> S + Send + 'static,
        S: Future<Output = Result<(), Closed>> + Send + 'static,
    {
        let wanted = wanted.clone().map(|endpoint| (endpoint, reach));
        if wanted == self.what && (self.task.is_some() || wanted.is_none()) {
            return None;
        }
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.what = wanted;
        let Some((endpoint, _)) = &self.what else {
            self.trouble = None;
            return None;
        };
        match Listener::open(endpoint) {
            Ok(listener) => {
                self.task = Some(tokio::spawn(accept(listener, reach, serve)).abort_handle());
                self.trouble = None;
                None
            }
            Err(problem) => {
                let before = self.trouble.replace(problem.clone());
                (before.as_ref() != Some(&problem)).then_some(problem)
            }
        }
    }
}

enum Listener {
    Unix { socket: PrivateSocket, _file: Removed },
    Tcp(TcpListener),
}

/// The file of a socket, removed when nobody listens any more.
struct Removed(PathBuf);

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Listener {
    fn open(endpoint: &Endpoint) -> Result<Listener, Diagnostic> {
        let failed = |why: &dyn std::fmt::Display| {
            Diagnostic::error(format!("cannot listen on {endpoint}"))
                .kind(Kind::BadConfiguration)
                .because(why)
                .help("`circusctl` of mfserv works all the same; see [circus] in config.ini")
        };
        match endpoint {
            Endpoint::Unix(path) if is_another_file(path) => {
                Err(failed(&"there is a file that is no socket"))
            }
            Endpoint::Unix(path) => {
                let socket = PrivateSocket::listen(path).map_err(|why| failed(&why))?;
                Ok(Listener::Unix { socket, _file: Removed(path.clone()) })
            }
            Endpoint::Tcp(address) => {
                let listen = || {
                    let socket = std::net::TcpListener::bind(address)?;
                    socket.set_nonblocking(true)?;
                    TcpListener::from_std(socket)
                };
                listen().map(Listener::Tcp).map_err(|why| failed(&why))
            }
        }
    }

    /// The next client, and what it may do; `None` if it may not even ask.
    async fn next(&self, reach: Reach) -> std::io::Result<Option<(Box<dyn Stream>, Access)>> {
        match self {
            Listener::Unix { socket, .. } => {
                let stream = socket.accept().await?;
                let peer = stream.peer_cred()?;
                let own = rustix::process::geteuid().as_raw();
                let user = crate::host::user_name(peer.uid()).unwrap_or_default();
                let pid = peer.pid().and_then(|pid| pid.try_into().ok()).unwrap_or(0);
                let who = Who { command: "circusctl".into(), user, uid: peer.uid(), pid };
                let may_ask = peer.uid() == own || peer.uid() == 0;
                Ok(may_ask.then(|| (Box::new(stream) as Box<dyn Stream>, Access::Full(who))))
            }
            Listener::Tcp(socket) => {
                let (stream, _) = socket.accept().await?;
                let command = "circusctl over TCP".into();
                let who = Who { command, user: "unknown".into(), ..Who::default() };
                let access = if reach.tcp_may_change { Access::Full(who) } else { Access::Look };
                Ok(Some((Box::new(stream), access)))
            }
        }
    }

    fn look_after(&mut self) {
        if let Listener::Unix { socket, .. } = self {
            socket.look_after();
        }
    }
}

/// Removes the sockets of a node that ends.
pub fn remove_sockets(settings: &Settings) {
    for endpoint in [&settings.endpoint, &settings.pubsub].into_iter().flatten() {
        match endpoint {
            Endpoint::Unix(path) if !is_another_file(path) => drop(std::fs::remove_file(path)),
            Endpoint::Unix(_) | Endpoint::Tcp(_) => {}
        }
    }
}

/// What is there must not be replaced by a socket.
fn is_another_file(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}

/// Accepts clients and serves each in a task of its own, which ends with it, and with this one: a
/// client must not go on after its endpoint has changed what it allows.
async fn accept<F, S>(mut listener: Listener, reach: Reach, serve: F)
where
    F: Fn(Box<dyn Stream>, Access) -> S + Send + 'static,
    S: Future<Output = Result<(), Closed>> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CLIENTS));
    let mut clients = JoinSet::new();
    loop {
        let next = async {
            let place = places.clone().acquire_owned().await.ok()?;
            Some((place, listener.next(reach).await))
        };
        let next = tokio::select! {
            next = next => next,
            Some(_) = clients.join_next() => continue,
            () = sleep(LOOK) => {
                listener.look_after();
                continue;
            }
        };
        match next {
            Some((place, Ok(Some((stream, access))))) => {
                let serving = serve(stream, access);
                clients.spawn(async move {
                    let _place = place;
                    let _ = serving.await;
                });
            }
            Some((_, Ok(None))) => {}
            Some((_, Err(_))) => sleep(ACCEPT_PAUSE).await,
            None => return,
        }
    }
}

/// A client, its bytes, and what they mean.
struct Client {
    stream: Box<dyn Stream>,
    connection: Connection,
    /// When the handshake must be over.
    deadline: Instant,
}

impl Client {
    async fn greet(stream: Box<dyn Stream>, role: Role) -> Result<Client, Closed> {
        let (connection, greeting) = Connection::new(role, LIMITS);
        let mut client = Client { stream, connection, deadline: Instant::now() + HANDSHAKE };
        client.write(&greeting).await?;
        Ok(client)
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        let written = timeout(TAKEN, self.stream.write_all(bytes)).await;
        written.map_err(|_| Closed)?.map_err(|_| Closed)
    }

    /// Waits for more bytes. Nothing is lost when the future is dropped.
    async fn read(&mut self) -> Result<(), Closed> {
        let mut bytes = [0; 4096];
        let read = self.stream.read(&mut bytes).await.map_err(|_| Closed)?;
        self.connection.receive(&bytes[..read]);
        if read == 0 { Err(Closed) } else { Ok(()) }
    }

    /// Waits for more bytes as long as a client may be silent.
    async fn read_in_time(&mut self, idle: Duration) -> Result<(), Closed> {
        let until = if self.connection.is_ready() { Instant::now() + idle } else { self.deadline };
        tokio::time::timeout_at(until, self.read()).await.map_err(|_| Closed)?
    }

    /// What it has said; what only the protocol expects is answered here.
    async fn said(&mut self) -> Result<Option<Event>, Closed> {
        while let Some(event) = self.connection.next_event().map_err(|_| Closed)? {
            match event {
                Event::Reply(bytes) => self.write(&bytes).await?,
                Event::Ready => {}
                other => return Ok(Some(other)),
            }
        }
        Ok(None)
    }
}

/// Answers a client, one message after the other.
async fn answer_client(
    stream: Box<dyn Stream>,
    circus: Circus,
    access: Access,
) -> Result<(), Closed> {
    let mut client = Client::greet(stream, Role::Router).await?;
    loop {
        while let Some(event) = client.said().await? {
            let Event::Message(mut frames) = event else { continue };
            let Some(text) = frames.pop() else { continue };
            let mut answering = std::pin::pin!(circus.answer(text, access.clone()));
            let answer = loop {
                // It is noticed when the client goes, unless it has said more before.
                let listens = client.connection.pending() == 0;
                tokio::select! {
                    answer = answering.as_mut() => break answer,
                    read = client.read(), if listens => read?,
                }
            };
            let Some(answer) = answer else { continue };
            let text = serde_json::to_vec(&answer).unwrap_or_default();
            let envelope = frames.iter().map(Vec::as_slice);
            let frames: Vec<&[u8]> = envelope.chain([text.as_slice()]).collect();
            client.write(&mfserv_zmtp::message(&frames)).await?;
        }
        client.read_in_time(IDLE).await?;
    }
}

/// Sends a subscriber the events that it wants. One that is slow misses some.
async fn serve_subscriber(
    stream: Box<dyn Stream>,
    mut feed: broadcast::Receiver<Arc<Published>>,
) -> Result<(), Closed> {
    let mut client = Client::greet(stream, Role::Publisher).await?;
    let mut topics: BTreeMap<Vec<u8>, u32> = BTreeMap::new();
    loop {
        while let Some(event) = client.said().await? {
            match event {
                Event::Subscribe(topic) => {
                    *topics.entry(topic).or_default() += 1;
                    if topics.len() > MAX_TOPICS {
                        return Err(Closed);
                    }
                }
                Event::Unsubscribe(topic) => {
                    let left = topics.get_mut(&topic).map_or(1, |times| {
                        *times = times.saturating_sub(1);
                        *times
                    });
                    if left == 0 {
                        topics.remove(&topic);
                    }
                }
                _ => {}
            }
        }
        if !client.connection.is_ready() {
            client.read_in_time(HANDSHAKE).await?;
            continue;
        }
        tokio::select! {
            read = client.read() => read?,
            published = feed.recv() => match published {
                Ok(published) => {
                    let topic = published.topic.as_bytes();
                    if topics.keys().any(|wanted| topic.starts_with(wanted)) {
                        let message = mfserv_zmtp::message(&[topic, published.text.as_bytes()]);
                        client.write(&message).await?;
                    }
                }
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
        }
    }
}
