//! What is done with rotated log files besides writing: compression, and a bound on the size
//! of all logs together.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use mfserv_core::output::LogCare;

use crate::compressed::compress;
use crate::rotation::{Rotated, rotated_in};

/// What was done.
#[derive(Debug, Default)]
pub struct Cared {
    /// Files that were removed because all logs together were too large, and their bytes.
    pub removed: Vec<(PathBuf, u64)>,
    /// Files that could not be compressed or removed, and why.
    pub troubles: Vec<(PathBuf, io::Error)>,
}

/// Looks after the rotated log files of a directory. May be killed at any moment: see
/// [`compress`]. Meant for one process at a time, and for a thread that nobody waits for.
pub fn care(directory: &Path, wanted: LogCare) -> io::Result<Cared> {
    let mut done = Cared::default();
    if wanted.compress {
        let families = rotated_in(directory)?;
        let older = families.values().flat_map(|files| files.split_last().map_or(&[][..], |s| s.1));
        for file in older.filter(|file| !file.is_compressed) {
            if let Err(error) = compress(&file.path) {
                done.troubles.push((file.path.clone(), error));
            }
        }
    }
    if wanted.max_bytes > 0 {
        bound(directory, wanted.max_bytes, &mut done)?;
    }
    Ok(done)
}

/// Removes the oldest rotated files, of whatever log, until all files are small enough.
fn bound(directory: &Path, max_bytes: u64, done: &mut Cared) -> io::Result<()> {
    let mut total = 0;
    for entry in fs::read_dir(directory)? {
        total += entry?.metadata().map_or(0, |found| if found.is_file() { found.len() } else { 0 });
    }
    let mut oldest: Vec<(SystemTime, u64, Rotated)> = Vec::new();
    for files in rotated_in(directory)?.into_values() {
        // Of one log the names say the order: a clock may have been set back between two files.
        let mut latest = SystemTime::UNIX_EPOCH;
        for file in files {
            let Ok(found) = fs::metadata(&file.path) else { continue };
            latest = latest.max(found.modified()?);
            oldest.push((latest, found.len(), file));
        }
    }
    oldest.sort_by_key(|(latest, ..)| *latest);
    for (_, bytes, file) in oldest {
        if total <= max_bytes {
            break;
        }
        match file.remove() {
            Ok(()) => {
                total = total.saturating_sub(bytes);
                done.removed.push((file.path, bytes));
            }
            Err(error) => done.troubles.push((file.path, error)),
        }
    }
    Ok(())
}
