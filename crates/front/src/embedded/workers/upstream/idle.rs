//! A kept connection to a worker.

use std::task::{Context, Poll, Waker};

use mfserv_core::names::WorkerId;
use tokio::time::Instant;

use crate::embedded::io::budget::Descriptor;
use crate::embedded::io::wire::{Stream, Wire};

/// A connection to a worker without a request.
#[derive(Debug)]
pub struct Idle {
    pub wire: Wire,
    pub descriptor: Descriptor,
    /// The lane with whose reactor it is registered.
    pub lane: usize,
    pub until: Instant,
}

/// What has come from a worker on an idle connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// Nothing, as it should be.
    Nothing,
    /// Its end.
    End,
    /// Bytes that nobody asked for.
    Speech,
}

impl Idle {
    /// Reads without taking anything; `watch` is woken when something comes later.
    pub fn listen(&mut self, watch: &Waker) -> Heard {
        match self.wire.poll_read(&mut Context::from_waker(watch), &mut [0]) {
            Poll::Pending => Heard::Nothing,
            Poll::Ready(Ok(count)) if count > 0 => Heard::Speech,
            Poll::Ready(_) => Heard::End,
        }
    }
}

/// What a sweep of the idle connections found.
#[derive(Debug, Default)]
pub struct Swept {
    /// Some idle connections are left.
    pub left: bool,
    /// Workers that have sent bytes that nobody asked for, and have not been reported yet.
    pub unruly: Vec<WorkerId>,
}
