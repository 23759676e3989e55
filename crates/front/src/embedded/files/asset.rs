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
use super::mime;
use super::opening::{self, Effort, Found, Version};
use crate::embedded::clients::answer;

/// What is read at a time to bring a file into memory, bytes.
const STEP: usize = 64 * 1024;
/// What was seen in memory is taken to be there still, as long as the file was not
/// opened longer ago than this.
const SEEN_VALID: Duration = Duration::from_secs(2);

/// One form in which a file can be sent.
#[derive(Debug)]
pub struct Representation {
    file: OwnedFd,
    version: Version,
    /// How it is compressed.
    pub coding: Option<Coding>,
    /// Its ETag: as nginx makes it from time and length, with the nanoseconds where the
    /// file has some, so that two versions of a second are told apart.
    pub tag: String,
    /// Its Last-Modified.
    pub modified: String,
    opened: Instant,
    /// The first so many bytes were seen in memory since it was opened.
    seen_to: AtomicU64,
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
        let modified = answer::http_date(version.modified);
        let (opened, seen_to) = (Instant::now(), AtomicU64::new(0));
        Self { file, version, coding, tag, modified, opened, seen_to }
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

    /// True while its name leads to it and nothing was written to it.
    pub fn is_current(&self) -> bool {
        Version::of(&self.file).is_ok_and(|version| version == Some(self.version))
    }

    /// Reads what is in memory; `EAGAIN` says that the disk is needed.
    pub fn read_from_memory(&self, room: &mut [u8], at: u64) -> rustix::io::Result<usize> {
        let end = at.saturating_add(room.len() as u64);
        let mut target = [IoSliceMut::new(room)];
        match preadv2(&self.file, &mut target, at, ReadWriteFlags::NOWAIT) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => {
                // Some file systems do not say what is in memory.
                match self.seen_to.load(Ordering::Relaxed) >= end {
                    true => pread(&self.file, room, at),
                    false => Err(Errno::AGAIN),
                }
            }
            done => done,
        }
    }

    /// True if sending `range` will not wait for the disk, as far as its two ends tell
    /// (the system reads ahead and forgets in long runs), or did so a moment ago.
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

    /// Brings `range` into memory, waiting for the disk.
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
    /// Copies that were compressed beforehand and are not older.
    coded: Vec<Arc<Representation>>,
}

/// What is known of a place.
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
    /// Opens what lies at a place, see [`opening::open`].
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
        let plain = Arc::new(Representation::new(file, version, None));
        Ok(Known::Asset(Arc::new(Self { content_type, plain, coded })))
    }

    /// The file itself.
    pub fn plain(&self) -> &Arc<Representation> {
        &self.plain
    }

    /// True if the answer depends on Accept-Encoding.
    pub fn varies(&self) -> bool {
        !self.coded.is_empty()
    }

    /// The form that a client with this Accept-Encoding likes best.
    pub fn liked(&self, accept: Option<&[u8]>) -> &Arc<Representation> {
        let Some(accept) = accept else { return &self.plain };
        let mut best = (&self.plain, 0);
        for copy in &self.coded {
            let liking = copy.coding.map_or(0, |coding| coding::liking(accept, coding));
            if liking > best.1 {
                best = (copy, liking);
            }
        }
        best.0
    }
}
