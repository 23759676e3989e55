//! Searching several logs at once.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use mfserv_logfile::Source;

use super::cursor::{Cursor, Hit};
use super::line::{Level, Levels, Stamp, quick_stamp};
use super::part::files_of;
use super::pattern::Pattern;

/// A chunk of the index has lines that are at most so much later than its time, milliseconds.
const CHUNK_MS: u64 = 100;

/// Which lines are wanted: those that match everything that is set.
#[derive(Default)]
pub struct Selection {
    /// Not older than this, milliseconds since 1970.
    pub since_ms: Option<u64>,
    /// Not younger than this, milliseconds since 1970.
    pub until_ms: Option<u64>,
    /// At least as severe; a line without a level has that of the line before it.
    pub level: Option<Level>,
    /// With this text.
    pub pattern: Option<Pattern>,
    /// Of this worker (`app.foo.main.1.7`) or of all workers of a slot or app
    /// (`foo.main.1`, `foo.main`).
    pub worker: Option<String>,
    /// Of this release.
    pub release: Option<String>,
    /// Lines of this request only.
    pub request: Option<OfRequest>,
    /// Not behind this byte of the live file of a log.
    pub ends: BTreeMap<PathBuf, u64>,
}

/// The lines of a request: those that name its id, and all lines of its worker up to a time.
pub struct OfRequest {
    /// The id.
    pub id: Pattern,
    /// The worker that had the request.
    pub worker: Option<String>,
    /// Up to then all lines of the worker, milliseconds since 1970.
    pub until_ms: u64,
}

impl OfRequest {
    fn has(&self, line: &[u8], source: Option<&Source>, at_ms: u64) -> bool {
        let is_of_worker = || {
            let name = self.worker.as_deref().filter(|_| at_ms <= self.until_ms);
            name.zip(source).is_some_and(|(name, it)| is_named(&it.worker, name))
        };
        is_of_worker() || self.id.is_in(line)
    }
}

impl Selection {
    /// True if lines of this source are wanted.
    pub fn is_of(&self, source: Option<&Source>) -> bool {
        let is_worker = |worker: &String| source.is_some_and(|it| is_named(&it.worker, worker));
        let is_release = |release: &String| source.is_some_and(|it| it.release == *release);
        self.worker.as_ref().is_none_or(is_worker) && self.release.as_ref().is_none_or(is_release)
    }

    /// True if who wrote a line, or when, may decide whether it is wanted.
    pub fn asks_the_index(&self) -> bool {
        let asks_for_time = self.since_ms.is_some() || self.until_ms.is_some();
        asks_for_time || self.level.is_some() || self.worker.is_some() || self.release.is_some()
    }

    /// True if lines of this time are wanted.
    pub fn is_in_time(&self, at_ms: u64) -> bool {
        self.since_ms.is_none_or(|since| at_ms >= since)
            && self.until_ms.is_none_or(|until| at_ms <= until)
    }

    /// The same for the lines of a chunk of the index, by its time.
    pub(super) fn is_chunk_in_time(&self, at_ms: u64) -> bool {
        self.since_ms.is_none_or(|since| at_ms + CHUNK_MS >= since)
            && self.until_ms.is_none_or(|until| at_ms <= until)
    }

    /// How a time is read that comes twice: as the one that is wanted, else as the one that is
    /// nearer to the time of the line before.
    pub(super) fn reading(&self, stamp: &Stamp, before_ms: Option<u64>) -> u64 {
        let Some(or_ms) = stamp.or_ms else { return stamp.at_ms };
        match (self.is_in_time(stamp.at_ms), self.is_in_time(or_ms)) {
            (true, false) => stamp.at_ms,
            (false, true) => or_ms,
            _ => stamp.near(before_ms),
        }
    }

    /// True if a line of this text is wanted, as far as the text, and the request, are selected.
    pub(super) fn has(&self, line: &[u8], source: Option<&Source>, at_ms: u64) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.is_in(line))
            && self.request.as_ref().is_none_or(|request| request.has(line, source, at_ms))
    }

    /// False if certainly none of these lines has what is wanted. `is_behind`: they are later
    /// than what the worker of a request has said of it.
    pub(super) fn may_be_in(&self, lines: &[u8], is_behind: bool) -> bool {
        // Other lines than those with its id are only wanted of a worker that is known.
        let by_id = |request: &&OfRequest| is_behind || request.worker.is_none();
        let id = self.request.as_ref().filter(by_id).map(|request| &request.id);
        let mut patterns = self.pattern.iter().chain(id);
        patterns.all(|pattern| pattern.may_be_in(lines))
    }

    /// The time of a line that has just come, milliseconds since 1970, if the line is wanted.
    /// `levels`: of the file, which is given all its lines.
    pub fn matches(&self, fresh: &Fresh<'_>, levels: &mut Levels) -> Option<u64> {
        let Fresh { line, source, read_ms, now_ms } = *fresh;
        let own = || quick_stamp(line).map(|stamp| self.reading(&stamp, Some(now_ms)));
        let at_ms = read_ms.or_else(own).unwrap_or(now_ms);
        let is_in_time = match read_ms {
            Some(read_ms) => self.is_chunk_in_time(read_ms),
            None => self.is_in_time(at_ms),
        };
        let level = self.level.and_then(|_| levels.of(line, source));
        let is_wanted = is_in_time
            && self.is_of(source)
            && self.level.is_none_or(|least| level.is_some_and(|level| level >= least))
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_in(line));
        is_wanted.then_some(at_ms)
    }
}

