//! The chunks that wait for the writer, and the order in which it takes them.
//!
//! Several processes may write to one log file. Between the begin of a line and its end, no
//! byte of another process is written there: the chunks of the others wait, in their FIFOs, for
//! as long as more of the line comes ([`LINE_PAUSE`]), up to a time and a length. A line that
//! does not go on is then ended, so that the next one begins on a line of its own.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mfserv_core::output::Rotation;
use mfserv_logfile::Source;
use mfserv_platform::clock::now_ms;

use super::{Chunk, LARGE, Stream};

/// Most bytes written to one file before it is another's turn.
const TURN: usize = 1024 * 1024;

/// The others wait so long for the next piece of a line, from the last one on…
const LINE_PAUSE: Duration = Duration::from_millis(200);
/// …not longer than this since its first one…
const LINE_TIME: Duration = Duration::from_secs(1);
/// …and until the line is so long, bytes.
const LINE_MAX: usize = 4 * 1024 * 1024;

/// A disk that has written nothing for so long stands still.
const STUCK: Duration = Duration::from_secs(1);

/// So many large buffers are kept for the next lines.
const SPARES: usize = 4;

/// The key of a chunk that no stream has written: the end of a line that does not go on.
const NOBODY: u64 = u64::MAX;

/// The chunks for one log file.
pub(super) struct Queue {
    pub rotation: Rotation,
    pub chunks: VecDeque<Chunk>,
    /// The last attempt failed: not before this.
    pub retry_at: Option<Instant>,
}

/// What the two threads share.
#[derive(Default)]
pub(super) struct Pending {
    pub logs: BTreeMap<PathBuf, Queue>,
    pub bytes: usize,
    /// Chunks that have been written, with their length.
    pub written: Vec<(u64, usize)>,
    pub writer_stops: bool,
    /// Large buffers that are empty again.
    pub spare: Vec<Vec<u8>>,
    /// When bytes were written last, or began to wait.
    progress: Option<Instant>,
    /// The log files whose last line has no end yet.
    unfinished: BTreeMap<PathBuf, Unfinished>,
}

/// The last line of a log file, which has no end yet.
#[derive(Clone)]
struct Unfinished {
    key: u64,
    source: Arc<Source>,
    length: usize,
    begun: Instant,
    /// When its last piece was written.
    since: Instant,
}

impl Unfinished {
    /// The line at the end of a file after this chunk was written behind `before`.
    fn after(before: Option<Self>, chunk: &Chunk, written: &[u8]) -> Option<Self> {
        let rest = written.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
        if rest.is_empty() {
            return None;
        }
        let goes_on = rest.len() == written.len();
        let begun = before.filter(|line| goes_on && line.key == chunk.key);
        let length = begun.as_ref().map_or(0, |line| line.length) + rest.len();
        let (key, source, since) = (chunk.key, chunk.source.clone(), Instant::now());
        Some(Self { key, source, length, begun: begun.map_or(since, |line| line.begun), since })
    }

    /// The others still wait for its end.
    fn is_waited_for(&self) -> bool {
        let is_short = self.length < LINE_MAX && self.begun.elapsed() < LINE_TIME;
        is_short && self.since.elapsed() < LINE_PAUSE
    }

    fn end(&self) -> Chunk {
        let source = self.source.clone();
        Chunk { key: NOBODY, source, at_ms: now_ms(), bytes: b"\n".to_vec() }
    }
}

impl Pending {
    /// Bytes wait, and none has been written for a while.
    pub fn is_stuck(&self) -> bool {
        self.bytes > 0 && self.progress.is_some_and(|at| at.elapsed() >= STUCK)
    }

    /// Bytes of a stream wait for the writer.
    pub fn push(&mut self, stream: &Stream, bytes: Vec<u8>) {
        if self.bytes == 0 {
            self.progress = Some(Instant::now());
        }
        self.bytes += bytes.len();
        let queue = self.logs.entry(stream.log.clone()).or_insert_with(|| Queue {
            rotation: stream.rotation,
            chunks: VecDeque::new(),
            retry_at: None,
        });
        queue.rotation = stream.rotation;
        let source = stream.source.clone();
        queue.chunks.push_back(Chunk { key: stream.key, source, at_ms: now_ms(), bytes });
    }

