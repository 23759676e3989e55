//! The thread that reads the FIFOs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use mfserv_platform::clock::now_ms;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};

use super::fifo::{Found, LONG_LINE, look, remove, widen};
use super::last_output::LastOutput;
use super::queue::{Pending, Queue};
use super::{Chunk, CopierMessage, Order, STREAM_BOUND, Shared, Stream, TOTAL_BOUND, clear};

/// Most bytes read from one stream before the next stream has its turn.
const LOOK: usize = 1024 * 1024;

/// Lines that the disk has not taken within this time move into memory: an app whose FIFO is
/// full waits no longer.
const DISK_PATIENCE: Duration = Duration::from_millis(50);

/// A line without an end waits so long for it, or until it is `LONG_LINE` long. It waits in
/// its FIFO, where a keeper that is killed does not lose it.
const LINE_PATIENCE: Duration = Duration::from_secs(1);
/// The same where other processes write to the same log file: what they write meanwhile would
/// divide the line.
const SHARED_LINE_PATIENCE: Duration = Duration::from_secs(30);

/// How often a stream with a line without an end is looked at.
const LINE_LOOK: Duration = Duration::from_millis(50);

/// A pause after a round in which every stream had little, so that many lines are copied
/// together.
const GATHER: Duration = Duration::from_millis(3);
const LITTLE: usize = 16 * 1024;

/// At most one report of dropped output of one stream in this time.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// How long a pause waits for the disk.
const PAUSE_PATIENCE: Duration = Duration::from_secs(5);

struct Open {
    stream: Stream,
    fifo: OwnedFd,
    /// Bytes at the front of the FIFO that the writer has and that are not yet written.
    in_flight: usize,
    since: Instant,
    /// The disk does not keep up: lines leave the FIFO before they are written.
    slow: bool,
    /// Bytes of this stream in memory, while slow.
    held: usize,
    /// Dropped bytes, not yet mentioned in the log.
    unlogged: u64,
    /// Dropped bytes, not yet reported to the watchers.
    unreported: u64,
    reported: Option<Instant>,
    /// A line without an end has been there since then.
    partial: Option<Instant>,
    look_again: Instant,
}

pub(super) struct Reader {
    shared: Arc<Shared>,
    orders: Receiver<Order>,
    streams: BTreeMap<u64, Open>,
    tails: BTreeMap<String, LastOutput>,
    /// Where tee(2) copies to.
    scratch: (OwnedFd, OwnedFd),
    nowhere: fs::File,
    buffer: Vec<u8>,
}

impl Reader {
    pub fn new(shared: Arc<Shared>, orders: Receiver<Order>) -> io::Result<Self> {
        let scratch = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        widen(&scratch.1, LOOK);
        let size = fcntl_getpipe_size(&scratch.1).unwrap_or(LONG_LINE).max(LONG_LINE);
        Ok(Self {
            shared,
            orders,
            streams: BTreeMap::new(),
            tails: BTreeMap::new(),
            scratch,
            nowhere: fs::OpenOptions::new().write(true).open("/dev/null")?,
            buffer: vec![0; size],
        })
    }

    pub fn streams(&self) -> impl Iterator<Item = (&Stream, BorrowedFd<'_>)> {
        self.streams.values().map(|open| (&open.stream, open.fifo.as_fd()))
    }

    pub fn last_outputs(&self) -> impl Iterator<Item = (&str, String)> {
        self.tails.iter().map(|(owner, tail)| (owner.as_str(), tail.text()))
    }

    pub fn remember(&mut self, owner: &str, last_output: &str) {
        self.tails.insert(owner.to_owned(), last_output.into());
    }

    /// Runs until an order to pause. Returns `true` if all lines that were read are written.
    pub fn run(mut self) -> (Self, bool) {
        loop {
            if self.take_orders() {
                let all_written = self.let_the_disk_finish();
                return (self, all_written);
            }
            self.take_written();
            self.hurry_the_slow();
            let ready = self.wait();
            let most = ready.into_iter().map(|(key, hung_up)| self.copy(key, hung_up)).max();
            if most.is_some_and(|most| most < LITTLE) {
                thread::sleep(GATHER);
            }
        }
    }

