//! Reading what happened: the last lines of log files, and the lines that come.

#![forbid(unsafe_code)]

mod follow;
mod tail;

pub use follow::Follower;
pub use tail::tail;
