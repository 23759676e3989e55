//! Why a try with a worker gave no answer.

use mfserv_core::wire::front::TroubleCause;

use crate::embedded::clients::fault::{Cause, Fault};

/// Why a worker gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It took nothing of the request.
    Unsent,
    /// It reset the connection with the request unread.
    Unread,
    /// It ended or reset the connection before it sent anything.
    Silent {
        /// The connection had carried a request before.
        reused: bool,
    },
    /// It ended the connection in the middle of the head.
    Early,
    /// It sent something that is no answer.
    Malformed(&'static str),
    /// It has too much to do, and has not begun with the request.
    Overloaded,
    /// It sent nothing in time.
    Timeout,
    /// The client is to blame.
    Client(Fault),
}

impl Failure {
    /// What the worker did wrong, and when; the fault, if it was the client.
    pub fn trouble(self) -> Result<(TroubleCause, &'static str), Fault> {
        Ok(match self {
            Failure::Unsent => (TroubleCause::Reset, "before the request was sent"),
            Failure::Unread => (TroubleCause::Reset, "with the request unread"),
            Failure::Silent { reused: true } => {
                (TroubleCause::Reset, "on a kept connection, without an answer")
            }
            Failure::Silent { reused: false } => {
                (TroubleCause::Reset, "on a new connection, without an answer")
            }
            Failure::Early => (TroubleCause::EarlyEnd, "in the head of its answer"),
            Failure::Malformed(reason) => (TroubleCause::Malformed, reason),
            Failure::Overloaded => (TroubleCause::Overloaded, "it refuses the request"),
            Failure::Timeout => (TroubleCause::Timeout, "before its answer"),
            Failure::Client(fault) => return Err(fault),
        })
    }

    /// What the client gets.
    pub fn fault(self) -> Fault {
        self.trouble().map_or_else(|fault| fault, |(cause, _)| Cause::Worker(cause).into())
    }
}
