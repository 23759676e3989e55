//! A line of a log becomes a message for journald, for syslog, or for the JSON file of mflog.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use mfserv_core::names::WorkerId;
use mfserv_logfile::{Origin, Origins, Source, index_path};

use super::document::{Document, Place};
use super::records::Message;
use super::{journal, json_file, syslog};
use crate::logs::{Facts, Level, facts, is_of_plugin, request_in_error, usual_level};

/// The most files and writers that are remembered; beyond, they are looked up again.
const REMEMBERED: usize = 1024;
/// The longest id of a request, bytes: it is repeated in each message of a long line.
const REQUEST_ID_LONGEST: usize = 128;

/// What a line becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// An entry of journald.
    Journal {
        /// The runtime home of the node.
        home: String,
        /// The code of the facility.
        facility: u8,
    },
    /// A message of RFC 5424.
    Rfc5424 {
        /// The name of this machine.
        host: String,
        /// The code of the facility.
        facility: u8,
    },
    /// A message as programs write them to `/dev/log`.
    Rfc3164 {
        /// The code of the facility.
        facility: u8,
    },
    /// An object of mflog, from this level on.
    Mflog(Level),
}

/// A line, and what is known of it.
#[derive(Debug)]
pub struct Line<'a> {
    /// Its text, without its end.
    pub text: &'a str,
    /// When it was written.
    pub time: Timestamp,
    /// How severe it is.
    pub level: Level,
    /// Its log: `app_shop_main`, `daemon`.
    pub log: &'a str,
    /// Who has written it, as programs are named: `shop.main`, `mfserv-daemon`.
    pub identifier: String,
    /// The plugin and its app or extra daemon.
    pub app: Option<(String, String)>,
    /// The process.
    pub source: Option<Arc<Source>>,
    /// The request that it belongs to.
    pub request_id: Option<String>,
}

impl Line<'_> {
    /// What is known of where it comes from: names and values, without those that are empty.
    pub fn origin(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let (plugin, app) = match &self.app {
            Some((plugin, app)) => (&**plugin, &**app),
            None => ("", ""),
        };
        let source = self.source.as_deref();
        let of = |field: fn(&Source) -> &String| source.map_or("", |source| field(source).as_str());
        let all = [
            ("plugin", plugin),
            ("app", app),
            ("worker", of(|source| &source.worker)),
            ("release", of(|source| &source.release)),
            ("stream", of(|source| &source.stream)),
            ("log", self.log),
            ("request_id", self.request_id.as_deref().unwrap_or_default()),
        ];
        all.into_iter().filter(|(_, value)| !value.is_empty())
    }
}

/// A file, and the process that writes to it.
type Writer = (String, Option<Arc<Source>>);

/// Makes messages of lines.
pub struct LineMaker {
    format: Format,
    /// By generation.
    origins: HashMap<String, Option<Origins>>,
    /// The last message of each writer, by file and process, and its level.
    messages: HashMap<Writer, (Message, Level)>,
}

impl LineMaker {
    /// Makes messages of this form.
    pub fn new(format: Format) -> Self {
        Self { format, origins: HashMap::new(), messages: HashMap::new() }
    }

    /// The message of a record; `None` if nothing is to be sent.
    pub fn make(&mut self, record: &[u8], place: Place<'_>) -> Option<Document> {
        let text = String::from_utf8_lossy(record);
        // A writer that goes on at its old offset after a truncation leaves a hole before it.
        let text = text.trim_start_matches('\0').trim_end_matches(['\n', '\r']);
        if text.trim_ascii().is_empty() {
            return None;
        }
        let path = Path::new(place.file);
        let log = path.file_stem().unwrap_or_default().to_string_lossy();
        let origin = self.origin(path, &place);
        let own = facts(text.lines().next().unwrap_or_default().as_bytes());
        let level = self.level(text, &own, (&place, &log, &origin));
        let line = line_of(text, own, origin, &log, level);
        let source = match &self.format {
            Format::Journal { home, facility } => journal::entry(&line, home, *facility),
            Format::Rfc5424 { host, facility } => syslog::rfc5424(&line, host, *facility),
            Format::Rfc3164 { facility } => syslog::rfc3164(&line, *facility),
            Format::Mflog(minimal) if level < *minimal => return None,
            Format::Mflog(_) => json_file::object(&line),
        };
        let id = format!("{}-{}", place.generation, place.offset);
        Some(Document { id, index: String::new(), source, time: line.time, labels: Vec::new() })
    }

