//! Removing what a build has made.

use std::fs;
use std::path::Path;

use mfserv_core::Diagnostic;

use mfserv_platform::disk;

use crate::label;

/// What a build makes, besides packages and compiled Python.
const MADE: &[&str] = &[
    "local",
    "node_modules",
    "python3_virtualenv_sources/src",
    "python2_virtualenv_sources/src",
    "tmp_build",
    ".configuration_cache",
];
/// What pins the versions: made by a build, and to be committed.
const PINNED: &[&str] = &[
    "python3_virtualenv_sources/requirements3.txt",
    "python2_virtualenv_sources/requirements2.txt",
    "package-lock.json",
];

/// Removes what a build has made in a plugin directory, packages included; with
/// `pinned` (MFSERV's `superclean`) the pinned versions too. A plugin that
/// is linked does not run without what is removed.
pub fn clean(dir: &Path, pinned: bool) -> Result<(), Diagnostic> {
    label::read_name(dir)?;
    for path in MADE.iter().chain(PINNED.iter().filter(|_| pinned)) {
        let place = dir.join(path);
        disk::sweep_beside(&place);
        disk::remove(&place)?;
    }
    clean_packages(dir)?;
    remove_compiled(dir)
}

/// Removes the packages in a plugin directory.
pub fn clean_packages(dir: &Path) -> Result<(), Diagnostic> {
    let entries = fs::read_dir(dir).map_err(|e| disk::failed("read", dir, e))?;
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let packed = name.ends_with(".plugin") || name.ends_with(".tar.gz");
        if packed && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            disk::remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Compiled Python, in all directories; links are not followed.
fn remove_compiled(dir: &Path) -> Result<(), Diagnostic> {
    let mut todo = vec![dir.to_path_buf()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).map_err(|e| disk::failed("read", &dir, e))?.flatten() {
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            match entry.file_name() == "__pycache__" {
                true => disk::remove(&entry.path())?,
                false => todo.push(entry.path()),
            }
        }
    }
    Ok(())
}
