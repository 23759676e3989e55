//! Searching several logs at once.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;

use mfserv_logfile::Source;

use super::cursor::{Cursor, Hit};
use super::line::{Level, facts};
use super::part::files_of;
use super::pattern::Pattern;

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

    /// True if lines of this time are wanted.
    pub fn is_in_time(&self, at_ms: u64) -> bool {
        self.since_ms.is_none_or(|since| at_ms >= since)
            && self.until_ms.is_none_or(|until| at_ms <= until)
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

    /// True if this line is wanted, whatever its time.
    pub fn matches(&self, line: &[u8], source: Option<&Source>) -> bool {
        let is_severe = |least: Level| facts(line).level.is_some_and(|level| level >= least);
        self.is_of(source)
            && self.level.is_none_or(is_severe)
            && self.pattern.as_ref().is_none_or(|pattern| pattern.is_in(line))
    }
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

/// Gives the lines of these logs (their live files) that match, by time; returns how many.
/// `each` returns false to end the search.
pub fn search(
    logs: &[PathBuf],
    selection: &Selection,
    order: Order,
    each: &mut dyn FnMut(Found) -> bool,
) -> io::Result<usize> {
    match order {
        Order::OldestFirst(None) => merge(logs, selection, false, None, each),
        Order::NewestFirst(most) => merge(logs, selection, true, most, each),
        Order::OldestFirst(last) => {
            let mut found = VecDeque::new();
            merge(logs, selection, true, last, &mut |line| {
                found.push_front(line);
                true
            })?;
            let count = found.len();
            found.into_iter().all(each);
            Ok(count)
        }
    }
}

fn merge(
    logs: &[PathBuf],
    selection: &Selection,
    backwards: bool,
    most: Option<usize>,
    each: &mut dyn FnMut(Found) -> bool,
) -> io::Result<usize> {
    let all = logs.iter().zip(files_of(logs)?);
    let open = |(log, files): (&PathBuf, _)| Cursor::new(log, files, selection, backwards);
    let mut cursors: Vec<Cursor<'_>> = all.map(open).collect();
    let mut count = 0;
    while most.is_none_or(|most| count < most) {
        let mut next: Option<(u64, usize)> = None;
        for (place, cursor) in cursors.iter_mut().enumerate() {
            let Some(at) = cursor.peek()? else { continue };
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
    Ok(count)
}
