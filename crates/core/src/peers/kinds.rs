//! Which requests of an app hold a slot much longer than the others, and which only for a moment:
//! learnt from how long they did.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

use super::Pace;

/// Kinds that are told apart, at most. All others are one.
const KINDS_MAX: usize = 128;
/// After so many requests kinds are classified anew.
const CLASSIFIED_EVERY: u32 = 64;
/// What is left of the weight of the past at each classification: the last 500 requests or so count.
const KEPT: f64 = 7.0 / 8.0;
/// A kind that came less often says nothing yet.
const SEEN_MIN: f64 = 4.0;
/// What is faster is not slow, whatever the others are.
const SLOW_US: f64 = 20_000.0;
/// A slow kind holds a slot so many times longer than the typical request.
const SLOW_FACTOR: f64 = 8.0;
/// What is slow is rare: slow kinds have at most this part of the requests. (Where half of all
/// requests are slow, a slot that they may not have would be missed.)
const SLOW_SHARE: f64 = 0.25;
/// A short kind holds a slot for so long on average, at most.
const SHORT_US: f64 = 2_000.0;
/// And so many requests of it have shown it.
const SHORT_SEEN_MIN: u32 = 8;
/// Parts of a path that are looked at.
const PARTS_MAX: usize = 8;
/// The longest name of a kind, bytes.
const NAME_MAX: usize = 80;

/// The method and the shape of the path of a request: parts of the path with a digit, and very
/// long ones, stand for any such part. `GET /orders/17/lines` has the shape `GET /orders/*/lines`.
#[derive(Debug, Clone, Copy)]
pub struct Shape<'r> {
    method: &'r [u8],
    path: &'r [u8],
}

impl<'r> Shape<'r> {
    /// That of a request; the path without its query.
    pub fn new(method: &'r [u8], path: &'r [u8]) -> Self {
        Self { method, path }
    }

    fn hash(&self, hashes: &RandomState) -> u64 {
        let mut hasher = hashes.build_hasher();
        hasher.write(self.method);
        for part in parts(self.path) {
            hasher.write_u8(b'/');
            hasher.write(part);
        }
        hasher.finish()
    }

    fn name(&self) -> String {
        let mut name = String::from_utf8_lossy(self.method).into_owned();
        name.push(' ');
        for part in parts(self.path) {
            name.push('/');
            name.push_str(&String::from_utf8_lossy(part));
        }
        let end = (0..=NAME_MAX.min(name.len())).rev().find(|at| name.is_char_boundary(*at));
        name.truncate(end.unwrap_or(0));
        name
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let parts = path.strip_prefix(b"/").unwrap_or(path).split(|byte| *byte == b'/');
    parts.take(PARTS_MAX).map(|part| {
        let varies = part.len() > 32 || part.iter().any(u8::is_ascii_digit);
        if varies { b"*" } else { part }
    })
}

/// The kind of a request, as [`Kinds`] numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(u16);

#[derive(Debug)]
struct Row {
    hash: u64,
    name: String,
    /// How long a request of it holds a slot, microseconds.
    mean_us: f64,
    /// How many requests there were; those of the past count less.
    weight: f64,
    /// How many requests there were.
    seen: u32,
    is_slow: bool,
}

impl Row {
    fn new(hash: u64, name: String) -> Self {
        Self { hash, name, mean_us: 0.0, weight: 0.0, seen: 0, is_slow: false }
    }
}

/// How long requests of each kind hold a slot.
#[derive(Debug)]
pub struct Kinds {
    /// The first row is that of all kinds without a row of their own.
    rows: Vec<Row>,
    /// Seeded: nobody outside can choose paths that are taken for one kind.
    hashes: RandomState,
    by_hash: HashMap<u64, u16>,
    unclassified: u32,
}

impl Default for Kinds {
    fn default() -> Self {
        Self {
            rows: vec![Row::new(0, "*".into())],
            hashes: RandomState::new(),
            by_hash: HashMap::new(),
            unclassified: 0,
        }
    }
}

impl Kinds {
    /// The kind of a request, and its pace.
    pub fn of(&mut self, shape: Shape<'_>) -> (Kind, Pace) {
        let hash = shape.hash(&self.hashes);
        let at = match self.by_hash.get(&hash) {
            Some(at) => *at,
            None => self.add(shape, hash),
        };
        let is_slow = self.rows.get(usize::from(at)).is_some_and(|row| row.is_slow);
        (Kind(at), if is_slow { Pace::Slow } else { Pace::Ordinary })
    }

