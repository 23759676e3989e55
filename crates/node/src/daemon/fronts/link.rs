//! The connection to one front.

use std::collections::BTreeMap;
use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_core::names::WorkerId;
use mfserv_core::wire::front::{FromFront, Peer, ToFront, VERSION};
use mfserv_platform::link::AsyncLink;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

use super::{Fronts, Message};

/// What is said to one front.
pub struct Line {
    sender: mpsc::UnboundedSender<ToFront>,
    /// The version of the protocol that it speaks.
    pub version: u32,
    /// The generation that it has said it routes by, since it was connected.
    pub routes_by: Option<u64>,
}

impl Line {
    /// Says it; never waits.
    pub fn say(&self, message: ToFront) {
        // One that has gone is told of by `Lost`.
        let _ = self.sender.send(message);
    }
}

/// A connection to one front.
pub struct Link {
    messages: AsyncLink,
    version: u32,
}

impl Link {
    /// Connects and exchanges greetings; returns the generation that the front routes
    /// by, and whom it gives requests to.
    pub async fn connect(
        socket: &Path,
    ) -> Result<(Link, u64, BTreeMap<String, Vec<Peer>>), Diagnostic> {
        let stream = UnixStream::connect(socket).await.map_err(broken)?;
        let mut link = Link { messages: AsyncLink::new(stream), version: 0 };
        link.send(&ToFront::Hello { version: VERSION }).await?;
        match link.next().await? {
            FromFront::Hello { version, peers, generation, .. } => {
                link.version = version;
                Ok((link, generation, peers))
            }
            other => Err(broken(format!("it did not greet: {other:?}"))),
        }
    }

    async fn send(&mut self, message: &ToFront) -> Result<(), Diagnostic> {
        self.messages.send(message).await.map_err(broken)
    }

    async fn next(&mut self) -> Result<FromFront, Diagnostic> {
        self.messages.receive().await.map_err(broken)
    }

    /// Carries messages both ways in a task of its own, until the link breaks.
    pub fn start(mut self, front: WorkerId, fronts: Fronts) {
        let (sender, mut to_send) = mpsc::unbounded_channel();
        let line = Line { sender, version: self.version, routes_by: None };
        fronts.send(Message::Connected(front.clone(), line));
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    said = self.next() => match said {
                        Ok(said) => fronts.send(Message::Says(front.clone(), said)),
                        Err(_) => break,
                    },
                    message = to_send.recv() => match message {
                        Some(message) if self.send(&message).await.is_ok() => {}
                        _ => break,
                    },
                }
            }
            fronts.send(Message::Lost(front));
        });
    }
}

fn broken(cause: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error("the link to a front broke").because(cause)
}
