//! Finding lines in logs: in live, rotated and compressed files, by time, worker, release,
//! level, text and request.
//!
//! The index of a log (`mfserv_logfile::Index`) says where to read; a log without one is
//! searched by the times that its lines begin with.

mod content;
mod cursor;
mod line;
pub(crate) use line::time_of;
mod mflog;
mod part;
mod pattern;
mod request;
mod search;
#[cfg(test)]
mod tests;
mod when;

pub use line::{Facts, Level, facts};
pub use mflog::parsed;
pub use pattern::Pattern;
pub use request::{Request, find_request};
pub use search::{Found, OfRequest, Order, Selection, search};
pub use when::{BadTime, when};
