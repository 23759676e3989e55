//! Copies what processes write, from their FIFOs to their log files.
//!
//! Two threads, so that neither reaping nor any app ever waits for a disk: the
//! [`reader`] polls the FIFOs, the [`writer`] writes. While the disk keeps up, nothing is
//! taken out of a FIFO before it is in its log file: the reader looks at it with tee(2),
//! hands the whole lines over, and removes them when the writer says they are written. A
//! keeper that is killed at any moment therefore loses no line; at worst the lines of its
//! last moment are written twice. When the disk does not keep up, lines are taken into
//! memory up to a bound. Beyond it they stay in the FIFO for a few seconds as long as the disk
//! writes at all; then, or when it writes nothing, they are dropped, counted and reported.

mod fifo;
mod last_output;
mod open;
mod queue;
mod reader;
mod writer;

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use mfserv_core::output::Rotation;
use mfserv_logfile::Source;
use mfserv_platform::sync;
use rustix::event::{EventfdFlags, eventfd};

use queue::Pending;
use reader::Reader;
use writer::Writer;

/// Most bytes of one stream that wait in memory for the disk.
const STREAM_BOUND: usize = 2 * 1024 * 1024;

/// Most bytes of all streams that wait in memory for the disk.
const TOTAL_BOUND: usize = 64 * 1024 * 1024;

/// A piece of so many bytes is handed over with its buffer, not copied.
const LARGE: usize = 64 * 1024;

/// One output stream of one process.
#[derive(Debug, Clone)]
pub(crate) struct Stream {
    pub key: u64,
    /// The process, and which of its streams.
    pub source: Arc<Source>,
    pub fifo: PathBuf,
    pub log: PathBuf,
    pub rotation: Rotation,
}

/// What the copying threads report.
#[derive(Debug)]
pub(crate) enum CopierMessage {
    /// Everything that this process wrote has been read; its last lines.
    Finished { owner: String, last_output: String },
    /// Nobody holds this FIFO any more; its file has been removed.
    Closed { key: u64 },
    /// The disk is slower than this process writes.
    Dropped { owner: String, bytes: u64 },
    /// A log file cannot be written.
    Trouble { file: PathBuf, reason: String },
}

impl Stream {
    /// The process.
    pub fn owner(&self) -> &str {
        &self.source.worker
    }
}

enum Order {
    Add(Stream, OwnedFd),
    Finish(String),
    Pause,
}

/// Bytes of one stream on their way to a log file.
struct Chunk {
    key: u64,
    source: Arc<Source>,
    /// When they were read, milliseconds since 1970.
    at_ms: u64,
    bytes: Vec<u8>,
}

struct Shared {
    pending: Mutex<Pending>,
    work: Condvar,
    /// Wakes the reader: there are orders, or written chunks.
    wake_reader: OwnedFd,
    /// Wakes the main loop: there are messages.
    wake_main: OwnedFd,
    messages: Mutex<Sender<CopierMessage>>,
}

impl Shared {
    fn pending(&self) -> MutexGuard<'_, Pending> {
        sync::lock(&self.pending)
    }

    fn report(&self, message: CopierMessage) {
        // The main loop that no longer listens is about to end or to be replaced.
        let _ = sync::lock(&self.messages).send(message);
        wake(&self.wake_main);
    }
}

/// The running threads.
pub(crate) struct Copier {
    shared: Arc<Shared>,
    orders: Sender<Order>,
    messages: Receiver<CopierMessage>,
    reader: JoinHandle<(Reader, bool)>,
    writer: JoinHandle<Writer>,
}

/// The threads stopped, every stream still open.
pub(crate) struct Paused {
    shared: Arc<Shared>,
    orders: Sender<Order>,
    messages: Receiver<CopierMessage>,
    reader: Reader,
    writer: Writer,
}

/// Why the threads were not stopped.
pub(crate) enum NotPaused {
    /// Lines still wait for the disk; they go on.
    Late(Copier),
    /// One of them has panicked.
    Died,
}

