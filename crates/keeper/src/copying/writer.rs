//! The thread that writes to the log files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mfserv_logfile::LogFile;
use mfserv_platform::sync;

use super::{Chunk, CopierMessage, Pending, Shared, wake};

/// Most bytes written to one file before it is another's turn.
const TURN: usize = 1024 * 1024;

/// How long after a failed write it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// At most one report of trouble for one file in this time.
const REPORT_EVERY: Duration = Duration::from_secs(30);

/// How often idle files are looked after (age, files that others have deleted).
const LOOK_AFTER: Duration = Duration::from_secs(20);

/// A file that nobody has written to for so long is closed.
const CLOSE_AFTER: Duration = Duration::from_secs(600);

struct Open {
    log: LogFile,
    used: Instant,
    reported: Option<Instant>,
}

pub(super) struct Writer {
    shared: Arc<Shared>,
    open: BTreeMap<PathBuf, Open>,
    /// Whose turn it was.
    last: PathBuf,
    looked_after: Instant,
    after_death: bool,
}

impl Writer {
    pub fn new(shared: Arc<Shared>, after_death: bool) -> Self {
        let (open, last, looked_after) = (BTreeMap::new(), PathBuf::new(), Instant::now());
        Self { shared, open, last, looked_after, after_death }
    }

    /// Until it is told to stop.
    pub fn run(mut self) -> Self {
        while let Some((path, chunks)) = self.next_turn() {
            let left = self.write(&path, &chunks);
            self.settle(&path, chunks, left);
        }
        self
    }

    /// Waits for lines; the files are served in turn.
    fn next_turn(&mut self) -> Option<(PathBuf, Vec<Chunk>)> {
        let shared = self.shared.clone();
        let mut pending = shared.pending();
        loop {
            if pending.writer_stops {
                return None;
            }
            if self.looked_after.elapsed() >= LOOK_AFTER {
                drop(pending);
                self.look_after_idle_files();
                pending = shared.pending();
            }
            if let Some(path) = pending.whose_turn(&self.last) {
                let chunks = pending.take(&path);
                self.last.clone_from(&path);
                return Some((path, chunks));
            }
            let patience = if pending.logs.is_empty() { LOOK_AFTER } else { RETRY / 4 };
            (pending, _) = sync::wait(&shared.work, pending, patience);
        }
    }

    /// Writes all chunks; returns how many bytes of them could not be written.
    fn write(&mut self, path: &Path, chunks: &[Chunk]) -> usize {
        let Some(rotation) = self.shared.pending().logs.get(path).map(|queue| queue.rotation)
        else {
            return 0;
        };
        let open = self.open.entry(path.to_owned()).or_insert_with(|| {
            let mut log = LogFile::new(path, rotation);
            if self.after_death {
                // If it fails, so will the append that follows, and that is reported.
                let _ = log.end_line();
            }
            Open { log, used: Instant::now(), reported: None }
        });
        open.used = Instant::now();
        if open.log.rotation() != rotation {
            open.log.set_rotation(rotation);
        }
        let joined: Vec<u8>;
        let bytes = match chunks {
            [only] => &only.bytes,
            several => {
                joined = several.iter().flat_map(|chunk| &chunk.bytes).copied().collect();
                &joined
            }
        };
        match open.log.append(bytes) {
            Ok(()) => {
                open.reported = None;
                0
            }
            Err(trouble) => {
                if open.reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY) {
                    open.reported = Some(Instant::now());
                    let reason = trouble.error.to_string();
                    self.shared.report(CopierMessage::Trouble { file: path.to_owned(), reason });
                }
                bytes.len() - trouble.written
            }
        }
    }

    /// Tells the reader what is written, and puts the rest back for another attempt.
    fn settle(&self, path: &Path, chunks: Vec<Chunk>, left: usize) {
        let mut pending = self.shared.pending();
        let mut written = chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>() - left;
        pending.bytes -= written;
        let mut back = Vec::new();
        for mut chunk in chunks {
            let done = written.min(chunk.bytes.len());
            written -= done;
            if done > 0 {
                pending.written.push((chunk.key, done));
            }
            if done < chunk.bytes.len() {
                chunk.bytes.drain(..done);
                back.push(chunk);
            }
        }
        let empty = match pending.logs.get_mut(path) {
            Some(queue) => {
                queue.retry_at = (left > 0).then(|| Instant::now() + RETRY);
                back.into_iter().rev().for_each(|chunk| queue.chunks.push_front(chunk));
                queue.chunks.is_empty()
            }
            None => false,
        };
        if empty {
            pending.logs.remove(path);
        }
        wake(&self.shared.wake_reader);
    }

    fn look_after_idle_files(&mut self) {
        self.looked_after = Instant::now();
        self.open.retain(|_, open| open.used.elapsed() < CLOSE_AFTER);
        for open in self.open.values_mut() {
            // Said at the next append, if it lasts.
            let _ = open.log.tick();
        }
    }
}

impl Pending {
    /// The next file after `last`, round and round, that has lines and may be tried.
    fn whose_turn(&self, last: &Path) -> Option<PathBuf> {
        let now = Instant::now();
        let ready = |(path, queue): (&PathBuf, &super::Queue)| {
            let may = queue.retry_at.is_none_or(|at| at <= now);
            (may && !queue.chunks.is_empty()).then(|| path.clone())
        };
        let after = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        let next = self.logs.range::<Path, _>(after).find_map(ready);
        next.or_else(|| self.logs.iter().find_map(ready))
    }

    fn take(&mut self, path: &Path) -> Vec<Chunk> {
        let Some(queue) = self.logs.get_mut(path) else { return Vec::new() };
        let mut taken = Vec::new();
        let mut length = 0;
        while length < TURN {
            let Some(chunk) = queue.chunks.pop_front() else { break };
            length += chunk.bytes.len();
            taken.push(chunk);
        }
        taken
    }
}