    /// The next file after `last`, round and round, that has chunks and may be tried.
    pub fn whose_turn(&self, last: &Path) -> Option<PathBuf> {
        let ready = |(path, queue): (&PathBuf, &Queue)| {
            let may = queue.retry_at.is_none_or(|at| at <= Instant::now());
            let next = queue.next(self.unfinished.get(path));
            (may && next.is_some()).then(|| path.clone())
        };
        let after = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        let next = self.logs.range::<Path, _>(after).find_map(ready);
        next.or_else(|| self.logs.iter().find_map(ready))
    }

    /// How long the writer may sleep when it is no file's turn.
    pub fn patience(&self, idle: Duration, retry: Duration) -> Duration {
        match self.logs.keys().any(|path| self.unfinished.contains_key(path)) {
            true => LINE_PAUSE / 4,
            false if self.logs.is_empty() => idle,
            false => retry,
        }
    }

    /// Takes the chunks that are written to a file together.
    pub fn take(&mut self, path: &Path) -> Vec<Chunk> {
        let mut line = self.unfinished.get(path).cloned();
        let Some(queue) = self.logs.get_mut(path) else { return Vec::new() };
        let mut taken = Vec::new();
        let mut length = 0;
        while length < TURN {
            let Some(at) = queue.next(line.as_ref()) else { break };
            let Some(chunk) = queue.chunks.remove(at) else { break };
            length += chunk.bytes.len();
            if let Some(begun) = line.as_ref().filter(|line| line.key != chunk.key) {
                taken.push(begun.end());
                self.bytes += 1;
            }
            line = Unfinished::after(line, &chunk, &chunk.bytes);
            taken.push(chunk);
        }
        taken
    }

    /// The first `written` bytes of these chunks are in the file. Puts the rest back, for an
    /// attempt at `retry_at`.
    pub fn settle(&mut self, path: &Path, chunks: Vec<Chunk>, mut written: usize, retry: Duration) {
        self.bytes -= written;
        if written > 0 {
            self.progress = Some(Instant::now());
        }
        let mut line = self.unfinished.remove(path);
        let mut back = Vec::new();
        for mut chunk in chunks {
            let done = written.min(chunk.bytes.len());
            written -= done;
            if done > 0 {
                line = Unfinished::after(line, &chunk, &chunk.bytes[..done]);
                if chunk.key != NOBODY {
                    self.written.push((chunk.key, done));
                }
            }
            match chunk.bytes.len() - done {
                0 if chunk.bytes.capacity() >= LARGE && self.spare.len() < SPARES => {
                    chunk.bytes.clear();
                    self.spare.push(chunk.bytes);
                }
                0 => {}
                left if chunk.key == NOBODY => self.bytes -= left,
                _ => {
                    chunk.bytes.drain(..done);
                    back.push(chunk);
                }
            }
        }
        self.unfinished.extend(line.map(|line| (path.to_owned(), line)));
        let Some(queue) = self.logs.get_mut(path) else { return };
        queue.retry_at = (!back.is_empty()).then(|| Instant::now() + retry);
        back.into_iter().rev().for_each(|chunk| queue.chunks.push_front(chunk));
        if queue.chunks.is_empty() {
            self.logs.remove(path);
        }
    }

    /// Chunks of this stream wait for the end of a line of another one.
    pub fn is_held(&self, path: &Path, key: u64) -> bool {
        self.unfinished.get(path).is_some_and(|line| line.key != key && line.is_waited_for())
    }

    /// Nothing is known any more of the end of a file.
    pub fn forget(&mut self, path: &Path) {
        self.unfinished.remove(path);
    }
}

