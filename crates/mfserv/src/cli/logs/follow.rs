//! New lines, as they come.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_logfile::{Index, Source, rotated};
use mfserv_node::places::Places;
use mfserv_telemetry::logs::{Order, Selection};
use mfserv_telemetry::{Follower, end_of_lines};

use super::show::Show;
use super::{LINES, Logs, each_log, find};
use crate::cli::output::is_lost;
use crate::cli::report::Outcome;

/// How often followed files are looked at.
const LOOK: Duration = Duration::from_millis(100);

/// A line that has come.
struct Fresh {
    path: PathBuf,
    inode: u64,
    offset: u64,
    line: Vec<u8>,
}

/// Shows the last lines, and those that come, until nobody reads any more.
pub fn run(
    logs: &Logs,
    places: &Places,
    mut selection: Selection,
    show: &mut Show,
) -> Result<Outcome, Diagnostic> {
    let files = logs.files(places)?;
    let ends: BTreeMap<PathBuf, u64> =
        files.iter().map(|file| (file.clone(), end_of_lines(file).unwrap_or(0))).collect();
    selection.ends.clone_from(&ends);
    let lines = logs.lines.unwrap_or(LINES);
    match logs.selects() {
        true => find(&files, &selection, Order::OldestFirst(Some(lines)), show)?,
        false => each_log(&files, &selection, lines, show)?,
    };
    let mut follower = Follower::new(ends);
    let until = selection.until_ms.unwrap_or(u64::MAX);
    while !is_lost() {
        for file in logs.files(places)? {
            follower.add(file);
        }
        let mut fresh = Vec::new();
        follower.poll_lines(&mut |path, inode, offset, line| {
            fresh.push(Fresh { path: path.to_owned(), inode, offset, line: line.to_owned() });
        });
        let now = jiff::Timestamp::now().as_millisecond() as u64;
        if now > until {
            break;
        }
        say(&fresh, &selection, show);
        std::thread::sleep(LOOK);
    }
    Ok(Outcome::Done)
}

fn say(fresh: &[Fresh], selection: &Selection, show: &Show) {
    let asks_for_sources =
        show.is_json() || selection.worker.is_some() || selection.release.is_some();
    let mut indexes: BTreeMap<(&Path, u64), Option<Index>> = BTreeMap::new();
    for Fresh { path, inode, offset, line } in fresh {
        let mut source = None;
        if asks_for_sources {
            let index = indexes.entry((path, *inode)).or_insert_with(|| index_of(path, *inode));
            source = index.as_ref().and_then(|index| source_at(index, *offset));
        }
        if selection.matches(line, source) {
            show.parts(path, line, None, source);
        }
    }
}

fn source_at(index: &Index, offset: u64) -> Option<&Source> {
    index.sources.get(index.chunk_at(offset)?.source?)
}

/// The index of a file that may have been rotated since it was read.
fn index_of(log: &Path, inode: u64) -> Option<Index> {
    let mut files = vec![log.to_owned()];
    files.extend(rotated(log).ok()?.into_iter().rev().take(2).map(|file| file.path));
    files.iter().find_map(|file| Index::read(file, Some(inode)))
}
