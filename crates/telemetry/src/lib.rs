//! Reading what happened: the last lines of log files, the lines that come, and shipping them.

#![forbid(unsafe_code)]

mod follow;
pub mod ship;
mod tail;

pub use follow::Follower;
pub use tail::tail;
