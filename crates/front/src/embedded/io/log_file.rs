//! The writer of a log file: lines are gathered in memory, and a thread writes them.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mfserv_core::output::Rotation;
use mfserv_logfile::{LogFile, Mark, MarkKind, Source};
use mfserv_platform::sync::{self, lock};

/// Gathered lines go to the writing thread when they are this long together, bytes…
const BATCH: usize = 128 * 1024;
/// …or when the first of them is this old.
const MAX_AGE: Duration = Duration::from_millis(500);
/// How many batches may wait for the writing thread; lines beyond are dropped and counted.
const BATCHES_MAX: usize = 64;

/// Lines, and what the index says of them.
#[derive(Default)]
struct Batch {
    lines: Vec<u8>,
    marks: Vec<Request>,
}

/// The request that a line is of.
struct Request {
    /// The place of the line in its batch.
    at: usize,
    /// The worker that has served it.
    worker: Arc<Source>,
    /// What the index says of it.
    kind: MarkKind,
}

#[derive(Default)]
struct Shared {
    gathered: Batch,
    since: Option<Instant>,
    batches: VecDeque<Batch>,
    dropped: u64,
    ended: bool,
}

/// A log file to which a line is added without waiting for the disk.
pub struct LogWriter {
    shared: Arc<(Mutex<Shared>, Condvar)>,
    writer: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// Starts the writing thread. The first line opens the file.
    pub fn start(path: PathBuf, rotation: Rotation) -> std::io::Result<Self> {
        let shared = Arc::new((Mutex::new(Shared::default()), Condvar::new()));
        let theirs = shared.clone();
        let writer = std::thread::Builder::new()
            .name("log".into())
            .spawn(move || write_batches(&theirs, LogFile::new(path, rotation)))?;
        Ok(Self { shared, writer: Some(writer) })
    }

    /// Adds the line that `fill` appends, including its `\n`.
    pub fn line(&self, fill: impl FnOnce(&mut Vec<u8>)) {
        self.line_of(None, fill);
    }

    /// The same for the line of a request, which is found again by its index: with the worker
    /// that has served it, and what the index says of the request.
    pub fn line_of(
        &self,
        request: Option<(&Arc<Source>, MarkKind)>,
        fill: impl FnOnce(&mut Vec<u8>),
    ) {
        thread_local! {
            static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        LINE.with_borrow_mut(|line| {
            line.clear();
            fill(line);
            self.append(line, request);
        });
    }

    fn append(&self, line: &[u8], request: Option<(&Arc<Source>, MarkKind)>) {
        let (shared, wake) = &*self.shared;
        let mut shared = lock(shared);
        if let Some((worker, kind)) = request {
            let (at, worker) = (shared.gathered.lines.len(), worker.clone());
            shared.gathered.marks.push(Request { at, worker, kind });
        }
        shared.gathered.lines.extend_from_slice(line);
        let first = shared.since.is_none();
        if first {
            shared.since = Some(Instant::now());
        }
        let full = shared.gathered.lines.len() >= BATCH;
        if full {
            shared.cut_batch();
        }
        drop(shared);
        if first || full {
            wake.notify_one();
        }
    }
}

impl Drop for LogWriter {
    /// Writes the gathered lines, then ends the thread.
    fn drop(&mut self) {
        let (shared, wake) = &*self.shared;
        lock(shared).ended = true;
        wake.notify_one();
        if let Some(writer) = self.writer.take() {
            // A thread that panicked has ended as well.
            let _ = writer.join();
        }
    }
}

impl Shared {
    fn cut_batch(&mut self) {
        self.since = None;
        let batch = std::mem::take(&mut self.gathered);
        if self.batches.len() < BATCHES_MAX {
            self.batches.push_back(batch);
        } else {
            self.dropped += batch.lines.iter().filter(|&&b| b == b'\n').count() as u64;
        }
    }
}

fn write_batches(shared: &(Mutex<Shared>, Condvar), mut file: LogFile) {
    let mut reported = 0;
    loop {
        let (batch, dropped, ended) = next_batch(shared);
        if dropped > reported {
            complain(&format!("{} lines of {} dropped", dropped - reported, file.path().display()));
            reported = dropped;
        }
        match batch {
            Some(batch) => append(&mut file, &batch),
            None if ended => return,
            // The file may have to be rotated although this process writes nothing: nginx does.
            None => drop(file.tick()),
        }
    }
}

/// Waits for a batch; `None` at the end, or when nothing was logged for a minute.
fn next_batch(shared: &(Mutex<Shared>, Condvar)) -> (Option<Batch>, u64, bool) {
    let (mutex, wake) = shared;
    let mut shared = lock(mutex);
    let mut idle = Duration::from_secs(60);
    loop {
        let age = shared.since.map(|since| since.elapsed());
        let due = age.is_some_and(|age| age >= MAX_AGE) || shared.ended;
        if due && shared.batches.is_empty() && !shared.gathered.lines.is_empty() {
            shared.cut_batch();
        }
        let batch = shared.batches.pop_front();
        if batch.is_some() || shared.ended || idle.is_zero() {
            return (batch, shared.dropped, shared.ended);
        }
        let wait = age.map_or(idle, |age| MAX_AGE.saturating_sub(age));
        let (again, over) = sync::wait(wake, shared, wait);
        shared = again;
        if over && age.is_none() {
            idle = Duration::ZERO;
        }
    }
}

/// Writes a batch, with a second try; after that the rest of the batch is lost.
fn append(file: &mut LogFile, batch: &Batch) {
    let mut marks: Vec<Mark<'_>> = batch.marks.iter().map(Request::mark).collect();
    let Err(first) = file.append_marked(&batch.lines, &marks) else { return };
    let written = first.written.min(batch.lines.len());
    marks.retain(|mark| mark.at >= written);
    marks.iter_mut().for_each(|mark| mark.at -= written);
    if let Err(second) = file.append_marked(&batch.lines[written..], &marks) {
        let path = file.path().display().to_string();
        complain(&format!("cannot write {path}: {second}"));
    }
}

impl Request {
    fn mark(&self) -> Mark<'_> {
        Mark { at: self.at, source: &self.worker, kind: self.kind }
    }
}

/// Writes a line to standard error.
fn complain(text: &str) {
    // Not `eprintln!`: standard error may be gone, and the panic would end this thread.
    let _ = writeln!(std::io::stderr(), "front: {text}");
}
