//! What tells whether a file is still the one that was read: its first bytes, and the bytes
//! before the position. An inode number says little, since it is used again.

use std::cell::RefCell;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::UNIX_EPOCH;

use mfserv_logfile::Compressed;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use super::state::Earlier;

/// The most first bytes that are compared.
pub const HEAD: usize = 1024;
/// The most bytes before the position that are compared.
pub const TAIL: usize = 256;

/// Some bytes, written as hexadecimal text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&mfserv_platform::disk::hex(&self.0))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let digit =
            |at: usize| text.get(at..at + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        let bytes: Option<Vec<u8>> = (0..text.len()).step_by(2).map(digit).collect();
        bytes.map(Bytes).ok_or_else(|| D::Error::custom("no hexadecimal text"))
    }
}

/// Size and times of a file at one instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Its inode number.
    pub inode: u64,
    /// Its size, bytes.
    pub size: u64,
    /// Its last change, nanoseconds since the Unix epoch.
    pub changed_ns: i64,
    /// When it was made; its last change where the file system does not know.
    pub born_ns: i64,
    /// It has a name still.
    pub is_named: bool,
}

impl Look {
    /// What distinguishes it from other files that have had or will have its inode number.
    pub fn earlier(&self) -> Earlier {
        Earlier { inode: self.inode, born_ns: self.born_ns }
    }

    fn of(meta: &Metadata) -> Self {
        let changed_ns = changed_ns(meta);
        let born = meta.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            inode: meta.ino(),
            size: meta.size(),
            changed_ns,
            born_ns: born.map_or(changed_ns, |since| since.as_nanos() as i64),
            is_named: meta.nlink() > 0,
        }
    }
}

/// The last change of a file or directory, nanoseconds since the Unix epoch.
pub fn changed_ns(meta: &Metadata) -> i64 {
    meta.mtime().saturating_mul(1_000_000_000).saturating_add(meta.mtime_nsec())
}

/// A file that is open for reading.
pub enum Source {
    /// As it was written.
    Plain(File),
    /// As mfserv compresses rotated logs; it does not change any more.
    Compressed(RefCell<Compressed>, Look),
}

impl Source {
    /// Opens a file as it is.
    pub fn plain(path: &Path) -> io::Result<Self> {
        File::open(path).map(Source::Plain)
    }

    /// Opens a file that mfserv has compressed.
    pub fn compressed(path: &Path) -> io::Result<Self> {
        let compressed = Compressed::open(path)?;
        let look = Look { size: compressed.len(), ..Look::of(&std::fs::metadata(path)?) };
        Ok(Source::Compressed(RefCell::new(compressed), look))
    }

    /// It cannot grow.
    pub fn is_compressed(&self) -> bool {
        matches!(self, Source::Compressed(..))
    }

    /// Size and times, now.
    pub fn look(&self) -> io::Result<Look> {
        match self {
            Source::Plain(file) => Ok(Look::of(&file.metadata()?)),
            Source::Compressed(_, look) => Ok(*look),
        }
    }

    fn read_some(&self, into: &mut [u8], from: u64) -> io::Result<usize> {
        match self {
            Source::Plain(file) => file.read_at(into, from),
            Source::Compressed(compressed, _) => compressed.borrow_mut().read_at(into, from),
        }
    }
}

/// Reads at most `most` bytes from a position on: fewer only at the end of the file.
pub fn read_at(file: &Source, from: u64, most: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; most];
    let mut read = 0;
    while read < most {
        match file.read_some(&mut bytes[read..], from + read as u64) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(read);
    Ok(bytes)
}

/// Where the last complete line of a file ends.
pub fn end_of_last_line(file: &Source) -> io::Result<u64> {
    const STEP: u64 = 64 * 1024;
    let mut end = file.look()?.size;
    while end > 0 {
        let from = end.saturating_sub(STEP);
        let bytes = read_at(file, from, (end - from) as usize)?;
        if let Some(at) = bytes.iter().rposition(|byte| *byte == b'\n') {
            return Ok(from + at as u64 + 1);
        }
        end = from;
    }
    Ok(0)
}

/// The first bytes of a file.
pub fn head(file: &Source) -> io::Result<Bytes> {
    read_at(file, 0, HEAD).map(Bytes)
}

/// The bytes before a position.
pub fn tail(file: &Source, position: u64) -> io::Result<Bytes> {
    let length = position.min(TAIL as u64);
    read_at(file, position - length, length as usize).map(Bytes)
}

/// A file has these first bytes, and these bytes before the position.
pub fn is_same(file: &Source, first: &Bytes, before: &Bytes, position: u64) -> io::Result<bool> {
    if file.look()?.size < position {
        return Ok(false);
    }
    let now = read_at(file, 0, first.0.len())?;
    Ok(now == first.0 && tail(file, position)? == *before)
}

/// A file is equal to the beginning of another, as far as both ends of it show.
pub fn is_beginning_of(file: &Source, other: &Source) -> io::Result<bool> {
    let size = file.look()?.size;
    if size == 0 || size > other.look()?.size {
        return Ok(false);
    }
    let length = size.min(HEAD as u64) as usize;
    let first = read_at(file, 0, length)? == read_at(other, 0, length)?;
    Ok(first && tail(file, size)? == tail(other, size)?)
}
