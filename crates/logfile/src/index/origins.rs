//! Who has written the bytes of a log that is read from a position on, while it grows.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{BLOCK, CHUNK, EXACT, SOURCE, Source, checksum, index_path, inode_of, six};

/// How much of an index is read at a time: whole blocks.
const PIECE: usize = 64 * 1024;

/// The index of a log file, read along with the file: no more of it is in memory than one piece.
/// It stays that of its file when both are renamed.
#[derive(Debug)]
pub struct Origins {
    file: File,
    /// Up to here blocks were taken; whole blocks.
    at: u64,
    /// Chunks before this place are of bytes that somebody has truncated.
    valid_from: u64,
    piece: Vec<u8>,
    taken: usize,
    sources: HashMap<u16, Arc<Source>>,
    /// The text of a source whose blocks are being read.
    text: Vec<u8>,
    /// The chunk that the last asked byte was in.
    current: Option<Origin>,
    /// The one behind it, which begins at this offset.
    next: Option<(u64, Origin)>,
}

/// Who has written some bytes of a log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// `None` if that is not known.
    pub source: Option<Arc<Source>>,
    /// When they were read, milliseconds since 1970; 0 if that is not known.
    pub at_ms: u64,
}

impl Origins {
    /// Opens the index of a log file; `None` if it has none, or one of another file.
    pub fn open(log: &Path, inode: u64) -> Option<Self> {
        let file = File::open(index_path(log)).ok()?;
        let mut header = [0; BLOCK];
        file.read_exact_at(&mut header, 0).ok()?;
        let is_its_own = header[1] == checksum(&header) && inode_of(&header) == Some(inode);
        if !is_its_own {
            return None;
        }
        let mut origins = Self {
            file,
            at: 0,
            valid_from: 0,
            piece: Vec::new(),
            taken: 0,
            sources: HashMap::new(),
            text: Vec::new(),
            current: None,
            next: None,
        };
        origins.find_truncation();
        Some(origins)
    }

    /// Who has written the byte at this offset. Offsets are asked for in their order.
    pub fn at(&mut self, offset: u64) -> Origin {
        loop {
            match self.next.take() {
                Some((from, origin)) if from <= offset => self.current = Some(origin),
                Some(later) => {
                    self.next = Some(later);
                    break;
                }
                None => {
                    self.next = self.next_chunk();
                    if self.next.is_none() {
                        break;
                    }
                }
            }
        }
        self.current.clone().unwrap_or_default()
    }

    /// Finds the last place where offsets begin anew: what stands before it is of earlier bytes.
    fn find_truncation(&mut self) {
        let (mut last, mut truncated) = (0, 0);
        while let Some(block) = self.next_block() {
            if block[0] == CHUNK {
                let offset = six(&block[10..16]);
                if offset < last {
                    truncated = self.at - BLOCK as u64;
                }
                last = offset;
            }
        }
        (self.at, self.valid_from, self.taken) = (0, truncated, 0);
        self.piece.clear();
    }

    /// The next chunk: where it begins, and its origin.
    fn next_chunk(&mut self) -> Option<(u64, Origin)> {
        while let Some(block) = self.next_block() {
            let number = u16::from_le_bytes([block[2], block[3]]);
            match block[0] {
                SOURCE => {
                    if block[4] == 0 {
                        self.text.clear();
                    }
                    self.text.extend_from_slice(&block[6..]);
                    if block[4] + 1 == block[5] {
                        let source = Source::of_text(&self.text);
                        self.sources.insert(number, Arc::new(source));
                    }
                }
                CHUNK if self.at > self.valid_from => {
                    let source = self.sources.get(&number).cloned();
                    let at_ms = six(&block[4..10]) & !EXACT;
                    return Some((six(&block[10..16]), Origin { source, at_ms }));
                }
                _ => {}
            }
        }
        None
    }

    /// The next block that is whole and right; `None` at the end of what is written.
    fn next_block(&mut self) -> Option<[u8; BLOCK]> {
        loop {
            if self.piece.len() - self.taken < BLOCK {
                self.piece.resize(PIECE, 0);
                // An index that cannot be read says as little as none.
                let read = self.file.read_at(&mut self.piece, self.at).unwrap_or(0);
                self.piece.truncate(read - read % BLOCK);
                self.taken = 0;
                if self.piece.is_empty() {
                    return None;
                }
            }
            let mut block = [0; BLOCK];
            block.copy_from_slice(&self.piece[self.taken..self.taken + BLOCK]);
            self.taken += BLOCK;
            self.at += BLOCK as u64;
            if block[1] == checksum(&block) {
                return Some(block);
            }
        }
    }
}
