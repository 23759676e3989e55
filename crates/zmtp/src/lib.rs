//! ZMTP 3, the wire protocol of ZeroMQ (RFC 23 and 37), for a server without security, and for those
//! who subscribe to it: the mechanism NULL. Bytes in, meaning out: no socket, no clock.
//!
//! A server needs no more of ZeroMQ than this. Each of its connections is a [`Connection`]: a
//! ROUTER answers on the connection on which it was asked, so that the identity of the peer is
//! of no interest; a PUB sends to those connections that have subscribed.
//!
//! A peer can make a connection hold no more than one message of the largest size and what is
//! handed to [`Connection::receive`] at a time.

#![forbid(unsafe_code)]

mod connection;
mod frame;
mod greeting;

pub use connection::{Connection, Event, Limits, Role};
pub use frame::message;

/// Why bytes of a peer are not accepted. The connection is to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation(pub &'static str);

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}
