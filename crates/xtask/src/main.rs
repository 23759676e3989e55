//! What is done with the sources of mfserv beside building them: benches.

#![forbid(unsafe_code)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "its report is its output, and its benches start nodes and other programs"
)]

mod bench;
mod child;
mod interrupt;
mod node;
mod process;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "What is done with the sources of mfserv")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure (docs/benchmarks.md); the report goes to standard output.
    #[command(subcommand)]
    Bench(bench::Bench),
}

fn main() -> ExitCode {
    let Command::Bench(bench) = Cli::parse().command;
    match interrupt::watch().and_then(|()| bench.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(problem.kind.exit_code())
        }
    }
}
