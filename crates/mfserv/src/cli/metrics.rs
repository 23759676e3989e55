//! `metrics`: what the telemetry role has counted, for Prometheus and for people.

use std::io::IsTerminal;

use clap::{Args, ValueEnum};
use mfserv_core::Diagnostic;
use mfserv_node::places::Places;
use mfserv_telemetry::metrics::{self, Format};

use super::print;
use super::report::Outcome;
use super::top::Top;

/// How metrics are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Print {
    /// A table of the apps, for people: what `mfserv top --once` prints.
    Summary,
    /// The text format of Prometheus.
    Prometheus,
    /// The text format of OpenMetrics, which has request ids as exemplars.
    Openmetrics,
}

#[derive(Debug, Args)]
pub struct Metrics {
    /// How they are printed; without it: a summary on a terminal, else the text of Prometheus.
    #[arg(long, value_enum)]
    format: Option<Print>,
}

impl Metrics {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let by_reader = || match std::io::stdout().is_terminal() {
            true => Print::Summary,
            false => Print::Prometheus,
        };
        let asked = match self.format.unwrap_or_else(by_reader) {
            Print::Openmetrics => Format::OpenMetrics,
            Print::Prometheus => Format::Prometheus,
            Print::Summary => return Top::once().run(places),
        };
        print(&metrics::ask(&places.telemetry_socket(), asked)?);
        Ok(Outcome::Done)
    }
}
