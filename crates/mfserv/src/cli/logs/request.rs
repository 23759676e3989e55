//! `--request`: all that is known of one request.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;
use mfserv_core::event::{Event, Fact};
use mfserv_core::keys::NGINX_ACCESS_LOG;
use mfserv_core::names::WorkerId;
use mfserv_logfile::Source;
use mfserv_node::places::Places;
use mfserv_node::{configure, render};
use mfserv_telemetry::logs::{
    Found, OfRequest, OfWorker, Order, Pattern, Request, Selection, find_request, find_trace,
    parsed, search,
};
use serde_json::Value;

use super::names::{Meant, of_plugin};
use super::show::Show;
use super::{Logs, live_files};
use crate::cli::plugins::is_running;
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
/// What a worker that did not answer says of that is said within this time, milliseconds.
const FAILED_WITHIN_MS: u64 = 1200;
/// Lines of the error log have whole seconds.
const SECOND_MS: u64 = 1000;

/// A line to show, by its time.
struct Shown {
    at_ms: u64,
    what: What,
}

enum What {
    Line(Found),
    Event { event: Box<Event>, with_output: bool },
}

/// Shows a request. `selection`: which of its lines are wanted.
pub fn run(
    places: &Places,
    logs: &Logs,
    id: &str,
    meant: &Meant,
    selection: Selection,
) -> Result<Outcome, Diagnostic> {
    let show = &Show::new(logs, true);
    let error_log = [places.log().join("nginx_error.log")];
    let files: Vec<PathBuf> = live_files(places)?
        .into_iter()
        .filter(|(stem, path)| of_plugin(stem).is_some() && meant.has_log(stem, path))
        .map(|(_, path)| path)
        .chain(error_log.iter().filter(|path| path.exists()).cloned())
        .collect();
    let search = Search { places, files, show };
    let found = search.request(id)?;
    let mut shown = Vec::new();
    let mut workers = Vec::new();
    if let Some(request) = &found {
        let tried = search.tried(request)?;
        search.show_record(request, &tried);
        workers.extend(request.of_worker.clone());
        workers.extend(tried.into_iter().map(|worker| OfWorker {
            worker,
            from_ms: request.from_ms,
            until_ms: request.to_ms + FAILED_WITHIN_MS,
        }));
        shown.extend(search.events(request, &workers)?);
    }
    let is_known = found.is_some();
    let selection = Selection {
        since_ms: found.as_ref().map(|it| it.from_ms.saturating_sub(SECOND_MS)),
        // A worker may say the id in the lines of a job that goes on behind the answer.
        until_ms: found.as_ref().map(|it| it.to_ms + BEHIND_MS),
        request: Some(OfRequest {
            id: Pattern::text(found.as_ref().map_or(id, |request| &request.id)),
            workers,
        }),
        ..selection
    };
    search.each(&selection, Order::OldestFirst(None), &mut |line| {
        shown.push(Shown { at_ms: line.at_ms.unwrap_or(0), what: What::Line(line) });
        true
    })?;
    if !is_known && shown.is_empty() {
        return Err(unknown(places, id));
    }
    shown.sort_by_key(|shown| shown.at_ms);
    for Shown { what, .. } in &shown {
        match what {
            What::Line(line) => show.line(line),
            What::Event { event, with_output } => say_event(show, event, *with_output),
        }
    }
    Ok(Outcome::Done)
}

/// Looks for what is known of a request.
struct Search<'a> {
    places: &'a Places,
    /// The logs of apps that are meant, and the error log.
    files: Vec<PathBuf>,
    show: &'a Show,
}

