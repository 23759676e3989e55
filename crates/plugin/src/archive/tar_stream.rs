//! The entries of a tar stream, read with bounds.
//!
//! The tar library joins the long names of GNU and pax headers by itself, holds names of any
//! length in memory, and takes a stream that is cut off for one that has ended. So the blocks
//! are walked here, and the library only reads the fields of a header.

use std::io::{self, BufReader, Read};
use std::ops::ControlFlow;

use tar::{EntryType, Header};

/// The size of everything in a tar stream is a multiple of this, bytes.
const BLOCK: usize = 512;
/// The longest extended header, bytes: room for two long names.
const LONGEST_HEADER: u64 = 64 * 1024;
/// The most extended headers before one entry.
const MOST_EXTENDED: u32 = 8;
/// The most zeros after the end; tar writes whole records, of 10 KiB mostly.
const LONGEST_END: u64 = 1024 * 1024;

/// One entry; its name is not checked yet.
#[derive(Debug)]
pub(super) struct Head {
    /// The path, as written.
    pub(super) path: Vec<u8>,
    /// What a link points to; empty if it is none.
    pub(super) link: Vec<u8>,
    /// What it is.
    pub(super) kind: EntryType,
    /// The permissions, as written.
    pub(super) mode: u32,
    /// The length of the content, bytes.
    pub(super) size: u64,
}

/// What extended headers say about the entry that follows them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    headers: u32,
}

/// Calls `each` with each entry and its content; `each` may stop the reading, and content that
/// it does not read is skipped. A stream without its end mark (two blocks of zeros), or with
/// anything after it, is an error. The error names the entry and the reason.
pub(super) fn entries(
    stream: impl Read,
    mut each: impl FnMut(&Head, &mut dyn Read) -> Result<ControlFlow<()>, String>,
) -> Result<(), String> {
    let mut stream = BufReader::with_capacity(64 * 1024, stream);
    let mut extended = Extended::default();
    let mut last = String::from("the beginning");
    loop {
        let header = block(&mut stream).map_err(|e| format!("after {last}: {e}"))?;
        let Some(header) = header else {
            if extended.headers > 0 {
                return Err(format!("after {last}: an extended header without its entry"));
            }
            return end(&mut stream);
        };
        let kind = header.entry_type();
        let size = checked(&header).map_err(|e| format!("after {last}: {e}"))?;
        let mut content = Content { stream: &mut stream, left: size };
        if is_extended(kind) {
            extended.add(kind, &mut content).map_err(|e| format!("after {last}: {e}"))?;
        } else {
            let head = head(&header, std::mem::take(&mut extended), size)?;
            last = shown(&head.path);
            if each(&head, &mut content)?.is_break() {
                return Ok(());
            }
        }
        content.finish(size).map_err(|e| format!("{last}: {e}"))?;
    }
}

/// A name as it can be shown: escaped, and not too long.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let short: String = text.chars().take(120).collect();
    let more = if short.len() < text.len() { "…" } else { "" };
    format!("{short:?}{more}")
}

/// The next header; `None` at a block of zeros, which begins the end mark.
fn block(stream: &mut impl Read) -> Result<Option<Header>, String> {
    let mut bytes = [0; BLOCK];
    stream.read_exact(&mut bytes).map_err(cut_off)?;
    if bytes == [0; BLOCK] {
        return Ok(None);
    }
    Ok(Some(Header::from_byte_slice(&bytes).clone()))
}

fn cut_off(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "it is cut off".into(),
        _ => error.to_string(),
    }
}

/// The length of the content, if the checksum of the header is right.
fn checked(header: &Header) -> Result<u64, String> {
    let bytes = header.as_bytes();
    let sum: u32 = bytes[..148].iter().chain(&bytes[156..]).map(|byte| u32::from(*byte)).sum();
    if header.cksum().ok() != Some(sum + 8 * u32::from(b' ')) {
        return Err("this is no tar header".into());
    }
    header.entry_size().map_err(|e| format!("a bad size: {e}"))
}

fn is_extended(kind: EntryType) -> bool {
    use EntryType::{GNULongLink, GNULongName, XGlobalHeader, XHeader};
    matches!(kind, GNULongName | GNULongLink | XHeader | XGlobalHeader)
}

fn head(raw: &Header, names: Extended, size: u64) -> Result<Head, String> {
    let path = names.path.unwrap_or_else(|| raw.path_bytes().into_owned());
    let mode = raw.mode().map_err(|e| format!("{}: a bad mode: {e}", shown(&path)))?;
    let link = names.link.or_else(|| raw.link_name_bytes().map(|name| name.into_owned()));
    Ok(Head { path, link: link.unwrap_or_default(), kind: raw.entry_type(), mode, size })
}

