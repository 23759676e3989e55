//! `top`: what the node does now, on a terminal.

mod draw;
mod frame;
mod keys;
mod live;
mod screen;
mod view;

use std::io::IsTerminal;
use std::time::Duration;

use clap::{Args, ValueEnum};
use mfserv_core::{Diagnostic, Kind};
use mfserv_node::places::Places;
use serde_json::{Value, json};

use super::output::is_lost;
use super::print;
use super::report::Outcome;
pub use draw::{Line, Style, as_bytes, clean, header, number};
pub use frame::{Frame, Gatherer, Row, rows};
pub use screen::{Happened, Screen, Waker, standard_input, standard_output};
use view::{Order, View};

/// By what rows are sorted at first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Sort {
    Name,
    Cpu,
    Memory,
    Requests,
    P95,
    Errors,
    Waiting,
    Crashes,
}

/// Apps, workers, requests, memory and CPU, live; `?` shows the keys.
///
/// Requests a second, p95 and errors are those of the last five seconds.
#[derive(Debug, Args)]
pub struct Top {
    /// Print one frame as text, and end.
    #[arg(long)]
    once: bool,
    /// Print JSON: one object a line for each frame.
    #[arg(long)]
    json: bool,
    /// Seconds between two frames.
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = interval)]
    interval: Duration,
    /// By what rows are sorted at first.
    #[arg(long, value_enum, default_value_t = Sort::Name)]
    sort: Sort,
}

/// Seconds between two frames.
pub fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.2..=3_600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "say seconds from 0.2 to 3600".into())
}

impl Top {
    /// One frame as text.
    pub fn once() -> Self {
        Self { once: true, json: false, interval: Duration::from_secs(2), sort: Sort::Name }
    }

    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let view = View::new(match self.sort {
            Sort::Name => Order::Name,
            Sort::Cpu => Order::Cpu,
            Sort::Memory => Order::Memory,
            Sort::Requests => Order::Requests,
            Sort::P95 => Order::Percentile,
            Sort::Errors => Order::Errors,
            Sort::Waiting => Order::Waiting,
            Sort::Crashes => Order::Crashes,
        });
        let is_terminal = std::io::stdout().is_terminal() && std::io::stdin().is_terminal();
        let is_dumb = std::env::var("TERM").map_or(true, |term| term.is_empty() || term == "dumb");
        if self.once || self.json || is_terminal && is_dumb {
            return self.print(places, &view);
        }
        if !is_terminal {
            return Err(Diagnostic::error("mfserv top needs a terminal").kind(Kind::Usage).help(
                "`mfserv top --once` prints one frame as text, `--json` prints each as JSON",
            ));
        }
        live::run(places, self.interval, view)
    }

    /// Frames one below the other: into a pipe, or on a terminal that cannot do more.
    fn print(&self, places: &Places, view: &View) -> Result<Outcome, Diagnostic> {
        let mut gatherer = Gatherer::new(places, self.interval);
        loop {
            let frame = gatherer.gather();
            // A node that has been seen is waited for: its daemon may be replaced.
            if let (Some(why), None) = (&frame.no_status, &frame.status) {
                return Err(Diagnostic::error("there is nothing to show")
                    .kind(Kind::NotRunning)
                    .because(why)
                    .help("start the node with `mfserv start`"));
            }
            let rows = rows(&frame);
            print(&match self.json {
                true => format!("{}\n", as_json(&frame, &rows)),
                false => draw::as_text(&draw::screen(view, &frame, &rows, None)),
            });
            if self.once || is_lost() {
                return Ok(Outcome::Done);
            }
            std::thread::sleep(self.interval);
            print(if self.json { "" } else { "\n" });
        }
    }
}

fn as_json(frame: &Frame, rows: &[frame::Row]) -> Value {
    let latest = |values: &Vec<Option<f64>>| values.last().copied().flatten();
    let node = frame.counted.iter().flat_map(|answer| &answer.node);
    let node: serde_json::Map<String, Value> =
        node.map(|(name, values)| (name.clone(), json!(latest(values)))).collect();
    let status = frame.status.as_ref();
    json!({
        "at_ms": frame.at_ms,
        "state": status.map(|status| status.state),
        "faults": status.map(|status| status.faults()),
        "status_at_ms": frame.status_at_ms,
        "no_status": frame.no_status,
        "not_counted": frame.not_counted,
        "node": node,
        "rows": rows,
        "events": frame.events,
    })
}
