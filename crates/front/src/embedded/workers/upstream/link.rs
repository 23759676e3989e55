//! A connection to a worker, or why there is none.

use crate::embedded::io::budget::Descriptor;
use crate::embedded::io::wire::Wire;

/// A connection to a worker.
#[derive(Debug)]
pub struct Link {
    /// The stream.
    pub wire: Wire,
    /// It has carried a request before.
    pub reused: bool,
    /// `None` if it is none: all has come with the answer.
    pub(super) descriptor: Option<Descriptor>,
}

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoLink {
    /// Its backlog is full.
    Busy,
    /// There is no descriptor for it.
    NoDescriptor,
    /// Nobody listens there.
    Refused,
    /// This user listens on its port, who is not the worker's.
    Foreign(u32),
}

impl NoLink {
    /// The worker is not there.
    pub fn is_refusal(self) -> bool {
        matches!(self, NoLink::Refused | NoLink::Foreign(_))
    }
}
