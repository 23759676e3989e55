//! Finding lines in logs: in live, rotated and compressed files, by time, worker, release,
//! level, text and request.
//!
//! The index of a log (`mfserv_logfile::Index`) says where to read; a log without one is
//! searched by the times that its lines begin with.

mod content;
mod cursor;
mod line;
mod mflog;
mod part;
mod pattern;
mod request;
mod search;
#[cfg(test)]
mod tests;
mod when;

pub(crate) use line::stamp_of;
pub use line::{Facts, Level, Levels, Stamp, facts};
pub use mflog::parsed;
pub use pattern::Pattern;
pub use request::{Request, find_request};
pub use search::{Found, Fresh, OfRequest, Order, Searched, Selection, Unread, search};
pub use when::{BadTime, when};