    /// A request of this kind has held a slot so long. `is_over`: the worker has sent the whole
    /// answer; else it might have taken longer, and less than usual says nothing.
    pub fn learn(&mut self, kind: Kind, held: Duration, is_over: bool) {
        let Some(row) = self.rows.get_mut(usize::from(kind.0)) else { return };
        let held_us = held.as_secs_f64() * 1e6;
        if !is_over && held_us <= row.mean_us {
            return;
        }
        row.weight += 1.0;
        row.seen = row.seen.saturating_add(1);
        row.mean_us += (held_us - row.mean_us) * (1.0 / row.weight).max(1.0 / 16.0);
        self.unclassified += 1;
        if self.unclassified == CLASSIFIED_EVERY {
            self.unclassified = 0;
            self.classify();
        }
    }

    /// How long requests of this kind are expected to hold a slot, microseconds, if they are short.
    /// Those without a row of their own may be anything.
    pub fn short_us(&self, kind: Kind) -> Option<u32> {
        let row = self.rows.get(usize::from(kind.0)).filter(|_| kind.0 != 0)?;
        let is_short = row.seen >= SHORT_SEEN_MIN && row.mean_us <= SHORT_US && !row.is_slow;
        is_short.then_some(row.mean_us as u32)
    }

    /// The names of the slow kinds, the slowest first.
    pub fn slow(&self) -> Vec<String> {
        let mut slow: Vec<&Row> = self.rows.iter().filter(|row| row.is_slow).collect();
        slow.sort_by(|a, b| b.mean_us.total_cmp(&a.mean_us));
        slow.into_iter().map(|row| row.name.clone()).collect()
    }

    fn add(&mut self, shape: Shape<'_>, hash: u64) -> u16 {
        let row = || Row::new(hash, shape.name());
        let at = match self.rows.len() {
            len if len < KINDS_MAX => {
                self.rows.push(row());
                len
            }
            _ => {
                // Whoever asks for many paths takes no row from a kind that comes again and again.
                let rows = self.rows.iter().enumerate().skip(1);
                let least = rows.min_by(|(_, a), (_, b)| a.weight.total_cmp(&b.weight));
                let Some((at, _)) = least.filter(|(_, row)| row.weight < 1.0) else { return 0 };
                self.by_hash.remove(&self.rows[at].hash);
                self.rows[at] = row();
                at
            }
        };
        let at = at as u16;
        self.by_hash.insert(hash, at);
        at
    }

