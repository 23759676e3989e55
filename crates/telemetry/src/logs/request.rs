//! One request: its line in the access log, and the worker that has served it.

use std::io;
use std::path::Path;

use mfserv_logfile::{Index, RequestAt, Served, request_hash};

use serde_json::Value;

use super::content::Content;
use super::line::facts;
use super::part::files_of;
use super::pattern::Pattern;
use super::search::{OfWorker, Order, Selection, Unread, search};

/// The longest line of an access log that is read, bytes.
const LINE_MAX: u64 = 64 * 1024;

/// A line of a request may be read so much later than the worker has answered, milliseconds.
const LATE_MS: u64 = 500;
/// The same of a worker that did not answer as it should: what it says of that may be said when
/// it is stopped.
const LATE_OF_FAULT_MS: u64 = 1200;

/// A request that has been answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its id.
    pub id: String,
    /// Its line in the access log.
    pub line: String,
    /// The worker that had it, or had it last; `None` if it went to none, or if the access log
    /// has no index.
    pub worker: Option<String>,
    /// When it came, milliseconds since 1970; not later than that.
    pub from_ms: u64,
    /// When it was answered, milliseconds since 1970; not earlier than that.
    pub to_ms: u64,
    /// When the lines of its worker are of it.
    pub of_worker: Option<OfWorker>,
    /// Why the front did not deliver the answer of an app or a file.
    pub cause: Option<String>,
}

/// Finds a request by its id: by the index of the access log, or by reading a log that has none.
/// Of several requests with the same id, the newest. What cannot be read is put into `unread`: the
/// request may be there.
pub fn find_request(
    access_log: &Path,
    id: &str,
    unread: &mut Vec<Unread>,
) -> io::Result<Option<Request>> {
    let mut all_are_indexed = true;
    let mut place_of_hash = None;
    for file in files_of(&[access_log.to_owned()])?.iter().flatten().rev() {
        let Some(mut places) = Index::requests(&file.path, request_hash(id.as_bytes())) else {
            all_are_indexed = false;
            continue;
        };
        for place in places.by_ref() {
            let line = match line_at(&file.path, place.offset) {
                Ok(line) => line,
                Err(error) => {
                    unread.extend(Unread::of(&file.path, error));
                    break;
                }
            };
            if facts(&line).request_id.as_deref() == Some(id) {
                return Ok(Some(request(&line, Some(place))));
            }
            // While one front hands over to another, both write to the log: then the index of
            // neither knows exactly where.
            all_are_indexed = false;
            place_of_hash = Some(place);
        }
        all_are_indexed &= !places.has_gaps();
    }
    let selection = Selection { pattern: Some(Pattern::text(id)), ..Selection::default() };
    let mut found = None;
    if all_are_indexed {
        return Ok(found);
    }
    let logs = [access_log.to_owned()];
    let searched = search(&logs, &selection, Order::NewestFirst(None), &mut |line| {
        if facts(&line.bytes).request_id.as_deref() == Some(id) {
            found = Some(request(&line.bytes, place_of_hash.take()));
        }
        found.is_none()
    })?;
    unread.extend(searched.unread);
    Ok(found)
}

/// The line of a file that begins there.
fn line_at(file: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let mut content = Content::open(file)?;
    let mut bytes = content.read(offset, (offset + LINE_MAX).min(content.len()))?;
    bytes.truncate(memchr::memchr(b'\n', &bytes).unwrap_or(bytes.len()));
    Ok(bytes)
}

/// Finds the newest request of a trace, by reading the access log: `trace_id` is in its line.
pub fn find_trace(
    access_log: &Path,
    trace_id: &str,
    unread: &mut Vec<Unread>,
) -> io::Result<Option<Request>> {
    let selection = Selection { pattern: Some(Pattern::text(trace_id)), ..Selection::default() };
    let mut found = None;
    let logs = [access_log.to_owned()];
    let searched = search(&logs, &selection, Order::NewestFirst(None), &mut |line| {
        let object: Value = serde_json::from_slice(&line.bytes).unwrap_or_default();
        if object["trace_id"].as_str() == Some(trace_id) {
            found = object["request_id"].as_str().map(str::to_owned);
        }
        found.is_none()
    })?;
    unread.extend(searched.unread);
    match found {
        Some(id) => find_request(access_log, &id, unread),
        None => Ok(None),
    }
}

/// A request by its line and its place in the index, which has its times. Without them: the line
/// has whole seconds, of the end of the request.
fn request(line: &[u8], place: Option<RequestAt>) -> Request {
    let object: Value = serde_json::from_slice(line).unwrap_or_default();
    let text = |key: &str| object[key].as_str().map(str::to_owned);
    let (id, cause) = (text("request_id").unwrap_or_default(), text("cause"));
    let ms = (object["duration"].as_f64().unwrap_or(0.0) * 1000.0) as u64;
    let second = facts(line).at_ms().unwrap_or(0);
    let (served, next_ms) = place.as_ref().map_or((None, None), |it| (it.served, it.next_ms));
    let (from_ms, to_ms) = match served {
        Some(Served { from_ms, end_ms, .. }) => {
            (from_ms.min(end_ms.saturating_sub(ms + 1)), end_ms + 1)
        }
        None => (second.saturating_sub(ms + 200), second + 1200),
    };
    let worker = place.map(|it| it.worker.worker).filter(|worker| !worker.is_empty());
    let late_ms = if cause.is_some() { LATE_OF_FAULT_MS } else { LATE_MS };
    let of_worker = worker.clone().map(|worker| match served {
        Some(Served { from_ms, to_ms, .. }) => {
            // Later lines are of the next request, if there was one.
            let next = next_ms.map_or(u64::MAX, |next| next.saturating_sub(1)).max(to_ms);
            OfWorker { worker, from_ms, until_ms: next.min(to_ms + late_ms) }
        }
        None => OfWorker { worker, from_ms, until_ms: to_ms },
    });
    let line = String::from_utf8_lossy(line).into_owned();
    Request { id, line, worker, from_ms, to_ms, of_worker, cause }
}
