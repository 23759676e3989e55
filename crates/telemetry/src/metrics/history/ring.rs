//! A ring of files: ticks of one resolution, the oldest file is removed when all together are too
//! large or too old.
//!
//! Files are only appended to, with one write for each record and no sync: after a power cut, the
//! last seconds may be missing. Who was killed in the middle of a write leaves a torn record, which
//! the next process cuts off. A reader needs no lock: what it finds torn is being written.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::codec::{Codec, MAGIC};
use super::sample::Tick;

/// A ring has about this many files: one of them is removed at a time.
const FILES: u64 = 16;
/// The longest file that is read, bytes.
const READ_MAX: u64 = 64 << 20;
/// The most names of a file: apps come and go.
const NAMES_MAX: usize = 4096;

/// What a ring keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// The time between two ticks, seconds.
    pub step_s: u64,
    /// How long ticks are kept, seconds.
    pub age_s: u64,
}

/// The files of a ring, for who writes them.
pub struct Ring {
    dir: PathBuf,
    resolution: Resolution,
    /// The most bytes of all files together.
    bytes_max: u64,
    /// The oldest first.
    files: Vec<Stored>,
    open: Option<Open>,
}

/// A file of a ring.
#[derive(Debug, Clone)]
struct Stored {
    number: u64,
    path: PathBuf,
    size: u64,
    /// When its first tick ended; `None`: it has none.
    first: Option<u64>,
}

/// The file that is written.
struct Open {
    file: File,
    codec: Codec,
    last: u64,
}

impl Ring {
    /// The ring of a directory. Nothing is read yet.
    pub fn new(dir: &Path, resolution: Resolution, bytes_max: u64) -> Self {
        Self { dir: dir.into(), resolution, bytes_max, files: Vec::new(), open: None }
    }

    /// What it keeps.
    pub fn resolution(&self) -> Resolution {
        self.resolution
    }

    /// When the last tick ended that is on the disk.
    ///
    /// # Errors
    /// What the disk says.
    pub fn last(&mut self) -> io::Result<u64> {
        Ok(self.opened()?.last)
    }

    /// Appends a tick.
    ///
    /// # Errors
    /// What the disk says. The tick is lost; the next one is tried all the same.
    pub fn append(&mut self, tick: &Tick) -> io::Result<()> {
        let appended = self.try_to_append(tick);
        if appended.is_err() {
            // What the file has now is read again before it is appended to.
            self.open = None;
        }
        appended
    }

    fn try_to_append(&mut self, tick: &Tick) -> io::Result<()> {
        let file_max = (self.bytes_max / FILES).min(READ_MAX / 2);
        let size = self.files.last().map_or(0, |file| file.size);
        let open = self.opened()?;
        // A clock that was set back begins another file: within one, time only goes on.
        if size > file_max || open.codec.names() > NAMES_MAX || tick.at <= open.last {
            let next = self.files.last().map_or(0, |last| last.number + 1);
            self.open = None;
            self.begin(next)?;
        }
        let open = self.opened()?;
        let record = open.codec.encode(tick);
        open.file.write_all(&record)?;
        open.last = tick.at;
        if let Some(file) = self.files.last_mut() {
            file.size += record.len() as u64;
            file.first.get_or_insert(tick.at);
        }
        self.remove_old(tick.at);
        Ok(())
    }

    /// Removes files whose ticks are all too old, and the oldest ones while there are too many bytes.
    fn remove_old(&mut self, now: u64) {
        let keep_from = now.saturating_sub(self.resolution.age_s);
        while let [oldest, next, ..] = self.files.as_slice() {
            let bytes: u64 = self.files.iter().map(|file| file.size).sum();
            let is_old = next.first.is_some_and(|first| first < keep_from);
            if !is_old && bytes <= self.bytes_max {
                return;
            }
            // One that cannot be removed is not looked at again by this process.
            let _ = fs::remove_file(&oldest.path);
            self.files.remove(0);
        }
    }

    /// The file that is written, opened if it is not; what is torn at its end is cut off.
    fn opened(&mut self) -> io::Result<&mut Open> {
        if self.open.is_none() {
            fs::DirBuilder::new().recursive(true).create(&self.dir)?;
            self.files = list(&self.dir, self.resolution.step_s)?;
            match self.files.last().map(|last| last.number) {
                Some(number) => self.resume(number)?,
                None => self.begin(0)?,
            }
        }
        self.open.as_mut().ok_or_else(|| io::Error::other("no file of the history is open"))
    }