impl Search<'_> {
    /// A request, by its id or by that of its trace. One that is not in the access log may be
    /// about to be written; for one that was written about long ago, nothing is waited for.
    fn request(&self, id: &str) -> Result<Option<Request>, Diagnostic> {
        let access_log = self.places.access_log();
        let failed = |e| Diagnostic::error("the access log cannot be read").because(e);
        let began = Instant::now();
        let mut within = None;
        loop {
            let mut unread = Vec::new();
            let mut found = find_request(&access_log, id, &mut unread).map_err(failed)?;
            let is_trace = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
            if found.is_none() && within.is_none() && is_trace {
                found = find_trace(&access_log, id, &mut unread).map_err(failed)?;
            }
            if found.is_none() && within.is_none() {
                within = Some(self.written_within(id)?);
            }
            if found.is_some() || within.is_none_or(|within| began.elapsed() >= within) {
                self.show.unread(&unread);
                return Ok(found);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// In what time a line of a request may still come into the access log.
    fn written_within(&self, id: &str) -> Result<Duration, Diagnostic> {
        let request = OfRequest { id: Pattern::text(id), workers: Vec::new() };
        let selection = Selection { request: Some(request), ..Selection::default() };
        let mut last_ms = None;
        self.each(&selection, Order::NewestFirst(Some(1)), &mut |line| {
            last_ms = line.at_ms;
            false
        })?;
        let now_ms = jiff::Timestamp::now().as_millisecond() as u64;
        let age = last_ms.map_or(0, |last_ms| now_ms.saturating_sub(last_ms));
        let within = WRITTEN_WITHIN.saturating_sub(Duration::from_millis(age));
        let is_written = || {
            let module = configure::module(self.places, &[]);
            is_running(self.places)
                && module.is_ok_and(|it| it.resolution.config.get(NGINX_ACCESS_LOG))
        };
        Ok(if within.is_zero() || !is_written() { Duration::ZERO } else { within })
    }

    /// The workers that had a request before the last one, and failed: the error log names them.
    fn tried(&self, request: &Request) -> Result<Vec<String>, Diagnostic> {
        let error_log = self.files.iter().filter(|path| path.ends_with("nginx_error.log"));
        let selection = Selection {
            since_ms: Some(request.from_ms.saturating_sub(SECOND_MS)),
            until_ms: Some(request.to_ms + AFTER_MS),
            pattern: Some(Pattern::text(&request.id)),
            ..Selection::default()
        };
        let mut workers: Vec<String> = Vec::new();
        let logs: Vec<PathBuf> = error_log.cloned().collect();
        self.each_of(&logs, &selection, Order::OldestFirst(None), &mut |line| {
            let object = parsed(&String::from_utf8_lossy(&line.bytes), Some("nginx_error"));
            let text = |key: &str| object.get(key).and_then(Value::as_str);
            let worker = text("worker").filter(|_| text("request_id") == Some(&request.id));
            let is_new = |worker: &&str| {
                request.worker.as_deref() != Some(worker) && !workers.iter().any(|it| it == worker)
            };
            workers.extend(worker.filter(is_new).map(str::to_owned));
            true
        })?;
        Ok(workers)
    }

    /// The record of the access log, and what it says.
    fn show_record(&self, request: &Request, tried: &[String]) {
        let access_log = self.places.access_log();
        let worker = request.worker.clone().unwrap_or_default();
        let source = Source { worker, ..Source::default() };
        self.show.parts(&access_log, request.line.as_bytes(), (None, None), Some(&source));
        if !self.show.is_json() {
            self.show.note(&sentence(request, tried));
        }
    }

    /// What happened to the workers of a request; for a request that no worker had because they
    /// crash, the last crash of its plugin.
    fn events(&self, request: &Request, workers: &[OfWorker]) -> Result<Vec<Shown>, Diagnostic> {
        let object: Value = serde_json::from_str(&request.line).unwrap_or_default();
        let plugin = object["plugin"].as_str().unwrap_or_default();
        let is_of_crash = match &request.cause {
            Some(cause) => ["crashing", "no_worker", "queue_timeout"].contains(&cause.as_str()),
            // The line is one of an older mfserv.
            None => object["status"].as_u64() >= Some(500),
        };
        let workers: Vec<WorkerId> =
            workers.iter().filter_map(|it| it.worker.parse().ok()).collect();
        let is_about = |fact: &Fact| match fact {
            Fact::WorkerEnded { worker, why, .. } if workers.is_empty() => {
                is_of_crash && why.is_crash() && worker.watcher.plugin() == Some(plugin)
            }
            Fact::WorkerEnded { worker, .. }
            | Fact::WorkerTrouble { worker, .. }
            | Fact::WorkerRetiring { worker, .. } => workers.contains(worker),
            Fact::OutputDropped { id, .. } => workers.iter().any(|it| *id == it.to_string()),
            _ => false,
        };
        let before_ms = if workers.is_empty() { BEFORE_MS } else { 0 };
        let after_ms = if workers.is_empty() { 0 } else { AFTER_MS };
        let selection = Selection {
            since_ms: Some(request.from_ms.saturating_sub(before_ms)),
            until_ms: Some(request.to_ms + after_ms),
            ..Selection::default()
        };
        let mut shown = Vec::new();
        let file = [self.places.events_file()];
        self.each_of(&file, &selection, Order::OldestFirst(None), &mut |line| {
            if let Ok(event) = serde_json::from_slice::<Event>(&line.bytes) {
                if is_about(&event.fact) {
                    if workers.is_empty() {
                        shown.clear();
                    }
                    let (at_ms, event) = (event.at_ms, Box::new(event));
                    // The lines of the request's own workers are shown anyway.
                    let with_output = workers.is_empty();
                    shown.push(Shown { at_ms, what: What::Event { event, with_output } });
                }
            }
            true
        })?;
        Ok(shown)
    }

    fn each(
        &self,
        selection: &Selection,
        order: Order,
        each: &mut dyn FnMut(Found) -> bool,
    ) -> Result<(), Diagnostic> {
        self.each_of(&self.files, selection, order, each)
    }

    fn each_of(
        &self,
        logs: &[PathBuf],
        selection: &Selection,
        order: Order,
        each: &mut dyn FnMut(Found) -> bool,
    ) -> Result<(), Diagnostic> {
        let searched = search(logs, selection, order, each)
            .map_err(|e| Diagnostic::error("the logs cannot be read").because(e))?;
        self.show.unread(&searched.unread);
        Ok(())
    }
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

/// A request in words. `tried`: the workers that had it before, and failed.
fn sentence(request: &Request, tried: &[String]) -> String {
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
    let mut sentence =
        format!("{method} {uri}: answered {status} after {seconds} s, {worker} (plugin {plugin})");
    if !tried.is_empty() {
        sentence += &format!(", after {} failed", tried.join(" and "));
    }
    if let Some(cause) = &request.cause {
        sentence += &format!(", cause: {cause}");
    }
    sentence
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
