//! Appending to the index of a live file.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use super::{BLOCK, CHUNK, EXACT, Mark, MarkKind, NOBODY, PART, REQUEST, SOURCE, Source};
use super::{checksum, give_back, header, index_path, read_inode};

/// Chunks of one source in a row get one block in this time, milliseconds, where the index is
/// not to grow faster than it does.
const SAME_FOR_MS: u64 = 100;

/// Each millisecond gets a block of its own, while the index is smaller than a quarter of its
/// file and so many bytes.
const EXACT_MAX: u64 = 32 * 1024;

/// The index may be larger than its file by so many bytes, and by one chunk with its source, so
/// by 64 KiB at most; beyond, chunks that follow another source's are said to be of nobody.
const AHEAD_MAX: u64 = 62 * 1024;

/// Appends to the index of the live file.
pub(crate) struct IndexWriter {
    file: File,
    size: u64,
    numbers: HashMap<Source, u16>,
    /// The number before the first one. Two fronts write to one index while one hands over to
    /// the other: they shall not use the same numbers.
    base: u16,
    last: Option<Last>,
    /// Blocks that are written together.
    blocks: Vec<u8>,
}

/// The last chunk.
#[derive(Clone, Copy)]
struct Last {
    number: u16,
    at_ms: u64,
    is_exact: bool,
}

impl IndexWriter {
    /// Opens the index of a log file with this inode and size, or begins it. What is not a whole
    /// block at its end is cut off.
    pub fn open(log: &Path, inode: u64, size: u64, mode: Option<u32>) -> io::Result<Self> {
        let path = index_path(log);
        give_back(log, inode);
        let mut file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .mode(mode.unwrap_or(0o666))
            .open(&path)?;
        if let Some(mode) = mode {
            // A file of another user can be written to without being ours to chmod.
            let _ = file.set_permissions(Permissions::from_mode(mode));
        }
        let length = file.metadata()?.len();
        let is_ours = read_inode(&mut file) == Some(inode);
        let kept = if is_ours && size > 0 { length - length % BLOCK as u64 } else { 0 };
        if kept != length {
            file.set_len(kept)?;
        }
        let mut index = Self {
            file,
            size: kept,
            numbers: HashMap::new(),
            base: base(),
            last: None,
            blocks: Vec::new(),
        };
        if kept == 0 {
            index.blocks.extend_from_slice(&header(inode));
            if size > 0 {
                index.note_unknown(0);
            }
        }
        Ok(index)
    }

    /// From this offset on the file is of this source.
    pub fn note(&mut self, mark: &Mark<'_>, offset: u64) {
        let known = self.numbers.get(mark.source).copied();
        let at_ms = match mark.kind {
            MarkKind::Output(at_ms) => at_ms,
            MarkKind::Request(hash) => {
                let number = known.unwrap_or_else(|| self.put_source(mark.source));
                return self.put(REQUEST, number, hash, offset);
            }
            MarkKind::Served(hash, served) => {
                let number = known.unwrap_or_else(|| self.put_source(mark.source));
                self.blocks.extend_from_slice(&served.block(number));
                return self.put(REQUEST, number, hash, offset);
            }
        };
        let same = |last: Last| {
            let for_ms = if last.is_exact { 1 } else { SAME_FOR_MS };
            Some(last.number) == known && at_ms >= last.at_ms && at_ms - last.at_ms < for_ms
        };
        if self.last.is_some_and(same) {
            return;
        }
        let size = self.size + self.blocks.len() as u64;
        if size > offset + AHEAD_MAX {
            if self.last.is_none_or(|last| last.number != NOBODY) {
                self.note_unknown(offset);
            }
            return;
        }
        let number = known.unwrap_or_else(|| self.put_source(mark.source));
        self.put_chunk(Last { number, at_ms, is_exact: size < offset / 4 + EXACT_MAX }, offset);
    }

    /// From this offset on it is not known who wrote the file, nor when: its lines may have any
    /// time, so none is stored.
    pub fn note_unknown(&mut self, offset: u64) {
        self.put_chunk(Last { number: NOBODY, at_ms: 0, is_exact: false }, offset);
    }

    /// Writes what was noted, or nothing. After an error the file may still end with a part of a
    /// block: it is to be opened again, which cuts that off.
    pub fn flush(&mut self) -> io::Result<()> {
        if !self.blocks.is_empty() {
            if let Err(why) = self.file.write_all(&self.blocks) {
                // Whole blocks that are there would be followed by earlier ones.
                let _ = self.file.set_len(self.size);
                return Err(why);
            }
            self.size += self.blocks.len() as u64;
            self.blocks.clear();
        }
        Ok(())
    }

    fn put_chunk(&mut self, chunk: Last, offset: u64) {
        let time = if chunk.is_exact { chunk.at_ms | EXACT } else { chunk.at_ms };
        self.put(CHUNK, chunk.number, time, offset);
        self.last = Some(chunk);
    }

    fn put(&mut self, kind: u8, number: u16, value: u64, offset: u64) {
        let mut block = [0; BLOCK];
        block[0] = kind;
        block[2..4].copy_from_slice(&number.to_le_bytes());
        block[4..10].copy_from_slice(&value.to_le_bytes()[..6]);
        block[10..].copy_from_slice(&offset.to_le_bytes()[..6]);
        block[1] = checksum(&block);
        self.blocks.extend_from_slice(&block);
    }

    fn put_source(&mut self, source: &Source) -> u16 {
        if self.numbers.len() >= usize::from(u16::MAX) {
            self.numbers.clear();
        }
        let number = self.base.wrapping_add(self.numbers.len() as u16 + 1).max(1);
        self.numbers.insert(source.clone(), number);
        let text = source.text();
        let parts = text.chunks(PART);
        let count = parts.len() as u8;
        for (part, text) in parts.enumerate() {
            let mut block = [0; BLOCK];
            block[0] = SOURCE;
            block[2..4].copy_from_slice(&number.to_le_bytes());
            block[4..6].copy_from_slice(&[part as u8, count]);
            block[6..6 + text.len()].copy_from_slice(text);
            block[1] = checksum(&block);
            self.blocks.extend_from_slice(&block);
        }
        number
    }
}

/// Another number for each writer of this and of other processes, nearly always.
fn base() -> u16 {
    static WRITERS: AtomicU32 = AtomicU32::new(0);
    let writer = WRITERS.fetch_add(7919, Ordering::Relaxed);
    (std::process::id().wrapping_mul(40_503).wrapping_add(writer) % 60_000) as u16
}
