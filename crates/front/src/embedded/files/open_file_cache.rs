//! Open files that are likely to be asked for again, checked against the disk.
//!
//! Each thread has its own, so that nobody waits for a lock. What is found there was
//! opened at most a second ago; and each time it is asked whether the file still has its
//! name, length and time, so that a length is never older than the request.

use std::cell::RefCell;
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use mfserv_core::route::Symlinks;
use rustix::io::Errno;
use tokio::time::Instant;

use super::asset::{Asset, Known};
use super::opening::Effort;
use crate::embedded::workers::forward::Fault;

/// After this a place is looked at again.
const FILE_VALID: Duration = Duration::from_secs(1);
/// The same where there was no file to serve.
const OTHER_VALID: Duration = Duration::from_millis(200);
/// Places that a thread remembers at most; a file has up to four descriptors.
const PLACES_MAX: usize = 512;
/// What nobody asked for since so long is put away: a deleted file frees its disk.
const UNUSED_MAX: Duration = Duration::from_secs(5);
/// How often that is looked at, while there is something.
const SWEEP_EVERY: Duration = Duration::from_secs(2);

struct Placed {
    known: Known,
    looked: Instant,
    used: Instant,
}

impl Placed {
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

#[derive(Default)]
struct Shelf {
    places: HashMap<Vec<u8>, Placed>,
    /// The key that is being looked up.
    key: Vec<u8>,
    swept: bool,
}

thread_local! {
    static SHELF: RefCell<Shelf> = RefCell::default();
}

/// What lies below `root` at `relative`.
pub async fn find(root: &Path, relative: &str, symlinks: Symlinks) -> Result<Known, Fault> {
    let now = Instant::now();
    let known = SHELF.with_borrow_mut(|shelf| shelf.valid(root, relative, symlinks, now));
    if let Some(known) = known {
        return Ok(known);
    }
    let opened = match Asset::open(root, relative, symlinks, Effort::Memory) {
        Ok(known) => Ok(known),
        Err(why) => {
            if matches!(why, Errno::MFILE | Errno::NFILE) {
                SHELF.with_borrow_mut(|shelf| shelf.places.clear());
            }
            let (root, relative) = (root.to_path_buf(), relative.to_string());
            off_the_loop(move || Asset::open(&root, &relative, symlinks, Effort::Disk)).await?
        }
    };
    let known = opened.map_err(|why| match why {
        Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => Fault::Answer(503, "busy"),
        _ => Fault::Answer(500, "disk"),
    })?;
    SHELF.with_borrow_mut(|shelf| shelf.put(root, relative, symlinks, &known, now));
    Ok(known)
}

/// What is known of a place has turned out to be old.
pub fn forget(root: &Path, relative: &str, symlinks: Symlinks) {
    SHELF.with_borrow_mut(|shelf| {
        shelf.set_key(root, relative, symlinks);
        shelf.places.remove(&shelf.key);
    });
}

/// Does what may wait for a disk on the small pool of threads.
pub async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Fault::Answer(500, "disk"))
}

impl Shelf {
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
        let placed = self.places.get_mut(&self.key)?;
        if placed.is_valid(now) {
            placed.used = now;
            return Some(placed.known.clone());
        }
        self.places.remove(&self.key);
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
        let placed = Placed { known: known.clone(), looked: now, used: now };
        if self.places.len() >= PLACES_MAX {
            // Names of nothing can be invented without end: they displace no file.
            if !placed.is_file() {
                return;
            }
            let oldest = self.places.iter().min_by_key(|(_, one)| (one.is_file(), one.used));
            if let Some(key) = oldest.map(|(key, _)| key.clone()) {
                self.places.remove(&key);
            }
        }
        self.set_key(root, relative, symlinks);
        self.places.insert(self.key.clone(), placed);
        if !std::mem::replace(&mut self.swept, true) {
            tokio::task::spawn_local(sweep());
        }
    }
}

/// Puts away what is unused, until nothing is left.
async fn sweep() {
    loop {
        tokio::time::sleep(SWEEP_EVERY).await;
        let now = Instant::now();
        let empty = SHELF.with_borrow_mut(|shelf| {
            shelf.places.retain(|_, one| {
                let unused = if one.is_file() { UNUSED_MAX } else { OTHER_VALID };
                now < one.used + unused
            });
            shelf.swept = !shelf.places.is_empty();
            shelf.places.is_empty()
        });
        if empty {
            return;
        }
    }
}
