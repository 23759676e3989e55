//! What the steps of a forwarded request share: where it goes, and what came back.

use std::sync::Arc;

use mfserv_h1::ResponseHead;

use super::fastcgi::Mapped;
use super::pool::{App, Pool};
use super::stripped::Stripped;
use crate::embedded::io::buffer::Pooled;

/// Where a request is forwarded to.
#[derive(Clone, Copy)]
pub struct Destination<'a> {
    /// The app.
    pub app: &'a App,
    /// All upstreams of the front.
    pub pool: &'a Arc<Pool>,
    /// The number of the lane that forwards.
    pub lane: usize,
    /// Where the path of the request leads to.
    pub mapped: Mapped<'a>,
    /// The prefix that its worker does not get.
    pub stripped: Option<Stripped<'a>>,
}

/// What a worker has sent. Used again for the next request of the lane.
#[derive(Default)]
pub struct Reply {
    /// The head of its answer.
    pub(super) head: ResponseHead,
    /// What it has sent and nobody has used yet.
    pub(super) ahead: Pooled,
}

impl Reply {
    /// The head of the answer.
    pub fn head(&self) -> &ResponseHead {
        &self.head
    }

    /// Gives back the memory that the next request may not need.
    pub fn shrink(&mut self) {
        self.ahead.give_back();
        self.head.fields.shrink();
    }
}
