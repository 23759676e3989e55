//! Operations: every way in which a node is changed. Each has an id, runs to its end in the
//! process that conducts it (the daemon; where no node runs, the command itself), reports its
//! steps as [`Event`]s, and leaves one [`Record`] in the journal.
//!
//! `deploy.rs`, `rollback.rs`, `uninstall.rs`… are the operations themselves, each a short
//! function over a [`Node`]: the daemon's, or one that does not run ([`AtRest`]). `running.rs`
//! is what they use to claim a plugin, report steps and commit. `registry.rs` accepts, follows
//! and cancels operations; `recovery.rs` finishes or undoes those of a daemon that died.

mod conduct;
mod deploy;
mod env;
mod event;
mod here;
mod id;
mod journal;
mod link;
mod maintenance;
mod node;
mod record;
mod recovery;
mod registry;
mod reload;
mod request;
mod restart;
mod rollback;
mod running;
mod scale;
mod stop;
mod switch;
#[cfg(test)]
mod tests;
mod uninstall;
mod verdict;

pub use event::{Applied, Event, FinishedBy, Outcome, StepState};
pub use here::{Here, conduct_here};
pub use id::OperationId;
pub use journal::Journal;
pub use node::{AtRest, Counts, Node, Staging, Trial};
pub use record::Record;
pub use registry::Operations;
pub use request::{Request, Submission, Who};
