//! Logs: what it costs to capture output, and how long it takes to find lines again.

mod capture;
mod find;

use std::path::PathBuf;

use clap::Args;
use mfserv_core::Diagnostic;

use super::machine;
use crate::node;

/// How much.
#[derive(Debug, Args)]
pub struct Logs {
    /// MiB that eight writers write together, in each round.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(8..=1024))]
    mib: u32,
    /// MiB of the log that is searched, and of the access log.
    #[arg(long, default_value_t = 1024, value_parser = clap::value_parser!(u32).range(1..=16384))]
    search_mib: u32,
    /// How often each is measured.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    times: u32,
    /// Another build of mfserv, which is measured instead of this one.
    #[arg(long, value_name = "PROGRAM")]
    program: Option<PathBuf>,
    /// Only the capture, or only the finding of lines.
    #[arg(long)]
    only: Option<Part>,
}

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    Capture,
    Find,
}

impl Logs {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        let program = match self.program {
            Some(program) => program,
            None => node::build()?,
        };
        println!("{}\n", machine::line(&[("rotatelogs", &["-v"])]));
        println!("`cargo xtask bench logs --mib {} --times {}`\n", self.mib, self.times);
        if self.only != Some(Part::Find) {
            capture::run(&program, self.mib, self.times)?;
        }
        if self.only != Some(Part::Capture) {
            find::run(&program, self.search_mib, self.times)?;
        }
        Ok(())
    }
}

fn failed(what: &str, why: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error(what).because(why)
}
