//! When a worker had a request: a block of the index of an access log.

use super::{BLOCK, SERVED, checksum, six};

/// The times of a request that a worker had, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// When the worker got it.
    pub from_ms: u64,
    /// When the worker had answered it and was free for the next one.
    pub to_ms: u64,
    /// When the client had the answer.
    pub end_ms: u64,
}

impl Served {
    /// The block that says so. A time with the worker of more than 49 days is stored as
    /// 49 days, a longer way to the client than 65 s as 65 s.
    pub(super) fn block(&self, number: u16) -> [u8; BLOCK] {
        let had = u32::try_from(self.to_ms.saturating_sub(self.from_ms)).unwrap_or(u32::MAX);
        let sent = u16::try_from(self.end_ms.saturating_sub(self.to_ms)).unwrap_or(u16::MAX);
        let mut block = [0; BLOCK];
        block[0] = SERVED;
        block[2..4].copy_from_slice(&number.to_le_bytes());
        block[4..10].copy_from_slice(&self.from_ms.to_le_bytes()[..6]);
        block[10..14].copy_from_slice(&had.to_le_bytes());
        block[14..].copy_from_slice(&sent.to_le_bytes());
        block[1] = checksum(&block);
        block
    }

    /// Reads such a block, if it is one of the worker with this number.
    pub(super) fn of_block(block: &[u8; BLOCK], number: &[u8]) -> Option<Self> {
        let is_it = block[0] == SERVED && &block[2..4] == number && block[1] == checksum(block);
        let from_ms = six(&block[4..10]);
        let to_ms = from_ms + six(&block[10..14]);
        is_it.then(|| Self { from_ms, to_ms, end_ms: to_ms + six(&block[14..]) })
    }
}
