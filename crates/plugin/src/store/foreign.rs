//! What an app has made or changed in its release: found by comparing with how
//! the release was when it was whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use mfserv_core::Diagnostic;
use serde::{Deserialize, Serialize};

use super::persistent::{COMPANIONS, JOURNAL};
use super::staged::MARK;
use crate::generate::{CODE, MADE_BY_US};
use mfserv_platform::disk;

/// How a release was when it was whole; in the release.
pub(super) const RECORD: &str = ".mfserv-files.json";
/// How many files are named in a report.
const NAMED: usize = 5;
/// Directories that nobody writes data to: programs, and what they cache.
const NO_DATA_DIRS: &[&str] = &["__pycache__", ".cache"];
/// Files that nobody misses.
const NO_DATA: &[&str] = &[".committed", RECORD, JOURNAL, MARK, ".configuration_cache"];

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// By path: length, and modification time in nanoseconds.
    files: BTreeMap<String, (u64, i64)>,
}

/// Notes how a release is.
pub(super) fn record(release: &Path) -> Result<(), Diagnostic> {
    let record = Record { format: 1, files: files(release) };
    disk::write(&release.join(RECORD), &serde_json::to_vec(&record).unwrap_or_default())
}

/// The files that were made or changed in a release since it was whole, by path.
/// `None` when it is not known how it was.
pub fn foreign_files(release: &Path) -> Option<Vec<String>> {
    Some(changed(release, &recorded(release)?))
}

fn recorded(release: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(release.join(RECORD)).ok()?).ok()
}

fn changed(release: &Path, record: &Record) -> Vec<String> {
    let foreign =
        files(release).into_iter().filter(|(path, now)| record.files.get(path) != Some(now));
    foreign.map(|(path, _)| path).collect()
}

/// Says which files an app has left in a release, if it has.
pub(super) fn report(number: u32, release: &Path) -> Option<Diagnostic> {
    if !release.is_dir() {
        return None;
    }
    let Some(record) = recorded(release) else {
        return Some(
            Diagnostic::warning(format!("release {number} is kept: {}", release.display()))
                .because("it is not known which files the app has made in it"),
        );
    };
    let files = changed(release, &record);
    if files.is_empty() {
        return None;
    }
    let more = files.len().saturating_sub(NAMED);
    let mut names = files[..files.len() - more].join(", ");
    if more > 0 {
        names += &format!(" and {more} more");
    }
    Some(
        Diagnostic::warning(format!("the app has made or changed files in its release {number}: {names}"))
            .because(format!(
                "no other release has them; {} is kept until it is removed with --clean",
                release.display()
            ))
            .help(match kept_by(&files, &record) {
                // Made of an app, which has no configuration of its own.
                Some(paths) if is_made(release) => format!(
                    "`mfserv deploy DIR {paths}` keeps it for this and all later releases; or have the app \
                     write below MFSERV_CURRENT_PLUGIN_DATA_DIR"
                ),
                _ => "keep data in MFSERV_CURRENT_PLUGIN_DATA_DIR, or declare it: _persistent_paths=… in [general]".into(),
            }),
    )
}

/// The release is of an app that is no plugin: our own words begin its configuration.
pub(super) fn is_made(release: &Path) -> bool {
    let text = fs::read_to_string(release.join("config.ini")).unwrap_or_default();
    text.starts_with(MADE_BY_US)
}

/// The options of `mfserv deploy` that keep these files: for each the highest directory in which the
/// package has no file, since the app may make more beside it; else the file. A directory with files of
/// the package would have no new ones of later packages.
fn kept_by(files: &[String], record: &Record) -> Option<String> {
    let below = |path: &'_ String| path.strip_prefix(CODE)?.strip_prefix('/').map(str::to_string);
    let packed: BTreeSet<String> =
        record.files.keys().filter(|path| !is_placeholder(path)).filter_map(below).collect();
    let has_packed = |dir: &str| {
        let from = format!("{dir}/");
        packed.range(from.clone()..).next().is_some_and(|path| path.starts_with(&from))
    };
    let kept = |path: String| {
        let file = COMPANIONS[1..].iter().find_map(|end| path.strip_suffix(end)).unwrap_or(&path);
        let dirs = file.match_indices('/').map(|(at, _)| &file[..at]);
        let dir = dirs.into_iter().find(|dir| !has_packed(dir));
        dir.unwrap_or(file).to_string()
    };
    let paths: BTreeSet<String> = files.iter().filter_map(below).map(kept).collect();
    let options: Vec<String> =
        paths.iter().take(NAMED).map(|path| format!("--persist {path}")).collect();
    (!options.is_empty()).then(|| options.join(" "))
}

/// A file that only has git keep its directory.
fn is_placeholder(path: &str) -> bool {
    [".gitkeep", ".keep", ".gitignore"].iter().any(|name| path.ends_with(&format!("/{name}")))
}

/// Every file of a release that may be data. Compiled Python is not.
fn files(release: &Path) -> BTreeMap<String, (u64, i64)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![release.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                let local = dir == release && name == "local";
                if !local && !NO_DATA_DIRS.contains(&&*name.to_string_lossy()) {
                    todo.push(entry.path());
                }
                continue;
            }
            let path = entry.path();
            let path = path.strip_prefix(release).unwrap_or(&path).to_string_lossy().into_owned();
            // a link holds no data; one to the data directory is put there by a move
            if metadata.is_file() && !NO_DATA.contains(&path.as_str()) && !path.ends_with(".pyc") {
                let time = metadata
                    .mtime()
                    .wrapping_mul(1_000_000_000)
                    .wrapping_add(metadata.mtime_nsec());
                found.insert(path, (metadata.len(), time));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_names_data_and_no_directory_with_code() {
        let packed = ["main/src/app.py", "main/uploads/.gitkeep", "main/lib/x/y.py", "config.ini"];
        let files = packed.map(|path| (path.to_string(), (1, 1))).into();
        let record = Record { format: 1, files };
        for (made, options) in [
            ("main/src/instance/app.db", "--persist src/instance"),
            ("main/src/app.db-wal", "--persist src/app.db"),
            ("main/uploads/2026/a.png", "--persist uploads"),
            ("main/data/2026/a.png", "--persist data"),
            ("main/lib/z", "--persist lib/z"),
            ("main/app.db", "--persist app.db"),
        ] {
            assert_eq!(kept_by(&[made.to_string()], &record).as_deref(), Some(options), "{made}");
        }
        let made = ["main/app.db", "main/app.db-wal", "main/src/b"].map(String::from);
        assert_eq!(kept_by(&made, &record).as_deref(), Some("--persist app.db --persist src/b"));
        assert_eq!(kept_by(&["postinstall.log".to_string()], &record), None);
    }
}
