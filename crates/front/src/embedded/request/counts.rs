//! What is counted of every request: by plugin, app and what answers, with status, method,
//! duration, wait, bytes and fault.
//!
//! Each lane has a table of its own behind a mutex that only the sender of metrics ever
//! contends for, once a second. A table has a maximum: what is beyond it is counted in one row.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use mfserv_core::wire::metrics::{
    Answerer, BUCKETS, Exemplar, Histogram, METHOD_COUNTERS, METHODS, REST, Requests, Timer, add,
};

use crate::embedded::clients::access_log::{Measured, Subject};
use crate::embedded::clients::fault::Cause;

/// The most apps of a table, each with what answers for it.
const ROWS_MAX: usize = 4096;
/// The most status codes of a row.
const STATUSES_MAX: usize = 64;
/// The longest request id that is kept as an exemplar, bytes.
const ID_MAX: usize = 64;

/// The counters of a lane.
#[derive(Default)]
pub struct Counts {
    rows: Vec<(String, Row)>,
    /// The number of the row of a key.
    numbers: HashMap<String, usize, RandomState>,
    /// The row of the last request. The next one is often of the same app, and then no key is
    /// made and hashed.
    last: usize,
    /// The key of the request that is counted; kept for its memory.
    key: String,
}

/// The last request of a bucket. No id = none.
#[derive(Clone, Copy)]
struct Last {
    id: [u8; ID_MAX],
    length: u8,
    us: u64,
}

/// The counters of an app and what answers for it.
#[derive(Clone)]
struct Row {
    plugin: String,
    app: String,
    by: Answerer,
    statuses: Vec<(u16, u64)>,
    /// Beside each status, its durations since the last message.
    timers: Vec<Timer>,
    methods: [u64; METHOD_COUNTERS],
    duration: Histogram,
    wait: Histogram,
    received: u64,
    sent: u64,
    faults: Vec<(&'static str, u64)>,
    last: [Last; BUCKETS],
}

impl Counts {
    /// Counts a request.
    pub fn count(&mut self, subject: Subject<'_>, measured: &Measured<'_>, fault: Option<Cause>) {
        let at = self.number(subject);
        if let Some((_, row)) = self.rows.get_mut(at) {
            row.count(measured, fault);
        }
        self.last = at;
    }

    /// The number of the row of an app, which is made if there is none.
    fn number(&mut self, subject: Subject<'_>) -> usize {
        if self.rows.get(self.last).is_some_and(|(_, row)| row.is_of(subject)) {
            return self.last;
        }
        let key = &mut self.key;
        key.clear();
        // The names of plugins have neither character, so no two keys are the same.
        key.push_str(subject.plugin);
        key.push('/');
        key.push_str(subject.by.as_str());
        key.push('/');
        key.push_str(subject.app);
        if let Some(at) = self.numbers.get(key.as_str()) {
            return *at;
        }
        let (key, subject) = match self.rows.len() < ROWS_MAX {
            true => (key.as_str(), subject),
            false => (REST, Subject { plugin: REST, app: "", by: Answerer::Front }),
        };
        if let Some(at) = self.numbers.get(key) {
            return *at;
        }
        self.rows.push((key.into(), Row::new(subject)));
        self.numbers.insert(key.into(), self.rows.len() - 1);
        self.rows.len() - 1
    }

    /// Adds these counters to those of other lanes. What is counted since the last message only
    /// is given away.
    pub fn add_to(&mut self, all: &mut HashMap<String, Requests>) {
        for (key, row) in &mut self.rows {
            let none_yet = || Requests::new(&row.plugin, &row.app, row.by);
            let sum = all.entry(key.clone()).or_insert_with(none_yet);
            row.add_to(sum);
        }
    }
}

impl Row {
    fn is_of(&self, subject: Subject<'_>) -> bool {
        self.app == subject.app && self.plugin == subject.plugin && self.by == subject.by
    }

    fn new(subject: Subject<'_>) -> Self {
        Self {
            plugin: subject.plugin.into(),
            app: subject.app.into(),
            by: subject.by,
            statuses: Vec::with_capacity(4),
            timers: Vec::with_capacity(4),
            methods: [0; METHOD_COUNTERS],
            duration: Histogram::default(),
            wait: Histogram::default(),
            received: 0,
            sent: 0,
            faults: Vec::new(),
            last: [Last { id: [0; ID_MAX], length: 0, us: 0 }; BUCKETS],
        }
    }

    fn count(&mut self, measured: &Measured<'_>, fault: Option<Cause>) {
        // An app can invent statuses.
        let is_full = self.statuses.len() >= STATUSES_MAX;
        let is_known = |(status, _): &(u16, u64)| *status == measured.status;
        let is_rest = is_full && !self.statuses.iter().any(is_known);
        self.add_status(if is_rest { 0 } else { measured.status }, measured.us / 1000);
        let known = METHODS.iter().position(|name| name.as_bytes() == measured.method);
        self.methods[known.unwrap_or(METHODS.len())] += 1;
        let bucket = self.duration.observe(measured.us);
        self.wait.observe(measured.wait_us);
        self.received += measured.received;
        self.sent += measured.sent;
        if let Some(cause) = fault {
            add(&mut self.faults, &cause.as_str(), 1);
        }
        if measured.id.len() <= ID_MAX {
            let last = &mut self.last[bucket];
            last.id[..measured.id.len()].copy_from_slice(measured.id);
            last.length = measured.id.len() as u8;
            last.us = measured.us;
        }
    }

