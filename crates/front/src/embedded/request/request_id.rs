//! Request ids.

use std::cell::Cell;
use std::hash::{BuildHasher, RandomState};

/// Makes ids that no one has seen: a keyed hash of a counter, the keys from the system.
/// Each lane has its own.
pub struct RequestIds {
    keys: [RandomState; 2],
    count: Cell<u64>,
}

impl RequestIds {
    /// With keys of its own.
    pub fn new() -> Self {
        Self { keys: [RandomState::new(), RandomState::new()], count: Cell::new(0) }
    }

    /// The next one, 32 lower-case hexadecimal digits, in place of what is in `id`.
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
