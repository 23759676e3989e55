//! What the `build` script of an app in development has made, and how it comes to be served.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use super::code::copy_one;
use super::{CODE, Purpose, Wanted};

/// Is written after each build: a change of it renews the workers.
pub const MARK: &str = ".mfserv-built";

/// The directory of a site that is built at each edit. It is served from a copy: a build that fails,
/// or is under way, has often removed the last one already. (Who builds by hand sees that.)
fn site<'a>(wanted: &'a Wanted<'_>) -> Option<&'a str> {
    let is_built = wanted.purpose == Purpose::Dev && wanted.builds_at_edits;
    wanted.finding.served().filter(|dir| is_built && !dir.is_empty())
}

/// Makes the place of the app's own files: a link to them, or a directory for the copy of a site.
/// What is served there goes on.
pub(super) fn make_place(place: &Path, wanted: &Wanted<'_>) -> Result<(), Diagnostic> {
    let code = place.join(CODE);
    let is_copy = code.is_dir() && !code.is_symlink();
    let Some(dir) = site(wanted) else {
        if !is_copy {
            return disk::relink(&code, wanted.source);
        }
        let stage = disk::beside(&code, "stage");
        disk::relink(&stage, wanted.source)?;
        return disk::swap_in(&stage, &code);
    };
    if is_copy {
        return Ok(());
    }
    disk::sweep_beside(&code);
    let (stage, built) = (disk::beside(&code, "stage"), wanted.source.join(dir));
    match built.is_dir() {
        true => copy_all(&built, &stage.join(dir))?,
        false => disk::create_dir(&stage)?,
    }
    disk::swap_in(&stage, &code)
}

/// Lets what was built be served: a site at once, a server by workers that take over.
pub(super) fn publish(place: &Path, wanted: &Wanted<'_>) -> Result<(), Diagnostic> {
    let Some(dir) = site(wanted) else {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let text = format!("{}\n", now.unwrap_or_default().as_millis());
        return disk::write(&place.join(MARK), text.as_bytes());
    };
    let target = place.join(CODE).join(dir);
    target.parent().map_or(Ok(()), disk::create_dir)?;
    disk::sweep_beside(&target);
    let stage = disk::beside(&target, "stage");
    let copied = copy_all(&wanted.source.join(dir), &stage);
    let result = copied.and_then(|()| disk::swap_in(&stage, &target));
    if result.is_err() {
        let _ = disk::remove(&stage);
    }
    result
}

fn copy_all(from: &Path, to: &Path) -> Result<(), Diagnostic> {
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        let dir = from.join(&below);
        disk::create_dir(&to.join(&below))?;
        for entry in fs::read_dir(&dir).map_err(|e| disk::failed("read", &dir, e))? {
            let entry = entry.map_err(|e| disk::failed("read", &dir, e))?;
            let about = entry.metadata().map_err(|e| disk::failed("read", &entry.path(), e))?;
            let path = below.join(entry.file_name());
            match about.is_dir() {
                true => todo.push(path),
                false => copy_one(&entry.path(), &to.join(path), &about)?,
            }
        }
    }
    Ok(())
}
