//! One request: its line in the access log, and the worker that has served it.

use std::io;
use std::path::Path;

use mfserv_logfile::{Index, Source, request_hash};

use super::content::Content;
use super::line::facts;
use super::part::files_of;
use super::pattern::Pattern;
use super::search::{Order, Selection, Unread, search};

/// The longest line of an access log that is read, bytes.
const LINE_MAX: u64 = 64 * 1024;

/// A request that has been answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its line in the access log.
    pub line: String,
    /// The worker that had it, or had it last; `None` if it went to none, or if the access log
    /// has no index.
    pub worker: Option<String>,
    /// When it came, milliseconds since 1970; not later than that.
    pub from_ms: u64,
    /// When it was answered, milliseconds since 1970; not earlier than that.
    pub to_ms: u64,
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
    let mut worker_of_hash = None;
    for file in files_of(&[access_log.to_owned()])?.iter().flatten().rev() {
        let Some(mut places) = Index::requests(&file.path, request_hash(id.as_bytes())) else {
            all_are_indexed = false;
            continue;
        };
        for (offset, Source { worker, .. }) in places.by_ref() {
            let line = match line_at(&file.path, offset) {
                Ok(line) => line,
                Err(error) => {
                    unread.extend(Unread::of(&file.path, error));
                    break;
                }
            };
            if facts(&line).request_id.as_deref() == Some(id) {
                return Ok(Some(request(&line, Some(worker).filter(|it| !it.is_empty()))));
            }
            // While one front hands over to another, both write to the log: then the index of
            // neither knows exactly where.
            all_are_indexed = false;
            worker_of_hash = Some(worker).filter(|it| !it.is_empty());
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
            found = Some(request(&line.bytes, worker_of_hash.take()));
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

/// The access log has whole seconds, of the end of the request.
fn request(line: &[u8], worker: Option<String>) -> Request {
    let end_ms = facts(line).at_ms().unwrap_or(0);
    let object: serde_json::Value = serde_json::from_slice(line).unwrap_or_default();
    let duration = object.get("duration").and_then(|seconds| seconds.as_f64()).unwrap_or(0.0);
    let from_ms = end_ms.saturating_sub((duration * 1000.0) as u64 + 200);
    let line = String::from_utf8_lossy(line).into_owned();
    Request { line, worker, from_ms, to_ms: end_ms + 1200 }
}
