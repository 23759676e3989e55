//! An open file with what its answers say about it, and its compressed copies.

use std::io::IoSliceMut;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mfserv_core::route::Symlinks;
use rustix::io::{Errno, ReadWriteFlags, pread, preadv2};

use super::coding::{self, Coding};
use super::compressing::{self, Place};
use super::mime;
use super::opening::{self, Effort, Found, Version};
use crate::embedded::io::clock;

/// How much is read at a time to bring a file into the page cache, bytes.
const STEP: usize = 64 * 1024;
/// What was seen in the page cache counts as being there still, until the file has been
/// open for so long.
const SEEN_VALID: Duration = Duration::from_secs(2);

/// One form of a file: plain or compressed.
#[derive(Debug)]
pub struct Representation {
    file: OwnedFd,
    version: Version,
    /// How it is compressed.
    pub coding: Option<Coding>,
    /// Its ETag: made of time and length as nginx does, with the nanoseconds where the file
    /// has some, so that two versions within a second differ.
    pub tag: String,
    /// Its Last-Modified.
    pub modified: String,
    opened: Instant,
    /// So many bytes from the beginning have been seen in the page cache since it was opened.
    seen_to: AtomicU64,
    /// Its place among what was made, which others have when it is dropped.
    place: Option<Place>,
}

impl Representation {
    fn new(file: OwnedFd, version: Version, coding: Option<Coding>) -> Self {
        let mut tag = format!("\"{:x}-{:x}", version.modified, version.length);
        if version.modified_ns > 0 {
            tag.push_str(&format!("-{:x}", version.modified_ns));
        }
        if let Some(coding) = coding {
            tag.push_str(coding.ending());
        }
        tag.push('"');
        let modified = clock::http_date(version.modified);
        let (opened, seen_to) = (Instant::now(), AtomicU64::new(0));
        Self { file, version, coding, tag, modified, opened, seen_to, place: None }
    }

    /// What has been made of a file: `file` has `length` bytes, all in memory. Others may make other
    /// bytes of it, so its tag is a weak one.
    pub fn made_of(
        plain: &Self,
        (file, length, coding): (OwnedFd, u64, Coding),
        place: Place,
    ) -> Self {
        Self {
            file,
            version: plain.version.with_length(length),
            coding: Some(coding),
            tag: format!("W/{}", plain.tag),
            modified: plain.modified.clone(),
            opened: Instant::now(),
            seen_to: AtomicU64::new(length),
            place: Some(place),
        }
    }

    /// True if it was made of the file of this name, and lies nowhere.
    pub fn is_made(&self) -> bool {
        self.place.is_some()
    }

    /// The version of the file.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The open file.
    pub fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Its length, bytes.
    pub fn length(&self) -> u64 {
        self.version.length
    }

    /// When it was written, Unix time.
    pub fn modified_at(&self) -> i64 {
        self.version.modified
    }

    /// True while its name leads to it and nothing has been written to it.
    pub fn is_current(&self) -> bool {
        Version::of(&self.file).is_ok_and(|version| version == Some(self.version))
    }

    /// Reads from the page cache; `EAGAIN` means that the disk is needed.
    pub fn read_from_memory(&self, room: &mut [u8], at: u64) -> rustix::io::Result<usize> {
        let end = at.saturating_add(room.len() as u64);
        let mut target = [IoSliceMut::new(room)];
        match preadv2(&self.file, &mut target, at, ReadWriteFlags::NOWAIT) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                // Some file systems do not say what is in the page cache.
                match self.seen_to.load(Ordering::Relaxed) >= end {
                    true => pread(&self.file, room, at),
                    false => Err(Errno::AGAIN),
                }
            }
            done => done,
        }
    }

    /// True if `range` can be sent without waiting for the disk: its two ends are in the page
    /// cache (the system reads ahead and forgets in long runs), or were a moment ago.
    pub fn is_in_memory(&self, range: &Range<u64>) -> bool {
        let seen = range.end <= self.seen_to.load(Ordering::Relaxed);
        if seen && self.opened.elapsed() < SEEN_VALID {
            return true;
        }
        let there = |at| self.read_from_memory(&mut [0], at) != Err(Errno::AGAIN);
        let both = there(range.start) && there(range.end.saturating_sub(1));
        if both {
            self.saw(range);
        }
        both
    }

    fn saw(&self, range: &Range<u64>) {
        if range.start <= self.seen_to.load(Ordering::Relaxed) {
            self.seen_to.fetch_max(range.end, Ordering::Relaxed);
        }
    }

    /// Brings `range` into the page cache and waits for the disk.
    pub fn fetch(&self, range: Range<u64>) -> rustix::io::Result<()> {
        let mut room = vec![0; STEP];
        let mut at = range.start;
        while at < range.end {
            match pread(&self.file, &mut room[..], at)? {
                0 => break,
                count => at += count as u64,
            }
        }
        self.saw(&range);
        Ok(())
    }
}

