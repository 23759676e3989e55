//! mfserv: a private PaaS in one binary. This file is the map: run, report.

#![forbid(unsafe_code)]
// They panic when the stream has gone: cli/output.rs does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod compat;
mod configure;
mod control;
mod daemon;
mod host;
mod installed;
mod places;
mod preview;
mod say;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::report::exit_code(match compat::called_as() {
        Some(command) => compat::run(command),
        None => cli::run(),
    })
}

/// This program's path, also after the file was replaced by a newer one.
fn program() -> PathBuf {
    let path = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("mfserv"));
    match path.to_string_lossy().strip_suffix(" (deleted)") {
        Some(replaced) => PathBuf::from(replaced),
        None => path,
    }
}
