//! HTTP/1.1 as bytes in, meaning out: no socket, no clock.
//!
//! One strict reading of RFC 9112 for both sides. Whatever could be understood in two
//! ways is refused here, before anything of it is passed on; what is passed on is
//! written anew from what was understood.

mod body;
mod field;
mod request;
mod response;
mod scan;

pub use body::{BodyReader, Framing, Piece};
pub use field::{Field, Fields, Name, Span};
pub use request::RequestHead;
pub use response::ResponseHead;
pub use scan::HeadScan;

/// The largest head (start line and fields) that is accepted, bytes.
pub const HEAD_MAX: usize = 32 * 1024;
/// The most fields that a head may have.
pub const FIELDS_MAX: usize = 100;

/// Why bytes are not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The status code for a client that sent them.
    pub status: u16,
    /// What is wrong with them.
    pub reason: &'static str,
}

impl Refusal {
    const fn bad(reason: &'static str) -> Self {
        Self { status: 400, reason }
    }

    const fn with(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }
}
