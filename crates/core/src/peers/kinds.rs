//! Which requests of an app hold a slot much longer than the others: learnt from how long they did.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use super::Pace;

/// Kinds that are told apart, at most. All others are one.
const KINDS_MAX: usize = 128;
/// After so many requests kinds are classified anew.
const CLASSIFIED_EVERY: u32 = 64;
/// What is left of the weight of the past at each classification: the last 500 requests or so count.
const KEPT: f64 = 7.0 / 8.0;
/// A kind that came less often says nothing yet.
const SEEN_MIN: u32 = 4;
/// Averages are those of the last requests of a kind, about so many.
const AVERAGED: f64 = 16.0;
/// What is faster is not slow, whatever the others are. (Where most requests are checks of a
/// millisecond, pages of 50 ms are what workers are for.)
const SLOW_US: f64 = 100_000.0;
/// A slow kind holds a slot so many times longer than the typical request.
const SLOW_FACTOR: f64 = 8.0;
/// What is slow is rare: slow kinds have at most this part of the requests. (Where half of all
/// requests are slow, a slot that they may not have would be missed.)
const SLOW_SHARE: f64 = 0.25;
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

/// The kind of a request. While one lives, no other kind gets its row.
#[derive(Debug, Clone)]
pub struct Kind {
    at: usize,
    row: Arc<()>,
}

#[derive(Debug)]
struct Row {
    hash: u64,
    name: String,
    /// Shared with the requests of it that are under way.
    identity: Arc<()>,
    /// How long a request of it usually holds a slot, microseconds: the geometric mean, which one
    /// that took a thousand times as long hardly changes.
    usual_us: f64,
    /// How many requests there were; those of the past count less.
    weight: f64,
    /// How many requests there were.
    seen: u32,
    is_slow: bool,
}

impl Row {
    fn new(hash: u64, name: String) -> Self {
        Self {
            hash,
            name,
            identity: Arc::new(()),
            usual_us: 0.0,
            weight: 0.0,
            seen: 0,
            is_slow: false,
        }
    }

    fn learn(&mut self, held_us: f64) {
        self.seen = self.seen.saturating_add(1);
        self.weight += 1.0;
        let part = (1.0 / f64::from(self.seen)).max(1.0 / AVERAGED);
        match self.seen {
            1 => self.usual_us = held_us,
            _ => self.usual_us *= (held_us / self.usual_us).powf(part),
        }
    }

    /// Another kind may have the row: it comes rarely, and none of its requests is under way.
    fn may_go(&self) -> bool {
        self.weight < 1.0 && Arc::strong_count(&self.identity) == 1
    }

    /// How much would be lost with it: a slow kind first, then what takes much time.
    fn worth(&self) -> (bool, f64) {
        (self.is_slow, self.weight * self.usual_us)
    }
}

/// How long requests of each kind hold a slot.
#[derive(Debug)]
pub struct Kinds {
    /// The first row is that of all kinds without a row of their own.
    rows: Vec<Row>,
    /// Seeded: nobody outside can choose paths that are taken for one kind.
    hashes: RandomState,
    by_hash: HashMap<u64, usize>,
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
        let row = &self.rows[at];
        let pace = if row.is_slow { Pace::Slow } else { Pace::Ordinary };
        (Kind { at, row: row.identity.clone() }, pace)
    }

    /// A request of this kind has held a slot so long. `is_over`: the worker has sent the whole
    /// answer; else it might have taken longer: only more than usual says something, or, of a kind
    /// that is not known, what is slow already. Nothing is learnt of kinds of other [`Kinds`].
    pub fn learn(&mut self, kind: &Kind, held: Duration, is_over: bool) {
        let row = self.rows.get_mut(kind.at).filter(|row| Arc::ptr_eq(&row.identity, &kind.row));
        let Some(row) = row else { return };
        let held_us = (held.as_secs_f64() * 1e6).max(1.0);
        let usual_us = if row.seen == 0 { SLOW_US } else { row.usual_us };
        if !is_over && held_us <= usual_us {
            return;
        }
        row.learn(held_us);
        self.unclassified += 1;
        if self.unclassified == CLASSIFIED_EVERY {
            self.unclassified = 0;
            self.classify();
        }
    }

    /// The names of the slow kinds, the slowest first.
    pub fn slow(&self) -> Vec<String> {
        let mut slow: Vec<&Row> = self.rows.iter().filter(|row| row.is_slow).collect();
        slow.sort_by(|a, b| b.usual_us.total_cmp(&a.usual_us));
        slow.into_iter().map(|row| row.name.clone()).collect()
    }

    fn add(&mut self, shape: Shape<'_>, hash: u64) -> usize {
        let row = || Row::new(hash, shape.name());
        let at = match self.rows.len() {
            len if len < KINDS_MAX => {
                self.rows.push(row());
                len
            }
            _ => {
                // Whoever asks for many paths takes no row from a kind that comes again and again.
                let rows = self.rows.iter().enumerate().skip(1).filter(|(_, row)| row.may_go());
                let least = rows.min_by(|(_, a), (_, b)| {
                    let ((a_slow, a), (b_slow, b)) = (a.worth(), b.worth());
                    a_slow.cmp(&b_slow).then(a.total_cmp(&b))
                });
                let Some((at, _)) = least else { return 0 };
                self.by_hash.remove(&self.rows[at].hash);
                self.rows[at] = row();
                at
            }
        };
        self.by_hash.insert(hash, at);
        at
    }

    /// Decides which kinds are slow: those far above the time of the typical request, as long
    /// as few requests are of them.
    fn classify(&mut self) {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by(|a, b| self.rows[*b].usual_us.total_cmp(&self.rows[*a].usual_us));
        let all: f64 = self.rows.iter().map(|row| row.weight).sum();
        let mut above = 0.0;
        let typical = order.iter().map(|at| &self.rows[*at]).find(|row| {
            above += row.weight;
            above >= all / 2.0
        });
        let typical_us = typical.map_or(0.0, |row| row.usual_us);
        let mut share = 0.0;
        for at in order {
            let row = &mut self.rows[at];
            // One that is slow stays so until it is clearly not.
            let least = if row.is_slow { 0.5 } else { 1.0 };
            share += row.weight / all.max(1.0);
            let is_far = row.usual_us > least * SLOW_US.max(SLOW_FACTOR * typical_us);
            let is_known = row.seen >= SEEN_MIN;
            row.is_slow = is_far && is_known && share <= SLOW_SHARE;
            row.weight *= KEPT;
        }
    }
}