/// A file in all its forms.
#[derive(Debug)]
pub struct Asset {
    /// Its Content-Type.
    pub content_type: &'static str,
    plain: Arc<Representation>,
    is_worth_compressing: bool,
    /// Compressed copies beside it that are not older.
    coded: Vec<Arc<Representation>>,
}

/// What a path names.
#[derive(Debug, Clone)]
pub enum Known {
    /// A file.
    Asset(Arc<Asset>),
    /// A directory.
    Directory,
    /// Nothing is there.
    Nothing,
    /// It is not to be read.
    Forbidden,
}

impl Asset {
    /// Opens a file with its compressed copies, see [`opening::open`].
    pub fn open(
        root: &Path,
        relative: &str,
        symlinks: Symlinks,
        effort: Effort,
    ) -> rustix::io::Result<Known> {
        let (file, version) = match opening::open(root, relative, symlinks, effort)? {
            Found::File(file, version) => (file, version),
            Found::Directory => return Ok(Known::Directory),
            Found::Nothing => return Ok(Known::Nothing),
            Found::Forbidden => return Ok(Known::Forbidden),
        };
        let mut coded = Vec::new();
        let is_coded = Coding::ALL.iter().any(|coding| relative.ends_with(coding.ending()));
        for coding in Coding::ALL.into_iter().filter(|_| !is_coded) {
            let beside = format!("{relative}{}", coding.ending());
            if let Found::File(file, copy) = opening::open(root, &beside, symlinks, effort)? {
                let age = |version: &Version| (version.modified, version.modified_ns);
                if age(&copy) >= age(&version) {
                    coded.push(Arc::new(Representation::new(file, copy, Some(coding))));
                }
            }
        }
        let content_type = mime::of(relative.rsplit('/').next().unwrap_or(relative));
        let is_worth_compressing =
            compressing::LENGTHS.contains(&version.length) && mime::is_compressible(content_type);
        let plain = Arc::new(Representation::new(file, version, None));
        Ok(Known::Asset(Arc::new(Self { content_type, plain, is_worth_compressing, coded })))
    }

    /// The file itself.
    pub fn plain(&self) -> &Arc<Representation> {
        &self.plain
    }

    /// True if the answer depends on Accept-Encoding. `compresses`: files are compressed for clients.
    pub fn varies(&self, compresses: bool) -> bool {
        !self.coded.is_empty() || (compresses && self.is_worth_compressing)
    }

    /// The codings in which it is compressed for a client that has asked with these words, those that
    /// it likes most first.
    pub fn codings_for(&self, accept: Option<&[u8]>) -> impl Iterator<Item = Coding> + use<> {
        let accept = accept.filter(|_| self.is_worth_compressing);
        coding::acceptable(accept.unwrap_or_default())
    }

    /// The form that a client with this Accept-Encoding prefers.
    pub fn preferred(&self, accept: Option<&[u8]>) -> &Arc<Representation> {
        let accept = accept.filter(|_| !self.coded.is_empty());
        let Some(accept) = accept else { return &self.plain };
        let copy = |coding| self.coded.iter().find(|copy| copy.coding == Some(coding));
        coding::acceptable(accept).find_map(copy).unwrap_or(&self.plain)
    }
}