impl Copier {
    /// Starts both threads, with no stream. `after_death`: a keeper that was killed may
    /// have left half a line at the end of a log file.
    pub fn start(after_death: bool) -> io::Result<Self> {
        // No bound: the main loop must not wait. There are at most two `Add` and one `Finish`
        // for a process that the loop has started; the reader takes all before each poll(2).
        let (orders, receiver) = mpsc::channel();
        // No bound: a copying thread must not wait for the main loop. There is one `Finished`
        // for a process, one `Closed` for a stream, and one `Dropped` or `Trouble` in some
        // seconds for a stream or file; the loop takes all each time.
        let (reports, messages) = mpsc::channel();
        let event = || eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let shared = Arc::new(Shared {
            pending: Mutex::default(),
            work: Condvar::new(),
            wake_reader: event()?,
            wake_main: event()?,
            messages: Mutex::new(reports),
        });
        let reader = Reader::new(shared.clone(), receiver)?;
        let writer = Writer::new(shared.clone(), after_death);
        Paused { shared, orders, messages, reader, writer }.resume()
    }

    /// Copies this stream from now on.
    pub fn add(&self, stream: Stream, fifo: OwnedFd) {
        self.order(Order::Add(stream, fifo));
    }

    /// The process has ended: read what is left and say [`CopierMessage::Finished`].
    pub fn finish(&self, owner: &str) {
        self.order(Order::Finish(owner.to_owned()));
    }

    /// Readable when there are messages.
    pub fn wakeup(&self) -> BorrowedFd<'_> {
        self.shared.wake_main.as_fd()
    }

    /// What has been said since the last time.
    pub fn messages(&self) -> Vec<CopierMessage> {
        clear(&self.shared.wake_main);
        self.messages.try_iter().collect()
    }

    /// A thread has panicked: nothing is copied any more.
    pub fn has_died(&self) -> bool {
        self.reader.is_finished() || self.writer.is_finished()
    }

    /// Writes out what was read, for some seconds at most, and stops both threads.
    pub fn pause(self) -> Result<Paused, NotPaused> {
        self.order(Order::Pause);
        let Self { shared, orders, messages, reader, writer } = self;
        let (reader, all_written) = reader.join().map_err(|_| NotPaused::Died)?;
        if !all_written {
            // The writer may hang in a write(2): it is not waited for.
            let reader = run_reader(reader).map_err(|_| NotPaused::Died)?;
            return Err(NotPaused::Late(Self { shared, orders, messages, reader, writer }));
        }
        shared.pending().writer_stops = true;
        shared.work.notify_one();
        let writer = writer.join().map_err(|_| NotPaused::Died)?;
        Ok(Paused { shared, orders, messages, reader, writer })
    }

    fn order(&self, order: Order) {
        let _ = self.orders.send(order);
        wake(&self.shared.wake_reader);
    }
}

impl Paused {
    /// The streams that are open, with their descriptors.
    pub fn streams(&self) -> impl Iterator<Item = (&Stream, BorrowedFd<'_>)> {
        self.reader.streams()
    }

    /// What has been said and not yet heard.
    pub fn messages(&self) -> Vec<CopierMessage> {
        self.messages.try_iter().collect()
    }

    /// The last output of each process so far.
    pub fn last_outputs(&self) -> impl Iterator<Item = (&str, String)> {
        self.reader.last_outputs()
    }

    /// Starts the threads again.
    pub fn resume(self) -> io::Result<Copier> {
        let Self { shared, orders, messages, reader, writer } = self;
        shared.pending().writer_stops = false;
        let writer = thread::Builder::new().name("log writer".into()).spawn(|| writer.run())?;
        let reader = run_reader(reader)?;
        Ok(Copier { shared, orders, messages, reader, writer })
    }

    /// Seeds the last output of a process that an earlier image of this keeper has read.
    pub fn remember(&mut self, owner: &str, last_output: &str) {
        self.reader.remember(owner, last_output);
    }
}

fn run_reader(reader: Reader) -> io::Result<JoinHandle<(Reader, bool)>> {
    thread::Builder::new().name("fifo reader".into()).spawn(|| reader.run())
}

fn wake(event: &OwnedFd) {
    // Full means that it is readable already.
    let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
}

fn clear(event: &OwnedFd) {
    let _ = rustix::io::read(event, &mut [0_u8; 8]);
}
