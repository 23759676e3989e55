//! What apps send by statsd and as lines of InfluxDB, as Prometheus reads it: a bounded table of the
//! newest values.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use mfserv_core::wire::metrics::REST;

use super::basicstats::{BYPASS, RESOLUTION};
use super::exposition::Exposition;
use super::names::{self, Family};
use super::point::{Point, Value};

/// The most series. Prometheus keeps each of them for weeks.
const SERIES_MAX: usize = 2_000;
/// The most bytes of their names and labels.
const BYTES_MAX: usize = 1 << 20;
/// In a full table, a series that was silent for so long makes room for a new one.
const SILENT: Duration = Duration::from_secs(3600);
/// How often it is looked for such series.
const LOOK: Duration = Duration::from_secs(10);
/// Labels that a tag must not have: those of the families, and those of Prometheus.
const RESERVED: [&str; 4] = ["name", "field", "le", "quantile"];

/// What a series is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A counter of statsd.
    Counter,
    /// A gauge of statsd.
    Gauge,
    /// A set of statsd: its members in the last window.
    Set,
    /// A timer of statsd, seconds.
    Timer,
    /// A histogram of statsd.
    Distribution,
    /// A field of a line of InfluxDB.
    Field,
}

/// The families, in the order in which they are written.
const FAMILIES: [(Kind, &Family); 6] = [
    (Kind::Counter, &names::APP_COUNTED),
    (Kind::Gauge, &names::APP_VALUE),
    (Kind::Set, &names::APP_MEMBERS),
    (Kind::Timer, &names::APP_TIME),
    (Kind::Distribution, &names::APP_DISTRIBUTION),
    (Kind::Field, &names::APP_FIELD),
];

/// The kind, the name, the field (of lines only) and the labels of a series.
type Key = (Kind, String, String, BTreeMap<String, String>);

#[derive(Debug)]
struct Row {
    value: f64,
    count: u64,
    heard: Instant,
}

/// The newest values of all series.
#[derive(Debug, Default)]
pub struct AppSeries {
    rows: BTreeMap<Key, Row>,
    bytes: usize,
    looked: Option<Instant>,
    /// Values of series for which there was no room, those in rows of the rest included.
    pub dropped: u64,
}

impl AppSeries {
    /// Adds to a counter. A counter of Prometheus never falls: what is taken back is left out.
    pub fn count(&mut self, name: &str, tags: &BTreeMap<String, String>, value: f64) {
        if let Some(row) = self.row(Kind::Counter, name, "", tags) {
            row.value += value.max(0.0);
        }
    }

    /// Sets a gauge, or changes it.
    pub fn set(
        &mut self,
        name: &str,
        tags: &BTreeMap<String, String>,
        (value, is_change): (f64, bool),
    ) {
        if let Some(row) = self.row(Kind::Gauge, name, "", tags) {
            row.value = if is_change { row.value + value } else { value };
        }
    }

    /// Adds a value that came so many times.
    pub fn observe(
        &mut self,
        kind: Kind,
        (name, tags): (&str, &BTreeMap<String, String>),
        value: f64,
        times: u64,
    ) {
        if let Some(row) = self.row(kind, name, "", tags) {
            row.value += value * times as f64;
            row.count += times;
        }
    }

    /// Takes the sizes of all sets of a window. One that has no member now has none.
    pub fn sets<'a>(
        &mut self,
        sets: impl Iterator<Item = (&'a str, &'a BTreeMap<String, String>, usize)>,
    ) {
        let known = self.rows.iter_mut().filter(|((kind, ..), _)| *kind == Kind::Set);
        known.for_each(|(_, row)| row.value = 0.0);
        for (name, tags, members) in sets {
            if let Some(row) = self.row(Kind::Set, name, "", tags) {
                row.value = members as f64;
            }
        }
    }

    /// Takes the numbers of a line.
    pub fn line(&mut self, point: &Point) {
        for (field, value) in &point.fields {
            let number = match value {
                Value::Flag(flag) => Some(f64::from(u8::from(*flag))),
                other => other.number(),
            };
            let Some(number) = number.filter(|number| number.is_finite()) else { continue };
            if let Some(row) = self.row(Kind::Field, &point.name, field, &point.tags) {
                row.value = number;
            }
        }
    }

    /// The row of a series. For one that finds no room, the row of the rest, if it is a sum: that
    /// of counters stays true. Of other values a sum says nothing: `None`.
    fn row(
        &mut self,
        kind: Kind,
        name: &str,
        field: &str,
        tags: &BTreeMap<String, String>,
    ) -> Option<&mut Row> {
        // Tags may differ where their labels do not: these are one series.
        let of_labels = |(tag, _): &(&String, &String)| {
            ![BYPASS, RESOLUTION, "metric_type"].contains(&tag.as_str())
        };
        let labels = tags.iter().filter(of_labels).map(|(tag, value)| (label(tag), value.clone()));
        let mut key: Key = (kind, name.into(), field.into(), labels.collect());
        let now = Instant::now();
        if !self.rows.contains_key(&key) {
            let size = size(&key);
            if !self.has_room(size) {
                self.make_room(now);
            }
            if !self.has_room(size) {
                self.dropped += 1;
                if !matches!(kind, Kind::Counter | Kind::Timer | Kind::Distribution) {
                    return None;
                }
                key = (kind, REST.into(), String::new(), BTreeMap::new());
            }
            if !self.rows.contains_key(&key) {
                self.bytes += self::size(&key);
            }
        }
        let row = self.rows.entry(key).or_insert(Row { value: 0.0, count: 0, heard: now });
        row.heard = now;
        Some(row)
    }

    fn has_room(&self, size: usize) -> bool {
        self.rows.len() < SERIES_MAX && self.bytes + size <= BYTES_MAX
    }

    /// Forgets what was silent for long.
    fn make_room(&mut self, now: Instant) {
        if self.looked.is_some_and(|looked| now.duration_since(looked) < LOOK) {
            return;
        }
        self.looked = Some(now);
        self.rows.retain(|_, row| now.duration_since(row.heard) < SILENT);
        self.bytes = self.rows.keys().map(size).sum();
    }

    /// Writes all families.
    pub fn put(&self, text: &mut Exposition) {
        for (wanted, family) in FAMILIES {
            let mut samples = text.family(family);
            for ((kind, name, field, labels), row) in &self.rows {
                if *kind != wanted {
                    continue;
                }
                match kind {
                    Kind::Timer | Kind::Distribution => {
                        samples.put_summary(&[name], labels, (row.value, row.count));
                    }
                    Kind::Field => samples.put_labelled(&[name, field], labels, row.value),
                    _ => samples.put_labelled(&[name], labels, row.value),
                }
            }
        }
    }
}

