//! What is shown, gathered at one instant, and the rows that it becomes.

use std::collections::HashMap;
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::event::Event;
use mfserv_core::status::{Status, WatcherStatus};
use mfserv_node::control::client;
use mfserv_node::places::Places;
use mfserv_node::render;
use mfserv_platform::clock::now_ms;
use mfserv_telemetry::metrics::{self, Answer, Values};
use mfserv_telemetry::tail;
use serde::Serialize;

/// How long daemon and telemetry role may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How many events are read.
const EVENTS: usize = 20;

/// What is known at an instant.
#[derive(Debug, Clone, Serialize)]
pub struct Frame {
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What the daemon said last, and when.
    pub status: Option<Status>,
    /// When it said that, milliseconds since the Unix epoch.
    pub status_at_ms: u64,
    /// Why the daemon says nothing now.
    pub no_status: Option<String>,
    /// What was counted in the last seconds.
    pub counted: Option<Answer>,
    /// Why nothing is known of that.
    pub not_counted: Option<String>,
    /// The last events, the newest last.
    pub events: Vec<String>,
    /// By process: the part of a processor that a worker uses, in percent.
    #[serde(skip)]
    pub cpu: HashMap<u32, f64>,
}

/// Gathers frames.
pub struct Gatherer {
    places: Places,
    /// What was counted in this time is shown.
    window_s: u64,
    last: Option<(Status, u64)>,
    /// CPU time of each worker, and when that was known, milliseconds.
    cpu_ms: (HashMap<u32, u64>, u64),
}

impl Gatherer {
    pub fn new(places: &Places, interval: Duration) -> Self {
        // A few seconds at least: percentiles of one second jump about.
        let window_s = interval.as_secs().clamp(5, 60);
        Self { places: places.clone(), window_s, last: None, cpu_ms: (HashMap::new(), 0) }
    }

    /// What is known now. A daemon or role that does not answer takes its time, at most
    /// [`PATIENCE`] each.
    pub fn gather(&mut self) -> Frame {
        self.gather_with(client::status(&self.places.control_socket(), PATIENCE))
    }

    /// The same, of what the daemon has just said.
    pub fn gather_with(&mut self, asked: Result<Status, Diagnostic>) -> Frame {
        let at_ms = now_ms();
        let (cpu, no_status) = match asked {
            Ok(status) => {
                let cpu = self.cpu(&status, at_ms);
                self.last = Some((status, at_ms));
                (cpu, None)
            }
            Err(problem) => (HashMap::new(), Some(in_short(&problem))),
        };
        let question = format!("window={}s", self.window_s);
        let counted = metrics::ask_history(&self.places.telemetry_socket(), &question, PATIENCE)
            .and_then(|text| {
                let read = serde_json::from_str::<Answer>(&text);
                read.map_err(|e| Diagnostic::error("another version answers").because(e))
            });
        let (counted, not_counted) = match counted {
            Ok(answer) => (Some(answer), None),
            Err(problem) => (None, Some(in_short(&problem))),
        };
        let (lines, _) = tail(&self.places.events_file(), EVENTS).unwrap_or_default();
        let event = |line: &Vec<u8>| serde_json::from_slice::<Event>(line).ok();
        let events = lines.iter().filter_map(event).map(|event| render::event(&event)).collect();
        let status_at_ms = self.last.as_ref().map_or(0, |(_, at_ms)| *at_ms);
        let status = self.last.as_ref().map(|(status, _)| status.clone());
        Frame { at_ms, status, status_at_ms, no_status, counted, not_counted, events, cpu }
    }

    fn cpu(&mut self, status: &Status, at_ms: u64) -> HashMap<u32, f64> {
        let workers = status.watchers.iter().flat_map(|watcher| &watcher.workers);
        let now: HashMap<u32, u64> =
            workers.filter_map(|worker| Some((worker.pid?, worker.cpu_ms?))).collect();
        let (before, before_ms) = std::mem::replace(&mut self.cpu_ms, (now.clone(), at_ms));
        let elapsed_ms = at_ms.saturating_sub(before_ms).max(1) as f64;
        let used = |(pid, now): (&u32, &u64)| {
            let used_ms = now.saturating_sub(*before.get(pid)?);
            Some((*pid, used_ms as f64 / elapsed_ms * 100.0))
        };
        now.iter().filter_map(used).collect()
    }
}

/// A problem in one line.
fn in_short(problem: &Diagnostic) -> String {
    match problem.because.first() {
        Some(why) => format!("{}: {why}", problem.what),
        None => problem.what.clone(),
    }
}