    fn add_status(&mut self, status: u16, ms: u64) {
        let known = self.statuses.iter().position(|(known, _)| *known == status);
        let at = known.unwrap_or_else(|| {
            self.statuses.push((status, 0));
            self.timers.push(Timer { status, ..Timer::default() });
            self.timers.len() - 1
        });
        self.statuses[at].1 += 1;
        self.timers[at].observe(ms);
    }

    fn add_to(&mut self, sum: &mut Requests) {
        for (status, count) in &self.statuses {
            add(&mut sum.statuses, status, *count);
        }
        for timer in self.timers.iter_mut().filter(|timer| timer.count > 0) {
            let status = timer.status;
            sum.timers.push(std::mem::replace(timer, Timer { status, ..Timer::default() }));
        }
        for (own, other) in sum.methods.iter_mut().zip(self.methods) {
            *own += other;
        }
        sum.duration.add(&self.duration);
        sum.wait.add(&self.wait);
        sum.received += self.received;
        sum.sent += self.sent;
        for (cause, count) in &self.faults {
            add(&mut sum.faults, *cause, *count);
        }
        for (bucket, last) in self.last.iter().enumerate().filter(|(_, last)| last.length > 0) {
            let is_new = sum.exemplars.iter().all(|known| usize::from(known.bucket) != bucket);
            let id = std::str::from_utf8(&last.id[..usize::from(last.length)]);
            if let (true, Ok(id)) = (is_new, id) {
                let bucket = bucket as u8;
                sum.exemplars.push(Exemplar { bucket, id: id.into(), us: last.us });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(status: u16, method: &'static [u8], us: u64) -> Measured<'static> {
        Measured { status, method, us, wait_us: 0, received: 10, sent: 100, id: b"0123abc" }
    }

    fn all(lanes: &mut [&mut Counts]) -> Vec<Requests> {
        let mut all = HashMap::new();
        lanes.iter_mut().for_each(|lane| lane.add_to(&mut all));
        all.into_values().collect()
    }

    #[test]
    fn the_counters_of_two_lanes_are_summed() {
        let shop = Subject { plugin: "shop", app: "web", by: Answerer::Dynamic };
        let (mut one, mut other) = (Counts::default(), Counts::default());
        one.count(shop, &request(200, b"GET", 1_500), None);
        other.count(shop, &request(200, b"BREW", 3_000), None);
        other.count(shop, &request(503, b"GET", 1), Some(Cause::QueueFull));
        let sums = all(&mut [&mut one, &mut other]);
        assert_eq!(sums.len(), 1);
        let sum = &sums[0];
        assert_eq!(sum.statuses, [(200, 2), (503, 1)]);
        let timers: Vec<_> = sum.timers.iter().map(|t| (t.status, t.count, t.sum_ms)).collect();
        assert_eq!(timers, [(200, 1, 1), (200, 1, 3), (503, 1, 0)]);
        assert!(all(&mut [&mut one])[0].timers.is_empty(), "timers are sent once");
        assert_eq!((sum.methods[0], sum.methods[METHODS.len()]), (2, 1));
        assert_eq!((sum.duration.count(), sum.duration.sum_us), (3, 4_501));
        assert_eq!((sum.received, sum.sent), (30, 300));
        assert_eq!(sum.faults, [("queue_full".to_string(), 1)]);
        let buckets: Vec<u8> = sum.exemplars.iter().map(|exemplar| exemplar.bucket).collect();
        assert_eq!(buckets, [1, 0, 2]);
    }

    #[test]
    fn a_table_and_its_rows_are_bounded_and_no_request_is_left_uncounted() {
        let mut counts = Counts::default();
        for number in 0..ROWS_MAX + 50 {
            let app = number.to_string();
            let subject = Subject { plugin: "shop", app: &app, by: Answerer::Dynamic };
            counts.count(subject, &request(200, b"GET", 1), None);
        }
        let first = Subject { plugin: "shop", app: "0", by: Answerer::Dynamic };
        for status in 100..999 {
            counts.count(first, &request(status, b"GET", 1), None);
        }
        let sums = all(&mut [&mut counts]);
        assert_eq!(sums.len(), ROWS_MAX + 1);
        let rest = sums.iter().find(|sum| sum.plugin == REST).unwrap();
        assert_eq!(rest.duration.count(), 50);
        let first = sums.iter().find(|sum| sum.app == "0").unwrap();
        assert!(first.statuses.len() <= STATUSES_MAX + 1, "{}", first.statuses.len());
        assert_eq!(first.statuses.iter().map(|(_, count)| count).sum::<u64>(), 900);
    }
}
