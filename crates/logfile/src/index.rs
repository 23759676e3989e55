//! The index of a log file: which process wrote which bytes, and when.
//!
//! The index of `NAME` is `.NAME.idx` beside it, and goes with it through rotation and
//! compression. It is a sequence of blocks of 16 bytes, which are only appended:
//!
//! | block | bytes |
//! |---|---|
//! | header | 1, checksum, 2 zero bytes, `MFI1`, inode of the file (8) |
//! | source | 2, checksum, number (2), part (1), parts (1), text (10) |
//! | chunk | 3, checksum, number of its source (2), time (6), offset (6) |
//! | request | 4, checksum, number of the worker's source (2), hash of its id (6), offset (6) |
//! | served | 5, checksum, number of the worker's source (2), milliseconds since 1970 when the worker got it (6), for how many it had it (4), how many later the answer was sent (2) |
//!
//! Numbers are little endian. The checksum is that of the other bytes. The time of a chunk is in
//! milliseconds since 1970; its highest bit is set if all of the chunk was read in that
//! millisecond, else some of it may have been read 100 ms later. A served block is of the request
//! whose block follows it; requests that went to no worker, and those of an older mfserv, have
//! none. A chunk reaches to the offset of the next one. Its block is written before its bytes are, so that a writer that
//! is killed between the two leaves no bytes under the name of another. A block that is torn, or
//! whose checksum is wrong, is left out. Sources are numbered again by each writer: a number means
//! what the last source block before the chunk says.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::rotation;

mod origins;
mod requests;
mod served;
mod writer;

pub use origins::{Origin, Origins};
pub use requests::{RequestAt, Requests};
pub use served::Served;
pub(crate) use writer::IndexWriter;

/// The length of a block, bytes.
const BLOCK: usize = 16;
const HEADER: u8 = 1;
const SOURCE: u8 = 2;
const CHUNK: u8 = 3;
const REQUEST: u8 = 4;
const SERVED: u8 = 5;
const MAGIC: &[u8; 4] = b"MFI1";

/// The bytes of a source's text in one block.
const PART: usize = 10;
/// The longest text of a source, bytes; a longer one is cut.
const TEXT_MAX: usize = 1024;

/// The first source of an index is in so many bytes of it.
const START: u64 = 4096;

/// The bit of a chunk's time that says that all of it was read in that millisecond.
const EXACT: u64 = 1 << 47;

/// The number of a source that is not known.
const NOBODY: u16 = 0;

/// Who writes into a log file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Source {
    /// The process, for a worker its id: `app.foo.main.1.7`.
    pub worker: String,
    /// `stdout` or `stderr`; `both` where the process has one for both.
    pub stream: String,
    /// The release that it runs; empty if that is not known.
    pub release: String,
}

/// What the index records of a byte of a buffer, and of those behind it.
#[derive(Debug, Clone, Copy)]
pub struct Mark<'a> {
    /// The first byte, counted from the begin of the buffer.
    pub at: usize,
    /// Who has written it; in an access log, the worker that has served the request.
    pub source: &'a Source,
    /// What it is.
    pub kind: MarkKind,
}

/// What begins at a [`Mark`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkKind {
    /// Output that was read at this time, milliseconds since 1970.
    Output(u64),
    /// The line of a request in an access log, with the [`request_hash`] of its id.
    Request(u64),
    /// The same for a request that a worker had, and when.
    Served(u64, Served),
}

/// Bytes of a log file that come from one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// The first byte; it reaches to the next chunk.
    pub offset: u64,
    /// When they were read, milliseconds since 1970; 0 if that is not known.
    pub at_ms: u64,
    /// All of them were read in that millisecond; else some of them up to 100 ms later.
    pub is_exact: bool,
    /// The place of the source in [`Index::sources`]; `None` if it is not known.
    pub source: Option<usize>,
}

/// What is known of the bytes of a log file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// Everybody who has written into it.
    pub sources: Vec<Source>,
    /// By offset.
    pub chunks: Vec<Chunk>,
}

/// Of what the chunks of an index are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Output,
    Requests,
}

/// Where the index of a log file is; that of `NAME.zst` is that of `NAME`.
pub fn index_path(log: &Path) -> PathBuf {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".zst").unwrap_or(&name);
    log.with_file_name(format!(".{name}.idx"))
}

impl Index {
    /// Reads the index of a log file; `None` if it has none, or one that is not its own.
    /// `inode`: that of the log file, where it still has the one that it was written with.
    pub fn read(log: &Path, inode: Option<u64>) -> Option<Self> {
        Self::read_as(Of::Output, log, inode)
    }

    /// The same of an access log: a chunk for each request, of the worker that has served it, with
    /// the time at which the client had the answer.
    pub fn read_requests(log: &Path, inode: Option<u64>) -> Option<Self> {
        Self::read_as(Of::Requests, log, inode)
    }

    fn read_as(of: Of, log: &Path, inode: Option<u64>) -> Option<Self> {
        let bytes = fs::read(index_path(log)).ok()?;
        let found = Self::parse(&bytes, of)?;
        (inode.is_none() || inode == Some(found.1)).then_some(found.0)
    }

    /// The first who is named in the index of a log file.
    pub fn first_source(log: &Path) -> Option<Source> {
        let mut start = Vec::new();
        File::open(index_path(log)).ok()?.take(START).read_to_end(&mut start).ok()?;
        Self::parse(&start, Of::Output)?.0.sources.into_iter().next()
    }

