//! The thread that writes to the log files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mfserv_logfile::{LogFile, Mark, MarkKind};
use mfserv_platform::sync;

use super::{Chunk, CopierMessage, Shared, wake};

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
            let patience = pending.patience(LOOK_AFTER, RETRY / 4);
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
        match open.log.append_marked(bytes, &marks(chunks)) {
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
        let written = chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>() - left;
        self.shared.pending().settle(path, chunks, written, RETRY);
        wake(&self.shared.wake_reader);
    }

    fn look_after_idle_files(&mut self) {
        self.looked_after = Instant::now();
        let mut pending = self.shared.pending();
        pending.spare.clear();
        self.open.retain(|path, open| {
            let is_used = open.used.elapsed() < CLOSE_AFTER;
            if !is_used {
                pending.forget(path);
            }
            is_used
        });
        drop(pending);
        for open in self.open.values_mut() {
            // Said at the next append, if it lasts.
            let _ = open.log.tick();
        }
    }
}

/// Who wrote which of these bytes, one behind the other.
fn marks(chunks: &[Chunk]) -> Vec<Mark<'_>> {
    let mut at = 0;
    let mut marks = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let kind = MarkKind::Output(chunk.at_ms);
        marks.push(Mark { at, source: &chunk.source, kind });
        at += chunk.bytes.len();
    }
    marks
}
