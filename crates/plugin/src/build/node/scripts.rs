//! Scripts of `package.json` that npm runs with an installation (`postinstall`, `prepare`): they read
//! files beside them, and may make some. npm runs them in a stage, so that an installation that
//! fails or is ended leaves the directory as it was.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use crate::sources::Sources;

/// Those that `npm ci` runs of the package itself.
const NAMES: [&str; 4] = ["preinstall", "install", "postinstall", "prepare"];

/// True if the package has one.
pub(super) fn has_some(package: &serde_json::Value) -> bool {
    NAMES.iter().any(|name| package.pointer(&format!("/scripts/{name}")).is_some())
}

/// Copies what people edit into a stage.
pub(super) fn bring(dir: &Path, stage: &Path) -> Result<(), Diagnostic> {
    for file in Sources::of(dir, None).files() {
        copy(&dir.join(&file), &stage.join(&file))?;
    }
    Ok(())
}

/// Brings back the files that scripts have made outside of `node_modules`. What was there before is
/// left as it is.
pub(super) fn take_back(stage: &Path, dir: &Path) -> Result<(), Diagnostic> {
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        let here = stage.join(&below);
        let entries = fs::read_dir(&here).map_err(|e| disk::failed("read", &here, e))?;
        for entry in entries.flatten().filter(|entry| entry.file_name() != "node_modules") {
            let path = below.join(entry.file_name());
            let to = dir.join(&path);
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => todo.push(path),
                Ok(kind) if kind.is_file() && to.symlink_metadata().is_err() => {
                    copy(&entry.path(), &to)?;
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<(), Diagnostic> {
    to.parent().map_or(Ok(()), disk::create_dir)?;
    fs::copy(from, to).map(drop).map_err(|e| disk::failed("copy", from, e))
}