    /// The index, and the inode of its file.
    fn parse(bytes: &[u8], of: Of) -> Option<(Self, u64)> {
        let mut blocks = bytes.chunks_exact(BLOCK).filter(|block| block[1] == checksum(block));
        let inode = inode_of(blocks.next()?)?;
        let mut index = Index::default();
        // By number: an index of a large log has half a million chunks.
        let mut known: Vec<Option<usize>> = vec![None; usize::from(u16::MAX) + 1];
        let mut places: HashMap<Source, usize> = HashMap::new();
        let mut text = Vec::new();
        let mut served = None;
        for block in blocks {
            let number = u16::from_le_bytes([block[2], block[3]]);
            let before = served.take();
            match block[0] {
                SOURCE => {
                    if block[4] == 0 {
                        text.clear();
                    }
                    text.extend_from_slice(&block[6..]);
                    if block[4] + 1 == block[5] {
                        let source = Source::of_text(&text);
                        let place = *places.entry(source).or_insert_with_key(|source| {
                            index.sources.push(source.clone());
                            index.sources.len() - 1
                        });
                        known[usize::from(number)] = Some(place);
                    }
                }
                CHUNK => index.add(Chunk {
                    at_ms: six(&block[4..10]) & !EXACT,
                    is_exact: six(&block[4..10]) & EXACT != 0,
                    offset: six(&block[10..16]),
                    source: known[usize::from(number)],
                }),
                SERVED => served = Served::of_block(block.try_into().ok()?, &block[2..4]),
                REQUEST if of == Of::Requests => index.chunks.push(Chunk {
                    at_ms: before.map_or(0, |served: Served| served.end_ms),
                    is_exact: true,
                    offset: six(&block[10..16]),
                    source: known[usize::from(number)],
                }),
                _ => {}
            }
        }
        // While one front hands over to another, both write into it.
        index.chunks.sort_by_key(|chunk| chunk.offset);
        Some((index, inode))
    }

    /// Adds a chunk. What was known of the bytes behind its offset was of bytes that are gone:
    /// somebody has truncated the file, or they were never written.
    fn add(&mut self, chunk: Chunk) {
        while self.chunks.last().is_some_and(|last| last.offset >= chunk.offset) {
            self.chunks.pop();
        }
        self.chunks.push(chunk);
    }

    /// The chunk that a byte belongs to.
    pub fn chunk_at(&self, offset: u64) -> Option<&Chunk> {
        let after = self.chunks.partition_point(|chunk| chunk.offset <= offset);
        after.checked_sub(1).map(|at| &self.chunks[at])
    }
}

impl Source {
    fn text(&self) -> Vec<u8> {
        let mut text = format!("{}\n{}\n{}", self.stream, self.release, self.worker).into_bytes();
        text.truncate(TEXT_MAX);
        text
    }

    fn of_text(text: &[u8]) -> Self {
        let text = String::from_utf8_lossy(text);
        let mut parts = text.trim_end_matches('\0').splitn(3, '\n').map(str::to_owned);
        let mut next = || parts.next().unwrap_or_default();
        let (stream, release) = (next(), next());
        Source { worker: next(), stream, release }
    }
}

/// The hash of a request id that an index has.
pub fn request_hash(id: &[u8]) -> u64 {
    mfserv_core::fingerprint::of(id)
}

fn six(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// What byte 1 of a block must be: `sum = sum * 31 + byte` over the others, written as a sum of
/// products, which the processor does at once.
fn checksum(block: &[u8]) -> u8 {
    let products = block.iter().zip(&WEIGHTS).map(|(byte, weight)| byte.wrapping_mul(*weight));
    // A block of zeros is what a file system may leave after a power cut: it must be wrong.
    products.fold(EMPTY_SUM, u8::wrapping_add)
}

/// The power of 31 that each byte of a block counts with; 0 for the checksum itself.
const WEIGHTS: [u8; BLOCK] = {
    let mut weights = [0_u8; BLOCK];
    let (mut at, mut weight) = (BLOCK, 1_u8);
    while at > 0 {
        at -= 1;
        if at != 1 {
            weights[at] = weight;
            weight = weight.wrapping_mul(31);
        }
    }
    weights
};

/// The sum of a block of zeros.
const EMPTY_SUM: u8 = WEIGHTS[0].wrapping_mul(31).wrapping_mul(0x5a);

fn inode_of(header: &[u8]) -> Option<u64> {
    let is_header = header[0] == HEADER && header[4..8] == *MAGIC;
    let inode: [u8; 8] = header[8..16].try_into().ok()?;
    is_header.then(|| u64::from_le_bytes(inode))
}

fn header(inode: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    block[0] = HEADER;
    block[4..8].copy_from_slice(MAGIC);
    block[8..].copy_from_slice(&inode.to_le_bytes());
    block[1] = checksum(&block);
    block
}

/// Reads the inode of the file that an index belongs to.
fn read_inode(index: &mut File) -> Option<u64> {
    let mut start = [0; BLOCK];
    index.read_exact(&mut start).ok()?;
    if start[1] == checksum(&start) { inode_of(&start) } else { None }
}

/// The index beside the live file may be that of the last one: a writer was killed between
/// the two renames of a rotation. Then it gets the name that belongs to it.
fn give_back(log: &Path, inode: u64) {
    let of = File::open(index_path(log)).ok().and_then(|mut index| read_inode(&mut index));
    let Some(of) = of.filter(|of| *of != inode) else { return };
    let rotated = rotation::rotated(log).unwrap_or_default();
    let is_its_own = |path: &Path| fs::metadata(path).is_ok_and(|found| found.ino() == of);
    if let Some(file) = rotated.iter().find(|file| is_its_own(&file.path)) {
        follow_rename(log, &file.path);
    }
}

/// Renames the index with its file.
pub(crate) fn follow_rename(from: &Path, to: &Path) {
    // A file without an index, or a directory that is gone: lines are read without it.
    let _ = fs::rename(index_path(from), index_path(to));
}

#[cfg(test)]
mod tests;
