//! How a line is printed.

use std::io::IsTerminal;
use std::path::Path;

use mfserv_core::diagnostic::shown;
use mfserv_logfile::Source;
use mfserv_telemetry::logs::{Found, facts};
use serde_json::{Map, Value};

use crate::cli::output::{for_terminal, print_bytes};
use crate::cli::print;

/// Prints lines.
pub struct Show {
    json: bool,
    /// Each line has the name of its log before it.
    several: bool,
    /// Control characters are printed as they are.
    raw: bool,
}

impl Show {
    /// `raw`: a terminal gets control characters too, and obeys them.
    pub fn new(json: bool, several: bool, raw: bool) -> Self {
        Self { json, several, raw: raw || !std::io::stdout().is_terminal() }
    }

    /// True if each line is a JSON object.
    pub fn is_json(&self) -> bool {
        self.json
    }

    /// Prints a line that was found.
    pub fn line(&self, line: &Found) {
        self.parts(&line.log, &line.bytes, line.at_ms, line.source.as_ref());
    }

    /// Prints a line of a log.
    pub fn parts(&self, log: &Path, bytes: &[u8], at_ms: Option<u64>, source: Option<&Source>) {
        let stem = log.file_stem().unwrap_or_default().to_string_lossy();
        if self.json {
            let object = object(&stem, bytes, at_ms, source);
            print(&format!("{}\n", Value::Object(object)));
            return;
        }
        let start = if self.several { format!("{stem} | ") } else { String::new() };
        if self.raw {
            return print_bytes(&[start.as_bytes(), bytes, b"\n"].concat());
        }
        let text = String::from_utf8_lossy(bytes.strip_suffix(b"\r").unwrap_or(bytes));
        print(&format!("{start}{}\n", shown(&text)));
    }

    /// Prints a sentence about what is shown.
    pub fn note(&self, text: &str) {
        print(&format!("{}\n", for_terminal(text)));
    }
}

/// A line as an object in the shape of mflog: what it says of itself, and where it comes from.
fn object(
    stem: &str,
    bytes: &[u8],
    at_ms: Option<u64>,
    source: Option<&Source>,
) -> Map<String, Value> {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let mut object = match serde_json::from_str::<Value>(&text) {
        Ok(Value::Object(object)) => object,
        _ => parsed(stem, &text),
    };
    let own = facts(bytes);
    let time = own.at_ms.or(at_ms).and_then(|at| jiff::Timestamp::from_millisecond(at as i64).ok());
    if let Some(time) = time {
        let time = time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string();
        object.entry("timestamp").or_insert_with(|| time.into());
    }
    object.insert("log".into(), stem.into());
    object.insert("line".into(), text.into());
    if let Some(Source { worker, stream, release }) = source {
        object.insert("worker".into(), worker.clone().into());
        object.insert("stream".into(), stream.clone().into());
        if !release.is_empty() {
            object.insert("release".into(), release.clone().into());
        }
    }
    object
}

/// The keys of mflog of a line that is no JSON: `TIME [LEVEL] (NAME#PID) EVENT`, or as much of
/// that as it has.
fn parsed(stem: &str, text: &str) -> Map<String, Value> {
    let mut object = Map::new();
    let own = facts(text.as_bytes());
    if let Some(level) = own.level {
        object.insert("level".into(), level.as_str().to_ascii_lowercase().into());
    }
    let mut rest = text;
    if own.at_ms.is_some() {
        // The date and the clock time, which a blank may divide.
        let time = if rest.as_bytes().get(10) == Some(&b' ') { 2 } else { 1 };
        rest = rest.splitn(time + 1, ' ').nth(time).unwrap_or_default().trim_start();
    }
    if let Some((level, behind)) = rest.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        if level.len() <= 10 {
            rest = behind;
        }
    }
    let named = rest.strip_prefix('(').and_then(|rest| rest.split_once(") "));
    if let Some((name, behind)) = named.filter(|_| own.at_ms.is_some()) {
        let (name, pid) = name.rsplit_once('#').unwrap_or((name, ""));
        object.insert("name".into(), name.into());
        if let Ok(pid) = pid.parse::<u32>() {
            object.insert("pid".into(), pid.into());
        }
        rest = behind;
    } else if super::of_plugin(stem).is_none() {
        object.insert("name".into(), format!("mfserv.{stem}").into());
    }
    object.insert("event".into(), rest.into());
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(stem: &str, line: &str) -> String {
        let mut object = object(stem, line.as_bytes(), None, None);
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
        ] {
            assert_eq!(shown(stem, line), expected);
        }
        assert!(shown("daemon", "2026-01-31 12:00:00.5 it runs").contains(r#""event":"it runs""#));
    }
}
