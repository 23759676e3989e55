//! How a line is printed.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_core::diagnostic::shown;
use mfserv_logfile::Source;
use mfserv_node::render;
use mfserv_telemetry::logs::{Found, Level, Unread, facts, parsed};
use serde_json::{Map, Value};

use super::Logs;
use crate::cli::output::{for_terminal, print_bytes};
use crate::cli::print;
use crate::cli::report::print_problem;

/// Prints lines.
pub struct Show {
    json: bool,
    /// Each line has the name of its log before it.
    several: bool,
    /// Each line has its time and its worker before it.
    timestamps: bool,
    /// Control characters are printed as they are.
    raw: bool,
    /// Files that were said to be unreadable.
    unread: RefCell<BTreeSet<PathBuf>>,
}

impl Show {
    /// As the options of the command say. `several`: each line has the name of its log before it.
    pub fn new(logs: &Logs, several: bool) -> Self {
        let raw = logs.raw || !std::io::stdout().is_terminal();
        let (json, timestamps) = (logs.json, logs.timestamps);
        Self { json, several, timestamps, raw, unread: RefCell::default() }
    }

    /// True if each line is a JSON object.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a line that was found.
    pub fn line(&self, line: &Found) {
        let Found { log, bytes, at_ms, level, source } = line;
        self.parts(log, bytes, (*at_ms, *level), source.as_ref());
    }

    /// Prints a line of a log, which has this time and level.
    pub fn parts(
        &self,
        log: &Path,
        bytes: &[u8],
        (at_ms, level): (Option<u64>, Option<Level>),
        source: Option<&Source>,
    ) {
        let stem = log.file_stem().unwrap_or_default().to_string_lossy();
        if self.json {
            let object = object(&stem, bytes, (at_ms, level), source);
            print(&format!("{}\n", Value::Object(object)));
            return;
        }
        let start = match (self.timestamps, self.several) {
            (true, _) => format!("{} ", beginning(&stem, bytes, at_ms, source)),
            (false, true) => format!("{stem} | "),
            (false, false) => String::new(),
        };
        if self.raw {
            return print_bytes(&[start.as_bytes(), bytes, b"\n"].concat());
        }
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes));
        print(&format!("{start}{}\n", shown(&text)));
    }

    /// Says on standard error which files could not be read, each once.
    pub fn unread(&self, unread: &[Unread]) {
        for Unread { path, error } in unread {
            if !self.unread.borrow_mut().insert(path.clone()) {
                continue;
            }
            let what = format!("{} cannot be read; its lines are missing here", path.display());
            let problem = Diagnostic::warning(what).because(error);
            let is_packed = path.extension().is_some_and(|end| end == "zst");
            print_problem(&match is_packed {
                true => problem.help(
                    "only whole files that mfserv has compressed are read: \
                     `zstd -dc FILE` may show what is in this one",
                ),
                false => problem,
            });
        }
    }

    /// A file could not be read.
    pub fn has_said_unread(&self) -> bool {
        !self.unread.borrow().is_empty()
    }

    /// Prints a sentence about what is shown.
    pub fn note(&self, text: &str) {
        print(&format!("{}\n", for_terminal(text)));
    }
}

/// When a line was written, in local time, and by whom: the worker, or the log where that is not known.
fn beginning(stem: &str, bytes: &[u8], at_ms: Option<u64>, source: Option<&Source>) -> String {
    let time = time_of(bytes, at_ms).map_or_else(|| "-".repeat(23), render::time);
    let worker = source.map(|source| source.worker.as_str()).filter(|worker| !worker.is_empty());
    format!("{time} {} |", worker.unwrap_or(stem))
}

/// The time that a line says itself, else that of its reading, milliseconds since the Unix epoch.
fn time_of(bytes: &[u8], at_ms: Option<u64>) -> Option<u64> {
    facts(bytes).stamp.map(|stamp| stamp.near(at_ms)).or(at_ms)
}

/// A line as an object in the shape of mflog: what it says of itself, and where it comes from.
fn object(
    stem: &str,
    bytes: &[u8],
    (at_ms, level): (Option<u64>, Option<Level>),
    source: Option<&Source>,
) -> Map<String, Value> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut object = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(object)) => object,
        _ => {
            let role = super::names::of_plugin(stem).is_none().then_some(stem);
            parsed(&text, role)
        }
    };
    let time = time_of(bytes, at_ms);
    let time = time.and_then(|at| jiff::Timestamp::from_millisecond(at as i64).ok());
    if let Some(time) = time {
        let time = time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        object.entry("timestamp").or_insert_with(|| time.into());
    }
    if let Some(level) = level {
        let level = level.as_str().to_ascii_lowercase();
        object.entry("level").or_insert_with(|| level.into());
    }
    object.insert("log".into(), stem.into());
    object.insert("line".into(), text.into());
    if let Some(Source { worker, stream, release }) = source {
        let known = [("worker", worker), ("stream", stream), ("release", release)];
        for (key, value) in known.into_iter().filter(|(_, value)| !value.is_empty()) {
            object.insert(key.into(), value.clone().into());
        }
    }
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stem: &str, line: &str) -> String {
        let mut object = object(stem, line.as_bytes(), (None, None), None);
        object.remove("line");
        Value::Object(object).to_string()
    }

    #[test]
    fn every_line_has_the_shape_of_mflog() {
        for (stem, line, expected) in [
            (
                "app_p_main",
                "2026-01-31T12:00:00.123456Z  [WARNING] (a.b#12) text {k=v}",
                r#"{"event":"text {k=v}","level":"warning","log":"app_p_main","name":"a.b","pid":12,"timestamp":"2026-01-31T12:00:00.123Z"}"#,
            ),
            (
                "app_p_main",
                r#"{"event":"x","level":"error","timestamp":"2026-01-31T12:00:00Z"}"#,
                r#"{"event":"x","level":"error","log":"app_p_main","timestamp":"2026-01-31T12:00:00Z"}"#,
            ),
            ("daemon", "no time", r#"{"event":"no time","log":"daemon","name":"mfserv.daemon"}"#),
            ("app_p_main", "(bare) text", r#"{"event":"(bare) text","log":"app_p_main"}"#),
            (
                "app_p_main",
                "[worker-1] starting",
                r#"{"event":"[worker-1] starting","log":"app_p_main"}"#,
            ),
            ("app_p_main", "[alert] x", r#"{"event":"[alert] x","log":"app_p_main"}"#),
            (
                "app_p_main",
                "[2026-01-31 13:00:00 +0100] [12] [INFO] up",
                r#"{"event":"[12] [INFO] up","level":"info","log":"app_p_main","timestamp":"2026-01-31T12:00:00.000Z"}"#,
            ),
            (
                "app_p_main",
                "[2026-01-31T12:00:00Z] [INFO] it is up",
                r#"{"event":"it is up","level":"info","log":"app_p_main","timestamp":"2026-01-31T12:00:00.000Z"}"#,
            ),
            (
                "app_p_main",
                "2026-01-31T12:00:00Z - 5 items",
                r#"{"event":"- 5 items","log":"app_p_main","timestamp":"2026-01-31T12:00:00.000Z"}"#,
            ),
            (
                "app_p_main",
                "2026-01-31T12:00:00Z (a#b) text",
                r#"{"event":"text","log":"app_p_main","name":"a#b","timestamp":"2026-01-31T12:00:00.000Z"}"#,
            ),
        ] {
            assert_eq!(shown(stem, line), expected);
        }
        assert!(shown("daemon", "2026-01-31 12:00:00.5 it runs").contains(r#""event":"it runs""#));
    }
}
