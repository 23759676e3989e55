//! The entries of a tar stream, read with bounds.
//!
//! The tar library joins the long names of GNU and pax headers by itself, and
//! holds them in memory however long they are. Here they are joined by us, so
//! that a name has a bound.

use std::io::Read;
use std::ops::ControlFlow;

use tar::{Archive, EntryType};

/// The longest extended header, bytes: room for two long names.
const LONGEST_HEADER: u64 = 64 * 1024;

/// One entry, its name not yet judged.
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
}

/// Gives each entry and its content to `each`, which may stop the reading. The
/// error is the reason.
pub(super) fn entries(
    stream: impl Read,
    mut each: impl FnMut(&Head, &mut dyn Read) -> Result<ControlFlow<()>, String>,
) -> Result<(), String> {
    let mut archive = Archive::new(stream);
    let mut extended = Extended::default();
    for entry in archive.entries().map_err(|e| e.to_string())?.raw(true) {
        let mut entry = entry.map_err(|e| e.to_string())?;
        match entry.header().entry_type() {
            EntryType::GNULongName => extended.path = Some(text(&mut entry)?),
            EntryType::GNULongLink => extended.link = Some(text(&mut entry)?),
            EntryType::XHeader => extended.take(&header(&mut entry)?)?,
            // the same for all entries: comments and the like
            EntryType::XGlobalHeader => drop(header(&mut entry)?),
            kind => {
                let names = std::mem::take(&mut extended);
                let raw = entry.header();
                let head = Head {
                    path: names.path.unwrap_or_else(|| raw.path_bytes().into_owned()),
                    link: names
                        .link
                        .or_else(|| raw.link_name_bytes().map(|name| name.into_owned()))
                        .unwrap_or_default(),
                    kind,
                    mode: raw.mode().map_err(|e| e.to_string())?,
                    size: raw.entry_size().map_err(|e| e.to_string())?,
                };
                if each(&head, &mut entry)?.is_break() {
                    return Ok(());
                }
            }
        }
    }
    Ok(())
}

/// A whole extended header.
fn header(entry: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    entry.take(LONGEST_HEADER + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
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
            match &record[..equals] {
                b"path" => self.path = Some(record[equals + 1..].to_vec()),
                b"linkpath" => self.link = Some(record[equals + 1..].to_vec()),
                // a size that is not in the header itself is one of more than 8 GB
                b"size" => return Err("a file is too large".into()),
                _ => {}
            }
            records = &records[length..];
        }
        Ok(())
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
        for bad in
            [&b"x"[..], b"99 path=a\n", b"0 path=a\n", b"9 nothing\n", b"3 \n", b"11 size=99\n"]
        {
            assert!(Extended::default().take(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }
}
