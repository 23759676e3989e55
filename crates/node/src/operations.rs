//! Operations: every way in which a node is changed. Each has an id, runs to its end in the
//! process that conducts it (the daemon; where no node runs, the command itself), reports its
//! steps as [`Event`]s, and leaves one [`Record`] in the journal.

mod event;
mod id;
mod record;
mod request;

pub use event::{Applied, Event, FinishedBy, Outcome, StepState};
pub use id::OperationId;
pub use record::Record;
pub use request::{Request, Submission, Who};
