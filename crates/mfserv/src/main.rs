//! mfserv: a private PaaS in one binary. This file is the map: run, report.

#![forbid(unsafe_code)]
// They panic when the stream has gone: cli/output.rs does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod compat;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::report::exit_code(match compat::called_as() {
        Some(command) => compat::run(command),
        None => cli::run(),
    })
}
