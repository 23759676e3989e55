//! Directories that inotify has no room for: looked at each second.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Change;
use tokio::time::Instant;

/// How often they are looked at.
const EVERY: Duration = Duration::from_secs(1);
/// The share of the time that looking may take: a fiftieth.
const SHARE: u32 = 50;
/// The most directories.
const MOST: usize = 2_000;

/// A file as it was: inode, size, when it was changed (s, ns); whether it is a directory.
type Entry = (u64, u64, i64, i64, bool);

/// Directories as they were.
#[derive(Default)]
pub struct Looking {
    dirs: BTreeMap<PathBuf, BTreeMap<OsString, Entry>>,
    next: Option<Instant>,
}

impl Looking {
    /// Looks at this one too; false if there are too many.
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

    /// Looks no longer at a directory and what is below it.
    pub fn remove_below(&mut self, dir: &Path) {
        self.dirs.retain(|path, _| !path.starts_with(dir));
    }

    /// This one is among them.
    pub fn has(&self, dir: &Path) -> bool {
        self.dirs.contains_key(dir)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.dirs.len()
    }

    /// When to look again.
    pub fn next(&self) -> Instant {
        self.next.unwrap_or_else(|| Instant::now() + Duration::from_secs(3600))
    }

    /// What has changed since the last look.
    pub fn look(&mut self) -> Vec<Change> {
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
                    let came = known.get(name).is_none_or(|old| old.0 != entry.0);
                    match entry.4 {
                        true if came => changes.push(Change::DirectoryCame(dir.join(name))),
                        // What is in it is looked at by itself.
                        true => {}
                        false => changes.push(Change::File(dir.join(name))),
                    }
                }
            }
            for (name, entry) in known.iter().filter(|(name, _)| !now.contains_key(*name)) {
                changes.push(match entry.4 {
                    true => Change::DirectoryGone(dir.join(name)),
                    false => Change::File(dir.join(name)),
                });
            }
            *known = now;
        }
        for dir in gone {
            self.remove_below(&dir);
            changes.push(Change::DirectoryGone(dir));
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
    fn every_kind_of_change_is_seen_by_looking() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let path = |name: &str| dir.join(name);
        std::fs::write(path("kept"), "1").unwrap();
        std::fs::write(path("gone"), "1").unwrap();
        std::fs::create_dir(path("moved")).unwrap();
        let mut looking = Looking::default();
        assert!(looking.add(dir) && looking.has(dir));
        assert_eq!(looking.look(), []);
        std::fs::write(path("kept"), "22").unwrap();
        std::fs::remove_file(path("gone")).unwrap();
        std::fs::rename(path("moved"), path("sub")).unwrap();
        std::fs::write(path("sub/x"), "1").unwrap();
        let mut changes = looking.look();
        changes.sort_by_key(|change| format!("{change:?}"));
        let expected = [
            Change::DirectoryCame(path("sub")),
            Change::DirectoryGone(path("moved")),
            Change::File(path("gone")),
            Change::File(path("kept")),
        ];
        assert_eq!(changes, expected);
        std::fs::remove_dir_all(dir).unwrap();
        assert_eq!(looking.look(), [Change::DirectoryGone(dir.to_owned())]);
        assert_eq!(looking.len(), 0);
    }
}
