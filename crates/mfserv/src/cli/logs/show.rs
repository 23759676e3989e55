//! How a line is printed.

use std::io::IsTerminal;
use std::path::Path;

use mfserv_core::diagnostic::shown;
use mfserv_logfile::Source;
use mfserv_telemetry::logs::{Found, facts, parsed};
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
        _ => {
            let role = super::of_plugin(stem).is_none().then_some(stem);
            parsed(&text, role)
        }
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
