//! What a node may leave behind: files that are no data, and cgroups.

use std::fs;
use std::path::{Path, PathBuf};

/// Sockets, FIFOs, and links whose name says that they led to a socket.
pub(crate) fn special_files(dir: &Path) -> Vec<PathBuf> {
    use std::os::unix::fs::FileTypeExt;
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let (path, Ok(kind)) = (entry.path(), entry.file_type()) else { continue };
        let link = kind.is_symlink() && path.extension().is_some_and(|end| end == "socket");
        if kind.is_dir() {
            found.extend(special_files(&path));
        } else if kind.is_socket() || kind.is_fifo() || link {
            found.push(path);
        }
    }
    found
}

/// The cgroups, of any version, that have this in their names.
pub(crate) fn cgroups_of(hash: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            match entry.file_name().to_string_lossy().contains(hash) {
                true => found.push(entry.path()),
                false => todo.push(entry.path()),
            }
        }
    }
    found
}