/// Reads what follows the first block of the end mark: zeros, and not too many. It is read to
/// its end, because the checksum of the compression comes last.
fn end(stream: &mut impl Read) -> Result<(), String> {
    let mut rest = stream.take(LONGEST_END + 1);
    let mut buffer = [0; BLOCK];
    let mut total = 0;
    loop {
        let count = rest.read(&mut buffer).map_err(|e| format!("after the end: {e}"))?;
        total += count as u64;
        if buffer[..count].iter().any(|byte| *byte != 0) || total > LONGEST_END {
            return Err("there is something after its end".into());
        }
        match count {
            // the mark is two blocks
            0 if total < BLOCK as u64 => return Err("it is cut off just before its end".into()),
            0 => return Ok(()),
            _ => {}
        }
    }
}

/// The content of one entry.
struct Content<'a, R> {
    stream: &'a mut R,
    left: u64,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.stream.read(&mut buffer[..wanted])?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}

impl<R: Read> Content<'_, R> {
    /// Skips the rest of it, and what fills the last block.
    fn finish(mut self, size: u64) -> Result<(), String> {
        io::copy(&mut self, &mut io::sink()).map_err(cut_off)?;
        let padding = size.next_multiple_of(BLOCK as u64) - size;
        let skipped = io::copy(&mut self.stream.take(padding), &mut io::sink()).map_err(cut_off)?;
        if skipped == padding { Ok(()) } else { Err("it is cut off".into()) }
    }
}

/// A whole extended header.
fn header(entry: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    entry.take(LONGEST_HEADER + 1).read_to_end(&mut bytes).map_err(cut_off)?;
    match bytes.len() as u64 > LONGEST_HEADER {
        true => Err("a name is too long".into()),
        false => Ok(bytes),
    }
}

/// The long name in a GNU header, which ends with a zero.
fn text(entry: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = header(entry)?;
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    Ok(bytes)
}

impl Extended {
    fn add(&mut self, kind: EntryType, content: &mut impl Read) -> Result<(), String> {
        self.headers += 1;
        if self.headers > MOST_EXTENDED {
            return Err(format!("more than {MOST_EXTENDED} extended headers for one entry"));
        }
        match kind {
            EntryType::GNULongName => set(&mut self.path, text(content)?),
            EntryType::GNULongLink => set(&mut self.link, text(content)?),
            EntryType::XHeader => self.take(&header(content)?),
            // the same for all entries: comments and the like, and no names
            _ => {
                let mut global = Self::default();
                global.take(&header(content)?)?;
                match (global.path, global.link) {
                    (None, None) => Ok(()),
                    _ => Err("a name for all entries".into()),
                }
            }
        }
    }

    /// The records of a pax header: `LENGTH KEY=VALUE\n`, the length counting all of it.
    fn take(&mut self, mut records: &[u8]) -> Result<(), String> {
        let bad = || "a bad pax header".to_string();
        while !records.is_empty() {
            let space = records.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
            let length = std::str::from_utf8(&records[..space])
                .ok()
                .and_then(|digits| digits.parse::<usize>().ok());
            let length = length
                .filter(|length| *length > space + 1 && *length <= records.len())
                .ok_or_else(bad)?;
            let record = &records[space + 1..length - 1];
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
            let (key, value) = (&record[..equals], &record[equals + 1..]);
            match key {
                b"path" => set(&mut self.path, value.to_vec())?,
                b"linkpath" => set(&mut self.link, value.to_vec())?,
                // a size that is not in the header itself is one of more than 8 GB
                b"size" => return Err("a file is too large".into()),
                _ if key.starts_with(b"GNU.sparse.") => return Err("a sparse file".into()),
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
    }
}

/// Sets a long name once: of two, each tar program would choose another.
fn set(place: &mut Option<Vec<u8>>, name: Vec<u8>) -> Result<(), String> {
    match place.replace(name) {
        None => Ok(()),
        Some(before) => Err(format!("two long names for one entry: {}", shown(&before))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pax_header_gives_the_names_and_a_bad_one_is_refused() {
        let mut extended = Extended::default();
        extended.take(b"14 path=abcde\n20 mtime=1234567.89\n").unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"abcde"[..]));
        for bad in [
            &b"x"[..],
            b"99 path=a\n",
            b"0 path=a\n",
            b"9 nothing\n",
            b"3 \n",
            b"11 size=99\n",
            b"10 path=a\n10 path=b\n",
            b"22 GNU.sparse.major=1\n",
        ] {
            assert!(Extended::default().take(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
