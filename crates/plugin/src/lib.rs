//! Plugins on disk: made from templates, built, packed, installed, and the
//! environment that their programs run in.
//!
//! Ordinary blocking code that needs no running node: it is used by the
//! command line and by threads of the daemon alike.

#![forbid(unsafe_code)]

pub mod archive;
pub mod base;
pub mod build;
mod child;
pub mod dangers;
pub mod discover;
pub mod dotenv;
pub mod environment;
pub mod fragments;
pub mod generate;
pub mod guard;
pub mod home;
pub mod imports;
pub mod label;
mod leftovers;
pub mod progress;
pub mod python;
pub mod python2;
mod run_mark;
pub mod sources;
pub mod store;
pub mod templates;
pub mod tools;
pub mod user_crontab;
pub mod watch_rules;

pub use home::Home;
pub use leftovers::is_secret;
pub use progress::{Cancel, Progress, Silent};
