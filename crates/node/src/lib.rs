//! The node: what it should be (configuration, installed plugins), the daemon that
//! brings it there, and what can be asked of that daemon.
//!
//! Nothing here reads a command line or prints: the binary does.

#![forbid(unsafe_code)]

pub mod certificates;
pub mod configure;
pub mod control;
pub mod daemon;
pub mod fragment_check;
pub mod host;
pub mod inspect;
pub mod installed;
pub mod maintenance;
pub mod operations;
pub mod override_files;
pub mod places;
pub mod port_holder;
pub mod preview;
pub mod render;
pub mod site_packages;
pub mod taking;
mod telegraf;

use std::path::PathBuf;

/// This program's path, also after the file was replaced by a newer one.
pub fn program() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("mfserv"));
    match path.to_string_lossy().strip_suffix(" (deleted)") {
        Some(replaced) => PathBuf::from(replaced),
        None => path,
    }
}
