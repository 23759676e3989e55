//! Where the requests of an access log are, read from the end of its index on.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use super::{BLOCK, CHUNK, Index, NOBODY, PART, REQUEST, SOURCE, Served, Source};
use super::{checksum, index_path, six};

/// How much of an index is read at a time when it is read from its end on: whole blocks.
const PIECE: usize = 256 * 1024;

/// How far from the block of a request others of its worker are looked for that came soon after
/// it, bytes. They stand there in the order of their ends.
const NEAR: u64 = 1024 * 1024;

impl Index {
    /// Where an access log may have the line of a request, and the worker that has served it;
    /// the newest first. Another id may have the same hash: the line has to be looked at. `None`
    /// if the log has no index.
    pub fn requests(log: &Path, hash: u64) -> Option<Requests> {
        let file = Arc::new(File::open(index_path(log)).ok()?);
        let length = file.metadata().ok()?.len();
        let hash = hash.to_le_bytes();
        let mut wanted = [0; 6];
        wanted.copy_from_slice(&hash[..6]);
        let blocks = Backwards::new(file, length - length % BLOCK as u64);
        Some(Requests { blocks, wanted, has_gaps: false })
    }
}

/// The places of the requests with one hash: see [`Index::requests`].
#[derive(Debug)]
pub struct Requests {
    blocks: Backwards,
    wanted: [u8; 6],
    has_gaps: bool,
}

impl Requests {
    /// True if the index does not have all requests of its log, as far as it has been read: it
    /// could not be written at a time, or was begun after the log.
    pub fn has_gaps(&self) -> bool {
        self.has_gaps
    }
}

/// The place of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestAt {
    /// Where its line begins in the access log.
    pub offset: u64,
    /// The worker that has served it, or had it last; an empty source if it went to none.
    pub worker: Source,
    /// When the worker had it, if the index says so.
    pub served: Option<Served>,
    /// When the worker got the next request, if that was one of those around this one in the log.
    pub next_ms: Option<u64>,
}

impl Iterator for Requests {
    type Item = RequestAt;

    fn next(&mut self) -> Option<Self::Item> {
        let wanted = self.wanted;
        let (blocks, has_gaps) = (&mut self.blocks, &mut self.has_gaps);
        let block = blocks.find(|block| match block[0] {
            REQUEST => block[4..10] == wanted && block[1] == checksum(block),
            CHUNK => {
                let is_unknown = block[2..4] == NOBODY.to_le_bytes();
                *has_gaps |= is_unknown && block[1] == checksum(block);
                false
            }
            _ => false,
        })?;
        let (number, at) = (&block[2..4], self.blocks.at());
        let before = || Backwards::new(self.blocks.file.clone(), at);
        let served = before().next().and_then(|block| Served::of_block(&block, number));
        let next_ms = served.and_then(|served| self.next_of(number, &served, at));
        let worker = source_before(before(), number);
        Some(RequestAt { offset: six(&block[10..16]), worker, served, next_ms })
    }
}

impl Requests {
    /// When the worker with this number got its next request after it had answered one, whose
    /// block is at this place.
    fn next_of(&self, number: &[u8], served: &Served, at: u64) -> Option<u64> {
        let from = at.saturating_sub(NEAR);
        let mut bytes = Vec::new();
        let mut file = &*self.blocks.file;
        file.seek(SeekFrom::Start(from)).ok()?;
        file.take(at - from + NEAR).read_to_end(&mut bytes).ok()?;
        let of = |block: &[u8]| Served::of_block(block.try_into().ok()?, number);
        let begins = bytes.chunks_exact(BLOCK).filter_map(of).map(|other| other.from_ms);
        begins.filter(|from_ms| *from_ms >= served.to_ms && *from_ms > served.from_ms).min()
    }
}

/// The blocks of an index, the last one first: it is read only as far as they are asked for.
#[derive(Debug)]
struct Backwards {
    file: Arc<File>,
    /// Where `piece` begins in the file.
    start: u64,
    /// Blocks of which the first `left` bytes are still to be given.
    piece: Vec<u8>,
    left: usize,
}

impl Backwards {
    /// The blocks before this place.
    fn new(file: Arc<File>, before: u64) -> Self {
        Self { file, start: before, piece: Vec::new(), left: 0 }
    }

    /// The place of the block that was given last.
    fn at(&self) -> u64 {
        self.start + self.left as u64
    }
}

impl Iterator for Backwards {
    type Item = [u8; BLOCK];

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let length = self.start.min(PIECE as u64);
            self.piece.resize(length as usize, 0);
            self.start -= length;
            // An index that has become shorter meanwhile has nothing more to say.
            self.file.read_exact_at(&mut self.piece, self.start).ok()?;
            self.left = self.piece.len();
        }
        self.left = self.left.checked_sub(BLOCK)?;
        self.piece.get(self.left..self.left + BLOCK)?.try_into().ok()
    }
}

/// The source with this number that was named last in these blocks.
fn source_before(blocks: Backwards, number: &[u8]) -> Source {
    let mut parts: Vec<[u8; PART]> = Vec::new();
    for block in blocks.filter(|block| block[0] == SOURCE && &block[2..4] == number) {
        if block[1] == checksum(&block) {
            let mut part = [0; PART];
            part.copy_from_slice(&block[6..]);
            parts.push(part);
            if block[4] == 0 {
                break;
            }
        }
    }
    parts.reverse();
    Source::of_text(&parts.concat())
}
