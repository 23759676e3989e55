//! Batches that could not be sent, one file each, in a directory with a bound.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use super::influx::Batch;

/// The most bytes that are kept. Beyond it the oldest batches are dropped.
const BYTES_MAX: u64 = 64 << 20;

/// The directory.
pub struct Spool {
    dir: PathBuf,
    /// Files with their sizes, the oldest first.
    files: VecDeque<(PathBuf, u64)>,
    bytes: u64,
    next: u64,
    /// Batches that were dropped.
    pub dropped: u64,
}

impl Spool {
    /// Opens a directory, with what an earlier process has left in it.
    pub fn open(dir: PathBuf) -> Result<Self, Diagnostic> {
        disk::create_dir(&dir)?;
        disk::sweep_in(&dir);
        let entries = fs::read_dir(&dir).map_err(|why| disk::failed("read", &dir, why))?;
        let mut files: Vec<(PathBuf, u64)> = entries
            .flatten()
            .filter(|entry| number(&entry.path()).is_some())
            .map(|entry| (entry.path(), entry.metadata().map_or(0, |meta| meta.len())))
            .collect();
        files.sort();
        let next = files.last().and_then(|(path, _)| number(path)).map_or(0, |last| last + 1);
        let bytes = files.iter().map(|(_, size)| size).sum();
        Ok(Self { dir, files: files.into(), bytes, next, dropped: 0 })
    }

    /// Nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Keeps a batch.
    pub fn push(&mut self, batch: &Batch) -> io::Result<()> {
        let size = batch.lines.len() as u64;
        while self.bytes + size > BYTES_MAX {
            let Some((oldest, _)) = self.files.front().cloned() else { break };
            self.remove(&oldest);
            self.dropped += 1;
        }
        let path = self.dir.join(format!("{:016}-{}.lp", self.next, batch.resolution));
        disk::replace(&path, 0o600, batch.lines.as_bytes())?;
        self.next += 1;
        self.bytes += size;
        self.files.push_back((path, size));
        Ok(())
    }

    /// The oldest batch. A file that cannot be read is given up.
    pub fn oldest(&mut self) -> Option<(PathBuf, Batch)> {
        loop {
            let (path, _) = self.files.front()?.clone();
            let resolution = resolution(&path).map(str::to_string);
            match (fs::read_to_string(&path), resolution) {
                (Ok(lines), Some(resolution)) => return Some((path, Batch { resolution, lines })),
                _ => {
                    self.remove(&path);
                    self.dropped += 1;
                }
            }
        }
    }

    /// Forgets a batch.
    pub fn remove(&mut self, path: &Path) {
        if let Some(at) = self.files.iter().position(|(known, _)| known == path) {
            if let Some((_, size)) = self.files.remove(at) {
                self.bytes -= size;
            }
        }
        let _ = fs::remove_file(path);
    }
}

fn number(path: &Path) -> Option<u64> {
    path.file_stem()?.to_str()?.split_once('-')?.0.parse().ok()
}

fn resolution(path: &Path) -> Option<&str> {
    Some(path.file_stem()?.to_str()?.split_once('-')?.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: usize, size: usize) -> Batch {
        Batch { resolution: "medres".into(), lines: format!("{number} {}", "x".repeat(size)) }
    }

    #[test]
    fn what_is_kept_is_found_again_by_the_next_process_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let mut spool = Spool::open(path.clone()).unwrap();
        (0..12).for_each(|number| spool.push(&batch(number, 10)).unwrap());
        fs::write(path.join("not one of ours"), "x").unwrap();
        let mut spool = Spool::open(path).unwrap();
        for number in 0..12 {
            let (file, found) = spool.oldest().unwrap();
            assert_eq!(found, batch(number, 10));
            spool.remove(&file);
        }
        assert!(spool.is_empty() && spool.bytes == 0);
        spool.push(&batch(99, 1)).unwrap();
        assert_eq!(spool.oldest().unwrap().1, batch(99, 1));
    }

    #[test]
    fn beyond_the_bound_the_oldest_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path().into()).unwrap();
        (0..20).for_each(|number| spool.push(&batch(number, 4 << 20)).unwrap());
        assert!(spool.bytes <= BYTES_MAX);
        assert_eq!(spool.dropped, 5);
        assert!(spool.oldest().unwrap().1.lines.starts_with("5 "));
    }
}
