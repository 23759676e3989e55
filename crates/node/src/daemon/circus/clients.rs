//! Clients of the sockets of Circus: those that ask, and those that hear what is published.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use mfserv_zmtp::{Connection, Event, Limits, Role};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast;
use tokio::time::{Instant, timeout};

use super::events::Published;
use super::message::Fields;

/// A client has this long for greeting and handshake, and as long again for its first question
/// or subscription: one that is silent must not keep the place of another.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A client that has asked nothing for so long is disconnected; ZeroMQ connects again by itself.
const IDLE: Duration = Duration::from_secs(600);
/// A client has this long to take what it is sent.
const TAKEN: Duration = Duration::from_secs(10);
/// What a client may send at a time.
const LIMITS: Limits = Limits { message: 64 * 1024, frames: 8 };
/// The most topics of a subscriber.
const MAX_TOPICS: usize = 64;

/// Why a connection ended: the peer has gone, broke the protocol, or took too long.
#[derive(Debug)]
pub struct Closed;

/// A connection with a client.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

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
pub async fn answer_client<A>(
    stream: Box<dyn Stream>,
    answer: impl Fn(Vec<u8>) -> A,
) -> Result<(), Closed>
where
    A: Future<Output = Option<Fields>>,
{
    let mut client = Client::greet(stream, Role::Router).await?;
    let mut idle = HANDSHAKE;
    loop {
        while let Some(event) = client.said().await? {
            let Event::Message(mut frames) = event else { continue };
            let Some(text) = frames.pop() else { continue };
            idle = IDLE;
            let mut answering = std::pin::pin!(answer(text));
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
        client.read_in_time(idle).await?;
    }
}

/// Sends a subscriber the events that it wants. One that is slow misses some.
pub async fn serve_subscriber(
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
        if !client.connection.is_ready() || topics.is_empty() {
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
