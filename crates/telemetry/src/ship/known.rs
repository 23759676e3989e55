//! A generation while it is followed: the open file that has its bytes, and how far it is read.

use std::fs::File;
use std::io::{self, Read};
use std::time::{Duration, Instant};

use mfserv_platform::clock::now_ms;

use super::content::{self, Bytes, HEAD, Look, Source, TAIL};
use super::state::{Generation, Mark, Reached};

/// How much is read of a file at a time, bytes: two of the longest records.
pub const CHUNK: usize = 2 * super::records::LONGEST;
/// The most that is sent of a generation before it is acknowledged, bytes.
pub const UNACKNOWLEDGED: u64 = 8 * 1024 * 1024;
/// A rotated file that has not grown for this long is closed.
const REST: Duration = Duration::from_secs(60);
/// A file that is gone for this long does not come back.
const GONE: Duration = Duration::from_secs(5);

/// A generation, and the file that has its bytes.
pub struct Known {
    /// What is stored of it.
    pub stored: Generation,
    /// The file; `None` if it is closed or not found.
    pub file: Option<Source>,
    /// It has the followed name.
    pub is_live: bool,
    /// Read up to here.
    pub read: Reached,
    /// No file has its bytes, since then.
    pub missing: Option<Instant>,
    /// Up to here an earlier process may have sent it: no new mark before it.
    marks_from: u64,
    /// Size and last change when it was last read.
    seen: Option<(u64, i64)>,
    grown: Instant,
    /// Nothing complete is left to read.
    is_done: bool,
}

impl Known {
    /// One of an earlier process.
    pub fn stored(stored: Generation) -> Self {
        Self {
            read: stored.reached.clone(),
            marks_from: stored.reached.position.saturating_add(UNACKNOWLEDGED),
            stored,
            file: None,
            is_live: false,
            missing: None,
            seen: None,
            grown: Instant::now(),
            is_done: false,
        }
    }

    /// A new generation, from the beginning of a file.
    pub fn begin(file: Source) -> io::Result<Self> {
        let mut random = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        let generation = Generation {
            id: mfserv_platform::disk::hex(&random),
            inode: file.look()?.inode,
            head: content::head(&file)?,
            reached: Reached::default(),
            cut: None,
            times: vec![Mark { from: 0, ms: now_ms() as i64 }],
        };
        let mut known = Self { marks_from: 0, ..Self::stored(generation) };
        known.file = Some(file);
        Ok(known)
    }

    /// A file has the bytes of this generation, as far as they are read.
    pub fn fits(&self, file: &Source) -> io::Result<bool> {
        content::is_same(file, &self.stored.head, &self.read.tail, self.read.position)
    }

    /// The open file has them still.
    pub fn has_its_bytes(&self) -> io::Result<bool> {
        self.file.as_ref().map_or(Ok(false), |file| self.fits(file))
    }

    /// From now on its bytes are read from this file.
    pub fn attach(&mut self, file: Source, look: Look) {
        self.marks_from = self.marks_from.min(look.size);
        self.stored.inode = look.inode;
        self.file = Some(file);
        self.missing = None;
        self.is_done = false;
        self.grown = Instant::now();
    }

    /// Its file has other bytes now: they may be in a copy.
    pub fn lose(&mut self) {
        self.file = None;
        self.stored.inode = 0;
        self.missing = Some(Instant::now());
    }

    /// A file may be a copy of this generation, whose own file is not open.
    pub fn was_copied_to(&self, file: &Source, look: Look) -> io::Result<bool> {
        let Bytes(head) = &self.stored.head;
        let length = head.len().min(look.size as usize);
        if length == 0 || content::read_at(file, 0, length)? != head[..length] {
            return Ok(false);
        }
        if self.missing.is_none() && self.seen.is_some_and(|(size, _)| look.size > size) {
            // Its own file is there, and shorter.
            return Ok(false);
        }
        Ok(look.size < self.read.position || self.fits(file)?)
    }

    /// It was read to its end, and is as it was then.
    pub fn is_as_seen(&self, look: Look) -> bool {
        self.seen == Some((look.size, look.changed_ns)) && self.is_done
    }

