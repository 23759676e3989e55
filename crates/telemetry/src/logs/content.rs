//! What a log file holds, plain or compressed.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use mfserv_logfile::Compressed;

/// An open log file.
pub(super) enum Content {
    Plain(File, u64),
    Packed(Box<Compressed>),
}

impl Content {
    pub fn open(path: &Path) -> io::Result<Self> {
        if path.extension().is_some_and(|end| end == "zst") {
            return Ok(Content::Packed(Box::new(Compressed::open(path)?)));
        }
        let file = File::open(path)?;
        let length = file.metadata()?.len();
        Ok(Content::Plain(file, length))
    }

    /// What is behind this place is not looked at.
    pub fn end_at(&mut self, end: u64) {
        if let Content::Plain(_, length) = self {
            *length = end.min(*length);
        }
    }

    /// How many bytes it held when it was opened.
    pub fn len(&self) -> u64 {
        match self {
            Content::Plain(_, length) => *length,
            Content::Packed(packed) => packed.len(),
        }
    }

    /// The bytes from `from` to `to`; fewer if the file has become shorter.
    pub fn read(&mut self, from: u64, to: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; to.saturating_sub(from) as usize];
        let mut done = 0;
        while done < bytes.len() {
            let at = from + done as u64;
            let count = match self {
                Content::Plain(file, _) => file.read_at(&mut bytes[done..], at),
                Content::Packed(packed) => packed.read_at(&mut bytes[done..], at),
            };
            match count {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        bytes.truncate(done);
        Ok(bytes)
    }
}
