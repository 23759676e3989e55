//! Searching several logs at once.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use mfserv_logfile::Source;

use super::cursor::{Cursor, Hit};
use super::line::{Level, Stamp, quick_stamp, request_id_of};
use super::messages::{Begun, Messages, Seen};
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
    /// At least as severe. A line without a level has that of the message which it continues (a
    /// traceback), else the usual one of its log.
    pub level: Option<Level>,
    /// The level of each line that is found is wanted.
    pub wants_level: bool,
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

/// A program's own time counts where it is at most so much older than that of its reading,
/// milliseconds.
const LATE_MS: u64 = 5000;

/// The lines of one message are read within this time, milliseconds.
const TOGETHER_MS: u64 = 5;

/// The lines of a request: those that name its id, and those that its workers have written while
/// they had it, unless they name another request.
pub struct OfRequest {
    /// The id.
    pub id: Pattern,
    /// The workers that had the request.
    pub workers: Vec<OfWorker>,
}

/// When a worker had a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OfWorker {
    /// The worker: `app.foo.main.1.7`.
    pub worker: String,
    /// Its lines since then, milliseconds since 1970.
    pub from_ms: u64,
    /// Its lines up to then, milliseconds since 1970.
    pub until_ms: u64,
}

impl OfRequest {
    /// Whether a line belongs to it. `begun`: the message that the line begins or continues.
    fn has(&self, line: &[u8], at: &At<'_>, begun: &mut Begun) -> bool {
        // What was written together belongs together, whatever the times are.
        let soon = |seen: &Seen| at.at_ms.abs_diff(seen.at_ms) <= TOGETHER_MS;
        let at_once = |seen: &Seen| at.at_ms == seen.at_ms;
        let of_message = begun.last.filter(soon).or(begun.before.filter(at_once));
        let is_of_request = match of_message {
            _ if self.id.is_in(line) => true,
            Some(seen) => seen.is_of_request,
            None => request_id_of(line).is_none() && self.is_of_worker(line, at),
        };
        begun.last = Some(Seen { is_of_request, at_ms: at.at_ms });
        is_of_request
    }

    fn is_of_worker(&self, line: &[u8], at: &At<'_>) -> bool {
        let Some(source) = at.source else { return false };
        let own = quick_stamp(line).filter(|stamp| stamp.is_exact);
        let own = own.map(|stamp| stamp.near(Some(at.at_ms)));
        let own = own.filter(|own| *own <= at.at_ms + LATE_MS && own + LATE_MS >= at.at_ms);
        // What was read together may have been written a little later than the time says.
        let (first, last) = match own {
            Some(own) => (own, own),
            None => (at.at_ms, at.at_ms + if at.is_exact { 0 } else { CHUNK_MS }),
        };
        let mut workers = self.workers.iter().filter(|it| source.worker == it.worker);
        workers.any(|it| last >= it.from_ms && first <= it.until_ms)
    }

    /// After that only lines that name the id belong to it, milliseconds since 1970.
    pub(super) fn until_ms(&self) -> u64 {
        self.workers.iter().map(|worker| worker.until_ms).max().unwrap_or(0)
    }
}

/// Where a line comes from, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct At<'a> {
    pub source: Option<&'a Source>,
    pub at_ms: u64,
    /// The time is that of the line; else the line may be [`CHUNK_MS`] younger.
    pub is_exact: bool,
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

    /// True if the messages that lines belong to have to be known.
    pub(super) fn asks_for_messages(&self) -> bool {
        self.level.is_some() || self.wants_level || self.request.is_some()
    }

    /// True if a line is wanted, as far as level and request are selected.
    pub(super) fn has(&self, line: &[u8], at: &At<'_>, begun: &mut Begun) -> bool {
        let is_severe = self.level.is_none_or(|least| begun.level >= least);
        // The request is looked at in any case: later lines of the message have what is found.
        let is_of_request = self.request.as_ref().is_none_or(|it| it.has(line, at, begun));
        is_severe && is_of_request
    }

    /// False if certainly none of these lines has what is wanted. `is_behind`: they are later
    /// than what the worker of a request has said of it.
    pub(super) fn may_be_in(&self, lines: &[u8], is_behind: bool) -> bool {
        // Other lines than those with its id are only wanted of a worker that is known.
        let by_id = |request: &&OfRequest| is_behind || request.workers.is_empty();
        let id = self.request.as_ref().filter(by_id).map(|request| &request.id);
        let mut patterns = self.pattern.iter().chain(id);
        patterns.all(|pattern| pattern.may_be_in(lines))
    }

    /// The time of a line that has just come, milliseconds since 1970, and its level, if the line
    /// is wanted. `messages`: of the file, which is given all its lines.
    pub fn matches(&self, fresh: &Fresh<'_>, messages: &mut Messages) -> Option<(u64, Level)> {
        let Fresh { line, source, read_ms, now_ms } = *fresh;
        let own = || quick_stamp(line).map(|stamp| self.reading(&stamp, Some(now_ms)));
        let at_ms = read_ms.or_else(own).unwrap_or(now_ms);
        let is_in_time = match read_ms {
            Some(read_ms) => self.is_chunk_in_time(read_ms),
            None => self.is_in_time(at_ms),
        };
        let level = messages.next(line, source)?.level;
        let is_wanted = is_in_time
            && self.is_of(source)
            && self.level.is_none_or(|least| level >= least)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_in(line));
        is_wanted.then_some((at_ms, level))
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
    /// Its level, or that of the message which it continues, or the usual one of its log; only if
    /// levels were asked for.
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
