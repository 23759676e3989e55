//! An append-only log file that rotates by size and by age.
//!
//! A [`LogFile`] is given whole buffers of lines. It creates its directory, opens with
//! O_APPEND (several processes may write to the same file), renames the file away when it
//! has grown too large or too old (`NAME.YYYYMMDDHHMMSS`, local time, and a counter when
//! that, or a later one, exists), and keeps as many files as it is told. A file that somebody else
//! truncates, renames or deletes is noticed within about a second. Nothing panics: what
//! the system refuses comes back as [`Trouble`], with the bytes that were written all the
//! same, so that a caller who tries again writes no line twice.

#![forbid(unsafe_code)]

mod care;
mod compressed;
mod index;
mod rotation;

pub use care::{Cared, care};
pub use compressed::{Compressed, compress};
pub use index::{
    Chunk, Index, Mark, MarkKind, Origin, Origins, RequestAt, Requests, Served, Source, index_path,
    request_hash,
};
pub use rotation::{Rotated, rotated, rotated_in};

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use mfserv_core::output::Rotation;
use rustix::process::{Resource, getrlimit};

use index::IndexWriter;

/// How often the file on disk is compared with the open one.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// Why an append did not succeed, and how far it came.
#[derive(Debug)]
pub struct Trouble {
    /// Bytes of the buffer that are in the file: try again with what follows them.
    pub written: usize,
    /// What the system said.
    pub error: io::Error,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Trouble {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

/// The open file and what is known of it.
struct Live {
    file: File,
    /// Device and inode: what the path must still lead to.
    identity: (u64, u64),
    size: u64,
    /// The age counts from here: the birth of the file where the file system knows it,
    /// else its last change when it was opened. Both survive a restart.
    born: SystemTime,
}

/// A log file with its rotation.
pub struct LogFile {
    path: PathBuf,
    rotation: Rotation,
    /// `rotation.max_bytes`, kept below what RLIMIT_FSIZE lets this process write.
    max_bytes: u64,
    live: Option<Live>,
    /// The index of the live file, once something was appended whose source is known.
    index: Option<IndexWriter>,
    /// From this byte on the index does not say who wrote the live file: it could not be written.
    unnoted: Option<u64>,
    checked: Instant,
}

impl LogFile {
    /// A log file that is opened by the first append.
    pub fn new(path: impl Into<PathBuf>, rotation: Rotation) -> Self {
        let max_bytes = below_file_size_limit(rotation.max_bytes);
        let (path, checked) = (path.into(), Instant::now());
        Self { path, rotation, max_bytes, live: None, index: None, unnoted: None, checked }
    }

    /// A log file, opened now. Old rotated files beyond the number to keep are removed.
    pub fn open(path: impl Into<PathBuf>, rotation: Rotation) -> io::Result<Self> {
        let mut log = Self::new(path, rotation);
        log.live()?;
        Ok(log)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it is rotated.
    pub fn rotation(&self) -> Rotation {
        self.rotation
    }

    /// From now on rotates in this way.
    pub fn set_rotation(&mut self, rotation: Rotation) {
        self.rotation = rotation;
        self.max_bytes = below_file_size_limit(rotation.max_bytes);
    }

    /// Appends whole lines. The buffer is divided between two lines where the file
    /// reaches its size.
    pub fn append(&mut self, lines: &[u8]) -> Result<(), Trouble> {
        self.append_marked(lines, &[])
    }

    /// Appends whole lines, and records in the index who wrote them: `marks` in the order of
    /// the buffer, the first at its begin. An index that cannot be written delays nothing and
    /// loses no line; it says later that these bytes are of an unknown source.
    pub fn append_marked(&mut self, lines: &[u8], marks: &[Mark<'_>]) -> Result<(), Trouble> {
        let mut written = 0;
        let trouble = |written, error| Err(Trouble { written, error });
        if let Err(error) = self.check_if_due() {
            return trouble(written, error);
        }
        while written < lines.len() {
            match self.append_piece(lines, written, marks) {
                Ok(count) => written += count,
                Err(e) => return trouble(written + e.written, e.error),
            }
        }
        Ok(())
    }

    /// Ends the last line if it has no end: what a writer that was killed has left.
    pub fn end_line(&mut self) -> Result<(), Trouble> {
        let live = self.live().map_err(|error| Trouble { written: 0, error })?;
        // The file is open for appending only; a pipe or a device has no last byte.
        let mut last = [b'\n'];
        if let (Some(at), Ok(file)) = (live.size.checked_sub(1), File::open(&self.path)) {
            let _ = file.read_exact_at(&mut last, at);
        }
        if last == *b"\n" { Ok(()) } else { self.append(b"\n") }
    }

    /// Rotates if the file is too old, or too large by what others have written into it, and
    /// notices a file that is gone, without writing. To be called about once a second while nothing
    /// is appended. A file that only others have made counts from now on.
    pub fn tick(&mut self) -> io::Result<()> {
        if self.live.is_none() && self.path.is_file() {
            self.live()?;
        }
        self.check_if_due()
    }

    /// Writes what still fits into the live file, from the byte `from` on; returns how much
    /// that was. Zero means that the file has been rotated and there is room now.
    fn append_piece(
        &mut self,
        lines: &[u8],
        from: usize,
        marks: &[Mark<'_>],
    ) -> Result<usize, Trouble> {
        let lines = &lines[from..];
        let max_bytes = self.max_bytes;
        let live = self.live().map_err(|error| Trouble { written: 0, error })?;
        let begin = live.size;
        let mut piece = match max_bytes {
            0 => lines,
            max => fitting(lines, max.saturating_sub(live.size), live.size == 0),
        };
        if piece.is_empty() {
            if self.rotate().is_ok() {
                return Ok(0);
            }
            // Better a file that is too large than lines that are lost.
            piece = lines;
        }
        if !marks.is_empty() {
            match self.note(marks, from, piece.len()) {
                Ok(()) => self.unnoted = None,
                Err(_) => {
                    self.index = None;
                    self.unnoted.get_or_insert(begin);
                }
            }
        }
        let live = self.live().map_err(|error| Trouble { written: 0, error })?;
        let mut written = 0;
        while written < piece.len() {
            match live.file.write(&piece[written..]) {
                Ok(0) => return Err(Trouble { written, error: io::ErrorKind::WriteZero.into() }),
                Ok(count) => {
                    written += count;
                    live.size += count as u64;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Trouble { written, error }),
            }
        }
        Ok(written)
    }

    /// Writes into the index who wrote `length` bytes of a buffer from its byte `from` on.
    fn note(&mut self, marks: &[Mark<'_>], from: usize, length: usize) -> io::Result<()> {
        let Some(live) = &self.live else { return Ok(()) };
        let index = match &mut self.index {
            Some(index) => index,
            none => none.insert(IndexWriter::open(
                &self.path,
                live.identity.1,
                live.size,
                self.rotation.mode,
            )?),
        };
        // An append that failed as well has written nothing that is not noted now.
        if let Some(unnoted) = self.unnoted.filter(|unnoted| *unnoted < live.size) {
            index.note_unknown(unnoted);
        }
        let first = marks.partition_point(|mark| mark.at <= from).saturating_sub(1);
        for mark in marks[first..].iter().take_while(|mark| mark.at < from + length) {
            if mark.at < from && !matches!(mark.kind, MarkKind::Output(_)) {
                // Its line is in the file before.
                continue;
            }
            index.note(mark, live.size + mark.at.saturating_sub(from) as u64);
        }
        index.flush()
    }

    /// The live file is another one now, or begins anew.
    fn forget_index(&mut self) {
        self.index = None;
        self.unnoted = None;
    }

    /// The open file; opens it first if it is not.
    fn live(&mut self) -> io::Result<&mut Live> {
        if self.live.is_none() {
            self.live = Some(open_live(&self.path, self.rotation.mode)?);
            rotation::clean(&self.path, self.rotation.keep)?;
            self.checked = Instant::now();
        }
        self.live.as_mut().ok_or_else(|| io::Error::other("the log file is not open"))
    }

    fn check_if_due(&mut self) -> io::Result<()> {
        if self.checked.elapsed() < CHECK_EVERY {
            return Ok(());
        }
        self.checked = Instant::now();
        let Some(live) = &mut self.live else { return Ok(()) };
        match fs::metadata(&self.path) {
            Ok(on_disk) if identity(&on_disk) == live.identity => {
                let was = std::mem::replace(&mut live.size, on_disk.len());
                if on_disk.len() < was {
                    // What the index says is of bytes that are gone.
                    self.forget_index();
                    let _ = fs::remove_file(index_path(&self.path));
                }
            }
            _ => {
                self.live = None;
                self.forget_index();
                self.live()?;
            }
        }
        if self.is_too_old() || self.is_too_large() {
            // A directory that permits no rename does not stop the log.
            let _ = self.rotate();
        }
        Ok(())
    }

    fn is_too_large(&self) -> bool {
        self.max_bytes > 0 && self.live.as_ref().is_some_and(|live| live.size >= self.max_bytes)
    }

    fn is_too_old(&self) -> bool {
        let Some(live) = &self.live else { return false };
        let limit = Duration::from_secs(self.rotation.max_age_s);
        let age = SystemTime::now().duration_since(live.born).unwrap_or_default();
        !limit.is_zero() && live.size > 0 && age >= limit
    }

    /// Renames the live file away, opens a new one, and removes the oldest. If another
    /// process has already done so, only opens the new one.
    fn rotate(&mut self) -> io::Result<()> {
        let Some(live) = self.live.take() else { return Ok(()) };
        let still_ours = fs::metadata(&self.path).is_ok_and(|m| identity(&m) == live.identity);
        let renamed = match still_ours {
            true => rotation::rename_away(&self.path).map(Some),
            false => Ok(None),
        };
        let rotated = match renamed {
            Ok(rotated) => rotated,
            Err(error) => {
                self.live = Some(live);
                return Err(error);
            }
        };
        let unnoted = self.unnoted;
        self.forget_index();
        let opened = self.live().map(|_| ());
        if let Some((file, unnoted)) = rotated.filter(|file| file.exists()).zip(unnoted) {
            // The files that were just removed may have made room for it.
            let mode = self.rotation.mode;
            let index = IndexWriter::open(&file, live.identity.1, live.size, mode);
            let _ = index.and_then(|mut index| {
                index.note_unknown(unnoted);
                index.flush()
            });
        }
        opened
    }
}

/// The longest piece of whole lines that is at most `room` long; at least one line if
/// the file is empty, since no other file will have more room.
fn fitting(lines: &[u8], room: u64, file_is_empty: bool) -> &[u8] {
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if lines.len() <= room {
        return lines;
    }
    match lines[..room].iter().rposition(|&b| b == b'\n') {
        Some(end) => &lines[..=end],
        None if !file_is_empty => &[],
        None => match lines.iter().position(|&b| b == b'\n') {
            Some(end) => &lines[..=end],
            None => lines,
        },
    }
}

fn open_live(path: &Path, mode: Option<u32>) -> io::Result<Live> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o666).open(path)?;
    let found = file.metadata()?;
    if let Some(mode) = mode.filter(|mode| found.is_file() && found.mode() & 0o7777 != *mode) {
        // A file of another user can be written to without being ours to chmod.
        let _ = file.set_permissions(fs::Permissions::from_mode(mode));
    }
    let born = found.created().or_else(|_| found.modified()).unwrap_or_else(|_| SystemTime::now());
    Ok(Live { identity: identity(&found), size: found.len(), born, file })
}

fn identity(found: &fs::Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// A size limit of this process would end the log for good: rotate at 90 % of it.
fn below_file_size_limit(max_bytes: u64) -> u64 {
    match getrlimit(Resource::Fsize).current {
        None => max_bytes,
        Some(limit) => match (max_bytes, limit / 10 * 9) {
            (0, most) => most.max(1),
            (wanted, most) => wanted.min(most.max(1)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::fitting;

    #[test]
    fn a_buffer_is_divided_between_two_lines() {
        assert_eq!(fitting(b"a\nbb\nccc\n", 6, false), b"a\nbb\n");
        assert_eq!(fitting(b"a\nbb\n", 5, false), b"a\nbb\n");
    }

    #[test]
    fn a_line_that_does_not_fit_waits_for_the_next_file_unless_the_file_is_empty() {
        assert_eq!(fitting(b"long line\nb\n", 4, false), b"");
        assert_eq!(fitting(b"long line\nb\n", 4, true), b"long line\n");
        assert_eq!(fitting(b"no end", 4, true), b"no end");
    }
}
