//! One file of a log, and which of its bytes are looked at.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use mfserv_logfile::{Chunk, Index, Rotated, Source, rotated_in};

use super::content::Content;
use super::line::{Stamp, quick_stamp};
use super::search::Selection;

/// How much is read to find a line with a time.
const PROBE: u64 = 64 * 1024;

/// A file of a log, not open.
#[derive(Debug, Clone)]
pub(super) struct FileOf {
    pub path: PathBuf,
    /// When it was last written to, milliseconds since 1970.
    pub until_ms: u64,
}

/// Bytes of a file that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub from: u64,
    pub to: u64,
    /// Each line is to be asked for its time.
    pub by_line: bool,
}

/// A file of a log, open.
pub(super) struct Part {
    pub path: PathBuf,
    pub content: Content,
    pub index: Option<Index>,
    pub ranges: VecDeque<Range>,
    pub until_ms: u64,
}

/// The files of each of these logs, oldest first. A directory is listed once for all its logs.
pub(super) fn files_of(logs: &[PathBuf]) -> io::Result<Vec<Vec<FileOf>>> {
    let mut listed: BTreeMap<PathBuf, BTreeMap<PathBuf, Vec<Rotated>>> = BTreeMap::new();
    let mut all = Vec::with_capacity(logs.len());
    for log in logs {
        let directory = log.parent().filter(|parent| !parent.as_os_str().is_empty());
        let directory = directory.unwrap_or(Path::new("."));
        if !listed.contains_key(directory) {
            listed.insert(directory.to_owned(), rotated_in(directory)?);
        }
        let live = directory.join(log.file_name().unwrap_or_default());
        let rotated = listed.get_mut(directory).and_then(|families| families.remove(&live));
        let rotated = rotated.unwrap_or_default().into_iter().map(|file| file.path);
        all.push(rotated.chain([log.to_owned()]).filter_map(file_at).collect());
    }
    Ok(all)
}

/// `None` if it was removed meanwhile.
fn file_at(path: PathBuf) -> Option<FileOf> {
    let modified = std::fs::metadata(&path).ok()?.modified().ok()?;
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(FileOf { path, until_ms: since.as_millis() as u64 })
}

impl Part {
    /// Opens a file, and finds the ranges that may have lines of a selection.
    pub fn open(file: &FileOf, selection: &Selection) -> io::Result<Self> {
        let mut content = Content::open(&file.path)?;
        if let Some(end) = selection.ends.get(&file.path) {
            content.end_at(*end);
        }
        let inode = match &content {
            Content::Plain(..) => std::fs::metadata(&file.path).ok().map(|found| found.ino()),
            Content::Packed(_) => None,
        };
        let index = index_of(&file.path, inode, selection);
        let ranges = match &index {
            Some(index) => indexed(index, content.len(), selection).into(),
            None if selection.worker.is_some() || selection.release.is_some() => VecDeque::new(),
            None => [timed(&mut content, selection)?].into(),
        };
        Ok(Self { path: file.path.clone(), content, index, ranges, until_ms: file.until_ms })
    }

    /// Who has written a byte, and the chunk that it was read with, if the time of that is known.
    pub fn origin(&self, offset: u64) -> (Option<&Source>, Option<&Chunk>) {
        let Some(index) = &self.index else { return (None, None) };
        let Some(chunk) = index.chunk_at(offset) else { return (None, None) };
        let source = chunk.source.and_then(|place| index.sources.get(place));
        (source, Some(chunk).filter(|chunk| chunk.at_ms > 0))
    }
}

/// The index of a file. That of an access log has a worker for each line: it is read where
/// workers are asked for.
fn index_of(file: &Path, inode: Option<u64>, selection: &Selection) -> Option<Index> {
    let index = Index::read(file, inode)?;
    match index.chunks.is_empty() {
        true if selection.worker.is_some() || selection.release.is_some() => {
            Index::read_requests(file, inode).filter(|index| !index.chunks.is_empty())
        }
        true => None,
        false => Some(index),
    }
}

/// What an index says about where the lines are.
fn indexed(index: &Index, length: u64, selection: &Selection) -> Vec<Range> {
    let wanted: Vec<bool> = index.sources.iter().map(|it| selection.is_of(Some(it))).collect();
    let of_nobody = selection.is_of(None);
    let mut ranges: Vec<Range> = Vec::new();
    let first = index.chunks.first().map_or(length, |chunk| chunk.offset).min(length);
    if of_nobody && first > 0 {
        ranges.push(Range { from: 0, to: first, by_line: true });
    }
    for (at, chunk) in index.chunks.iter().enumerate() {
        let to = index.chunks.get(at + 1).map_or(length, |next| next.offset).min(length);
        let is_known = chunk.at_ms > 0;
        let is_in_time = !is_known || selection.is_chunk_in_time(chunk.at_ms);
        let is_wanted = chunk.source.map_or(of_nobody, |place| wanted[place]);
        if !is_in_time || !is_wanted || chunk.offset >= to {
            continue;
        }
        match ranges.last_mut() {
            Some(last) if last.to == chunk.offset && last.by_line != is_known => last.to = to,
            _ => ranges.push(Range { from: chunk.offset, to, by_line: !is_known }),
        }
    }
    ranges
}

/// Where the lines of a time are in a file without an index.
fn timed(content: &mut Content, selection: &Selection) -> io::Result<Range> {
    let length = content.len();
    let by_line = selection.since_ms.is_some() || selection.until_ms.is_some();
    let from = match selection.since_ms {
        Some(since) => place_of(content, since, length, Stamp::latest)?.0,
        None => 0,
    };
    let to = match selection.until_ms {
        Some(until) => place_of(content, until + 1000, length, |stamp| stamp.at_ms)?.1,
        None => length,
    };
    Ok(Range { from, to: to.max(from), by_line })
}

/// The lines that are as old as this begin between these two places. `reading`: how a time is
/// read that comes twice; with the latest the first place is never too late, with the earliest the
/// second never too early.
fn place_of(
    content: &mut Content,
    at_ms: u64,
    length: u64,
    reading: fn(&Stamp) -> u64,
) -> io::Result<(u64, u64)> {
    let (mut low, mut high) = (0, length);
    while high - low > 2 * PROBE {
        let middle = low + (high - low) / 2;
        let bytes = content.read(middle, (middle + PROBE).min(high))?;
        let mut place = middle;
        let mut found = None;
        // The first piece may be the end of a line.
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if place > middle {
                found = quick_stamp(line).map(|stamp| (place, reading(&stamp)));
            }
            if found.is_some() {
                break;
            }
            place += line.len() as u64;
        }
        match found {
            Some((place, time)) if time < at_ms => low = place,
            Some((place, _)) => high = if place < high { place } else { middle },
            // Lines without a time: nothing is known of this half.
            None => return Ok((low, high)),
        }
    }
    Ok((low, high))
}
