//! `--request`: all that is known of one request.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::event::{Event, Fact};
use mfserv_core::names::WorkerId;
use mfserv_node::places::Places;
use mfserv_node::render;
use mfserv_telemetry::logs::{
    Found, OfRequest, Order, Pattern, Request, Selection, Unread, find_request, search,
};
use serde_json::Value;

use super::live_files;
use super::names::of_plugin;
use super::show::Show;
use crate::cli::report::Outcome;

/// The front writes the line of a request within this time: half a second, and what a busy machine
/// adds.
const WRITTEN_WITHIN: Duration = Duration::from_secs(3);
/// How often such a line is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What happens to a worker because of a request may be seen so much later, milliseconds.
const AFTER_MS: u64 = 10_000;
/// The id is looked for in lines that are so much later than the answer, milliseconds.
const BEHIND_MS: u64 = 60_000;
/// A crash that a request suffers from may be so much older, milliseconds.
const BEFORE_MS: u64 = 60_000;

/// A line to show, by its time.
struct Shown {
    at_ms: u64,
    what: What,
}

enum What {
    Line(Found),
    Event(Box<Event>),
}

pub fn run(places: &Places, id: &str, show: &Show) -> Result<Outcome, Diagnostic> {
    let access_log = places.log().join("nginx_access.log");
    let failed = |e| Diagnostic::error("the access log cannot be read").because(e);
    let logs: Vec<PathBuf> = live_files(places)?
        .into_iter()
        .filter(|(stem, _)| of_plugin(stem).is_some() || stem == "nginx_error")
        .map(|(_, path)| path)
        .collect();
    let mut unread = Vec::new();
    let found = written(&access_log, id, &mut unread).map_err(failed)?;
    show.unread(&unread);
    let mut shown = Vec::new();
    if let Some(request) = &found {
        let bytes = request.line.clone().into_bytes();
        show.parts(&access_log, &bytes, None, None);
        if !show.is_json() {
            show.note(&sentence(request));
        }
        shown.extend(events(places, request, show)?);
    }
    let (from, to) = found.as_ref().map_or((None, None), |it| (Some(it.from_ms), Some(it.to_ms)));
    let selection = Selection {
        since_ms: from,
        // A worker may say the id in the lines of a job that goes on behind the answer.
        until_ms: to.map(|to| to + BEHIND_MS),
        request: Some(OfRequest {
            id: Pattern::text(id),
            worker: found.as_ref().and_then(|request| request.worker.clone()),
            until_ms: to.unwrap_or(u64::MAX),
        }),
        ..Selection::default()
    };
    let searched = search(&logs, &selection, Order::OldestFirst(None), &mut |line| {
        shown.push(Shown { at_ms: line.at_ms.unwrap_or(0), what: What::Line(line) });
        true
    })
    .map_err(|e| Diagnostic::error("the logs cannot be read").because(e))?;
    show.unread(&searched.unread);
    if found.is_none() && shown.is_empty() {
        return Err(unknown(places, id));
    }
    shown.sort_by_key(|shown| shown.at_ms);
    for Shown { what, .. } in &shown {
        match what {
            What::Line(line) => show.line(line),
            What::Event(event) => say_event(show, event, false),
        }
    }
    Ok(Outcome::Done)
}

/// The line of a request; one that is not there may be about to be written.
fn written(access_log: &Path, id: &str, unread: &mut Vec<Unread>) -> io::Result<Option<Request>> {
    let began = Instant::now();
    loop {
        unread.clear();
        let found = find_request(access_log, id, unread)?;
        if found.is_some() || began.elapsed() >= WRITTEN_WITHIN {
            return Ok(found);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

/// What happened to the worker of a request; for a request that no worker had, the crashes of
/// its plugin.
fn events(places: &Places, request: &Request, show: &Show) -> Result<Vec<Shown>, Diagnostic> {
    let object: Value = serde_json::from_str(&request.line).unwrap_or_default();
    let plugin = object.get("plugin").and_then(Value::as_str).unwrap_or_default();
    let worker: Option<WorkerId> = request.worker.as_ref().and_then(|it| it.parse().ok());
    let since_ms = match worker {
        Some(_) => request.from_ms,
        None => request.from_ms.saturating_sub(BEFORE_MS),
    };
    let is_about = |fact: &Fact| match (fact, &worker) {
        (Fact::WorkerEnded { worker: of, .. }, Some(worker))
        | (Fact::WorkerTrouble { worker: of, .. }, Some(worker))
        | (Fact::WorkerRetiring { worker: of, .. }, Some(worker)) => of == worker,
        (Fact::OutputDropped { id, .. }, Some(worker)) => *id == worker.to_string(),
        (Fact::WorkerEnded { worker: of, why, .. }, None) => {
            why.is_crash() && of.watcher.plugin() == Some(plugin)
        }
        _ => false,
    };
    let selection = Selection {
        since_ms: Some(since_ms),
        until_ms: Some(request.to_ms + AFTER_MS),
        ..Selection::default()
    };
    let mut shown = Vec::new();
    let file = [places.events_file()];
    let searched = search(&file, &selection, Order::OldestFirst(None), &mut |line| {
        if let Ok(event) = serde_json::from_slice::<Event>(&line.bytes) {
            if is_about(&event.fact) {
                shown.push(Shown { at_ms: event.at_ms, what: What::Event(Box::new(event)) });
            }
        }
        true
    })
    .map_err(|e| Diagnostic::error("the events cannot be read").because(e))?;
    show.unread(&searched.unread);
    Ok(shown)
}

/// Shows an event; its last output only if the lines are not shown anyway.
pub fn say_event(show: &Show, event: &Event, with_output: bool) {
    if show.is_json() {
        let mut object = serde_json::to_value(event).unwrap_or_default();
        object["log"] = "events".into();
        show.note(&object.to_string());
        return;
    }
    let mut event = event.clone();
    if let Fact::WorkerEnded { last_output, .. } = &mut event.fact {
        if !with_output {
            last_output.clear();
        }
    }
    show.note(&format!("events | {}", render::event(&event)));
}

fn sentence(request: &Request) -> String {
    let object: Value = serde_json::from_str(&request.line).unwrap_or_default();
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or("?");
    let number = |key: &str| object.get(key).map_or_else(|| "?".to_owned(), Value::to_string);
    let worker = match &request.worker {
        Some(worker) => format!("by {worker}"),
        None => "without a worker".to_owned(),
    };
    let (method, uri) = (text("method"), text("uri"));
    let (status, seconds) = (number("status"), number("duration"));
    let plugin = text("plugin");
    format!("{method} {uri}: answered {status} after {seconds} s, {worker} (plugin {plugin})")
}

fn unknown(places: &Places, id: &str) -> Diagnostic {
    Diagnostic::error(format!("no request {id:?} is known"))
        .because(format!(
            "its id is in no access log and no log of an app in {}",
            places.log().display()
        ))
        .help(
            "the id is in the header X-Request-Id of an answer and on each error page; \
             [log] number_of_rotated_files says how long logs are kept",
        )
}