/// An app, extra daemon or role, or requests that go to none.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Row {
    /// `PLUGIN.APP`; of an extra daemon `extra.PLUGIN.NAME`.
    pub name: String,
    /// How the operation `restart` calls it; `None`: it has no workers.
    pub watcher: Option<String>,
    /// Its state, a word.
    pub state: String,
    /// Workers that are ready.
    pub ready: u32,
    /// Workers that are wanted.
    pub wanted: u32,
    /// Requests a second.
    pub requests_per_s: Option<f64>,
    /// Answers with 5xx a second.
    pub errors_per_s: Option<f64>,
    /// 95 of 100 requests took no longer, milliseconds.
    pub p95_ms: Option<f64>,
    /// Requests that workers have.
    pub in_flight: Option<f64>,
    /// Requests that wait.
    pub waiting: Option<f64>,
    /// Percent of a processor.
    pub cpu_percent: Option<f64>,
    /// Resident memory, bytes.
    pub memory_bytes: u64,
    /// Crashes since the node was started.
    pub crashes: u64,
    /// Its workers.
    pub workers: Vec<WorkerRow>,
}

/// A worker.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct WorkerRow {
    /// `app.PLUGIN.APP.SLOT.INCARNATION`.
    pub id: String,
    /// Its process.
    pub pid: Option<u32>,
    /// Its phase, a word.
    pub phase: String,
    /// How long it has been in it, milliseconds.
    pub for_ms: u64,
    /// Percent of a processor.
    pub cpu_percent: Option<f64>,
    /// Resident memory, bytes.
    pub memory_bytes: u64,
}

/// The rows of a frame, by name.
pub fn rows(frame: &Frame) -> Vec<Row> {
    let mut rows: Vec<Row> = frame
        .status
        .iter()
        .flat_map(|status| &status.watchers)
        .map(|watcher| of_watcher(frame, watcher))
        .collect();
    for series in frame.counted.iter().flat_map(|answer| &answer.series) {
        let extra = format!("extra.{}", series.name);
        let name = if series.kind == "extra" { &extra } else { &series.name };
        match rows.iter_mut().find(|row| row.name == *name) {
            Some(row) => count(row, &series.values),
            // What has gone meanwhile is not shown; files and unknown addresses are.
            None if series.kind == "front" || has_requests(&series.values) => {
                let mut row = Row { name: name.clone(), state: "-".into(), ..Row::default() };
                count(&mut row, &series.values);
                rows.push(row);
            }
            None => {}
        }
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    rows
}

fn latest(values: &Values, name: &str) -> Option<f64> {
    values.get(name)?.last().copied().flatten()
}

fn has_requests(values: &Values) -> bool {
    latest(values, "requests_per_s").is_some_and(|rate| rate > 0.0)
}

fn count(row: &mut Row, values: &Values) {
    row.requests_per_s = latest(values, "requests_per_s");
    row.errors_per_s = latest(values, "5xx_per_s");
    row.p95_ms = latest(values, "p95_ms");
    row.in_flight = latest(values, "in_flight");
    row.waiting = latest(values, "waiting");
    row.cpu_percent = row.cpu_percent.or_else(|| latest(values, "cpu_percent"));
}

fn of_watcher(frame: &Frame, watcher: &WatcherStatus) -> Row {
    let workers: Vec<WorkerRow> = watcher
        .workers
        .iter()
        .map(|worker| WorkerRow {
            id: worker.id.to_string(),
            pid: worker.pid,
            phase: worker.phase.to_string(),
            for_ms: frame.at_ms.saturating_sub(worker.since_ms),
            cpu_percent: worker.pid.and_then(|pid| frame.cpu.get(&pid).copied()),
            memory_bytes: worker.memory_bytes.unwrap_or(0),
        })
        .collect();
    let known: Vec<f64> = workers.iter().filter_map(|worker| worker.cpu_percent).collect();
    let name = watcher.name.as_str();
    Row {
        name: name.strip_prefix("app.").unwrap_or(name).into(),
        watcher: Some(name.into()),
        state: watcher.state.to_string(),
        ready: watcher.ready,
        wanted: watcher.wanted,
        cpu_percent: (!known.is_empty()).then(|| known.iter().sum()),
        memory_bytes: workers.iter().map(|worker| worker.memory_bytes).sum(),
        crashes: watcher.crashes,
        workers,
        ..Row::default()
    }
}
