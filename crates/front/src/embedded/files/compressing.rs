//! Files that are compressed for the clients that accept it, where no compressed copy lies beside
//! them.
//!
//! A file is compressed once, by a thread of the pool; whoever asks for it meanwhile gets it as it
//! is. What was made is kept for all lanes, in files that are memory alone: they are sent as any
//! file. Their number, their lengths and the threads that compress are bounded.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, OnceLock};

use flate2::Compression;
use flate2::write::GzEncoder;
use foldhash::fast::RandomState;
use mfserv_platform::sync::lock;
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Resource, getrlimit};

use super::asset::Representation;
use super::coding::Coding;
use super::open_file_cache::off_the_loop;
use super::opening::Version;
use crate::embedded::clients::fault::Fault;
use crate::embedded::io::clock;

/// Shorter files are not compressed, bytes: they are one packet anyway.
pub const SHORTEST: u64 = 1024;
/// Files of such lengths are compressed, bytes: a longer one would have a thread for long.
pub const LENGTHS: RangeInclusive<u64> = SHORTEST..=4 * 1024 * 1024;
/// All that was made has at most so many bytes.
const BYTES_MAX: u64 = 32 * 1024 * 1024;
/// The most files of which the outcome is kept.
const ENTRIES_MAX: usize = 256;
/// There is one for so many descriptors that this process may have, …
const ENTRIES_OF: u64 = 128;
/// … but at least so many.
const ENTRIES_LEAST: usize = 8;
/// So many files are compressed at a time.
const AT_A_TIME: usize = 2;
/// A file that was changed since may still be written, within one tick of its clock: then other
/// bytes have the same version. Seconds.
const SETTLED_S: i64 = 2;
/// What is not shorter by this part of the file is not worth the work of its clients.
const GAIN: u64 = 10;

/// What became of a file.
#[derive(Clone)]
enum Outcome {
    /// It is being compressed.
    Pending,
    /// It does not become shorter, or cannot be read.
    Useless,
    Made(Arc<Representation>),
}

struct Entry {
    outcome: Outcome,
    /// The number of its last use.
    used: u64,
}

#[derive(Default)]
struct Cache {
    entries: HashMap<Version, Entry, RandomState>,
    /// The lengths of what was made.
    bytes: u64,
    pending: usize,
    uses: u64,
}

/// What all lanes have.
static CACHE: OnceLock<Mutex<Cache>> = OnceLock::new();

fn cache() -> &'static Mutex<Cache> {
    CACHE.get_or_init(Mutex::default)
}

/// The compressed form of a file; `None` if it is to be sent as it is: now, or at all.
pub async fn compressed(plain: &Arc<Representation>) -> Result<Option<Arc<Representation>>, Fault> {
    let version = plain.version();
    if clock::unix_seconds() - version.changed_at().max(version.modified) < SETTLED_S {
        return Ok(None);
    }
    match lock(cache()).find(version) {
        Some(Outcome::Made(made)) => return Ok(Some(made)),
        Some(Outcome::Pending | Outcome::Useless) => return Ok(None),
        None => {}
    }
    // Its outcome is noted by the thread, also where its client leaves meanwhile.
    let plain = plain.clone();
    let work = move || {
        let outcome = match make(&plain) {
            Ok(Some(made)) => Outcome::Made(Arc::new(made)),
            Ok(None) | Err(_) => Outcome::Useless,
        };
        lock(cache()).put(version, outcome.clone());
        outcome
    };
    Ok(match off_the_loop(work).await? {
        Outcome::Made(made) => Some(made),
        Outcome::Pending | Outcome::Useless => None,
    })
}

/// Compresses a file. `None` if that makes it hardly shorter, or if it has changed meanwhile.
fn make(plain: &Representation) -> io::Result<Option<Representation>> {
    let mut content = vec![0; plain.length() as usize];
    let file = File::from(plain.file().try_clone()?);
    file.read_exact_at(&mut content, 0)?;
    if !plain.is_current() {
        return Ok(None);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&content)?;
    let made = encoder.finish()?;
    let length = made.len() as u64;
    if length > plain.length() - plain.length() / GAIN {
        return Ok(None);
    }
    let memory = memfd_create("mfserv-gzip", MemfdFlags::CLOEXEC)?;
    let mut memory = File::from(memory);
    memory.write_all(&made)?;
    Ok(Some(Representation::made_of(plain, OwnedFd::from(memory), length, Coding::Gzip)))
}

impl Cache {
    /// What is known of a file. `None`: the caller compresses it, and puts the outcome.
    fn find(&mut self, version: Version) -> Option<Outcome> {
        self.uses += 1;
        if let Some(entry) = self.entries.get_mut(&version) {
            entry.used = self.uses;
            return Some(entry.outcome.clone());
        }
        if self.pending >= AT_A_TIME {
            return Some(Outcome::Pending);
        }
        self.pending += 1;
        self.entries.insert(version, Entry { outcome: Outcome::Pending, used: self.uses });
        None
    }

    fn put(&mut self, version: Version, outcome: Outcome) {
        self.pending -= 1;
        self.uses += 1;
        self.bytes += length_of(&outcome);
        self.entries.insert(version, Entry { outcome, used: self.uses });
        while self.bytes > BYTES_MAX || self.entries.len() > entries_max() {
            let others = self.entries.iter().filter(|(of, entry)| {
                **of != version && !matches!(entry.outcome, Outcome::Pending)
            });
            let Some(oldest) = others.min_by_key(|(_, entry)| entry.used).map(|(of, _)| *of) else {
                return;
            };
            let gone = self.entries.remove(&oldest);
            self.bytes -= gone.map_or(0, |entry| length_of(&entry.outcome));
        }
    }
}

fn length_of(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Made(made) => made.length(),
        Outcome::Pending | Outcome::Useless => 0,
    }
}

fn entries_max() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let fitting = usize::try_from(descriptors / ENTRIES_OF).unwrap_or(usize::MAX);
    fitting.clamp(ENTRIES_LEAST, ENTRIES_MAX)
}

#[cfg(test)]
mod tests {
    use mfserv_core::route::Symlinks;

    use super::super::asset::{Asset, Known};
    use super::super::opening::Effort;
    use super::*;

    fn plain(dir: &std::path::Path, number: usize) -> Arc<Representation> {
        let name = format!("{number}.txt");
        std::fs::write(dir.join(&name), "text ".repeat(1000 + number)).unwrap();
        match Asset::open(dir, &name, Symlinks::Follow, Effort::Disk).unwrap() {
            Known::Asset(asset) => asset.plain().clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_and_few_are_made_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::default();
        let all: Vec<_> = (0..entries_max() + 9).map(|number| plain(dir.path(), number)).collect();
        for one in &all {
            assert!(cache.find(one.version()).is_none());
            let made = make(one).unwrap().unwrap();
            cache.put(one.version(), Outcome::Made(Arc::new(made)));
            // The first one is used all the time, and stays.
            assert!(matches!(cache.find(all[0].version()), Some(Outcome::Made(_))));
        }
        assert_eq!((cache.entries.len(), cache.pending), (entries_max(), 0));
        assert!(!cache.entries.contains_key(&all[1].version()));
        let bytes: u64 = cache.entries.values().map(|entry| length_of(&entry.outcome)).sum();
        assert_eq!(cache.bytes, bytes);
        let gone = &all[1..=AT_A_TIME + 1];
        let begun = gone.iter().filter(|one| cache.find(one.version()).is_none()).count();
        assert_eq!((begun, cache.pending), (AT_A_TIME, AT_A_TIME));
    }
}