impl Queue {
    /// The place of the chunk that may be written behind this line.
    fn next(&self, line: Option<&Unfinished>) -> Option<usize> {
        match line {
            Some(line) if line.is_waited_for() => {
                self.chunks.iter().position(|chunk| chunk.key == line.key)
            }
            _ => (!self.chunks.is_empty()).then_some(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(key: u64, text: &str) -> Chunk {
        Chunk { key, source: Arc::default(), at_ms: 0, bytes: text.into() }
    }

    fn pending(chunks: &[(u64, &str)]) -> Pending {
        let chunks: VecDeque<_> = chunks.iter().map(|(key, text)| chunk(*key, text)).collect();
        let bytes = chunks.iter().map(|chunk| chunk.bytes.len()).sum();
        let queue = Queue { rotation: Rotation::default(), chunks, retry_at: None };
        let logs = [(PathBuf::from("a"), queue)].into();
        Pending { logs, bytes, ..Pending::default() }
    }

    /// Writes whatever may be written; returns the text.
    fn write(pending: &mut Pending) -> String {
        let path = Path::new("a");
        let chunks = pending.take(path);
        let text: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes.clone()).collect();
        pending.settle(path, chunks, text.len(), Duration::ZERO);
        String::from_utf8(text).unwrap()
    }

    fn pause_is_over(pending: &mut Pending) {
        let line = pending.unfinished.get_mut(Path::new("a")).unwrap();
        line.since = line.since.checked_sub(LINE_PAUSE).unwrap();
    }

    #[test]
    fn a_line_in_pieces_goes_before_what_others_wrote_meanwhile() {
        let mut waiting =
            pending(&[(1, "a\nbe"), (2, "x\n"), (1, "gu"), (2, "y\n"), (1, "n\nc\n")]);
        assert_eq!(write(&mut waiting), "a\nbegun\nc\nx\ny\n");
        assert!(waiting.logs.is_empty() && waiting.bytes == 0);
    }

    #[test]
    fn a_line_that_does_not_go_on_is_ended_before_the_next_one() {
        let mut waiting = pending(&[(1, "begun"), (2, "x\n")]);
        assert_eq!(write(&mut waiting), "begun");
        assert_eq!(waiting.whose_turn(Path::new("")), None, "the others wait");
        pause_is_over(&mut waiting);
        assert_eq!(write(&mut waiting), "\nx\n");
        assert_eq!(waiting.bytes, 0);
        let written: usize = waiting.written.iter().map(|(_, count)| count).sum();
        assert_eq!(written, "begunx\n".len(), "no stream wrote the end of the line");
    }

    #[test]
    fn a_disk_that_writes_is_late_and_one_that_does_not_stands_still() {
        let mut waiting = pending(&[(1, "x\n"), (1, "y\n")]);
        let long_ago = Instant::now().checked_sub(STUCK).unwrap();
        waiting.progress = Some(long_ago);
        assert!(waiting.is_stuck());
        let chunks = waiting.take(Path::new("a"));
        waiting.settle(Path::new("a"), chunks, 0, Duration::ZERO);
        assert!(waiting.is_stuck(), "nothing was written");
        let chunks = waiting.take(Path::new("a"));
        waiting.settle(Path::new("a"), chunks, 1, Duration::ZERO);
        assert!(!waiting.is_stuck());
        write(&mut waiting);
        waiting.progress = Some(long_ago);
        assert!(!waiting.is_stuck(), "nothing waits");
    }

    #[test]
    fn a_line_that_is_too_long_lets_the_others_pass() {
        let long = "l".repeat(LINE_MAX);
        let mut waiting = pending(&[(1, &long), (2, "x\n"), (1, "end\n")]);
        let text = [write(&mut waiting), write(&mut waiting)].concat();
        assert_eq!(text[LINE_MAX..], *"\nx\nend\n");
    }

    #[test]
    fn what_was_not_written_is_taken_again_and_nothing_twice() {
        for written in 0.."begun\nx\ny\n".len() {
            let mut waiting = pending(&[(1, "begun"), (2, "x\n"), (2, "y\n")]);
            let first = waiting.take(Path::new("a"));
            waiting.settle(Path::new("a"), first, 5, Duration::ZERO);
            pause_is_over(&mut waiting);
            let second = waiting.take(Path::new("a"));
            let all: Vec<u8> = second.iter().flat_map(|chunk| chunk.bytes.clone()).collect();
            let done = written.min(all.len());
            waiting.settle(Path::new("a"), second, done, Duration::ZERO);
            if let Some(line) = waiting.unfinished.get_mut(Path::new("a")) {
                line.since = line.since.checked_sub(LINE_PAUSE).unwrap();
            }
            let text = [&all[..done], write(&mut waiting).as_bytes()].concat();
            assert_eq!(String::from_utf8(text).unwrap(), "\nx\ny\n", "{done} bytes were written");
            assert_eq!(waiting.bytes, 0);
        }
    }
}
