//! The cache of open files (nginx: `open_file_cache`), checked against the disk.
//!
//! Each thread has one, so that nobody waits for a lock. An entry was opened at most a
//! second ago; and each time it is used, the file is asked whether it still has its name,
//! its length and its time, so that a length is never older than the request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use foldhash::fast::RandomState;
use mfserv_core::route::Symlinks;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tokio::time::Instant;

use super::asset::{Asset, Known};
use super::opening::Effort;
use crate::embedded::clients::fault::{Cause, Fault};

/// How long an entry is valid.
const FILE_VALID: Duration = Duration::from_secs(1);
/// How long the entry of a path without a file is valid.
const OTHER_VALID: Duration = Duration::from_millis(200);
/// The most entries of a thread; a file has up to four descriptors.
const ENTRIES_MAX: usize = 512;
/// There is one entry for so many descriptors that this process may have, …
const ENTRIES_OF: u64 = 64;
/// … but at least so many.
const ENTRIES_LEAST: usize = 8;
/// After so long without a request a file is closed, so that a deleted one frees its disk
/// space.
const UNUSED_MAX: Duration = Duration::from_secs(5);
/// How often unused entries are looked for, while there are entries.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

struct Entry {
    known: Known,
    looked: Instant,
    used: Instant,
}

impl Entry {
    fn is_file(&self) -> bool {
        matches!(self.known, Known::Asset(_))
    }

    fn is_valid(&self, now: Instant) -> bool {
        let valid = if self.is_file() { FILE_VALID } else { OTHER_VALID };
        now < self.looked + valid
            && match &self.known {
                Known::Asset(asset) => asset.plain().is_current(),
                _ => true,
            }
    }
}

struct Cache {
    entries: HashMap<Vec<u8>, Entry, RandomState>,
    /// The most entries: fewer where descriptors are few, which workers need more.
    max: usize,
    /// The key of the current look-up.
    key: Vec<u8>,
    swept: bool,
}

thread_local! {
    static CACHE: RefCell<Cache> = RefCell::default();
}

/// What lies below `root` at `relative`.
pub async fn find(root: &Path, relative: &str, symlinks: Symlinks) -> Result<Known, Fault> {
    let now = Instant::now();
    let known = CACHE.with_borrow_mut(|cache| cache.valid(root, relative, symlinks, now));
    if let Some(known) = known {
        return Ok(known);
    }
    let opened = match Asset::open(root, relative, symlinks, Effort::Memory) {
        Ok(known) => Ok(known),
        Err(why) => {
            if matches!(why, Errno::MFILE | Errno::NFILE) {
                CACHE.with_borrow_mut(|cache| cache.entries.clear());
            }
            let (root, relative) = (root.to_path_buf(), relative.to_string());
            off_the_loop(move || Asset::open(&root, &relative, symlinks, Effort::Disk)).await?
        }
    };
    let known = opened.map_err(|why| match why {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => Cause::Busy,
        _ => Cause::Disk,
    })?;
    CACHE.with_borrow_mut(|cache| cache.put(root, relative, symlinks, &known, now));
    Ok(known)
}

/// Removes an entry that has turned out to be old.
pub fn forget(root: &Path, relative: &str, symlinks: Symlinks) {
    CACHE.with_borrow_mut(|cache| {
        cache.set_key(root, relative, symlinks);
        cache.entries.remove(&cache.key);
    });
}

/// Does work that may wait for a disk in the thread pool of the lane.
pub async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Cause::Disk.into())
}

impl Default for Cache {
    fn default() -> Self {
        let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let fitting = usize::try_from(descriptors / ENTRIES_OF).unwrap_or(usize::MAX);
        let max = fitting.clamp(ENTRIES_LEAST, ENTRIES_MAX);
        Self { entries: HashMap::default(), max, key: Vec::new(), swept: false }
    }
}

impl Cache {
    fn set_key(&mut self, root: &Path, relative: &str, symlinks: Symlinks) {
        self.key.clear();
        self.key.push(symlinks as u8);
        self.key.extend_from_slice(root.as_os_str().as_encoded_bytes());
        self.key.push(0);
        self.key.extend_from_slice(relative.as_bytes());
    }

    fn valid(
        &mut self,
        root: &Path,
        relative: &str,
        symlinks: Symlinks,
        now: Instant,
    ) -> Option<Known> {
        self.set_key(root, relative, symlinks);
        let entry = self.entries.get_mut(&self.key)?;
        if entry.is_valid(now) {
            entry.used = now;
            return Some(entry.known.clone());
        }
        self.entries.remove(&self.key);
        None
    }

    fn put(
        &mut self,
        root: &Path,
        relative: &str,
        symlinks: Symlinks,
        known: &Known,
        now: Instant,
    ) {
        let entry = Entry { known: known.clone(), looked: now, used: now };
        if self.entries.len() >= self.max {
            // Anybody can invent paths without a file: they displace no file.
            if !entry.is_file() {
                return;
            }
            let oldest = self.entries.iter().min_by_key(|(_, one)| (one.is_file(), one.used));
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.entries.remove(&key);
            }
        }
        self.set_key(root, relative, symlinks);
        self.entries.insert(self.key.clone(), entry);
        if !std::mem::replace(&mut self.swept, true) {
            tokio::task::spawn_local(sweep());
        }
    }
}

/// Removes unused entries, until none is left.
async fn sweep() {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let now = Instant::now();
        let empty = CACHE.with_borrow_mut(|cache| {
            cache.entries.retain(|_, one| {
                let unused = if one.is_file() { UNUSED_MAX } else { OTHER_VALID };
                now < one.used + unused
            });
            cache.swept = !cache.entries.is_empty();
            cache.entries.is_empty()
        });
        if empty {
            return;
        }
    }
}
