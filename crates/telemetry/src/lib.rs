//! Logs and metrics: reading and finding what happened, shipping it, and the role that counts it.

#![forbid(unsafe_code)]

mod follow;
pub mod logs;
pub mod metrics;
pub mod role;
pub mod ship;
mod tail;
mod troubles;

pub use follow::Follower;
pub use tail::{end_of_lines, tail};
pub use troubles::Troubles;