    /// The bytes from the position on; `None` if there are none.
    pub fn next_bytes(&mut self) -> io::Result<Option<Vec<u8>>> {
        let Some(file) = &self.file else { return Ok(None) };
        let look = file.look()?;
        if self.seen.is_none_or(|(size, _)| size != look.size) {
            self.grown = Instant::now();
        }
        let is_at_end = look.size == self.read.position;
        if is_at_end && self.seen == Some((look.size, look.changed_ns)) {
            self.is_done = true;
            return Ok(None);
        }
        // Looked at before and after, since it may be truncated and written between.
        let fits = self.fits(file)?;
        let bytes = content::read_at(file, self.read.position, CHUNK)?;
        if !fits || !self.fits(file)? {
            if !self.is_live {
                self.lose();
            }
            return Ok(None);
        }
        self.seen = Some((look.size, look.changed_ns));
        self.is_done = bytes.is_empty();
        Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// It has not grown for this long.
    pub fn is_quiet_for(&self, time: Duration) -> bool {
        self.grown.elapsed() > time
    }

    /// Nothing complete was in the bytes that are there.
    pub fn found_nothing(&mut self) {
        self.is_done = true;
    }

    /// What was read of [`Known::next_bytes`].
    pub fn advance(&mut self, bytes: &[u8]) {
        self.read.position += bytes.len() as u64;
        let Bytes(tail) = &mut self.read.tail;
        tail.extend_from_slice(&bytes[bytes.len().saturating_sub(TAIL)..]);
        let excess = tail.len().saturating_sub(TAIL);
        tail.drain(..excess);
        self.is_done = false;
    }

    /// Takes more first bytes when the file has more; returns whether it did.
    pub fn extend_head(&mut self) -> io::Result<bool> {
        let Some(file) = self.file.as_ref().filter(|_| self.stored.head.0.len() < HEAD) else {
            return Ok(false);
        };
        let longer = content::head(file)?;
        let is_longer =
            longer.0.len() > self.stored.head.0.len() && longer.0.starts_with(&self.stored.head.0);
        if is_longer {
            self.stored.head = longer;
        }
        Ok(is_longer)
    }

    /// From this offset on, lines without a time count for now, if that is another index than
    /// before. Returns whether it is.
    pub fn mark(&mut self, from: u64, same_index: &mut dyn FnMut(i64, i64) -> bool) -> bool {
        let now = now_ms() as i64;
        let last = self.stored.times.last().map(|mark| mark.ms);
        let is_new = from >= self.marks_from && last.is_none_or(|last| !same_index(last, now));
        if is_new {
            self.stored.times.push(Mark { from, ms: now });
        }
        is_new
    }

    /// Marks before the acknowledged position are not asked for again.
    pub fn forget_marks(&mut self) {
        let reached = self.stored.reached.position;
        let last = self.stored.times.iter().rposition(|mark| mark.from <= reached);
        self.stored.times.drain(..last.unwrap_or(0));
    }

    /// Closes a rotated file that is read and rests.
    pub fn rest(&mut self) {
        let Some(look) = self.file.as_ref().and_then(|file| file.look().ok()) else { return };
        let rest = if look.is_named { REST } else { GONE };
        if self.is_as_seen(look) && self.is_quiet_for(rest) {
            self.file = None;
            self.missing = (!look.is_named).then(Instant::now);
        }
    }

    /// It is rotated, and its file has no name any more: only this process keeps it on the disk.
    pub fn is_held(&self) -> bool {
        let look = self.file.as_ref().and_then(|file| file.look().ok());
        !self.is_live && look.is_some_and(|look| !look.is_named)
    }

    /// Closes its file.
    pub fn let_go(&mut self) {
        self.file = None;
        self.missing = Some(Instant::now());
    }

    /// Nothing can be read of it any more.
    pub fn is_gone(&self) -> bool {
        let is_missing = self.missing.is_some_and(|since| since.elapsed() > GONE);
        !self.is_live && self.file.is_none() && is_missing
    }

    /// Bytes that are there and not read.
    pub fn unread(&self) -> u64 {
        let size = self.file.as_ref().and_then(|file| file.look().ok()).map(|look| look.size);
        size.unwrap_or(0).saturating_sub(self.read.position)
    }

    /// Bytes that are not acknowledged: those that are under way, and the unread ones.
    pub fn unacknowledged(&self) -> u64 {
        self.unread() + self.read.position.saturating_sub(self.stored.reached.position)
    }
}
