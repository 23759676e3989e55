//! The lines of one log, in the order of its files or against it.

use std::collections::VecDeque;
use std::io;
use std::ops::Range as Span;
use std::path::{Path, PathBuf};

use mfserv_logfile::Source;

use super::line::{Level, Stamp, quick_stamp, quick_time};
use super::messages::Messages;
use super::part::{FileOf, Part, Range};
use super::search::{At, Selection, Unread};

/// How much is read at a time.
const BLOCK: u64 = 1024 * 1024;
/// A line that is longer is taken apart.
const LINE_MAX: u64 = 16 * 1024 * 1024;
/// Behind the end of a request its id is looked for in so much of each log, bytes.
const BEHIND_MAX: usize = 64 * 1024 * 1024;
/// How far a block begins behind its first line, so that it does not begin in the middle of a
/// message of several lines, bytes.
const MESSAGE_MAX: usize = 256 * 1024;

/// A line that was found.
pub(super) struct Hit {
    pub bytes: Vec<u8>,
    pub at_ms: Option<u64>,
    pub level: Option<Level>,
    pub source: Option<Source>,
}

/// A line in a block.
struct Place {
    span: Span<usize>,
    at_ms: Option<u64>,
    level: Option<Level>,
}

struct Block {
    /// Where it begins in its file.
    offset: u64,
    bytes: Vec<u8>,
    lines: VecDeque<Place>,
}

/// Reads the lines of one log that match a selection.
pub(super) struct Cursor<'s> {
    pub log: PathBuf,
    selection: &'s Selection,
    backwards: bool,
    /// Files that are not open yet, the next one first.
    files: VecDeque<FileOf>,
    part: Option<Part>,
    block: Option<Block>,
    /// The time of the last line: a line without one has it too.
    last_ms: Option<u64>,
    messages: Messages,
    /// How much has been read behind the end of a request, bytes.
    behind: usize,
    /// What could not be read.
    pub unread: Vec<Unread>,
}

impl<'s> Cursor<'s> {
    /// `files`: those of the log, oldest first.
    pub fn new(
        log: &Path,
        mut files: Vec<FileOf>,
        selection: &'s Selection,
        backwards: bool,
    ) -> Self {
        let since = selection.since_ms.unwrap_or(0);
        // The clock of the file system is coarse.
        files.retain(|file| file.until_ms.saturating_add(1000) >= since);
        if backwards {
            files.reverse();
        }
        Self {
            log: log.to_owned(),
            selection,
            backwards,
            files: files.into(),
            part: None,
            block: None,
            last_ms: None,
            messages: Messages::of(log),
            behind: 0,
            unread: Vec::new(),
        }
    }

    /// The time of the next line.
    pub fn peek(&mut self) -> Option<u64> {
        loop {
            if let Some(block) = &self.block {
                let next = if self.backwards { block.lines.back() } else { block.lines.front() };
                if let Some(line) = next {
                    let of_file = self.part.as_ref().map_or(0, |part| part.until_ms);
                    return Some(line.at_ms.or(self.last_ms).unwrap_or(of_file));
                }
            }
            if !self.next_block() {
                return None;
            }
        }
    }

    /// The next line; [`Self::peek`] has said that there is one.
    pub fn take(&mut self) -> Option<Hit> {
        let (part, block) = (self.part.as_ref()?, self.block.as_mut()?);
        let lines = &mut block.lines;
        let line = if self.backwards { lines.pop_back() } else { lines.pop_front() }?;
        self.last_ms = line.at_ms.or(self.last_ms);
        let (source, _) = part.origin(block.offset + line.span.start as u64);
        Some(Hit {
            source: source.cloned(),
            at_ms: line.at_ms,
            level: line.level,
            bytes: block.bytes[line.span].to_vec(),
        })
    }

    /// Reads on to a block with lines that match; false at the end. What cannot be read is left
    /// out: a file, or what follows of it.
    fn next_block(&mut self) -> bool {
        self.block = None;
        loop {
            if self.part.as_ref().is_none_or(|part| part.ranges.is_empty()) {
                let Some(file) = self.files.pop_front() else { return false };
                self.messages.forget();
                self.part = match Part::open(&file, self.selection) {
                    Ok(part) => Some(part),
                    Err(error) => {
                        self.unread.extend(Unread::of(&file.path, error));
                        None
                    }
                };
                continue;
            }
            let Some(part) = &mut self.part else { continue };
            let read = match self.backwards {
                true => last_block(part),
                false => first_block(part),
            };
            let (block, range) = match read {
                Ok(read) => read,
                Err(error) => {
                    self.unread.extend(Unread::of(&part.path, error));
                    self.part = None;
                    continue;
                }
            };
            let is_behind = is_behind(part, &block, self.selection);
            if is_behind {
                self.behind += block.1.len();
                if self.behind > BEHIND_MAX {
                    self.files.clear();
                    self.part = None;
                    return false;
                }
            }
            if !self.selection.may_be_in(&block.1, is_behind) {
                self.messages.forget();
                continue;
            }
            if self.backwards {
                self.messages.forget();
            }
            let lines = self.lines_of(&block, range);
            if !lines.is_empty() {
                self.block = Some(Block { offset: block.0, bytes: block.1, lines });
                return true;
            }
        }
    }