    /// Who has written a record.
    fn origin(&mut self, path: &Path, place: &Place<'_>) -> Origin {
        if !self.origins.contains_key(place.generation) {
            if self.origins.len() >= REMEMBERED {
                self.origins.clear();
            }
            self.origins.insert(place.generation.into(), index_of(path, place.inode));
        }
        let origins = self.origins.get_mut(place.generation).and_then(Option::as_mut);
        origins.map(|origins| origins.at(place.offset)).unwrap_or_default()
    }

    /// The level that a line has; that of the message which it continues; else that of its log.
    fn level(
        &mut self,
        text: &str,
        own: &Facts,
        (place, log, origin): (&Place<'_>, &str, &Origin),
    ) -> Level {
        if self.messages.len() >= REMEMBERED {
            self.messages.clear();
        }
        let writer = (place.file.to_string(), origin.source.clone());
        if let (None, Some((message, level))) = (own.level, self.messages.get_mut(&writer)) {
            if message.continues(text.as_bytes()) {
                return *level;
            }
        }
        let level = own.level.unwrap_or_else(|| usual_level(log));
        self.messages.insert(writer, (Message::begin(text.as_bytes()), level));
        level
    }
}

fn line_of<'a>(text: &'a str, own: Facts, origin: Origin, log: &'a str, level: Level) -> Line<'a> {
    let source = origin.source.filter(|source| !source.worker.is_empty());
    let worker = source.as_ref().and_then(|source| source.worker.parse::<WorkerId>().ok());
    let app = worker.and_then(|worker| {
        let plugin = worker.watcher.plugin()?.to_string();
        Some((plugin, worker.watcher.short().to_string()))
    });
    let identifier = match (&app, log) {
        (Some((plugin, app)), _) => format!("{plugin}.{app}"),
        (None, "nginx_error") => "mfserv-front".into(),
        (None, log) if is_of_plugin(log) => log.into(),
        (None, role) => format!("mfserv-{role}"),
    };
    // The keeper knows when it has read a line; a program may write any time into it.
    let at_ms = Some(origin.at_ms).filter(|at_ms| *at_ms > 0).or(own.at_ms());
    let time = at_ms.and_then(|at_ms| Timestamp::from_millisecond(at_ms as i64).ok());
    let is_id = |id: &String| {
        id.len() <= REQUEST_ID_LONGEST && id.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let in_error = || request_in_error(text).filter(|_| log == "nginx_error").map(str::to_owned);
    let request_id = own.request_id.or_else(in_error).filter(is_id);
    Line {
        text,
        time: time.unwrap_or_else(Timestamp::now),
        level,
        log,
        identifier,
        app,
        source,
        request_id,
    }
}

/// The index of a file that has this name, or had it before its rotation.
fn index_of(path: &Path, inode: u64) -> Option<Origins> {
    if let Some(origins) = Origins::open(path, inode) {
        return Some(origins);
    }
    let rotated = mfserv_logfile::rotated(path).unwrap_or_default();
    rotated
        .iter()
        .filter(|file| index_path(&file.path).exists())
        .find_map(|file| Origins::open(&file.path, inode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(file: &str) -> Place<'_> {
        Place { file, generation: "g", inode: 0, offset: 7, times: &[] }
    }

    fn journal() -> LineMaker {
        LineMaker::new(Format::Journal { home: "/home".into(), facility: 3 })
    }

    /// The values of a field of the entries of lines.
    fn values(file: &str, lines: &[&str], field: &str) -> Vec<String> {
        let mut maker = journal();
        let entries = lines.iter().filter_map(|line| {
            maker.make(format!("{line}\n").as_bytes(), place(file)).map(|entry| entry.source)
        });
        let value = |entry: String| {
            let found = entry.lines().find_map(|line| line.strip_prefix(&format!("{field}=")));
            found.map(str::to_owned)
        };
        entries.filter_map(value).collect()
    }

    #[test]
    fn a_line_has_its_own_level_or_that_of_the_message_which_it_continues() {
        let lines = [
            "2026-01-31 12:00:00 ERROR it fails",
            "Traceback (most recent call last):",
            "  File \"x\"",
            "ValueError: no",
            "plain",
            "",
            "{\"level\":\"warning\",\"event\":\"x\"}",
            "2026-01-31T12:00:00.123456Z [CRITICAL] (n#1) x",
            "2026-01-31T12:00:00.123456Z    [DEBUG] (n#1) x",
        ];
        let found = values("/log/app_p_main.log", &lines, "PRIORITY");
        assert_eq!(found, ["3", "3", "3", "3", "6", "4", "2", "7"]);
        assert_eq!(values("/log/keeper.log", &["keeper: no"], "PRIORITY"), ["4"]);
        let daemon = ["2026-01-31 12:00:00.1 it runs", "2026-01-31 12:00:00.1 [ERROR] no"];
        assert_eq!(values("/log/daemon.log", &daemon, "PRIORITY"), ["6", "3"]);
    }

    #[test]
    fn no_line_adds_a_field_of_its_own() {
        let evil = "{\"request_id\":\"x\\nPRIORITY=0\",\"a\":1}\0\rMESSAGE=y";
        let entry = journal().make(evil.as_bytes(), place("/log/app_p_main.log")).unwrap();
        let names: Vec<&str> =
            entry.source.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
        let expected = [
            "MESSAGE",
            "PRIORITY",
            "SYSLOG_IDENTIFIER",
            "SYSLOG_FACILITY",
            "SYSLOG_TIMESTAMP",
            "MFSERV_HOME",
            "MFSERV_LOG",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_line_with_a_huge_request_id_has_none_and_grows_little_in_its_messages() {
        let lines = [128, 129]
            .map(|length| format!("{{\"request_id\":\"{}\",\"event\":\"x\"}}", "i".repeat(length)));
        let lines = [lines[0].as_str(), lines[1].as_str()];
        let file = "/log/app_p_main.log";
        assert_eq!(values(file, &lines, "MFSERV_REQUEST_ID"), ["i".repeat(128)]);
        let mut maker = LineMaker::new(Format::Rfc5424 { host: "h".into(), facility: 3 });
        let huge = format!("{{\"request_id\":\"{}\"}}", "i".repeat(500_000));
        let made = maker.make(huge.as_bytes(), place(file)).unwrap().source;
        assert!(made.len() < 520_000 && made.lines().all(|one| one.len() <= 8192));
    }

    #[test]
    fn a_role_writes_objects_of_mflog_from_the_minimal_level_on() {
        let mut maker = LineMaker::new(Format::Mflog(Level::Warning));
        let mut object = |file: &str, text: &str| {
            let made = maker.make(text.as_bytes(), place(file))?;
            Some(serde_json::from_str::<serde_json::Value>(&made.source).unwrap())
        };
        assert_eq!(object("/log/daemon.log", "2026-01-31 12:00:00.123 it runs\n"), None);
        let text = "2026-01-31T12:00:00.123Z [WARNING] app.a.b.1.1 ended\n  its output\n";
        let expected = serde_json::json!({
            "timestamp": "2026-01-31T12:00:00.123000Z", "level": "warning", "plugin": "#core#",
            "name": "mfserv.daemon", "event": "app.a.b.1.1 ended\n  its output"});
        assert_eq!(object("/log/daemon.log", text), Some(expected));
        let error = object("/log/nginx_error.log", "2026/01/31 12:00:00 [error] no\n").unwrap();
        assert_eq!((&error["level"], &error["event"]), (&"error".into(), &"no".into()));
        assert_eq!(object("/log/keeper.log", "keeper: no\n").unwrap()["level"], "warning");
    }
}
