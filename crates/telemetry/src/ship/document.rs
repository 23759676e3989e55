//! A record becomes a document: its fields, its index, its id.

use std::borrow::Cow;

use jiff::Timestamp;

use super::index::{IndexPattern, parse_time};
use super::state::Mark;
use super::transform::{self, Fields, Transform, as_text, text};

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
    /// Each document has `@timestamp`: data streams ask for it.
    pub needs_time: bool,
}

/// Where a record was found.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The file, as people name it.
    pub file: &'a str,
    /// The generation.
    pub generation: &'a str,
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
        let mut fields = object.unwrap_or_else(|| {
            Fields::from([("message".into(), text(line)), ("file".into(), text(place.file))])
        });
        let own = TIME_FIELDS.iter().find_map(|name| as_text(fields.get(*name)?));
        let own = own.and_then(|time| parse_time(&time));
        if !self.transforms.iter().all(|transform| transform.apply(&mut fields)) {
            return None;
        }
        let now = Timestamp::now();
        let has_time = fields.contains_key(TIME_FIELDS[0]);
        if !has_time && (self.needs_time || (is_text && own.is_none())) {
            let time = own.unwrap_or(now).to_string();
            fields.insert(TIME_FIELDS[0].into(), text(&time));
        }
        let index = match own {
            Some(time) => self.index.name(time),
            None => {
                let mark = place.times.iter().rev().find(|mark| mark.from <= place.offset);
                self.index.name_at_ms(mark.or(place.times.first()).map_or(0, |mark| mark.ms))
            }
        };
        let labels = self.labels.iter().filter_map(|name| {
            let value = as_text(&fields.remove(*name)?)?;
            Some((name.to_string(), value))
        });
        Some(Document {
            id: format!("{}-{}", place.generation, place.offset),
            labels: labels.collect(),
            index,
            source: serde_json::to_string(&fields).unwrap_or_default(),
            time: own.unwrap_or(now),
        })
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
        }
    }

    const DAY_MS: i64 = 86_400_000;
    const TIMES: &[Mark] = &[Mark { from: 0, ms: 0 }, Mark { from: 100, ms: DAY_MS }];

    fn place(offset: u64) -> Place<'static> {
        Place { file: "/log/a", generation: "g", offset, times: TIMES }
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
            assert!(value["@timestamp"].is_string());
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
