//! Watchers and workers: what runs, when it is ready, how it ends.
//!
//! One task owns everything ([`Supervisor`]); it is spoken to by messages
//! ([`Handle`]) and never waits for anything but the next one. Processes are
//! started by the keeper ([`KeeperLink`]); requests are given and taken through
//! [`Traffic`], behind which stands a web front that this crate knows nothing of.

#![forbid(unsafe_code)]

mod adopt;
mod ends;
mod handle;
mod keeper_link;
mod life;
mod prepare;
mod probe;
mod rolling;
mod sample;
mod saved;
mod spawn;
mod supervisor;
#[cfg(test)]
mod tests;
mod traffic;
mod waiting;
mod watcher;
mod worker;

pub use handle::Handle;
pub use keeper_link::{KeeperLink, KeeperNews, KeeperState};
pub use supervisor::{Emit, Options, Supervisor};
pub use traffic::Traffic;
pub use waiting::{Late, Progress, Unmet, Until};
