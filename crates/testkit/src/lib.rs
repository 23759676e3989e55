//! A real node in a temporary home, programs that misbehave, and clients that count.
//!
//! Nothing here replaces a part of mfserv: a [`Node`] is the real binary with real
//! workers, a [`Load`] speaks HTTP/1.1 over real connections and forgets no failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::exit,
    clippy::disallowed_methods,
    reason = "what tests are made of starts programs and stops at the first thing that is wrong"
)]

mod http;
mod leftovers;
mod load;
mod nginx;
mod node;
mod offline;
mod plugin;
mod port;
mod processes;
pub mod programs;
mod pty;
mod samples;
mod search_engine;
pub mod servers;
mod skip;
mod small_disk;
mod wait;
pub mod websocket;

pub use http::{Broken, Client, Method, Response, get, post};
pub use load::{Failure, Load, Report, Running};
pub use nginx::{Nginx, nginx, nginx_with_lua};
pub use node::{Node, Ran};
pub use offline::offline;
pub use plugin::Plugin;
pub use processes::{Process, boot_ticks_ms, kill, of_home, process};
pub use pty::pty;
pub use rustix::process::Signal;
pub use samples::Samples;
pub use search_engine::{Engine, SearchEngine};
pub use skip::skipped;
pub use small_disk::SmallDisk;
pub use wait::{until, until_some};
