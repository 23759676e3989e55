//! Directories that inotify has no room for: they are polled each second.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Change;
use tokio::time::Instant;

/// How often the directories are polled.
const EVERY: Duration = Duration::from_secs(1);
/// Polling takes at most one fiftieth of the time: the pause grows with its duration.
const SHARE: u32 = 50;
/// The most directories that are polled.
const MOST: usize = 2_000;

/// A file at the last poll: inode, size, time of modification (s, ns), whether it is a directory.
type Entry = (u64, u64, i64, i64, bool);

/// The polled directories, with their entries at the last poll.
#[derive(Default)]
pub struct PolledDirectories {
    dirs: BTreeMap<PathBuf, BTreeMap<OsString, Entry>>,
    next: Option<Instant>,
}

impl PolledDirectories {
    /// Polls this directory too. False if there are too many.
    pub fn add(&mut self, dir: &Path) -> bool {
        if self.dirs.len() >= MOST {
            return false;
        }
        if let Some(entries) = entries(dir) {
            self.dirs.insert(dir.to_owned(), entries);
            self.next.get_or_insert_with(|| Instant::now() + EVERY);
        }
        true
    }

    /// Stops polling a directory and the directories below it.
    pub fn remove_below(&mut self, dir: &Path) {
        self.dirs.retain(|path, _| !path.starts_with(dir));
    }

    /// Whether this directory is polled.
    pub fn has(&self, dir: &Path) -> bool {
        self.dirs.contains_key(dir)
    }

    /// The number of polled directories.
    pub fn len(&self) -> usize {
        self.dirs.len()
    }

    /// The time of the next poll.
    pub fn next(&self) -> Instant {
        self.next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    /// Polls, and returns what has changed since the last poll.
    pub fn poll(&mut self) -> Vec<Change> {
        let began = Instant::now();
        let mut changes = Vec::new();
        let mut gone = Vec::new();
        for (dir, known) in &mut self.dirs {
            let Some(now) = entries(dir) else {
                gone.push(dir.clone());
                continue;
            };
            for (name, entry) in &now {
                if known.get(name) != Some(entry) {
                    let added = known.get(name).is_none_or(|old| old.0 != entry.0);
                    match entry.4 {
                        true if added => changes.push(Change::DirectoryAdded(dir.join(name))),
                        // A known directory is polled by itself.
                        true => {}
                        false => changes.push(Change::File(dir.join(name))),
                    }
                }
            }
            for (name, entry) in known.iter().filter(|(name, _)| !now.contains_key(*name)) {
                changes.push(match entry.4 {
                    true => Change::DirectoryRemoved(dir.join(name)),
                    false => Change::File(dir.join(name)),
                });
            }
            *known = now;
        }
        for dir in gone {
            self.remove_below(&dir);
            changes.push(Change::DirectoryRemoved(dir));
        }
        let pause = EVERY.max(began.elapsed() * SHARE);
        self.next = (!self.dirs.is_empty()).then(|| Instant::now() + pause);
        changes
    }
}

fn entries(dir: &Path) -> Option<BTreeMap<OsString, Entry>> {
    let read = std::fs::read_dir(dir).ok()?;
    let seen = read.flatten().filter_map(|entry| {
        let meta = entry.metadata().ok()?;
        let file = (meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec(), meta.is_dir());
        Some((entry.file_name(), file))
    });
    Some(seen.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_change_is_seen_by_polling() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let path = |name: &str| dir.join(name);
        std::fs::write(path("kept"), "1").unwrap();
        std::fs::write(path("gone"), "1").unwrap();
        std::fs::create_dir(path("moved")).unwrap();
        let mut polled = PolledDirectories::default();
        assert!(polled.add(dir) && polled.has(dir));
        assert_eq!(polled.poll(), []);
        std::fs::write(path("kept"), "22").unwrap();
        std::fs::remove_file(path("gone")).unwrap();
        std::fs::rename(path("moved"), path("sub")).unwrap();
        std::fs::write(path("sub/x"), "1").unwrap();
        let mut changes = polled.poll();
        changes.sort_by_key(|change| format!("{change:?}"));
        let expected = [
            Change::DirectoryAdded(path("sub")),
            Change::DirectoryRemoved(path("moved")),
            Change::File(path("gone")),
            Change::File(path("kept")),
        ];
        assert_eq!(changes, expected);
        std::fs::remove_dir_all(dir).unwrap();
        assert_eq!(polled.poll(), [Change::DirectoryRemoved(dir.to_owned())]);
        assert_eq!(polled.len(), 0);
    }
}
