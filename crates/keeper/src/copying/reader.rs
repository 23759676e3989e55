//! The thread that reads the FIFOs.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, pipe_with};

use super::fifo::{Found, LONG_LINE, look, remove, widen};
use super::last_output::LastOutput;
use super::open::{Open, deliver, end_line, log_dropped, take_into_memory};
use super::{CopierMessage, Order, Shared, Stream, clear};

/// Most bytes read from one stream before the next stream has its turn.
const LOOK: usize = 1024 * 1024;

/// Lines that the disk has not taken within this time move into memory: an app whose FIFO is
/// full waits no longer.
const DISK_PATIENCE: Duration = Duration::from_millis(50);

/// A line without an end waits so long for it, or until it is `LONG_LINE` long or its FIFO is
/// full. It waits in its FIFO, where a keeper that is killed does not lose it.
const LINE_PATIENCE: Duration = Duration::from_secs(1);
/// The same where other processes write to the same log file: what they write would divide the
/// line.
const SHARED_LINE_PATIENCE: Duration = Duration::from_secs(30);
/// A process that has written nothing for so long is quiet: a prompt does not wait for it.
const QUIET: Duration = Duration::from_secs(3);

/// How often a stream with a line without an end is looked at.
const LINE_LOOK: Duration = Duration::from_millis(50);
/// The same while the line becomes longer: its writer may soon have filled the FIFO, and wait.
const GROWING_LINE_LOOK: Duration = Duration::from_millis(5);

/// A pause after a round in which every stream had little, so that many lines are copied
/// together.
const GATHER: Duration = Duration::from_millis(3);
/// Little is less than this part of what the FIFO holds: it does not become full meanwhile.
const LITTLE_PART: usize = 4;
/// How often a stream is looked at whose lines have no room in memory.
const ROOM_LOOK: Duration = Duration::from_millis(50);

/// At most one report of dropped output of one stream in this time.
const REPORT_EVERY: Duration = Duration::from_secs(5);

/// How long a pause waits for the disk.
const PAUSE_PATIENCE: Duration = Duration::from_secs(5);

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
            buffer: Vec::with_capacity(size),
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
            let mut is_little = !ready.is_empty();
            for (key, hung_up) in ready {
                let holds = self.streams.get(&key).map_or(0, |open| open.holds);
                is_little &= self.copy(key, hung_up) < holds / LITTLE_PART;
            }
            if is_little {
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
        let holds = fcntl_getpipe_size(&fifo).unwrap_or(LONG_LINE);
        let open = Open {
            stream,
            holds,
            fifo,
            in_flight: 0,
            since: now,
            slow: false,
            held: 0,
            full: None,
            unlogged: 0,
            unreported: 0,
            reported: None,
            partial: None,
            partial_length: 0,
            is_unended: false,
            copied: None,
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
                open.is_written(count, &self.shared);
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
        if !all && !open.has_room(&self.shared) {
            open.look_again = Instant::now() + ROOM_LOOK;
            return 0;
        }
        match look(&open.fifo, all_of_it, &self.scratch, &mut self.buffer) {
            Found::Nothing => 0,
            Found::Partial(length) => {
                open.partial.get_or_insert_with(Instant::now);
                let grows = std::mem::replace(&mut open.partial_length, length) < length;
                let pause = if grows { GROWING_LINE_LOOK } else { LINE_LOOK };
                open.look_again = Instant::now() + pause;
                0
            }
            Found::Lines(count) => {
                open.partial = None;
                open.partial_length = 0;
                open.copied = Some(Instant::now());
                self.buffer.truncate(count);
                if let Some(tail) = self.tails.get_mut(open.stream.owner()) {
                    tail.add(&self.buffer);
                }
                deliver(&self.shared, open, &mut self.buffer, all, &self.nowhere);
                count
            }
            Found::End => {
                if let Some(mut open) = self.streams.remove(&key) {
                    end_line(&self.shared, &open);
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
            others.any(|(_, other)| {
                let writes = other.copied.is_some_and(|at| at.elapsed() < QUIET);
                (writes || other.partial.is_some()) && other.stream.log == open.stream.log
            })
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

fn until(at: Instant, now: Instant) -> Timespec {
    let wait = at.saturating_duration_since(now) + Duration::from_millis(1);
    Timespec { tv_sec: wait.as_secs() as _, tv_nsec: wait.subsec_nanos().into() }
}
