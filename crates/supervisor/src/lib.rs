//! Watchers and workers: what runs, when it is ready, how it ends.
//!
//! One task ([`Supervisor`]) owns all watchers. It receives messages ([`Handle`]) and waits for
//! nothing but the next message or deadline. The keeper starts the processes ([`KeeperLink`]);
//! a web front, which this crate does not know, gives requests to workers ([`Traffic`]).
//!
//! The tests need no process: see `tests/kit.rs`.

#![forbid(unsafe_code)]

mod adopt;
mod context;
mod handle;
mod keeper_link;
mod place;
mod probe;
mod sample;
mod sampling;
mod saved;
mod spawn;
mod supervisor;
#[cfg(test)]
mod tests;
mod traffic;
mod waiting;
mod watcher;

pub use handle::Handle;
pub use keeper_link::{KeeperLink, KeeperNews, KeeperState};
pub use sampling::{Measured, Sampling, ToMeasure};
pub use supervisor::{Emit, Options, Supervisor};
pub use traffic::Traffic;
pub use waiting::{Late, Progress, Unmet, Until, View};
