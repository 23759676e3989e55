//! The connection to one front.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::names::WorkerId;
use mfserv_core::wire::front::{FromFront, Peer, ToFront, VERSION};
use mfserv_platform::link::AsyncLink;
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

/// The pause between two tries to connect to a front that does not listen yet.
const CONNECT_PAUSE: Duration = Duration::from_millis(2);
/// The pause after the first connection on which a front did not greet; it doubles.
const GREETING_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause after such a connection.
const GREETING_PAUSE_MAX: Duration = Duration::from_secs(5);

/// Messages to one front that it has not read yet. A front that leaves more unread hangs.
const UNSENT: usize = 16_384;

/// What a link reports to the board.
pub enum Report {
    /// It is connected.
    Connected(WorkerId, Session),
    /// The front has sent a message.
    Message(WorkerId, FromFront),
    /// The front has closed the connection.
    Lost(WorkerId),
}

/// What the board knows of a front that is connected, and how it sends to it.
pub struct Session {
    outgoing: mpsc::Sender<ToFront>,
    /// The version of the protocol that the front speaks.
    pub version: u32,
    /// The generation that it has reported to route by, since it was connected.
    pub generation: Option<u64>,
}

impl Session {
    /// Sends a message; never waits. False if the front has left too many unread.
    pub fn send(&self, message: ToFront) -> bool {
        match self.outgoing.try_send(message) {
            // `Report::Lost` follows.
            Ok(()) | Err(TrySendError::Closed(_)) => true,
            Err(TrySendError::Full(_)) => false,
        }
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
        Self::greet(UnixStream::connect(socket).await.map_err(broken)?).await
    }

    /// The same with a front that does not listen yet, or does not greet: tries until it does.
    pub async fn connect_again(socket: &Path) -> Link {
        let mut greeting_pause = GREETING_PAUSE;
        loop {
            let pause = match UnixStream::connect(socket).await {
                Err(_) => CONNECT_PAUSE,
                Ok(stream) => match Self::greet(stream).await {
                    Ok((link, ..)) => return link,
                    // It is no front, or one that cannot speak with this daemon.
                    Err(_) => {
                        let longer = (greeting_pause * 2).min(GREETING_PAUSE_MAX);
                        std::mem::replace(&mut greeting_pause, longer)
                    }
                },
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn greet(
        stream: UnixStream,
    ) -> Result<(Link, u64, BTreeMap<String, Vec<Peer>>), Diagnostic> {
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

    /// Carries messages both ways until the connection ends.
    pub async fn carry(mut self, front: WorkerId, reports: mpsc::Sender<Report>) {
        let (outgoing, mut unsent) = mpsc::channel(UNSENT);
        let session = Session { outgoing, version: self.version, generation: None };
        let mut next = Report::Connected(front.clone(), session);
        // The board is gone when the daemon ends.
        while reports.send(next).await.is_ok() {
            next = loop {
                tokio::select! {
                    message = self.next() => match message {
                        Ok(message) => break Report::Message(front.clone(), message),
                        Err(_) => break Report::Lost(front.clone()),
                    },
                    message = unsent.recv() => match message {
                        Some(message) if self.send(&message).await.is_ok() => {}
                        _ => break Report::Lost(front.clone()),
                    },
                }
            };
            if matches!(next, Report::Lost(_)) {
                let _ = reports.send(next).await;
                return;
            }
        }
    }
}

fn broken(cause: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error("the link to a front broke").because(cause)
}
