//! statsd: counters, gauges, timings and sets, as Telegraf reads them. Tags are written as
//! InfluxDB writes them: `name,tag=value:1|c|@0.1`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use mfserv_core::wire::metrics::Timer;
use mfserv_platform::sync::lock;

use super::app_series::{AppSeries, Kind};
use super::point::{Point, Value};

/// The most series of each type. Beyond it a series is counted under its name without its
/// tags, and beyond it again under the name of the rest.
const SERIES_MAX: usize = 10_000;
/// The most values of a timing that percentiles are computed from, and members of a set.
const VALUES_MAX: usize = 1_000;
const MEMBERS_MAX: usize = 10_000;
/// The longest member of a set, bytes.
const MEMBER_MAX: usize = 256;
/// The most bytes of all series with their values, between two gatherings.
const BYTES_MAX: usize = 32 << 20;
/// What a row of a table takes beside its name and tags, and a member beside its text, bytes.
const ROW_BYTES: usize = 160;
const MEMBER_BYTES: usize = 48;
/// The most repetitions that a sampling rate stands for.
const REPEATED_MAX: f64 = 10_000.0;
/// The longest name with its tags, bytes.
const NAME_MAX: usize = 1_024;

/// The name of the rest. InfluxDB takes a line that begins with `#` for a comment.
const REST_NAME: &str = "rest";

/// Name and tags.
type Series = (String, BTreeMap<String, String>);

/// What was received since the last gathering.
#[derive(Debug, Default)]
pub struct Statsd {
    counters: BTreeMap<Series, i64>,
    gauges: BTreeMap<Series, f64>,
    sets: BTreeMap<Series, BTreeSet<String>>,
    timings: BTreeMap<Series, Timing>,
    /// What is left of [`BYTES_MAX`].
    room: Room,
    /// Lines that were none.
    pub bad_lines: u64,
    /// Members of sets that there was no room for.
    pub members: u64,
    /// Metrics that were counted in a row of the rest.
    pub beyond: u64,
    /// The same for Prometheus, which is told of everything since the start.
    shown: Arc<Mutex<AppSeries>>,
}

/// Bytes that may still be used.
#[derive(Debug)]
struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(BYTES_MAX)
    }
}

impl Room {
    /// Takes this much. False if it is not there.
    fn take(&mut self, bytes: usize) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// Durations or sizes, and what is said of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timing {
    /// How many.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The sum of their squares.
    pub squares: f64,
    /// The smallest.
    pub lower: f64,
    /// The largest.
    pub upper: f64,
    /// Some of them.
    pub values: Vec<f64>,
}

impl Timing {
    /// Counts a value. `keeps`: there is room for it among those that percentiles are made from.
    fn add(&mut self, value: f64, keeps: bool) {
        let is_first = self.count == 0;
        self.lower = if is_first { value } else { self.lower.min(value) };
        self.upper = if is_first { value } else { self.upper.max(value) };
        self.count += 1;
        self.sum += value;
        self.squares += value * value;
        let kept = self.values.len();
        if kept < VALUES_MAX && (keeps || kept == 0) {
            self.values.push(value);
        } else {
            // Every value replaces another one: which, is as good as chance.
            self.values[(self.count.wrapping_mul(7919) % kept as u64) as usize] = value;
        }
    }

    /// Adds what a front has measured.
    pub fn add_timer(&mut self, timer: &Timer) {
        if timer.count == 0 {
            return;
        }
        let (lower, upper) = (timer.lower_ms as f64, timer.upper_ms as f64);
        let is_first = self.count == 0;
        self.lower = if is_first { lower } else { self.lower.min(lower) };
        self.upper = if is_first { upper } else { self.upper.max(upper) };
        self.count += timer.count;
        self.sum += timer.sum_ms as f64;
        self.squares += timer.squares;
        let room = VALUES_MAX.saturating_sub(self.values.len());
        self.values.extend(timer.values.iter().take(room).map(|ms| f64::from(*ms)));
    }

    /// The fields of its point.
    pub fn point(&self, name: &str) -> Point {
        let count = self.count.max(1) as f64;
        let mean = self.sum / count;
        let variance = (self.squares / count - mean * mean).max(0.0);
        let mut values = self.values.clone();
        values.sort_by(f64::total_cmp);
        let at = (values.len() as f64 * 0.9) as usize;
        let percentile = values.get(at.min(values.len().saturating_sub(1))).copied();
        Point::new(name)
            .field("lower", Value::Float(self.lower))
            .field("upper", Value::Float(self.upper))
            .field("mean", Value::Float(mean))
            .field("stddev", Value::Float(variance.sqrt()))
            .field("sum", Value::Float(self.sum))
            .field("count", Value::Integer(self.count as i64))
            .field("90_percentile", Value::Float(percentile.unwrap_or(0.0)))
    }
}

impl Statsd {
    /// Nothing was received. `shown`: what Prometheus is told.
    pub fn new(shown: Arc<Mutex<AppSeries>>) -> Self {
        Self { shown, ..Self::default() }
    }

