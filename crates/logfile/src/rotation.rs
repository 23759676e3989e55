//! The files that a log file was rotated to: their names, their order, their number.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// More rotations than this within one second are an error, not a loop.
const MOST_IN_A_SECOND: u32 = 10_000;

/// Renames `path` to `path.YYYYMMDDHHMMSS`, or `….YYYYMMDDHHMMSS.N` if that exists.
pub(crate) fn rename_away(path: &Path) -> io::Result<()> {
    let stamp = jiff::Zoned::now().strftime("%Y%m%d%H%M%S").to_string();
    for count in 0..MOST_IN_A_SECOND {
        let suffix = if count == 0 { stamp.clone() } else { format!("{stamp}.{count}") };
        let target = with_suffix(path, &suffix);
        match renameat_with(CWD, path, CWD, &target, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(()),
            Err(Errno::EXIST) => {}
            // Some network file systems know no such flag.
            Err(Errno::INVAL | Errno::NOSYS) if !target.exists() => {
                return fs::rename(path, target);
            }
            Err(Errno::INVAL | Errno::NOSYS) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(io::Error::other(format!("{} was rotated too often within a second", path.display())))
}

/// Removes the oldest rotated files, so that with the live one `keep` remain; 0 = all.
pub(crate) fn clean(path: &Path, keep: u32) -> io::Result<()> {
    if keep == 0 {
        return Ok(());
    }
    let mut found = list(path)?;
    found.sort();
    let too_many = (found.len() + 1).saturating_sub(keep as usize);
    for (_, old) in found.into_iter().take(too_many) {
        match fs::remove_file(old) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

type Order = (String, u32);

fn list(path: &Path) -> io::Result<Vec<(Order, PathBuf)>> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
        return Ok(Vec::new());
    };
    let entries = fs::read_dir(directory)?.filter_map(Result::ok);
    Ok(entries
        .filter_map(|entry| Some((order(name, entry.file_name().to_str()?)?, entry.path())))
        .collect())
}

/// Stamp and counter of a rotated file of the log `name`; `None` for any other file.
fn order(name: &str, candidate: &str) -> Option<Order> {
    let suffix = candidate.strip_prefix(name)?.strip_prefix('.')?;
    let (stamp, count) = match suffix.split_once('.') {
        None => (suffix, 0),
        Some((stamp, count)) => (stamp, count.parse().ok()?),
    };
    let is_stamp = stamp.len() == 14 && stamp.bytes().all(|b| b.is_ascii_digit());
    is_stamp.then(|| (stamp.to_owned(), count))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(suffix);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::order;

    #[test]
    fn rotated_files_are_ordered_by_stamp_and_then_by_number() {
        let names = ["x.log.20260101000000", "x.log.20260101000000.2", "x.log.20260101000000.10"];
        let orders: Vec<_> = names.iter().map(|n| order("x.log", n).unwrap()).collect();
        assert!(orders.is_sorted());
    }

    #[test]
    fn a_neighbour_is_not_taken_for_a_rotated_file() {
        for other in
            ["x.log", "x.log.old", "x.log.2026", "y.log.20260101000000", "x.log.20260101000000.gz"]
        {
            assert_eq!(order("x.log", other), None, "{other}");
        }
    }
}