/// A line that has just come.
#[derive(Debug, Clone, Copy)]
pub struct Fresh<'a> {
    /// The line, without its end.
    pub line: &'a [u8],
    /// Who wrote it, if the index says so.
    pub source: Option<&'a Source>,
    /// When its writer had written it, milliseconds since 1970, if the index says so.
    pub read_ms: Option<u64>,
    /// The time now: that of a line that says none.
    pub now_ms: u64,
}

/// True if a worker has this name, or belongs to what has it.
fn is_named(worker: &str, name: &str) -> bool {
    let short = worker.split_once('.').map_or(worker, |(_, short)| short);
    [worker, short].iter().any(|worker| {
        worker.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    })
}

/// In which order lines are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Oldest first; with a number, only the last so many.
    OldestFirst(Option<usize>),
    /// Newest first, each as soon as it is found; with a number, not more.
    NewestFirst(Option<usize>),
}

/// A line that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// The live file of its log.
    pub log: PathBuf,
    /// The line, without its end.
    pub bytes: Vec<u8>,
    /// When it was written, milliseconds since 1970, if that is known.
    pub at_ms: Option<u64>,
    /// Its level, or that of the line before it; only if a level was selected.
    pub level: Option<Level>,
    /// Who wrote it, if that is known.
    pub source: Option<Source>,
}

/// A file that could not be read, or not to its end. The search went on without the rest of it.
#[derive(Debug)]
pub struct Unread {
    /// The file: live, rotated or compressed.
    pub path: PathBuf,
    /// Why.
    pub error: io::Error,
}

impl Unread {
    /// `None` for a file that was removed meanwhile.
    pub(super) fn of(path: &Path, error: io::Error) -> Option<Self> {
        let path = path.to_owned();
        (error.kind() != io::ErrorKind::NotFound).then_some(Self { path, error })
    }
}

/// What a search has come to.
#[derive(Debug, Default)]
pub struct Searched {
    /// How many lines were given.
    pub count: usize,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

/// Gives the lines of these logs (their live files) that match, by time. `each` returns false to
/// end the search. A file that cannot be read hides no line of the others: see [`Unread`]; an
/// error means that a directory cannot be listed.
pub fn search(
    logs: &[PathBuf],
    selection: &Selection,
    order: Order,
    each: &mut dyn FnMut(Found) -> bool,
) -> io::Result<Searched> {
    match order {
        Order::OldestFirst(None) => merge(logs, selection, false, None, each),
        Order::NewestFirst(most) => merge(logs, selection, true, most, each),
        Order::OldestFirst(last) => {
            let mut found = VecDeque::new();
            let searched = merge(logs, selection, true, last, &mut |line| {
                found.push_front(line);
                true
            })?;
            found.into_iter().all(each);
            Ok(searched)
        }
    }
}

fn merge(
    logs: &[PathBuf],
    selection: &Selection,
    backwards: bool,
    most: Option<usize>,
    each: &mut dyn FnMut(Found) -> bool,
) -> io::Result<Searched> {
    let all = logs.iter().zip(files_of(logs)?);
    let open = |(log, files): (&PathBuf, _)| Cursor::new(log, files, selection, backwards);
    let mut cursors: Vec<Cursor<'_>> = all.map(open).collect();
    let mut count = 0;
    while most.is_none_or(|most| count < most) {
        let mut next: Option<(u64, usize)> = None;
        for (place, cursor) in cursors.iter_mut().enumerate() {
            let Some(at) = cursor.peek() else { continue };
            let is_first = match next {
                Some((other, _)) if backwards => at >= other,
                Some((other, _)) => at < other,
                None => true,
            };
            if is_first {
                next = Some((at, place));
            }
        }
        let Some(cursor) = next.map(|(_, place)| &mut cursors[place]) else { break };
        let log = cursor.log.clone();
        let Some(Hit { bytes, at_ms, level, source }) = cursor.take() else { break };
        count += 1;
        if !each(Found { log, bytes, at_ms, level, source }) {
            break;
        }
    }
    let unread = cursors.into_iter().flat_map(|cursor| cursor.unread).collect();
    Ok(Searched { count, unread })
}
