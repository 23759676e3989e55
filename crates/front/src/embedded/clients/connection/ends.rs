//! Who is at the other end of a connection, and where the client has connected to.

use std::net::{IpAddr, SocketAddr};

use super::Connection;
use crate::embedded::io::tls::{Identity, TlsStream};

/// The two ends of a connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Ends {
    /// The address that connected; `None` over a unix socket.
    pub client: Option<SocketAddr>,
    /// The address that it connected to, as nginx says; else the system knows it.
    pub reached: Option<IpAddr>,
    /// The port that it connected to; `None` over a unix socket.
    pub port: Option<u16>,
    /// TLS is spoken on that port.
    pub is_tls: bool,
    /// It is nginx that connected: each request says for which client (`edge.rs`).
    pub is_edge: bool,
}

impl Connection {
    /// True if nginx has connected, as the edge of the node.
    pub fn is_edge(&self) -> bool {
        self.ends.is_edge
    }

    /// Takes over what nginx says of who asks by this connection from now on.
    pub fn set_ends(&mut self, ends: Ends, identity: Option<Identity>) {
        let address = ends.client.map(|client| client.ip().to_canonical());
        if address != self.peer || self.peer_text.is_empty() {
            self.peer_text.clear();
            let text = address.map_or("unix:".into(), |address| address.to_string());
            self.peer_text.push_str(&text);
            self.peer = address;
        }
        self.ends = ends;
        self.identity = identity.map(Box::new);
    }

    /// The address that connected; `None` over a unix socket.
    pub fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// The port that connected; `None` over a unix socket.
    pub fn peer_port(&self) -> Option<u16> {
        self.ends.client.map(|client| client.port())
    }

    /// The port that was connected to; `None` over a unix socket.
    pub fn reached_port(&self) -> Option<u16> {
        self.ends.port
    }

    /// The address that was connected to; `None` over a unix socket. Costs a system call.
    pub fn reached_address(&self) -> Option<IpAddr> {
        let address = match self.ends.is_edge {
            true => self.ends.reached,
            false => self.wire.local_address().map(|address| address.ip()),
        };
        address.map(|address| address.to_canonical())
    }

    /// The address that connected, as text: `unix:` over a unix socket.
    pub fn peer_text(&self) -> &str {
        &self.peer_text
    }

    /// TLS on this connection, if its listener speaks it.
    pub fn tls(&self) -> Option<&TlsStream> {
        self.wire.tls()
    }

    /// True if the client has connected over TLS, to this front or to nginx before it.
    pub fn is_secure(&self) -> bool {
        match self.ends.is_edge {
            true => self.ends.is_tls,
            false => self.tls().is_some_and(|tls| !tls.is_clear()),
        }
    }

    /// Who the client is, as an authority says.
    pub fn identity(&self) -> Option<&Identity> {
        match self.ends.is_edge {
            true => self.identity.as_deref(),
            false => self.tls()?.identity().map(|identity| &**identity),
        }
    }
}
