//! What is done with the sources of mfserv beside building them: benches, and rules.

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
mod tidy;

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
    /// Check the rules of the house that no compiler knows: layers, words, links, sizes…
    Tidy(tidy::Tidy),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench(bench) => interrupt::watch().and_then(|()| bench.run()),
        Command::Tidy(tidy) => tidy.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::from(problem.kind.exit_code())
        }
    }
}
