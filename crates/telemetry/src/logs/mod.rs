//! Finding lines in logs: in live, rotated and compressed files, by time, worker, release,
//! level, text and request.
//!
//! The index of a log (`mfserv_logfile::Index`) says where to read; a log without one is
//! searched by the times that its lines begin with.

mod content;
mod cursor;
mod line;
mod messages;
mod mflog;
mod part;
mod pattern;
mod request;
mod search;
#[cfg(test)]
mod tests;
mod when;

pub(crate) use line::stamp_of;
pub use line::{Facts, Level, Stamp, facts};
pub use messages::Messages;
pub(crate) use messages::{is_of_plugin, usual_level};
pub use mflog::parsed;
pub(crate) use mflog::request_in_error;
pub use pattern::Pattern;
pub use request::{Request, find_request, find_trace};
pub use search::{Found, Fresh, OfRequest, OfWorker, Order, Searched, Selection, Unread, search};
pub use when::{BadTime, when};
