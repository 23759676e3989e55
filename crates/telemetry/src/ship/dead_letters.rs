//! Documents that will never be taken, each with the reason.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_platform::disk::failed;
use serde::Serialize;
use serde_json::value::RawValue;

use super::document::Document;

/// The longest file, bytes. The one before it is kept too.
const LONGEST: u64 = 64 * 1024 * 1024;
/// The file, in the directory of the state of a path.
pub const FILE: &str = "dead.jsonl";

#[derive(Serialize)]
struct DeadLetter<'a> {
    time: String,
    index: &'a str,
    id: &'a str,
    status: u16,
    reason: &'a str,
    document: &'a RawValue,
}

/// Appends a document and the reason; returns when it survives a power cut.
pub fn write(dir: &Path, document: &Document, status: u16, reason: &str) -> Result<(), Diagnostic> {
    let file = dir.join(FILE);
    let bad = |e: std::io::Error| failed("write", &file, e);
    if fs::metadata(&file).is_ok_and(|meta| meta.len() > LONGEST) {
        fs::rename(&file, dir.join("dead.jsonl.1")).map_err(bad)?;
    }
    // A message of syslog is no JSON: it is written as a text.
    let as_text = serde_json::value::to_raw_value(&document.source).unwrap_or_default();
    let source: &RawValue = serde_json::from_str(&document.source).unwrap_or(&as_text);
    let letter = DeadLetter {
        time: jiff::Timestamp::now().to_string(),
        index: &document.index,
        id: &document.id,
        status,
        reason,
        document: source,
    };
    let mut line = serde_json::to_vec(&letter).unwrap_or_default();
    line.push(b'\n');
    let mut options = File::options();
    let mut open = options.create(true).append(true).mode(0o600).open(&file).map_err(bad)?;
    open.write_all(&line).and_then(|()| open.sync_data()).map_err(bad)
}
