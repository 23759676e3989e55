//! The benches. Each prints its report, in Markdown, to standard output.

mod arrivals;
mod build;
mod client;
mod cost;
mod front;
mod idle;
mod logs;
mod machine;
mod mixed;
mod nginx;
mod peers;
mod plugins;
mod ship;
mod slots;
mod spread;
mod stack;
mod stalls;
mod telemetry;
mod waits;
mod workers;

use clap::Subcommand;
use mfserv_core::Diagnostic;

/// What is measured.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// The time of a build of a Flask plugin: fresh with warm caches, and with nothing changed.
    Build(build::Build),
    /// CPU time per request of the embedded front, tuned nginx and HAProxy, in turns, in
    /// front of the same upstream and the same files.
    Front(front::Front),
    /// Memory and CPU of a node with three samples that nobody asks anything, beside
    /// other supervisors.
    Idle(idle::Idle),
    /// CPU time of the capture of output per MiB, beside rotatelogs and multilog, and the time to
    /// find lines in a log of 1 GiB.
    Logs(logs::Logs),
    /// Shipping lines: CPU, lines a second and memory, beside a shipper in Python.
    Ship(ship::Ship),
    /// Many plugins: time to start, memory and CPU of a node that nobody asks anything.
    Plugins(plugins::Plugins),
    /// Fast requests among slow ones on four single-slot workers: the embedded front and
    /// nginx in front of the same workers.
    Slots(slots::Slots),
    /// CPU time and latency of whole requests, front and worker together, beside the stacks of
    /// others: raw, Flask, Django, ASGI, Starlette, FastAPI, Node, Express, and fast among slow ones.
    Stack(stack::Stack),
    /// CPU time per request of the whole node with logs, metrics and traces on and off.
    Telemetry(telemetry::Telemetry),
    /// CPU time per request of a Python worker alone, by its server: that of mfserv, bjoern and
    /// waitress, in turns.
    Workers(workers::Workers),
}

impl Bench {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        match self {
            Bench::Build(build) => build.run(),
            Bench::Front(front) => front.run(),
            Bench::Idle(idle) => idle.run(),
            Bench::Logs(logs) => logs.run(),
            Bench::Ship(ship) => ship.run(),
            Bench::Plugins(plugins) => plugins.run(),
            Bench::Slots(slots) => slots.run(),
            Bench::Stack(stack) => stack.run(),
            Bench::Telemetry(telemetry) => telemetry.run(),
            Bench::Workers(workers) => workers.run(),
        }
    }
}
