//! A record becomes a document: its fields, its index, its id.

use std::borrow::Cow;

use jiff::Timestamp;

use super::index::{IndexPattern, parse_time};
use super::line::LineMaker;
use super::state::Mark;
use super::transform::{self, Fields, Transform, as_text, text};
use crate::logs::stamp_of;

/// Fields that have the time of a line, the first one first.
const TIME_FIELDS: [&str; 2] = ["@timestamp", "timestamp"];

/// A document to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// The generation of its file, and where it begins there: the same for every attempt.
    pub id: String,
    /// The index that it goes to, the same for every attempt.
    pub index: String,
    /// JSON.
    pub source: String,
    /// Its time.
    pub time: Timestamp,
    /// Labels (Loki only), which are not in the source.
    pub labels: Vec<(String, String)>,
}

/// How documents are made.
#[derive(Debug, Clone)]
pub struct Maker {
    /// The index.
    pub index: IndexPattern,
    /// What is changed, in order.
    pub transforms: Vec<Transform>,
    /// Fields that become labels, with other values for lines without them.
    pub labels: Vec<&'static str>,
    /// Every document gets the time, as data streams ask for it; else only text does.
    pub needs_time: bool,
    /// The field of the time of documents that come without one.
    pub time_field: &'static str,
    /// Text gets the name of its file, in the field `file`.
    pub names_file: bool,
}

/// Where a record was found.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The file, as people name it.
    pub file: &'a str,
    /// The generation.
    pub generation: &'a str,
    /// The inode number of its file.
    pub inode: u64,
    /// Where the record begins in it, bytes.
    pub offset: u64,
    /// What lines without a time of their own count for.
    pub times: &'a [Mark],
}

impl Maker {
    /// The document of a record; `None` if nothing is to be sent.
    pub fn make(&mut self, record: &[u8], place: Place<'_>) -> Option<Document> {
        // The check of a whole line is much faster than the one that mends it.
        let line = std::str::from_utf8(record)
            .map_or_else(|_| String::from_utf8_lossy(record), Cow::Borrowed);
        // A writer that goes on at its old offset after a truncation leaves a hole before it.
        let line = line.trim_start_matches('\0').trim_end();
        if line.trim_start().is_empty() {
            return None;
        }
        let object = line.starts_with('{').then(|| transform::fields(line)).flatten();
        let is_text = object.is_none();
        let mut fields = object.unwrap_or_else(|| Fields::from([("message".into(), text(line))]));
        if is_text && self.names_file {
            fields.insert("file".into(), text(place.file));
        }
        let own = match is_text {
            true => stamp_of(line.as_bytes()).and_then(|stamp| {
                // A local time that comes twice is of the hour in which the line was read.
                of_ms(stamp.near(u64::try_from(place.time().as_millisecond()).ok()))
            }),
            false => TIME_FIELDS
                .iter()
                .find_map(|name| as_text(fields.get(*name)?))
                .and_then(|time| parse_time(&time)),
        };
        // The same at every attempt.
        let time = own.unwrap_or_else(|| place.time());
        if !self.transforms.iter().all(|transform| transform.apply(&mut fields)) {
            return None;
        }
        if (self.needs_time || is_text) && !fields.contains_key(self.time_field) {
            fields.insert(self.time_field.into(), text(&time.to_string()));
        }
        let labels = self.labels.iter().filter_map(|name| {
            let value = as_text(&fields.remove(*name)?)?;
            Some((name.to_string(), value))
        });
        Some(Document {
            id: format!("{}-{}", place.generation, place.offset),
            labels: labels.collect(),
            index: self.index.name(time),
            source: serde_json::to_string(&fields).unwrap_or_default(),
            time,
        })
    }
}

impl Place<'_> {
    /// What a line without a time of its own counts for.
    fn time(&self) -> Timestamp {
        let mark = self.times.iter().rev().find(|mark| mark.from <= self.offset);
        let mark = mark.or(self.times.first());
        mark.and_then(|mark| Timestamp::from_millisecond(mark.ms).ok()).unwrap_or_default()
    }
}

