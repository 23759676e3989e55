//! Batches that wait to be sent: the newest in memory, the others in a directory, one file
//! each. Both together have a bound.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use super::basicstats::{FULLRES, RESOLUTIONS, known_resolution};

/// The most bytes that are kept. Beyond it the oldest batches are dropped.
const BYTES_MAX: u64 = 64 << 20;
/// The most batches that are kept in memory.
const IN_MEMORY_MAX: usize = 16;

/// Lines for one resolution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The resolution, which is the retention policy of InfluxDB 1.x.
    pub resolution: &'static str,
    /// The lines.
    pub lines: String,
}

/// Batches that wait.
pub struct Spool {
    dir: PathBuf,
    /// The oldest first.
    waiting: VecDeque<Waiting>,
    bytes: u64,
    next: u64,
    /// Batches that were dropped.
    pub dropped: u64,
    /// Batches that InfluxDB has refused, in whole or in part.
    pub refused: u64,
}

struct Waiting {
    number: u64,
    resolution: &'static str,
    size: u64,
    place: Place,
}

enum Place {
    Memory(String),
    File(PathBuf),
}

impl Spool {
    /// Opens a directory, with what an earlier process has left in it.
    pub fn open(dir: PathBuf) -> Result<Self, Diagnostic> {
        disk::create_dir(&dir)?;
        disk::sweep_in(&dir);
        let entries = fs::read_dir(&dir).map_err(|why| disk::failed("read", &dir, why))?;
        let mut waiting: Vec<Waiting> =
            entries.flatten().filter_map(|entry| found(&entry)).collect();
        waiting.sort_by_key(|it| it.number);
        let next = waiting.last().map_or(0, |last| last.number + 1);
        let bytes = waiting.iter().map(|it| it.size).sum();
        Ok(Self { dir, waiting: waiting.into(), bytes, next, dropped: 0, refused: 0 })
    }

    /// The resolutions that batches wait for.
    pub fn resolutions(&self) -> Vec<&'static str> {
        let waits = |resolution: &&str| self.waiting.iter().any(|it| it.resolution == *resolution);
        RESOLUTIONS.iter().map(|(resolution, _)| *resolution).filter(waits).collect()
    }

    /// Keeps a batch.
    ///
    /// # Errors
    /// What the disk says when too many batches are in memory. The oldest of them are dropped then.
    pub fn push(&mut self, batch: Batch) -> io::Result<()> {
        let size = batch.lines.len() as u64;
        while self.bytes + size > BYTES_MAX && !self.waiting.is_empty() {
            self.drop_at(0);
        }
        let (resolution, place) = (batch.resolution, Place::Memory(batch.lines));
        self.waiting.push_back(Waiting { number: self.next, resolution, size, place });
        self.next += 1;
        self.bytes += size;
        if self.in_memory().count() <= IN_MEMORY_MAX {
            return Ok(());
        }
        let stored = self.store();
        while self.in_memory().count() > IN_MEMORY_MAX {
            let Some(oldest) = self.in_memory().next() else { break };
            self.drop_at(oldest);
        }
        stored
    }

    /// Writes what is in memory to the directory, so that the next process finds it.
    ///
    /// # Errors
    /// What the disk says: the rest stays in memory.
    pub fn store(&mut self) -> io::Result<()> {
        for waiting in &mut self.waiting {
            let Place::Memory(lines) = &waiting.place else { continue };
            let path = self.dir.join(format!("{:016}-{}.lp", waiting.number, waiting.resolution));
            disk::replace(&path, 0o600, lines.as_bytes())?;
            waiting.place = Place::File(path);
        }
        Ok(())
    }

    /// The number and the lines of the oldest batch of a resolution, which stays until it is
    /// [removed](Self::remove). A file that cannot be read is given up.
    pub fn oldest(&mut self, resolution: &str) -> Option<(u64, Batch)> {
        loop {
            let at = self.waiting.iter().position(|it| it.resolution == resolution)?;
            let waiting = &self.waiting[at];
            let lines = match &waiting.place {
                Place::Memory(lines) => Ok(lines.clone()),
                Place::File(path) => fs::read_to_string(path),
            };
            match lines {
                Ok(lines) => {
                    let batch = Batch { resolution: waiting.resolution, lines };
                    return Some((waiting.number, batch));
                }
                Err(_) => self.drop_at(at),
            }
        }
    }

    /// Forgets a batch.
    pub fn remove(&mut self, number: u64) {
        if let Some(at) = self.waiting.iter().position(|it| it.number == number) {
            self.forget(at);
        }
    }

    fn in_memory(&self) -> impl Iterator<Item = usize> + '_ {
        let is_there = |waiting: &Waiting| matches!(waiting.place, Place::Memory(_));
        (0..self.waiting.len()).filter(move |at| is_there(&self.waiting[*at]))
    }

    fn drop_at(&mut self, at: usize) {
        self.forget(at);
        self.dropped += 1;
    }

    fn forget(&mut self, at: usize) {
        let Some(waiting) = self.waiting.remove(at) else { return };
        self.bytes -= waiting.size;
        if let Place::File(path) = waiting.place {
            let _ = fs::remove_file(path);
        }
    }
}

