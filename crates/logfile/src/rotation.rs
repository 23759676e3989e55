//! The files that a log file was rotated to: their names, their order, their number.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::compressed::compressed_path;
use crate::index;

/// So many names are tried at a rotation: others may rotate the same log at the same time.
const MOST_TRIES: u32 = 10_000;

/// Renames `path` to `path.YYYYMMDDHHMMSS`, or `….YYYYMMDDHHMMSS.N` if that exists. The names of
/// a log are in the order of its rotations also where the local time goes back (the end of
/// summer time, a clock that is set): then the stamp is that of the newest file, with the next
/// number. Returns the new name.
pub(crate) fn rename_away(path: &Path) -> io::Result<PathBuf> {
    let now = jiff::Zoned::now().strftime("%Y%m%d%H%M%S").to_string();
    rename_at(path, now)
}

/// The same at a local time.
fn rename_at(path: &Path, now: String) -> io::Result<PathBuf> {
    let newest = rotated(path)?.pop().map(|newest| newest.order);
    let (stamp, first) = match newest.filter(|(stamp, _)| *stamp >= now) {
        Some((stamp, count)) => (stamp, count.saturating_add(1)),
        None => (now, 0),
    };
    for count in first..=first.saturating_add(MOST_TRIES) {
        let suffix = if count == 0 { stamp.clone() } else { format!("{stamp}.{count}") };
        let target = with_suffix(path, &suffix);
        match renameat_with(CWD, path, CWD, &target, RenameFlags::NOREPLACE) {
            Ok(()) => {
                index::follow_rename(path, &target);
                return Ok(target);
            }
            Err(Errno::EXIST) => {}
            // Some network file systems know no such flag.
            Err(Errno::INVAL | Errno::NOSYS) if !target.exists() => {
                fs::rename(path, &target)?;
                index::follow_rename(path, &target);
                return Ok(target);
            }
            Err(Errno::INVAL | Errno::NOSYS) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Err(io::Error::other(format!("no name is free that {} can be rotated to", path.display())))
}

/// Removes the oldest rotated files, so that with the live one `keep` remain (0 = all), and
/// indexes whose files somebody else has removed.
pub(crate) fn clean(path: &Path, keep: u32) -> io::Result<()> {
    let found = rotated(path)?;
    let too_many = match keep {
        0 => 0,
        keep => (found.len() + 1).saturating_sub(keep as usize),
    };
    for old in &found[..too_many] {
        old.remove()?;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    for (hidden, index) in list(path)? {
        let of = hidden.strip_prefix('.').and_then(|name| name.strip_suffix(".idx"));
        let of = of.and_then(|of| order(&name, of));
        if of.is_some_and(|of| !found[too_many..].iter().any(|file| file.order == of)) {
            let _ = fs::remove_file(index);
        }
    }
    Ok(())
}

/// A file that a log file was rotated to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    order: Order,
    /// The file: plain, or compressed if it ends in `.zst`.
    pub path: PathBuf,
    /// It is compressed.
    pub is_compressed: bool,
}

impl Rotated {
    /// Removes it, and its index.
    pub fn remove(&self) -> io::Result<()> {
        let plain = match self.is_compressed {
            true => self.path.with_extension(""),
            false => self.path.clone(),
        };
        // Both are there after a compression that was killed.
        for path in [&compressed_path(&plain), &plain] {
            match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        let _ = fs::remove_file(index::index_path(&plain));
        Ok(())
    }
}

/// The files that the log file `path` was rotated to, oldest first. Where a file is there
/// both plain and compressed, only the plain one.
pub fn rotated(path: &Path) -> io::Result<Vec<Rotated>> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut found = Vec::new();
    for (candidate, path) in list(path)? {
        let (plain, is_compressed) = plain_name(&candidate);
        if let Some(order) = order(&name, plain) {
            found.push(Rotated { order, path, is_compressed });
        }
    }
    sort(&mut found);
    Ok(found)
}

/// The same for all logs of a directory, which is listed once: by the path of the log.
pub fn rotated_in(directory: &Path) -> io::Result<BTreeMap<PathBuf, Vec<Rotated>>> {
    let mut families: BTreeMap<PathBuf, Vec<Rotated>> = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(OsStr::to_str).map(plain_name);
        let Some((plain, is_compressed)) = name else { continue };
        if let Some((log, order)) = base_of(plain) {
            let family = families.entry(path.with_file_name(log)).or_default();
            family.push(Rotated { order, path, is_compressed });
        }
    }
    families.values_mut().for_each(sort);
    Ok(families)
}

fn sort(found: &mut Vec<Rotated>) {
    found.sort_by(|a, b| (&a.order, a.is_compressed).cmp(&(&b.order, b.is_compressed)));
    found.dedup_by(|later, first| later.order == first.order);
}

/// A name without the end of a compressed file, and whether it had one.
fn plain_name(name: &str) -> (&str, bool) {
    name.strip_suffix(".zst").map_or((name, false), |plain| (plain, true))
}

/// The name of the log that a file was rotated from, and its place among those.
fn base_of(plain: &str) -> Option<(&str, Order)> {
    let dots = plain.match_indices('.').map(|(at, _)| &plain[..at]);
    let mut bases = dots.filter(|base| !base.is_empty());
    bases.find_map(|base| Some((base, order(base, plain)?)))
}

type Order = (String, u32);

/// The names and paths of the directory of a log file.
fn list(path: &Path) -> io::Result<Vec<(String, PathBuf)>> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let entries = fs::read_dir(directory)?.filter_map(Result::ok);
    Ok(entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.to_owned(), entry.path())))
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
    use std::time::Instant;

    use mfserv_core::output::Rotation;

    use super::*;
    use crate::{CHECK_EVERY, LogFile};

    #[test]
    fn rotated_files_are_ordered_by_stamp_and_then_by_number() {
        let names = ["x.log.20260101000000", "x.log.20260101000000.2", "x.log.20260101000000.10"];
        let orders: Vec<_> = names.iter().map(|n| order("x.log", n).unwrap()).collect();
        assert!(orders.is_sorted());
    }

    #[test]
    fn the_order_by_name_is_that_of_time_also_where_the_local_time_goes_back() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("x.log");
        let rotate = |number: usize, now: &str| {
            fs::write(&log, number.to_string()).unwrap();
            rename_at(&log, now.into()).unwrap();
        };
        let (summer, winter) = ("20261025025900", "20261025020100");
        for (number, now) in [summer, winter, winter, "20261025020200"].iter().enumerate() {
            rotate(number, now);
        }
        // The newest file is compressed: its name is taken all the same.
        let newest = rotated(&log).unwrap().pop().unwrap().path;
        fs::rename(&newest, compressed_path(&newest)).unwrap();
        rotate(4, winter);
        rotate(5, "20261025030000");
        let said = || -> Vec<String> {
            let files = rotated(&log).unwrap();
            files.iter().map(|file| fs::read_to_string(&file.path).unwrap()).collect()
        };
        assert_eq!(said(), ["0", "1", "2", "3", "4", "5"]);
        clean(&log, 3).unwrap();
        assert_eq!(said(), ["4", "5"], "the oldest ones are removed");
        // A clock that was a year ahead: more rotations than names are tried at one.
        fs::write(with_suffix(&log, "20271025030000.20000"), "6").unwrap();
        rotate(7, winter);
        assert_eq!(said(), ["4", "5", "6", "7"]);
    }

    #[test]
    fn the_rotated_files_of_all_logs_of_a_directory_are_those_of_each() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        for name in [
            "x.log",
            "x.log.20260101000000",
            "x.log.20260101000000.12.zst",
            "x.log.20260101000000.2",
            "x.log.20260101000000.2.zst",
            "x.log.20260101000000.gz",
            "y.stdout.20260102000000.zst",
            ".x.log.20260101000000.idx",
            ".20260101000000",
        ] {
            fs::write(path(name), "").unwrap();
        }
        let found = rotated_in(directory.path()).unwrap();
        let names: Vec<_> = found.keys().cloned().collect();
        assert_eq!(names, [path("x.log"), path("y.stdout")]);
        for (log, files) in found {
            assert_eq!(files, rotated(&log).unwrap());
            assert!(!files.is_empty(), "{}", log.display());
        }
    }

    #[test]
    fn a_neighbour_is_not_taken_for_a_rotated_file() {
        for other in
            ["x.log", "x.log.old", "x.log.2026", "y.log.20260101000000", "x.log.20260101000000.gz"]
        {
            assert_eq!(order("x.log", other), None, "{other}");
        }
    }

    #[test]
    fn a_file_into_which_only_others_write_rotates_by_size() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let rotation = Rotation { max_bytes: 10, max_age_s: 0, keep: 5, mode: None };
        let mut log = LogFile::new(&path, rotation);
        let files = |log: &mut LogFile| {
            log.checked = Instant::now().checked_sub(CHECK_EVERY).unwrap();
            log.tick().unwrap();
            fs::read_dir(directory.path()).unwrap().count()
        };
        assert_eq!(files(&mut log), 0, "nobody has made it");
        fs::write(&path, "short\n").unwrap();
        assert_eq!((files(&mut log), files(&mut log)), (1, 1));
        fs::write(&path, "too long for it\n").unwrap();
        assert_eq!((files(&mut log), files(&mut log)), (2, 2));
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
    }
}
