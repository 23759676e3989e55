//! Compressed log files: zstd in frames of [`FRAME`] bytes, with a table of them at the end
//! (the seekable format of zstd), so that a line in the middle is read without the rest.
//! Every zstd program reads them.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Uncompressed bytes in a frame.
const FRAME: usize = 1024 * 1024;
const LEVEL: i32 = 3;
/// What a skippable frame and the table of frames begin and end with.
const SKIPPABLE: u32 = 0x184D_2A5E;
const TABLE_END: u32 = 0x8F92_EAB1;
/// The length of the end of the table, bytes.
const FOOTER: usize = 9;
/// The largest table that is read: 100 TB of logs.
const FRAMES_MAX: usize = 100_000_000;

/// A compressed file, open for reading.
pub struct Compressed {
    file: File,
    frames: Vec<Frame>,
    /// The frame that was read last.
    cached: Option<(usize, Vec<u8>)>,
}

#[derive(Debug, Clone, Copy)]
struct Frame {
    /// Where it is in the file, and how long.
    at: u64,
    length: usize,
    /// The same of what it holds.
    from: u64,
    holds: usize,
}

impl Compressed {
    /// Opens a file that [`compress`] has made.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let frames = read_table(&mut file)?;
        Ok(Self { file, frames, cached: None })
    }

    /// How many bytes it holds.
    pub fn len(&self) -> u64 {
        self.frames.last().map_or(0, |last| last.from + last.holds as u64)
    }

    /// True if it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads from a place of what it holds; less than `into` at the end and at the end of a
    /// frame, nothing behind the end.
    pub fn read_at(&mut self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let after = self.frames.partition_point(|frame| frame.from <= offset);
        let Some(at) = after.checked_sub(1) else { return Ok(0) };
        let frame = self.frames[at];
        let skipped = (offset - frame.from) as usize;
        let content = match &mut self.cached {
            Some((cached, content)) if *cached == at => content,
            cached => {
                let mut packed = vec![0; frame.length];
                self.file.read_exact_at(&mut packed, frame.at)?;
                &mut cached.insert((at, zstd::bulk::decompress(&packed, frame.holds)?)).1
            }
        };
        let rest = content.get(skipped..).unwrap_or_default();
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

fn read_table(file: &mut File) -> io::Result<Vec<Frame>> {
    let foreign = || io::Error::new(io::ErrorKind::InvalidData, "no table of frames at its end");
    let size = file.metadata()?.len();
    let mut footer = [0; FOOTER];
    file.seek(SeekFrom::Start(size.checked_sub(FOOTER as u64).ok_or_else(foreign)?))?;
    file.read_exact(&mut footer)?;
    let count = number(&footer[..4]) as usize;
    if number(&footer[5..]) != TABLE_END || footer[4] != 0 || count > FRAMES_MAX {
        return Err(foreign());
    }
    let table = count as u64 * 8;
    let start = size.checked_sub(FOOTER as u64 + table).ok_or_else(foreign)?;
    let mut entries = vec![0; table as usize];
    file.read_exact_at(&mut entries, start)?;
    let (mut at, mut from) = (0, 0);
    let mut frames = Vec::with_capacity(count);
    for entry in entries.chunks_exact(8) {
        let (length, holds) = (number(&entry[..4]) as usize, number(&entry[4..]) as usize);
        if holds > FRAME || at + length as u64 > start {
            return Err(foreign());
        }
        frames.push(Frame { at, length, from, holds });
        at += length as u64;
        from += holds as u64;
    }
    Ok(frames)
}

fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
}

/// The name of the compressed file.
pub fn compressed_path(log: &Path) -> PathBuf {
    let mut name = log.as_os_str().to_owned();
    name.push(".zst");
    PathBuf::from(name)
}

/// Replaces a rotated file, which nobody writes to any more, by a compressed one. It may be
/// killed at any time: until the compressed file is whole and on the disk it has another
/// name, and the plain file goes last; whoever finds both reads the plain one. Returns false
/// if the file has changed meanwhile, and stays as it is.
pub fn compress(log: &Path) -> io::Result<bool> {
    let mut plain = File::open(log)?;
    let before = plain.metadata()?;
    let target = compressed_path(log);
    let is_done = Compressed::open(&target).is_ok_and(|done| done.len() == before.len());
    if !is_done {
        let part = part_path(log);
        let packed = write_frames(&mut plain, &part, &before);
        if packed.as_ref().is_ok_and(|length| *length == before.len()) {
            fs::rename(&part, &target)?;
        } else {
            let _ = fs::remove_file(&part);
            return packed.map(|_| false);
        }
    }
    if let Some(directory) = target.parent().filter(|path| !path.as_os_str().is_empty()) {
        File::open(directory)?.sync_all()?;
    }
    let now = fs::metadata(log)?;
    if (now.ino(), now.len()) != (before.ino(), before.len()) {
        fs::remove_file(&target)?;
        return Ok(false);
    }
    fs::remove_file(log)?;
    Ok(true)
}

/// What an unfinished compression is called: hidden, and made again by the next one.
fn part_path(log: &Path) -> PathBuf {
    let name = log.file_name().unwrap_or_default().to_string_lossy();
    log.with_file_name(format!(".{name}.zst.part"))
}

/// Writes the compressed file to the disk; returns how many bytes it holds.
fn write_frames(plain: &mut File, part: &Path, of: &fs::Metadata) -> io::Result<u64> {
    let mut packed = File::create(part)?;
    packed.set_permissions(of.permissions())?;
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    let mut frame = Vec::with_capacity(FRAME);
    let (mut table, mut total, mut count) = (Vec::new(), 0, 0_u32);
    loop {
        frame.clear();
        let length = (&*plain).take(FRAME as u64).read_to_end(&mut frame)?;
        if length == 0 {
            break;
        }
        let bytes = compressor.compress(&frame)?;
        packed.write_all(&bytes)?;
        table.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        table.extend_from_slice(&(length as u32).to_le_bytes());
        total += length as u64;
        count += 1;
    }
    let table_length = (table.len() + FOOTER) as u32;
    table.extend_from_slice(&count.to_le_bytes());
    table.push(0);
    table.extend_from_slice(&TABLE_END.to_le_bytes());
    packed.write_all(&[SKIPPABLE.to_le_bytes(), table_length.to_le_bytes()].concat())?;
    packed.write_all(&table)?;
    if let Ok(modified) = of.modified() {
        packed.set_modified(modified)?;
    }
    packed.sync_all()?;
    Ok(total)
}