    /// Receives a datagram: a metric a line.
    pub fn receive(&mut self, datagram: &[u8]) {
        let text = String::from_utf8_lossy(datagram);
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if self.line(line).is_none() {
                self.bad_lines += 1;
            }
        }
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let (bucket, values) = line.split_once(':')?;
        if bucket.len() > NAME_MAX {
            return None;
        }
        for value in values.split(':') {
            let mut parts = value.split('|');
            let (text, kind) = (parts.next()?, parts.next()?);
            let rate = parts.next().and_then(|rate| rate.strip_prefix('@'));
            let rate = rate.and_then(|rate| rate.parse::<f64>().ok());
            let rate = rate.filter(|rate| *rate > 0.0 && *rate <= 1.0);
            self.metric(bucket, text, kind, rate)?;
        }
        Some(())
    }

    fn metric(&mut self, bucket: &str, text: &str, kind: &str, rate: Option<f64>) -> Option<()> {
        let is_relative = text.starts_with(['+', '-']);
        let (beyond, room) = (&mut self.beyond, &mut self.room);
        let number = || text.parse::<f64>().ok().filter(|number| number.is_finite());
        match kind {
            "c" => {
                let value = number()? / rate.unwrap_or(1.0);
                let series = series(bucket, "counter")?;
                lock(&self.shown).count(&series.0, &series.1, value);
                let counter = row(&mut self.counters, series, room, beyond);
                *counter = counter.saturating_add(value as i64);
            }
            "g" => {
                let value = number()?;
                let series = series(bucket, "gauge")?;
                lock(&self.shown).set(&series.0, &series.1, (value, is_relative));
                let gauge = row(&mut self.gauges, series, room, beyond);
                *gauge = if is_relative { *gauge + value } else { value };
            }
            "s" if text.len() <= MEMBER_MAX => {
                let set = row(&mut self.sets, series(bucket, "set")?, room, beyond);
                if !set.contains(text) {
                    match set.len() < MEMBERS_MAX && room.take(text.len() + MEMBER_BYTES) {
                        true => drop(set.insert(text.into())),
                        false => self.members += 1,
                    }
                }
            }
            "ms" | "h" if !is_relative => {
                let value = number()?;
                let (kind, shown, unit) = match kind {
                    "ms" => ("timing", Kind::Timer, 1e3),
                    _ => ("histogram", Kind::Distribution, 1.0),
                };
                let series = series(bucket, kind)?;
                let times = (1.0 / rate.unwrap_or(1.0)).min(REPEATED_MAX) as u64;
                lock(&self.shown).observe(shown, (&series.0, &series.1), value / unit, times);
                let timing = row(&mut self.timings, series, room, beyond);
                for _ in 0..times {
                    let keeps = timing.values.len() < VALUES_MAX && room.take(size_of::<f64>());
                    timing.add(value, keeps);
                }
            }
            _ => return None,
        }
        Some(())
    }

    /// What was received, which is forgotten; what was lost goes on to be counted.
    pub fn take(&mut self) -> Statsd {
        let all = std::mem::take(self);
        (self.bad_lines, self.beyond, self.members) = (all.bad_lines, all.beyond, all.members);
        self.shown = all.shown.clone();
        let sets = all.sets.iter().map(|((name, tags), set)| (name.as_str(), tags, set.len()));
        lock(&self.shown).sets(sets);
        all
    }

    /// The points of what was received.
    pub fn points(self) -> Vec<Point> {
        let mut points = Vec::new();
        let mut put = |(name, tags): Series, point: Point| {
            points.push(Point { name, tags, ..point });
        };
        for (series, count) in self.counters {
            put(series, Point::new("").field("value", Value::Integer(count)));
        }
        for (series, gauge) in self.gauges {
            put(series, Point::new("").field("value", Value::Float(gauge)));
        }
        for (series, set) in self.sets {
            put(series, Point::new("").field("value", Value::Integer(set.len() as i64)));
        }
        for (series, timing) in self.timings {
            put(series, timing.point(""));
        }
        points
    }
}

fn series(bucket: &str, kind: &str) -> Option<Series> {
    let mut parts = bucket.split(',');
    let name = parts.next().filter(|name| !name.is_empty())?.replace('.', "_");
    let mut tags: BTreeMap<String, String> = parts
        .filter_map(|tag| tag.split_once('='))
        .filter(|(name, value)| !name.is_empty() && !value.is_empty())
        .map(|(name, value)| (name.into(), value.into()))
        .collect();
    tags.insert("metric_type".into(), kind.into());
    Some((name, tags))
}

fn row<'a, T: Default>(
    table: &'a mut BTreeMap<Series, T>,
    series: Series,
    room: &mut Room,
    beyond: &mut u64,
) -> &'a mut T {
    let mut key = series;
    let mut fits = |table: &BTreeMap<Series, T>, key: &Series, most: usize| {
        table.contains_key(key) || (table.len() < most && room.take(size(key)))
    };
    if !fits(table, &key, SERIES_MAX) {
        *beyond += 1;
        key.1.retain(|tag, _| tag == "metric_type");
        if !fits(table, &key, 2 * SERIES_MAX) {
            // One row, which is always there.
            key.0 = REST_NAME.into();
        }
    }
    table.entry(key).or_default()
}

fn size((name, tags): &Series) -> usize {
    let tags = tags.iter().map(|(name, value)| name.len() + value.len() + MEMBER_BYTES);
    ROW_BYTES + name.len() + tags.sum::<usize>()
}

#[cfg(test)]
mod tests;
