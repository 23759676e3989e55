//! The benches. Each prints its report, in Markdown, to standard output.

mod arrivals;
mod client;
mod front;
mod idle;
mod machine;
mod mixed;
mod nginx;
mod peers;
mod slots;
mod spread;
mod stalls;
mod waits;

use clap::Subcommand;
use mfserv_core::Diagnostic;

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// CPU time per request of the embedded front, tuned nginx and HAProxy, in turns, in
    /// front of the same upstream and the same files.
    Front(front::Front),
    /// Memory and CPU of a node with three samples that nobody asks anything, beside
    /// other supervisors.
    Idle(idle::Idle),
    /// Fast requests among slow ones on four single-slot workers: the embedded front and
    /// nginx in front of the same workers.
    Slots(slots::Slots),
}

impl Bench {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        match self {
            Bench::Front(front) => front.run(),
            Bench::Idle(idle) => idle.run(),
            Bench::Slots(slots) => slots.run(),
        }
    }
}