    fn resume(&mut self, number: u64) -> io::Result<()> {
        let path = path_of(&self.dir, self.resolution.step_s, number);
        let file = locked(&path)?;
        let bytes = read(&path)?;
        if bytes.len() < MAGIC.len() {
            // The disk was full when it was begun.
            drop(file);
            self.files.pop();
            return self.begin(number);
        }
        let mut last = 0;
        let mut whole = Whole::of(&bytes);
        for tick in whole.by_ref() {
            last = tick.at;
        }
        let Some(size) = whole.end() else {
            // Of another version, or altered: it stays until it is the oldest.
            return self.begin(number + 1);
        };
        file.set_len(size)?;
        if let Some(stored) = self.files.last_mut() {
            stored.size = size;
        }
        self.open = Some(Open { file, codec: whole.codec, last });
        Ok(())
    }

    fn begin(&mut self, number: u64) -> io::Result<()> {
        let path = path_of(&self.dir, self.resolution.step_s, number);
        let mut file = locked(&path)?;
        file.set_len(0)?;
        file.write_all(MAGIC)?;
        self.files.push(Stored { number, path, size: MAGIC.len() as u64, first: None });
        self.open = Some(Open { file, codec: Codec::default(), last: 0 });
        Ok(())
    }
}

/// When the oldest tick of a ring ended.
pub fn oldest(dir: &Path, step_s: u64) -> Option<u64> {
    list(dir, step_s).ok()?.iter().find_map(|file| file.first)
}

/// Gives each tick of a ring that ended after `since`, in the order in which they were written.
///
/// # Errors
/// The directory cannot be read. Files that cannot be read are left out.
pub fn read_since(
    dir: &Path,
    step_s: u64,
    since: u64,
    each: &mut dyn FnMut(Tick),
) -> io::Result<()> {
    let files = list(dir, step_s)?;
    for (at, file) in files.iter().enumerate() {
        // A file ends where the next one begins, unless the clock was set back.
        let next = files.get(at + 1).and_then(|next| next.first);
        if next.is_some_and(|next| next <= since) {
            continue;
        }
        let Ok(bytes) = read(&file.path) else { continue };
        Whole::of(&bytes).filter(|tick| tick.at > since).for_each(&mut *each);
    }
    Ok(())
}

/// The whole records of a file.
struct Whole<'a> {
    bytes: &'a [u8],
    /// Where the next record begins; `None`: this is no file of this format.
    at: Option<usize>,
    codec: Codec,
}

impl<'a> Whole<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        // A file that was killed in its first write has not even all of its magic.
        let is_ours = bytes.starts_with(MAGIC);
        Self { bytes, at: is_ours.then_some(MAGIC.len()), codec: Codec::default() }
    }

    /// Where the whole records end.
    fn end(&self) -> Option<u64> {
        Some(self.at? as u64)
    }
}

impl Iterator for Whole<'_> {
    type Item = Tick;

    fn next(&mut self) -> Option<Tick> {
        let at = self.at?;
        let (tick, length) = self.codec.decode(self.bytes.get(at..)?)?;
        self.at = Some(at + length);
        Some(tick)
    }
}

/// Opens a file to append to it. The lock keeps a second process from writing in between.
fn locked(path: &Path) -> io::Result<File> {
    let file = File::options().append(true).create(true).mode(0o600).open(path)?;
    let taken = flock(&file, FlockOperation::NonBlockingLockExclusive);
    taken.map_err(|_| {
        io::Error::other(format!("{} is written by another process", path.display()))
    })?;
    Ok(file)
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(READ_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn path_of(dir: &Path, step_s: u64, number: u64) -> PathBuf {
    dir.join(format!("{step_s}s-{number:010}.ticks"))
}

/// The files of a ring, the oldest first.
fn list(dir: &Path, step_s: u64) -> io::Result<Vec<Stored>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)?.flatten() {
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let number =
            name.strip_prefix(&format!("{step_s}s-")).and_then(|rest| rest.strip_suffix(".ticks"));
        let Some(number) = number.and_then(|number| number.parse().ok()) else { continue };
        let size = entry.metadata().map_or(0, |found| found.len());
        let path = entry.path();
        let first = first(&path);
        files.push(Stored { number, path, size, first });
    }
    files.sort_by_key(|file| file.number);
    Ok(files)
}

/// When the first tick of a file ended.
fn first(path: &Path) -> Option<u64> {
    let mut bytes = Vec::new();
    // The first record has all names, and most are shorter than this.
    File::open(path).ok()?.take(128 << 10).read_to_end(&mut bytes).ok()?;
    Whole::of(&bytes).next().map(|tick| tick.at)
}

#[cfg(test)]
mod tests;