fn of_ms(ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

/// How records become documents.
pub enum Making {
    /// JSON.
    Fields(Maker),
    /// Messages of journald, syslog and mflog.
    Lines(LineMaker),
}

impl Making {
    /// The document of a record; `None` if nothing is to be sent.
    pub fn make(&mut self, record: &[u8], place: Place<'_>) -> Option<Document> {
        match self {
            Making::Fields(maker) => maker.make(record, place),
            Making::Lines(maker) => maker.make(record, place),
        }
    }

    /// The index that documents go to, where there are several.
    pub fn index(&self) -> Option<IndexPattern> {
        match self {
            Making::Fields(maker) => Some(maker.index.clone()),
            Making::Lines(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maker() -> Maker {
        Maker {
            index: IndexPattern::new("x-%Y.%m.%d").unwrap(),
            transforms: Vec::new(),
            labels: Vec::new(),
            needs_time: false,
            time_field: "@timestamp",
            names_file: true,
        }
    }

    const DAY_MS: i64 = 86_400_000;
    const TIMES: &[Mark] = &[Mark { from: 0, ms: 0 }, Mark { from: 100, ms: DAY_MS }];

    fn place(offset: u64) -> Place<'static> {
        Place { file: "/log/a", generation: "g", inode: 1, offset, times: TIMES }
    }

    #[test]
    fn an_object_is_sent_as_it_is_to_the_index_of_its_own_time() {
        let line = "{\"timestamp\":\"2026-01-31T12:00:00.123456Z\",\"n\":1.50}\n";
        let made = maker().make(line.as_bytes(), place(7)).unwrap();
        assert_eq!((&*made.id, &*made.index), ("g-7", "x-2026.01.31"));
        assert_eq!(made.source, "{\"n\":1.50,\"timestamp\":\"2026-01-31T12:00:00.123456Z\"}");
    }

    #[test]
    fn a_line_without_a_time_goes_to_the_index_of_the_stored_day_at_every_attempt() {
        for (offset, index) in [(0, "x-1970.01.01"), (99, "x-1970.01.01"), (100, "x-1970.01.02")] {
            let made = maker().make(b"plain \"text\"\xff\n  more\n\n", place(offset)).unwrap();
            assert_eq!(made.index, index);
            let value: serde_json::Value = serde_json::from_str(&made.source).unwrap();
            assert_eq!(value["message"], "plain \"text\"\u{fffd}\n  more");
            assert_eq!(value["file"], "/log/a");
            let day = format!("{}T00:00:00Z", index[2..].replace('.', "-"));
            assert_eq!(value["@timestamp"], day, "the same at every attempt");
        }
    }

    #[test]
    fn text_with_a_time_goes_to_the_index_of_that_time() {
        let line = "2026-01-31 23:59:59,123+01:00 [INFO] x\n";
        let made = maker().make(line.as_bytes(), place(0)).unwrap();
        assert_eq!(made.index, "x-2026.01.31");
        let value: serde_json::Value = serde_json::from_str(&made.source).unwrap();
        assert_eq!(value["@timestamp"], "2026-01-31T22:59:59.123Z");
    }

    #[test]
    fn messages_of_mflog_without_a_time_get_the_field_that_others_have() {
        let of_mflog =
            Maker { needs_time: true, time_field: "timestamp", names_file: false, ..maker() };
        for (line, expected) in [
            ("{\"event\":\"x\"}", r#"{"event":"x","timestamp":"1970-01-01T00:00:00Z"}"#),
            ("odd", r#"{"message":"odd","timestamp":"1970-01-01T00:00:00Z"}"#),
            ("{\"timestamp\":17}", r#"{"timestamp":17}"#),
        ] {
            let made = of_mflog.clone().make(line.as_bytes(), place(0)).unwrap();
            assert_eq!(made.source, expected);
        }
    }

    #[test]
    fn what_is_no_object_is_sent_as_text_and_what_is_empty_is_not_sent() {
        for odd in ["[1]", "{\"a\":NaN}", "{broken", "17"] {
            let made = maker().make(odd.as_bytes(), place(0)).unwrap();
            let value: serde_json::Value = serde_json::from_str(&made.source).unwrap();
            assert_eq!(value["message"], odd);
        }
        for empty in [&b"\n"[..], b"  \n", b"\0\0\0\n"] {
            assert_eq!(maker().make(empty, place(0)), None);
        }
        let made = maker().make(b"\0\0{\"a\":1}\n", place(0)).unwrap();
        assert_eq!(made.source, "{\"a\":1}");
    }

    #[test]
    fn labels_leave_the_line_and_a_data_stream_gets_its_time() {
        let labels = vec!["level", "plugin"];
        let mut maker = Maker { labels, needs_time: true, ..maker() };
        let line = b"{\"level\":\"info\",\"timestamp\":1769904000,\"x\":1}";
        let made = maker.make(line, place(0)).unwrap();
        assert_eq!(made.labels, [("level".to_string(), "info".to_string())]);
        let expected = r#"{"@timestamp":"2026-02-01T00:00:00Z","timestamp":1769904000,"x":1}"#;
        assert_eq!(made.source, expected);
    }
}