    /// Decides which kinds are slow: those far above the time of the typical request, as long
    /// as few requests are of them.
    fn classify(&mut self) {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by(|a, b| self.rows[*b].mean_us.total_cmp(&self.rows[*a].mean_us));
        let all: f64 = self.rows.iter().map(|row| row.weight).sum();
        let mut above = 0.0;
        let typical = order.iter().map(|at| &self.rows[*at]).find(|row| {
            above += row.weight;
            above >= all / 2.0
        });
        let typical_us = typical.map_or(0.0, |row| row.mean_us);
        let mut share = 0.0;
        for at in order {
            let row = &mut self.rows[at];
            // One that is slow stays so until it is clearly not.
            let least = if row.is_slow { 0.5 } else { 1.0 };
            share += row.weight / all.max(1.0);
            let is_far = row.mean_us > least * SLOW_US.max(SLOW_FACTOR * typical_us);
            let is_known = row.is_slow || row.weight >= SEEN_MIN;
            row.is_slow = is_far && is_known && share <= SLOW_SHARE;
            row.weight *= KEPT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(kinds: &mut Kinds, path: &str, ms: u64) -> Pace {
        let (kind, pace) = kinds.of(Shape::new(b"GET", path.as_bytes()));
        kinds.learn(kind, Duration::from_millis(ms), true);
        pace
    }

    fn pace(kinds: &mut Kinds, method: &str, path: &str) -> Pace {
        kinds.of(Shape::new(method.as_bytes(), path.as_bytes())).1
    }

    /// So many pages of 2 ms, and each 20th request is for `path`.
    fn mixed(kinds: &mut Kinds, requests: usize, path: &str, ms: u64) {
        for number in 0..requests {
            match number % 20 {
                19 => learn(kinds, path, ms),
                _ => learn(kinds, &format!("/pages/{number}"), 2),
            };
        }
    }

    #[test]
    fn a_rare_kind_that_takes_far_longer_is_slow_and_forgotten_when_it_does_not() {
        let mut kinds = Kinds::default();
        mixed(&mut kinds, 400, "/report/2025/all", 200);
        assert_eq!(pace(&mut kinds, "GET", "/report/7/all"), Pace::Slow);
        assert_eq!(pace(&mut kinds, "POST", "/report/7/all"), Pace::Ordinary);
        assert_eq!(pace(&mut kinds, "GET", "/pages/1"), Pace::Ordinary);
        assert_eq!(kinds.slow(), ["GET /report/*/all"]);
        mixed(&mut kinds, 2_000, "/report/2025/all", 3);
        assert_eq!(pace(&mut kinds, "GET", "/report/7/all"), Pace::Ordinary);
        assert!(kinds.slow().is_empty());
    }

    #[test]
    fn a_request_that_was_given_up_says_only_that_its_kind_is_slower_than_was_known() {
        let mut kinds = Kinds::default();
        mixed(&mut kinds, 400, "/report", 200);
        let given_up = |kinds: &mut Kinds, times: usize, path: &str, ms: u64| {
            for _ in 0..times {
                let (kind, _) = kinds.of(Shape::new(b"GET", path.as_bytes()));
                kinds.learn(kind, Duration::from_millis(ms), false);
            }
        };
        // No worker took the connection, or the client has left.
        given_up(&mut kinds, 400, "/report", 0);
        mixed(&mut kinds, 128, "/other", 2);
        assert_eq!(kinds.slow(), ["GET /report"]);
        given_up(&mut kinds, 10, "/other", 5_000);
        mixed(&mut kinds, 128, "/other", 2_000);
        assert_eq!(kinds.slow()[0], "GET /other");
    }

    #[test]
    fn nothing_is_slow_where_all_are_or_many_are_or_the_path_does_not_tell() {
        let mut kinds = Kinds::default();
        for number in 0..1_000 {
            learn(&mut kinds, &format!("/{}", ["a", "b", "c"][number % 3]), 300);
        }
        assert!(kinds.slow().is_empty(), "all");
        let mut kinds = Kinds::default();
        for number in 0..1_000 {
            let (path, ms) = if number % 2 == 0 { ("/health", 1) } else { ("/page", 100) };
            learn(&mut kinds, path, ms);
        }
        assert!(kinds.slow().is_empty(), "half of all");
        let mut kinds = Kinds::default();
        for number in 0..1_000 {
            learn(&mut kinds, "/any", if number % 20 == 0 { 200 } else { 2 });
        }
        assert!(kinds.slow().is_empty(), "the same path");
        let mut kinds = Kinds::default();
        mixed(&mut kinds, 400, "/report", 15);
        assert!(kinds.slow().is_empty(), "15 ms");
    }

    #[test]
    fn a_kind_is_short_once_several_requests_have_shown_it_and_until_one_takes_long() {
        let mut kinds = Kinds::default();
        let short = |kinds: &mut Kinds, path: &str| {
            let (kind, _) = kinds.of(Shape::new(b"GET", path.as_bytes()));
            kinds.short_us(kind)
        };
        for number in 0..SHORT_SEEN_MIN {
            assert_eq!(short(&mut kinds, "/page/1"), None, "{number}");
            learn(&mut kinds, &format!("/page/{number}"), 1);
            learn(&mut kinds, "/form", 3);
        }
        assert_eq!(short(&mut kinds, "/page/1"), Some(1_000));
        assert_eq!(short(&mut kinds, "/form"), None);
        learn(&mut kinds, "/page/1", 100);
        assert_eq!(short(&mut kinds, "/page/1"), None);
        for _ in 0..64 {
            learn(&mut kinds, "/page/1", 1);
        }
        assert!(short(&mut kinds, "/page/1").is_some());
        for _ in 0..1_000 {
            kinds.learn(Kind(0), Duration::from_millis(1), true);
        }
        assert_eq!(kinds.short_us(Kind(0)), None, "any other kinds");
    }

    #[test]
    fn any_number_of_paths_leaves_the_table_bounded_and_what_comes_often_known() {
        let mut kinds = Kinds::default();
        let name = |number: usize| -> String {
            let digits = number.to_string().into_bytes().into_iter();
            digits.map(|digit| char::from(digit - b'0' + b'a')).collect()
        };
        for number in 0..20_000 {
            match number % 20 {
                18 => learn(&mut kinds, "/report", 200),
                19 => learn(&mut kinds, &format!("/junk/{}", name(number)), 1),
                _ => learn(&mut kinds, "/page", 2),
            };
        }
        assert!(kinds.rows.len() <= KINDS_MAX && kinds.by_hash.len() < KINDS_MAX);
        assert_eq!(kinds.slow(), ["GET /report"]);
        let long = "/\u{e9}".repeat(200);
        assert!(Shape::new(b"GET", long.as_bytes()).name().len() <= NAME_MAX);
    }
}