fn size((_, name, field, labels): &Key) -> usize {
    let labels = labels.iter().map(|(label, value)| label.len() + value.len());
    name.len() + field.len() + labels.sum::<usize>()
}

/// The label of a tag.
fn label(tag: &str) -> String {
    let usable = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let label: String = tag.chars().map(usable).collect();
    let is_taken = RESERVED.contains(&label.as_str())
        || label.starts_with("__")
        || label.starts_with(|c: char| c.is_ascii_digit());
    if is_taken { format!("tag_{label}") } else { label }
}

#[cfg(test)]
mod tests {
    use super::super::exposition::Format;
    use super::*;

    fn text(series: &AppSeries) -> String {
        let mut text = Exposition::new(Format::Prometheus);
        series.put(&mut text);
        text.finish()
    }

    #[test]
    fn the_numbers_of_a_line_become_series_whose_labels_prometheus_takes() {
        let mut series = AppSeries::default();
        for line in [
            "room,the.place=a,name=x,9=y,resolution=fullres temp=20.5,open=t,note=\"no number\"",
            "room,the-place=a,name=x,9=y temp=21",
        ] {
            series.line(&Point::read(line).unwrap());
        }
        let labels = r#"tag_9="y",tag_name="x",the_place="a""#;
        let text = text(&series);
        for (field, value) in [("temp", "21"), ("open", "1")] {
            let sample = format!("mfserv_app_field{{name=\"room\",field=\"{field}\",{labels}}}");
            assert_eq!(text.matches(&sample).count(), 1, "a sample is there once: {text}");
            assert!(text.contains(&format!("{sample} {value}\n")), "{text}");
        }
        assert!(!text.contains("note"), "{text}");
    }

    #[test]
    fn series_are_bounded_in_number_and_in_bytes_and_silent_ones_make_room() {
        let mut series = AppSeries::default();
        let none = BTreeMap::new();
        (0..SERIES_MAX + 5).for_each(|number| series.count(&format!("n{number}"), &none, 1.0));
        assert_eq!((series.rows.len(), series.dropped), (SERIES_MAX + 1, 5));
        let later = Instant::now() + SILENT;
        series.rows.values_mut().take(3).for_each(|row| row.heard = later);
        series.looked = None;
        series.make_room(later);
        series.count("new", &none, 1.0);
        assert_eq!((series.rows.len(), series.dropped), (4, 5));

        let mut series = AppSeries::default();
        let long = "x".repeat(60_000);
        (0..100).for_each(|number| series.count(&format!("{number}{long}"), &none, 1.0));
        assert_eq!(series.rows.len(), BYTES_MAX / 60_002 + 1);
    }

    #[test]
    fn in_a_full_table_sums_go_on_in_a_row_of_the_rest_and_known_series_go_on() {
        let (mut series, none) = (AppSeries::default(), BTreeMap::new());
        series.count("known", &none, 1.0);
        (1..SERIES_MAX).for_each(|number| series.set(&format!("n{number}"), &none, (1.0, false)));
        let tags = BTreeMap::from([("user".to_string(), "1".to_string())]);
        for (name, value) in [("a", 2.0), ("b", 3.0), ("known", 4.0)] {
            series.count(name, &none, value);
        }
        series.observe(Kind::Timer, ("t", &tags), 0.5, 2);
        series.observe(Kind::Timer, ("u", &tags), 1.0, 1);
        series.set("g", &none, (7.0, false));
        let text = text(&series);
        for sample in [
            "mfserv_app_counted_total{name=\"#rest#\"} 5",
            "mfserv_app_counted_total{name=\"known\"} 5",
            "mfserv_app_time_seconds_sum{name=\"#rest#\"} 2",
            "mfserv_app_time_seconds_count{name=\"#rest#\"} 3",
        ] {
            assert!(text.lines().any(|line| line == sample), "{sample}: {text}");
        }
        assert!(!text.contains("mfserv_app_value{name=\"#rest#\"}"), "{text}");
        assert_eq!((series.rows.len(), series.dropped), (SERIES_MAX + 2, 5));
    }
}