    /// True for the order to pause.
    fn take_orders(&mut self) -> bool {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                Order::Add(stream, fifo) => self.add(stream, fifo),
                Order::Finish(owner) => self.finish(owner),
                Order::Pause => return true,
            }
        }
        false
    }

    fn add(&mut self, stream: Stream, fifo: OwnedFd) {
        // What pipes may hold is limited per user: the more streams, the less for each.
        widen(&fifo, LOOK >> (self.streams.len() / 16).min(4));
        let now = Instant::now();
        let key = stream.key;
        self.tails.entry(stream.owner().to_owned()).or_default();
        let open = Open {
            stream,
            fifo,
            in_flight: 0,
            since: now,
            slow: false,
            held: 0,
            unlogged: 0,
            unreported: 0,
            reported: None,
            partial: None,
            look_again: now,
        };
        self.streams.insert(key, open);
        // A FIFO whose last holder is already gone is never reported by poll(2).
        self.copy(key, false);
    }

    /// Reads all that the process has left in its FIFOs.
    fn finish(&mut self, owner: String) {
        let keys: Vec<u64> = self
            .streams
            .values()
            .filter(|o| o.stream.owner() == owner)
            .map(|o| o.stream.key)
            .collect();
        for key in keys {
            // A stray that holds the FIFO may write for ever.
            for _ in 0..8 {
                if let Some(open) = self.streams.get_mut(&key) {
                    take_into_memory(open, &self.nowhere);
                }
                if self.copy(key, true) == 0 {
                    break;
                }
            }
        }
        let last_output = self.tails.remove(&owner).map(|tail| tail.text()).unwrap_or_default();
        self.shared.report(CopierMessage::Finished { owner, last_output });
    }

    /// Removes from the FIFOs what is in the log files now.
    fn take_written(&mut self) {
        let written = std::mem::take(&mut self.shared.pending().written);
        for (key, count) in written {
            let Some(open) = self.streams.get_mut(&key) else { continue };
            if open.slow {
                open.held = open.held.saturating_sub(count);
                if open.held == 0 {
                    open.slow = false;
                    log_dropped(&self.shared, open);
                }
            } else {
                let count = count.min(open.in_flight);
                remove(&open.fifo, count, &self.nowhere);
                open.in_flight -= count;
            }
        }
    }

    fn hurry_the_slow(&mut self) {
        for open in self.streams.values_mut() {
            if open.in_flight > 0 && open.since.elapsed() >= DISK_PATIENCE {
                match self.shared.pending().is_held(&open.stream.log, open.stream.key) {
                    // Not the disk's fault: it stays where a keeper that is killed loses nothing.
                    true => open.since = Instant::now(),
                    false => take_into_memory(open, &self.nowhere),
                }
            }
            if open.unreported > 0 && open.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
                let bytes = std::mem::take(&mut open.unreported);
                open.reported = Some(Instant::now());
                let owner = open.stream.owner().to_owned();
                self.shared.report(CopierMessage::Dropped { owner, bytes });
            }
        }
    }

    /// Waits for a stream with something to read; each with whether its writers are gone.
    fn wait(&self) -> Vec<(u64, bool)> {
        let now = Instant::now();
        let mut fds = vec![PollFd::new(&self.shared.wake_reader, PollFlags::IN)];
        let mut keys = Vec::with_capacity(self.streams.len());
        let mut wake: Option<Instant> = None;
        let mut wake_at = |at: Instant| wake = Some(wake.map_or(at, |other| other.min(at)));
        for (key, open) in &self.streams {
            if open.in_flight > 0 {
                wake_at(open.since + DISK_PATIENCE);
            } else if open.look_again > now {
                wake_at(open.look_again);
            } else {
                fds.push(PollFd::new(&open.fifo, PollFlags::IN));
                keys.push(*key);
            }
            if open.unreported > 0 {
                wake_at(open.reported.map_or(now, |at| at + REPORT_EVERY));
            }
        }
        let timeout = wake.map(|at| until(at, now));
        if poll(&mut fds, timeout.as_ref()).is_err() {
            return Vec::new();
        }
        if !fds[0].revents().is_empty() {
            clear(&self.shared.wake_reader);
        }
        keys.into_iter()
            .zip(&fds[1..])
            .filter(|(_, fd)| !fd.revents().is_empty())
            .map(|(key, fd)| (key, fd.revents().contains(PollFlags::HUP)))
            .collect()
    }

    /// Looks at a stream once. `all`: also a line without an end. Returns how many bytes
    /// were taken.
    fn copy(&mut self, key: u64, all: bool) -> usize {
        let all_of_it = all || self.line_has_waited(key);
        let Some(open) = self.streams.get_mut(&key) else { return 0 };
        match look(&open.fifo, all_of_it, &self.scratch, &mut self.buffer) {
            Found::Nothing => 0,
            Found::Partial => {
                open.partial.get_or_insert_with(Instant::now);
                open.look_again = Instant::now() + LINE_LOOK;
                0
            }
            Found::Lines(count) => {
                open.partial = None;
                let lines = &self.buffer[..count];
                if let Some(tail) = self.tails.get_mut(open.stream.owner()) {
                    tail.add(lines);
                }
                deliver(&self.shared, open, lines, all, &self.nowhere);
                count
            }
            Found::End => {
                if let Some(mut open) = self.streams.remove(&key) {
                    log_dropped(&self.shared, &mut open);
                    let _ = fs::remove_file(&open.stream.fifo);
                    self.shared.report(CopierMessage::Closed { key });
                }
                0
            }
        }
    }

    /// A line without an end has waited for it long enough.
    fn line_has_waited(&self, key: u64) -> bool {
        let Some(open) = self.streams.get(&key) else { return false };
        let waited = open.partial.map_or(Duration::ZERO, |since| since.elapsed());
        let is_shared = || {
            let mut others = self.streams.iter().filter(|(other, _)| **other != key);
            others.any(|(_, other)| other.stream.log == open.stream.log)
        };
        waited >= SHARED_LINE_PATIENCE || waited >= LINE_PATIENCE && !is_shared()
    }

    fn let_the_disk_finish(&mut self) -> bool {
        let start = Instant::now();
        loop {
            self.take_written();
            let waiting = self.shared.pending().bytes > 0;
            if !waiting {
                return true;
            }
            if start.elapsed() >= PAUSE_PATIENCE {
                return false;
            }
            let mut fds = [PollFd::new(&self.shared.wake_reader, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 50_000_000 }));
            clear(&self.shared.wake_reader);
        }
    }
}