/// A batch of an earlier process.
fn found(entry: &fs::DirEntry) -> Option<Waiting> {
    let path = entry.path();
    let (number, resolution) = named(&path)?;
    let size = entry.metadata().map_or(0, |meta| meta.len());
    Some(Waiting { number, resolution, size, place: Place::File(path) })
}

/// The number and the resolution in the name of a file.
fn named(path: &Path) -> Option<(u64, &'static str)> {
    let (number, resolution) = path.file_stem()?.to_str()?.split_once('-')?;
    Some((number.parse().ok()?, known_resolution(resolution).unwrap_or(FULLRES)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: usize, size: usize) -> Batch {
        Batch { resolution: "medres", lines: format!("{number} {}", "x".repeat(size)) }
    }

    fn files(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn what_is_stored_is_found_again_by_the_next_process_oldest_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let mut spool = Spool::open(path.clone()).unwrap();
        (0..12).for_each(|number| spool.push(batch(number, 10)).unwrap());
        assert_eq!(files(&path), 0, "a few batches need no disk");
        spool.store().unwrap();
        fs::write(path.join("not one of ours"), "x").unwrap();
        let mut spool = Spool::open(path.clone()).unwrap();
        assert_eq!(spool.oldest("fullres"), None);
        for number in 0..12 {
            assert_eq!(spool.resolutions(), ["medres"]);
            let (file, found) = spool.oldest("medres").unwrap();
            assert_eq!(found, batch(number, 10));
            spool.remove(file);
        }
        assert!(spool.resolutions().is_empty() && spool.bytes == 0);
        assert_eq!(files(&path), 1);
        spool.push(batch(99, 1)).unwrap();
        assert_eq!(spool.oldest("medres").unwrap().1, batch(99, 1));
    }

    #[test]
    fn batches_that_wait_for_long_go_to_the_disk_and_none_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path().into()).unwrap();
        (0..40).for_each(|number| spool.push(batch(number, 10)).unwrap());
        assert!(files(dir.path()) >= 40 - IN_MEMORY_MAX);
        for number in 0..40 {
            let (file, found) = spool.oldest("medres").unwrap();
            assert_eq!(found, batch(number, 10));
            spool.remove(file);
        }
        assert_eq!((files(dir.path()), spool.dropped), (0, 0));
    }

    #[test]
    fn without_a_disk_the_newest_batches_stay_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("spool");
        let mut spool = Spool::open(path.clone()).unwrap();
        fs::remove_dir(path).unwrap();
        let failed = (0..IN_MEMORY_MAX + 4).filter(|n| spool.push(batch(*n, 10)).is_err()).count();
        assert_eq!((failed, spool.dropped), (4, 4));
        assert_eq!(spool.oldest("medres").unwrap().1, batch(4, 10));
    }

    #[test]
    fn beyond_the_bound_the_oldest_are_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let mut spool = Spool::open(dir.path().into()).unwrap();
        (0..20).for_each(|number| spool.push(batch(number, 4 << 20)).unwrap());
        assert!(spool.bytes <= BYTES_MAX);
        assert_eq!(spool.dropped, 5);
        assert!(spool.oldest("medres").unwrap().1.lines.starts_with("5 "));
    }

    #[test]
    fn a_file_for_a_resolution_that_is_none_counts_as_fullres() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("0000000000000007-my&rp.lp"), "m f=1 1\n").unwrap();
        let mut spool = Spool::open(dir.path().into()).unwrap();
        let lines = "m f=1 1\n".into();
        assert_eq!(spool.oldest(FULLRES).unwrap(), (7, Batch { resolution: FULLRES, lines }));
    }
}
