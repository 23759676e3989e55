//! One connection with a peer: greeting, handshake, messages.

use crate::frame::{self, Head, command, parse_command, property};
use crate::{Violation, greeting};

/// What the server's socket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It answers each peer.
    Router,
    /// It sends what it has to those who have subscribed.
    Publisher,
    /// It is sent what it subscribes to. It is the one that connects.
    Subscriber,
}

impl Role {
    fn name(self) -> &'static str {
        match self {
            Role::Router => "ROUTER",
            Role::Publisher => "PUB",
            Role::Subscriber => "SUB",
        }
    }

    /// The sockets that may be connected with it.
    fn peers(self) -> &'static [&'static [u8]] {
        match self {
            Role::Router => &[b"DEALER", b"REQ"],
            Role::Publisher => &[b"SUB", b"XSUB"],
            Role::Subscriber => &[b"PUB", b"XPUB"],
        }
    }
}

/// How much a peer may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest message, and the largest command, bytes.
    pub message: usize,
    /// The most frames of a message.
    pub frames: usize,
}

/// What a peer has said, or what it is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer expects these bytes, unchanged.
    Reply(Vec<u8>),
    /// The handshake is over: messages may be sent.
    Ready,
    /// A message: its frames. (Of a REQ the first one is empty, and belongs before the answer.)
    Message(Vec<Vec<u8>>),
    /// The peer wants what begins with this.
    Subscribe(Vec<u8>),
    /// It does not want it any more.
    Unsubscribe(Vec<u8>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Greeting,
    Handshake,
    Messages,
}

/// The server's side of a connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    limits: Limits,
    stage: Stage,
    /// What has come and is not understood yet.
    input: Vec<u8>,
    /// The frames of the message that is coming.
    frames: Vec<Vec<u8>>,
}

impl Connection {
    /// A connection that has just been made, and the bytes that the peer is sent first.
    pub fn new(role: Role, limits: Limits) -> (Connection, Vec<u8>) {
        let (input, frames) = (Vec::new(), Vec::new());
        let connection = Connection { role, limits, stage: Stage::Greeting, input, frames };
        (connection, greeting::own().to_vec())
    }

    /// The handshake is over.
    pub fn is_ready(&self) -> bool {
        self.stage == Stage::Messages
    }

    /// The peer has sent this. Call [`Connection::next`] until it has nothing more.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// How much has come and is not understood yet, bytes.
    pub fn pending(&self) -> usize {
        self.input.len()
    }

    /// What comes next; `None` if more bytes are needed.
    pub fn next_event(&mut self) -> Result<Option<Event>, Violation> {
        if self.stage == Stage::Greeting {
            if !greeting::check(&self.input)? {
                return Ok(None);
            }
            self.input.drain(..greeting::LENGTH);
            self.stage = Stage::Handshake;
            let own = frame::properties(&[("Socket-Type", self.role.name().as_bytes())]);
            return Ok(Some(Event::Reply(command("READY", &own))));
        }
        loop {
            let held: usize = self.frames.iter().map(Vec::len).sum();
            let most = self.limits.message.saturating_sub(held);
            let Some(head) = frame::head(&self.input, most)? else { return Ok(None) };
            if self.input.len() - head.head < head.body {
                return Ok(None);
            }
            let body: Vec<u8> = self.input.drain(..head.head + head.body).skip(head.head).collect();
            if let Some(event) = self.frame(head, body)? {
                return Ok(Some(event));
            }
        }
    }

    /// A frame has come. `None` if it says nothing by itself.
    fn frame(&mut self, head: Head, body: Vec<u8>) -> Result<Option<Event>, Violation> {
        match (self.stage, head.command) {
            (Stage::Messages, true) => self.command(&body),
            (Stage::Messages, false) => self.piece(head.more, body),
            (_, true) => self.handshake(&body).map(Some),
            (_, false) => Err(Violation("a message comes before the handshake")),
        }
    }

    fn handshake(&mut self, body: &[u8]) -> Result<Event, Violation> {
        let (name, data) = parse_command(body)?;
        if name != b"READY" {
            return Err(Violation("the handshake has no READY"));
        }
        let kind = property(data, "Socket-Type")?.unwrap_or_default();
        if !self.role.peers().contains(&kind) {
            return Err(Violation("a socket of that type cannot be connected with this one"));
        }
        self.stage = Stage::Messages;
        Ok(Event::Ready)
    }

    fn command(&self, body: &[u8]) -> Result<Option<Event>, Violation> {
        let (name, data) = parse_command(body)?;
        Ok(match name {
            // Two bytes say how long the peer waits for an answer.
            b"PING" => {
                let context = data.get(2..).ok_or(Violation("a PING is cut off"))?;
                Some(Event::Reply(command("PONG", context)))
            }
            b"SUBSCRIBE" => Some(Event::Subscribe(data.to_vec())),
            b"CANCEL" => Some(Event::Unsubscribe(data.to_vec())),
            b"ERROR" => return Err(Violation("the peer has reported an error")),
            // RFC 37: other commands are left to later versions.
            _ => None,
        })
    }

    fn piece(&mut self, more: bool, body: Vec<u8>) -> Result<Option<Event>, Violation> {
        if self.frames.len() >= self.limits.frames {
            return Err(Violation("a message has too many frames"));
        }
        self.frames.push(body);
        if more {
            return Ok(None);
        }
        let frames = std::mem::take(&mut self.frames);
        Ok(match (self.role, frames.first().and_then(|first| first.split_first())) {
            (Role::Router | Role::Subscriber, _) => Some(Event::Message(frames)),
            (Role::Publisher, Some((1, topic))) => Some(Event::Subscribe(topic.to_vec())),
            (Role::Publisher, Some((0, topic))) => Some(Event::Unsubscribe(topic.to_vec())),
            // What an XSUB sends besides is for nobody.
            (Role::Publisher, _) => None,
        })
    }
}

#[cfg(test)]
mod tests;
