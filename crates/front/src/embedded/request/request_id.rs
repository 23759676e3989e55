//! Request ids.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// Makes ids that nobody can guess: a keyed hash of a counter, with keys from the system.
/// Each lane has one.
pub struct RequestIds {
    keys: [RandomState; 2],
    count: Cell<u64>,
}

impl RequestIds {
    /// One with keys of its own.
    pub fn new() -> Self {
        Self { keys: [RandomState::new(), RandomState::new()], count: Cell::new(0) }
    }

    /// Writes the next id in place of what is in `id`: 32 lower-case hexadecimal digits.
    pub fn next(&self, id: &mut Vec<u8>) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let count = self.count.get();
        self.count.set(count.wrapping_add(1));
        id.clear();
        for key in &self.keys {
            for byte in key.hash_one(count).to_be_bytes() {
                id.push(DIGITS[usize::from(byte >> 4)]);
                id.push(DIGITS[usize::from(byte & 15)]);
            }
        }
    }
}
