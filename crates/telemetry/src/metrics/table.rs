//! Tables of counters, with a bound for their rows.

use std::collections::BTreeMap;

use mfserv_core::wire::metrics::REST;

/// The most rows of a table of sums.
pub const ROWS_MAX: usize = 10_000;

/// Adds to the row of a kind and an outcome: how many, and milliseconds.
pub fn add_timed(
    table: &mut BTreeMap<(String, String), (u64, u64)>,
    (key, outcome): (String, &String),
    (count, ms): (u64, u64),
) {
    let other = || (REST.into(), outcome.clone());
    let sum = row(table, (key, outcome.clone()), other, || (0, 0));
    *sum = (sum.0 + count, sum.1.saturating_add(ms));
}

/// The row of a key; that of the rest if the table is full.
pub fn row<K: Ord, T>(
    table: &mut BTreeMap<K, T>,
    key: K,
    rest: impl FnOnce() -> K,
    new: impl FnOnce() -> T,
) -> &mut T {
    let is_full = table.len() >= ROWS_MAX && !table.contains_key(&key);
    table.entry(if is_full { rest() } else { key }).or_insert_with(new)
}
