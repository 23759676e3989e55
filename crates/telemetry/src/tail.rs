//! The last lines of a file.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// How much is read at a time, from the end.
const CHUNK: u64 = 64 * 1024;
/// The most that is read, bytes: a file of one endless line stays readable.
const MOST: u64 = 64 * 1024 * 1024;

/// The last `count` lines of a file, oldest first, and where the file ended then.
pub fn tail(path: &Path, count: usize) -> io::Result<(Vec<Vec<u8>>, u64)> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    let mut from = end;
    let mut bytes: Vec<u8> = Vec::new();
    while from > 0 && end - from < MOST && lines_in(&bytes) <= count {
        let step = CHUNK.min(from);
        from -= step;
        file.seek(SeekFrom::Start(from))?;
        let mut chunk = vec![0; step as usize];
        file.read_exact(&mut chunk)?;
        chunk.extend_from_slice(&bytes);
        bytes = chunk;
    }
    let lines: Vec<&[u8]> = lines_of(&bytes).collect();
    let skip = lines.len().saturating_sub(count);
    Ok((lines[skip..].iter().map(|line| line.to_vec()).collect(), end))
}

/// The lines of a text, without the byte that ends each.
pub fn lines_of(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\n").unwrap_or(line))
}

/// Where the last whole line of a file ends. A line longer than a chunk counts as whole.
pub fn end_of_lines(path: &Path) -> io::Result<u64> {
    let mut file = File::open(path)?;
    let end = file.seek(SeekFrom::End(0))?;
    let from = end.saturating_sub(CHUNK);
    file.seek(SeekFrom::Start(from))?;
    let mut last = Vec::new();
    file.take(end - from).read_to_end(&mut last)?;
    let whole = last.iter().rposition(|byte| *byte == b'\n').map(|at| from + at as u64 + 1);
    Ok(whole.unwrap_or(if from == 0 { 0 } else { end }))
}

fn lines_in(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_are_found_whatever_their_length() {
        let path = std::env::temp_dir().join(format!("mfserv-tail-{}", std::process::id()));
        let long = "x".repeat(100_000);
        std::fs::write(&path, format!("first\n{long}\nlast\n")).unwrap();
        assert_eq!(tail(&path, 1).unwrap().0, [b"last"]);
        assert_eq!(tail(&path, 2).unwrap().0, [long.as_bytes(), b"last"]);
        assert_eq!(tail(&path, 9).unwrap().0.len(), 3);
        assert!(tail(&path, 0).unwrap().0.is_empty());
        std::fs::write(&path, b"\xff\x1b[2J\r\n\nend").unwrap();
        assert_eq!(tail(&path, 9).unwrap().0, [&b"\xff\x1b[2J\r"[..], b"", b"end"]);
        std::fs::remove_file(&path).unwrap();
        assert!(tail(&path, 1).is_err());
    }
}