/// Hands lines to the writer; drops them when the disk is too far behind. `last`: nothing
/// follows, so a line without an end is given one.
fn deliver(shared: &Shared, open: &mut Open, lines: &[u8], last: bool, nowhere: &fs::File) {
    let mut pending = shared.pending();
    let too_much =
        open.held + lines.len() > STREAM_BOUND || pending.bytes + lines.len() > TOTAL_BOUND;
    if too_much {
        drop(pending);
        remove(&open.fifo, lines.len(), nowhere);
        open.unlogged += lines.len() as u64;
        open.unreported += lines.len() as u64;
        return;
    }
    let mut bytes = Vec::with_capacity(lines.len() + 1);
    if open.unlogged > 0 {
        bytes.extend_from_slice(dropped_line(std::mem::take(&mut open.unlogged)).as_bytes());
    }
    bytes.extend_from_slice(lines);
    let needs_end = last && bytes.last() != Some(&b'\n');
    if needs_end {
        bytes.push(b'\n');
    }
    let length = bytes.len();
    push(&mut pending, open, bytes);
    drop(pending);
    shared.work.notify_one();
    if open.slow || length != lines.len() {
        remove(&open.fifo, lines.len(), nowhere);
        open.slow = true;
        open.held += length;
    } else {
        open.in_flight = length;
        open.since = Instant::now();
    }
}

fn push(pending: &mut Pending, open: &Open, bytes: Vec<u8>) {
    pending.bytes += bytes.len();
    let queue = pending.logs.entry(open.stream.log.clone()).or_insert_with(|| Queue {
        rotation: open.stream.rotation,
        chunks: Default::default(),
        retry_at: None,
    });
    queue.rotation = open.stream.rotation;
    let source = open.stream.source.clone();
    queue.chunks.push_back(Chunk { key: open.stream.key, source, at_ms: now_ms(), bytes });
}

fn log_dropped(shared: &Shared, open: &mut Open) {
    if open.unlogged > 0 {
        let line = dropped_line(std::mem::take(&mut open.unlogged)).into_bytes();
        open.slow = true;
        open.held += line.len();
        push(&mut shared.pending(), open, line);
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
fn take_into_memory(open: &mut Open, nowhere: &fs::File) {
    if open.in_flight > 0 {
        remove(&open.fifo, open.in_flight, nowhere);
        open.held += open.in_flight;
        open.in_flight = 0;
        open.slow = true;
    }
}

fn until(at: Instant, now: Instant) -> Timespec {
    let wait = at.saturating_duration_since(now) + Duration::from_millis(1);
    Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() }
}
