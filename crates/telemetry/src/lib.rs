//! Logs and metrics: reading what happened, shipping it, and the role that counts it.

#![forbid(unsafe_code)]

mod follow;
pub mod metrics;
pub mod role;
pub mod ship;
mod tail;

pub use follow::Follower;
pub use tail::tail;
