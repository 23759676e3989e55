//! How the workers of an app take requests by themselves: what the front and a worker say to each
//! other.
//!
//! A front that gives each request to a worker has to wake it, and is woken by its answer, for
//! every single request. A worker that *pulls* takes the next request of a queue when it is done
//! with one, and sleeps only if there is none; and no request stands behind another one while a
//! worker is idle.
//!
//! ```text
//!  front ──────── messages ───────► queue ◄──── worker 1     queue: a pair of SOCK_SEQPACKET sockets
//!    ▲ ▲                              ▲────────── worker 2     for each app
//!    │ └──── answers, one stream socket ────────── worker 1
//!    └────── for each worker ───────────────────── worker 2
//!           page: memory that all share
//! ```
//!
//! - The front connects to the socket of a worker, as for HTTP, and sends an [`Offer`]: the queue
//!   and the page. The worker answers with [`FrameKind::Ready`]; one that does not know offers
//!   refuses what is no HTTP.
//! - A [`Message`] is one request. A worker says in the page which one it has ([`Page::claim`])
//!   *before* its app is called, and answers each message that it has received with one [`Frame`].
//! - An answer that is not there as a whole, and that of a request which is too long for a message,
//!   has the connection of the answers for itself until the front has said [`TAKEN`]: where the front
//!   closes it in the middle, no other answer is lost.
//! - The connection of the answers is the sign of life. If its end for the worker is shut, the
//!   worker takes no more from this queue, and closes it. If it is closed, nobody wants answers.
//! - The front gives a request up in the page ([`Page::give_up`]). The worker looks there after it
//!   has claimed it, and the front looks who has claimed it after it has given it up, so that at
//!   least one of them knows: a request that the front finds given up and not claimed never begins.

#![deny(unsafe_code)]

mod message;
mod offer;
mod page;

pub use self::message::{
    FRAME_LEN, Frame, FrameKind, MESSAGE_HEAD, MESSAGE_MAX, Message, MessageKind, Received, TAKEN,
    receive, send, unread,
};
pub use self::offer::{Offer, queue, read_first};
pub use self::page::{LINES, Page, now_ns};
