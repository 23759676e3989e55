//! Buffers for what is read and written, pooled by each thread.

use std::cell::RefCell;
use std::ops::{Deref, DerefMut};

/// The size of a new buffer, bytes. The largest head that is accepted fits in.
pub const SIZE: usize = mfserv_h1::HEAD_MAX;
/// A buffer that has grown beyond this many bytes is not pooled.
const KEEP_MAX: usize = 64 * 1024;
/// The most unused buffers in the pool of a thread.
const KEPT: usize = 512;

/// A queue of bytes in one piece: filled at its end, consumed at its beginning.
#[derive(Debug)]
pub struct Buffer {
    /// Always initialised to its full length.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: vec![0; SIZE], start: 0, end: 0 }
    }

    /// The content.
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// How many bytes are in it.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// True if it has no content.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Removes the first `count` bytes.
    pub fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.start == self.end {
            self.clear();
        }
    }

    /// Removes the whole content.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Room for at least `wanted` more bytes; the buffer grows if it has to.
    pub fn spare(&mut self, wanted: usize) -> &mut [u8] {
        if self.bytes.len() - self.end < wanted {
            self.make_room(wanted);
        }
        &mut self.bytes[self.end..]
    }

    /// The room that there is; the buffer does not grow.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start > 0 && self.end == self.bytes.len() {
            self.compact();
        }
        &mut self.bytes[self.end..]
    }

    /// Makes room where there is none, for whoever limits by himself how much is read.
    pub fn grow_if_full(&mut self) {
        if self.len() == self.bytes.len() {
            self.make_room(1);
        }
    }

    /// Says that `count` bytes have been written into the room.
    pub fn advance(&mut self, count: usize) {
        self.end = (self.end + count).min(self.bytes.len());
    }

    /// Appends bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.spare(bytes.len())[..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Appends the parts one after the other; the room for them is made once.
    pub fn push_all(&mut self, parts: &[&[u8]]) {
        let length = parts.iter().map(|part| part.len()).sum();
        let mut room = self.spare(length);
        for part in parts {
            let (here, rest) = room.split_at_mut(part.len());
            here.copy_from_slice(part);
            room = rest;
        }
        self.end += length;
    }

    /// Appends a number in decimal digits.
    pub fn push_number(&mut self, number: u64) {
        let mut digits = [0; 20];
        let mut at = digits.len();
        let mut left = number;
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.push(&digits[at..]);
    }

    fn compact(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }

    fn make_room(&mut self, wanted: usize) {
        self.compact();
        if self.bytes.len() - self.end < wanted {
            let size = (self.end + wanted).next_power_of_two();
            self.bytes.resize(size, 0);
        }
    }
}

thread_local! {
    static UNUSED: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// A buffer that has memory only while it is used: an idle connection holds none.
#[derive(Debug, Default)]
pub struct Pooled(Option<Buffer>);

impl Pooled {
    /// Gives the memory back to the pool; the content is lost.
    pub fn give_back(&mut self) {
        let Some(mut buffer) = self.0.take() else { return };
        buffer.clear();
        UNUSED.with_borrow_mut(|unused| {
            if unused.len() < KEPT && buffer.bytes.len() <= KEEP_MAX {
                unused.push(buffer);
            }
        });
    }

    /// True if it has no content; takes no memory from the pool to find out.
    pub fn is_idle(&self) -> bool {
        self.0.as_ref().is_none_or(Buffer::is_empty)
    }
}

impl Deref for Pooled {
    type Target = Buffer;

    fn deref(&self) -> &Buffer {
        static EMPTY: Buffer = Buffer { bytes: Vec::new(), start: 0, end: 0 };
        self.0.as_ref().unwrap_or(&EMPTY)
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Buffer {
        self.0.get_or_insert_with(|| UNUSED.with_borrow_mut(Vec::pop).unwrap_or_else(Buffer::new))
    }
}

impl Drop for Pooled {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in_while_the_buffer_moves_and_grows() {
        let mut buffer = Pooled::default();
        let mut expected = Vec::new();
        for round in 0..2000u32 {
            let text = format!("{round},");
            buffer.push(text.as_bytes());
            expected.extend_from_slice(text.as_bytes());
            if round % 3 == 0 {
                buffer.consume(4);
                expected.drain(..4.min(expected.len()));
            }
        }
        buffer.push(&[7; 2 * SIZE]);
        expected.extend_from_slice(&[7; 2 * SIZE]);
        assert_eq!(buffer.filled(), expected);
    }

    #[test]
    fn numbers_are_written_in_decimal() {
        let mut buffer = Pooled::default();
        for number in [0, 7, 10, u64::MAX] {
            buffer.push_number(number);
            buffer.push(b" ");
        }
        assert_eq!(buffer.filled(), b"0 7 10 18446744073709551615 ");
    }
}
