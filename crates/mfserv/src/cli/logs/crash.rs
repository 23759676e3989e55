//! `--last-crash`: what the worker that crashed last had to say.

use std::path::PathBuf;

use mfserv_core::Diagnostic;
use mfserv_core::event::{Event, Fact};
use mfserv_core::names::WorkerId;
use mfserv_node::places::Places;
use mfserv_telemetry::logs::{Order, Pattern, Selection, search};

use super::names::Meant;
use super::show::Show;
use super::{LINES, Logs, find};
use crate::cli::report::Outcome;

/// The last lines of a worker are written within this time after its end, milliseconds.
const LATE_MS: u64 = 2000;

pub fn run(
    places: &Places,
    logs: &Logs,
    meant: &Meant,
    files: &[PathBuf],
    selection: Selection,
) -> Result<Outcome, Diagnostic> {
    let show = &Show::new(logs, false);
    let Some((worker, event)) = last(places, meant, show)? else {
        let of = match logs.names.is_empty() {
            true => String::new(),
            false => format!(" of {}", logs.names.join(", ")),
        };
        return Err(Diagnostic::error(format!("no worker{of} has crashed"))
            .because("no crash is among the events that are kept")
            .help("`mfserv events` shows what happened; `mfserv logs` has the last lines"));
    };
    let selection = Selection {
        worker: Some(worker.to_string()),
        until_ms: Some(event.at_ms + LATE_MS),
        ..selection
    };
    let order = Order::OldestFirst(Some(logs.lines.unwrap_or(LINES)));
    let count = find(files, &selection, order, show)?;
    super::request::say_event(show, &event, count == 0);
    Ok(Outcome::Done)
}

/// The last crash of a worker that is meant.
fn last(
    places: &Places,
    meant: &Meant,
    show: &Show,
) -> Result<Option<(WorkerId, Event)>, Diagnostic> {
    let ends = Selection { pattern: Some(Pattern::text("worker_ended")), ..Selection::default() };
    let mut found = None;
    let events = [places.events_file()];
    let searched = search(&events, &ends, Order::NewestFirst(None), &mut |line| {
        let event = serde_json::from_slice::<Event>(&line.bytes).ok();
        if let Some(Event { fact: Fact::WorkerEnded { worker, why, .. }, .. }) = &event {
            if why.is_crash() && meant.has_worker(worker) {
                found = Some(worker.clone()).zip(event);
            }
        }
        found.is_none()
    })
    .map_err(|e| Diagnostic::error("the events cannot be read").because(e))?;
    show.unread(&searched.unread);
    Ok(found)
}
