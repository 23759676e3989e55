//! New lines, as they come.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_logfile::{Index, rotated};
use mfserv_node::places::Places;
use mfserv_telemetry::logs::{Fresh, Messages, Order, Selection};
use mfserv_telemetry::{Follower, end_of_lines};

use super::names::Meant;
use super::show::Show;
use super::{LINES, Logs, each_log, files, find};
use crate::cli::output::is_lost;
use crate::cli::report::Outcome;

/// How often followed files are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Lines are written to their logs so much later than they are read, at most, milliseconds.
const LATE_MS: u64 = 1000;

/// A line that has come.
struct Line {
    path: PathBuf,
    inode: u64,
    offset: u64,
    bytes: Vec<u8>,
}

/// Shows the last lines, and those that come, until nobody reads any more.
pub fn run(
    logs: &Logs,
    places: &Places,
    meant: &Meant,
    mut selection: Selection,
    show: &Show,
) -> Result<Outcome, Diagnostic> {
    let past = files(places, meant)?;
    let ends: BTreeMap<PathBuf, u64> =
        past.iter().map(|file| (file.clone(), end_of_lines(file).unwrap_or(0))).collect();
    selection.ends.clone_from(&ends);
    // Before the past is shown, which may take long: it keeps files that are rotated meanwhile.
    let mut follower = Follower::new(ends);
    match logs.selects() {
        true => find(&past, &selection, Order::OldestFirst(logs.lines), show)?,
        false => each_log(&past, &selection, logs.lines.unwrap_or(LINES), show)?,
    };
    let end_ms = selection.until_ms.map_or(u64::MAX, |until| until.saturating_add(LATE_MS));
    let mut messages = BTreeMap::new();
    while !is_lost() {
        let now_ms = jiff::Timestamp::now().as_millisecond() as u64;
        for file in files(places, meant)? {
            follower.add(file);
        }
        let mut lines = Vec::new();
        follower.poll_lines(&mut |path, inode, offset, line| {
            lines.push(Line { path: path.to_owned(), inode, offset, bytes: line.to_owned() });
        });
        say(&lines, now_ms, &selection, &mut messages, show);
        if now_ms > end_ms {
            break;
        }
        std::thread::sleep(LOOK);
    }
    Ok(Outcome::Done)
}

/// Shows the lines that are wanted. `messages`: of each file, from poll to poll.
fn say(
    lines: &[Line],
    now_ms: u64,
    selection: &Selection,
    messages: &mut BTreeMap<PathBuf, (u64, Messages)>,
    show: &Show,
) {
    let asks_the_index = show.is_json() || selection.asks_the_index();
    let mut indexes: BTreeMap<(&Path, u64), Option<Index>> = BTreeMap::new();
    for Line { path, inode, offset, bytes } in lines {
        let mut fresh = Fresh { line: bytes, source: None, read_ms: None, now_ms };
        if asks_the_index {
            let index = indexes.entry((path, *inode)).or_insert_with(|| index_of(path, *inode));
            let chunk = index.as_ref().and_then(|index| Some((index, index.chunk_at(*offset)?)));
            if let Some((index, chunk)) = chunk {
                fresh.source = chunk.source.and_then(|place| index.sources.get(place));
                fresh.read_ms = Some(chunk.at_ms).filter(|at| *at > 0);
            }
        }
        let begin = || (*inode, Messages::of(path));
        let (of, messages) = messages.entry(path.clone()).or_insert_with(begin);
        if std::mem::replace(of, *inode) != *inode {
            messages.forget();
        }
        if let Some((at_ms, level)) = selection.matches(&fresh, messages) {
            let level = Some(level).filter(|_| selection.wants_level);
            show.parts(path, bytes, (Some(at_ms), level), fresh.source);
        }
    }
}

/// The index of a file that may have been rotated since it was read.
fn index_of(log: &Path, inode: u64) -> Option<Index> {
    let mut files = vec![log.to_owned()];
    files.extend(rotated(log).ok()?.into_iter().rev().take(2).map(|file| file.path));
    files.iter().find_map(|file| Index::read(file, Some(inode)))
}