    /// The lines of a block that match.
    fn lines_of(&mut self, (offset, bytes): &(u64, Vec<u8>), range: Range) -> VecDeque<Place> {
        let mut found = VecDeque::new();
        let Some(part) = &self.part else { return found };
        let selection = self.selection;
        let mut last_ms = None;
        let mut start = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let text = line.strip_suffix(b"\n").unwrap_or(line);
            let span = start..start + text.len();
            let (source, read) = part.origin(offset + start as u64);
            let read_ms = read.map(|read| read.at_ms);
            start += line.len();
            let stamp = read_ms.map(Stamp::from).or_else(|| quick_stamp(text));
            let at_ms = stamp.map(|stamp| selection.reading(&stamp, last_ms)).or(last_ms);
            last_ms = at_ms;
            let time = at_ms.unwrap_or(part.until_ms);
            if range.by_line && !selection.is_in_time(time) {
                continue;
            }
            let mut level = None;
            if selection.asks_for_messages() {
                let is_exact = read.is_none_or(|read| read.is_exact);
                let at = At { source, at_ms: time, is_exact };
                let Some(begun) = self.messages.next(text, source) else { continue };
                if !selection.has(text, &at, begun) {
                    continue;
                }
                level = Some(begun.level);
            }
            if selection.pattern.as_ref().is_none_or(|pattern| pattern.is_in(text)) {
                found.push_back(Place { span, at_ms, level });
            }
        }
        found
    }
}

type Read = ((u64, Vec<u8>), Range);

/// True if a block begins later than the lines that the worker of a request has said of it.
fn is_behind(part: &Part, (offset, bytes): &(u64, Vec<u8>), selection: &Selection) -> bool {
    let Some(request) = &selection.request else { return false };
    let first = || bytes.split(|byte| *byte == b'\n').next().and_then(quick_time);
    let at_ms = part.origin(*offset).1.map(|read| read.at_ms).or_else(first);
    at_ms.is_some_and(|at_ms| at_ms > request.until_ms())
}

/// Takes the first lines out of the first range.
fn first_block(part: &mut Part) -> io::Result<Read> {
    let range = part.ranges[0];
    let mut size = BLOCK;
    loop {
        let to = (range.from + size).min(range.to);
        let mut bytes = part.content.read(range.from, to)?;
        let is_all = to == range.to || bytes.len() as u64 != to - range.from;
        let end = memchr::memrchr(b'\n', &bytes).map_or(0, |end| end + 1);
        if !is_all && end == 0 && size < LINE_MAX {
            size *= 4;
            continue;
        }
        if !is_all && end > 0 {
            bytes.truncate(end);
        }
        part.ranges[0].from += bytes.len() as u64;
        if is_all || part.ranges[0].from >= range.to {
            part.ranges.pop_front();
        }
        return Ok(((range.from, bytes), range));
    }
}

/// Takes the last lines out of the last range.
fn last_block(part: &mut Part) -> io::Result<Read> {
    let Some(range) = part.ranges.pop_back() else { return Err(io::ErrorKind::NotFound.into()) };
    let mut size = BLOCK;
    loop {
        let from = range.to.saturating_sub(size).max(range.from);
        let mut bytes = part.content.read(from, range.to)?;
        let mut begin = 0;
        if from > range.from {
            let first = memchr::memchr(b'\n', &bytes).map(|end| end + 1);
            match first.filter(|first| *first < bytes.len()) {
                Some(first) => begin = first + behind_message(&bytes[first..]),
                None if size < LINE_MAX => {
                    size *= 4;
                    continue;
                }
                None => {}
            }
        }
        bytes.drain(..begin);
        let from = from + begin as u64;
        if from > range.from {
            part.ranges.push_back(Range { to: from, ..range });
        }
        return Ok(((from, bytes), range));
    }
}

/// Where the first line with a time or a level begins; 0 if there is none nearby.
fn behind_message(bytes: &[u8]) -> usize {
    let mut place = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if quick_time(line).is_some() || place > MESSAGE_MAX {
            break;
        }
        place += line.len();
    }
    if place > MESSAGE_MAX || place >= bytes.len() { 0 } else { place }
}
