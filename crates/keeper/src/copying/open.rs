//! One stream on its way: in its FIFO, in memory, or dropped.

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::fifo::remove;
use super::queue::Pending;
use super::{CopierMessage, LARGE, STREAM_BOUND, Shared, Stream, TOTAL_BOUND};

/// A process waits so long for memory that is full, before its lines are dropped: a disk that is
/// busy for a moment costs no line. For one that stands still nobody waits.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// A stream while it is copied.
pub(super) struct Open {
    pub stream: Stream,
    pub fifo: OwnedFd,
    /// Bytes that the FIFO holds when it is full.
    pub holds: usize,
    /// Bytes at the front of the FIFO that the writer has and that are not yet written.
    pub in_flight: usize,
    pub since: Instant,
    /// The disk does not keep up: lines leave the FIFO before they are written.
    pub slow: bool,
    /// Bytes of this stream in memory, while slow.
    pub held: usize,
    /// There is no room in memory for more, since then.
    pub full: Option<Instant>,
    /// Dropped bytes, not yet mentioned in the log.
    pub unlogged: u64,
    /// Dropped bytes, not yet reported to the watchers.
    pub unreported: u64,
    pub reported: Option<Instant>,
    /// A line without an end has been there since then.
    pub partial: Option<Instant>,
    /// Its length at the last look, bytes.
    pub partial_length: usize,
    /// What was handed on last has no end of a line.
    pub is_unended: bool,
    /// When lines of it were copied last.
    pub copied: Option<Instant>,
    pub look_again: Instant,
}

impl Open {
    /// Lines of it may be read. When memory is full, they stay in the FIFO until all that is in
    /// memory is written, and the process may wait; but not longer than [`ROOM_PATIENCE`].
    pub fn has_room(&mut self, shared: &Shared) -> bool {
        if !self.slow || self.full.is_none() {
            let fits = self.fits(&shared.pending(), self.holds);
            self.full = if fits { None } else { self.full.or(Some(Instant::now())) };
        }
        self.full.is_none() || self.may_drop(&shared.pending())
    }

    /// So many bytes fit into the memory that it may use.
    fn fits(&self, pending: &Pending, count: usize) -> bool {
        self.held + count <= STREAM_BOUND && pending.bytes + count <= TOTAL_BOUND
    }

    fn may_drop(&self, pending: &Pending) -> bool {
        self.full.is_some_and(|since| pending.is_stuck() || since.elapsed() >= ROOM_PATIENCE)
    }

    /// So many bytes of it that were in memory are written.
    pub fn is_written(&mut self, count: usize, shared: &Shared) {
        self.held = self.held.saturating_sub(count);
        if self.held == 0 {
            self.slow = false;
            self.full = None;
            self.look_again = Instant::now();
            log_dropped(shared, self);
        }
    }
}

/// Hands lines to the writer; drops them when memory is full and the disk does not write. `last`:
/// nothing follows, so a line without an end is given one. A large buffer is handed over itself,
/// and an empty one left in its place.
pub(super) fn deliver(
    shared: &Shared,
    open: &mut Open,
    lines: &mut Vec<u8>,
    last: bool,
    nowhere: &fs::File,
) {
    let count = lines.len();
    let mut pending = shared.pending();
    // Nobody waits for the room of a process that has ended.
    if (last || open.may_drop(&pending)) && !open.fits(&pending, count) {
        drop(pending);
        remove(&open.fifo, count, nowhere);
        open.unlogged += count as u64;
        open.unreported += count as u64;
        return;
    }
    // While the disk is late, many pieces wait: each in as much memory as it needs.
    let mut bytes = match open.unlogged {
        0 if count >= LARGE && !open.slow => {
            let mut empty = pending.spare.pop().unwrap_or_default();
            // The reader reads as much at a time as its buffer takes.
            empty.reserve_exact(lines.capacity());
            std::mem::replace(lines, empty)
        }
        0 => lines.clone(),
        dropped => {
            open.unlogged = 0;
            [dropped_line(dropped).as_bytes(), lines].concat()
        }
    };
    if last && bytes.last() != Some(&b'\n') {
        bytes.push(b'\n');
    }
    let length = bytes.len();
    open.is_unended = bytes.last() != Some(&b'\n');
    pending.push(&open.stream, bytes);
    drop(pending);
    shared.work.notify_one();
    if open.slow || length != count {
        remove(&open.fifo, count, nowhere);
        open.slow = true;
        open.held += length;
    } else {
        open.in_flight = length;
        open.since = Instant::now();
    }
}

/// Ends the line that a process has left without an end: what comes next in its log is another's.
pub(super) fn end_line(shared: &Shared, open: &Open) {
    if open.is_unended {
        shared.pending().push(&open.stream, vec![b'\n']);
        shared.work.notify_one();
    }
}

/// Says in the log, and to the watchers, what was dropped.
pub(super) fn log_dropped(shared: &Shared, open: &mut Open) {
    if open.unlogged > 0 {
        let line = dropped_line(std::mem::take(&mut open.unlogged)).into_bytes();
        open.slow = true;
        open.held += line.len();
        shared.pending().push(&open.stream, line);
        shared.work.notify_one();
    }
    if open.unreported > 0 {
        let bytes = std::mem::take(&mut open.unreported);
        open.reported = Some(Instant::now());
        shared.report(CopierMessage::Dropped { owner: open.stream.owner().to_owned(), bytes });
    }
}

fn dropped_line(bytes: u64) -> String {
    format!("[mfserv] {bytes} bytes of output dropped: the disk is full or too slow\n")
}

/// The disk is late: what it is still to write leaves the FIFO now.
pub(super) fn take_into_memory(open: &mut Open, nowhere: &fs::File) {
    if open.in_flight > 0 {
        remove(&open.fifo, open.in_flight, nowhere);
        open.held += open.in_flight;
        open.in_flight = 0;
        open.slow = true;
    }
}
