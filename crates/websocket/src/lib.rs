//! WebSocket (RFC 6455) for a server, after its handshake and without extensions. Bytes in, meaning
//! out: no socket, no clock.
//!
//! A client can make a [`Decoder`] hold no more than one message of the largest size.

#![forbid(unsafe_code)]

mod decoder;
mod frame;

pub use decoder::{Decoder, Event};
pub use frame::{Kind, close_payload, frame_head};

/// The codes of a close that a server has a use for (RFC 6455, 7.4.1).
pub mod code {
    /// All is done.
    pub const NORMAL: u16 = 1000;
    /// The client does not speak the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// There was none in the close. Never sent.
    pub const NONE: u16 = 1005;
    /// The connection ended without a close. Never sent.
    pub const ABNORMAL: u16 = 1006;
    /// A text that is not UTF-8.
    pub const NOT_UTF_8: u16 = 1007;
    /// A message that is too big.
    pub const TOO_BIG: u16 = 1009;
    /// The server has failed.
    pub const INTERNAL: u16 = 1011;
    /// The server starts anew: connect again.
    pub const RESTART: u16 = 1012;
}

/// Why bytes of a client are not accepted. The connection is to be closed with this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// The code of the close.
    pub code: u16,
    /// The reason in the close.
    pub reason: &'static str,
}

impl Failure {
    pub(crate) fn protocol(reason: &'static str) -> Self {
        Self { code: code::PROTOCOL, reason }
    }
}
