//! The copy of an app that is packed.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use super::last_build::LastBuild;
use super::{CODE, Purpose, Wanted};
use crate::build::BuildOptions;
use crate::leftovers::{Leftover, Leftovers};
use crate::store::COMPANIONS;

/// What was copied of an app, and what was not.
#[derive(Debug, Default)]
pub struct Copied {
    /// Files that hold secrets, by their names.
    pub secrets: Vec<String>,
    /// Databases of the developer: the deployed app has its own.
    pub data: Vec<String>,
    /// Files whose names a package can't have: they are not UTF-8.
    pub unnamed: Vec<String>,
    /// The last build, beside what was copied.
    pub(super) last_build: Option<LastBuild>,
}

/// Copies the app's directory into the plugin's. Packages of Node that a build has put there stay; where
/// nothing has changed since the last build, all stays that it has left.
pub(super) fn copy(
    wanted: &Wanted<'_>,
    plugin: &Path,
    options: &BuildOptions,
) -> Result<Copied, Diagnostic> {
    debug_assert!(wanted.purpose == Purpose::Deploy);
    let place = &plugin.join(CODE);
    let stage = disk::beside(place, "stage");
    disk::sweep_beside(place);
    disk::remove(&stage)?;
    let copied = copy_tree(wanted, &stage);
    let result = copied.and_then(|mut copied| {
        keep_empty(wanted, &copied, &stage)?;
        copied.last_build = LastBuild::of(plugin, (&stage, place), wanted, options)?;
        let last = copied.last_build.as_ref();
        if last.is_some_and(|last| last.is_current) {
            disk::remove(&stage)?;
            return Ok(copied);
        }
        last.map_or(Ok(()), LastBuild::begins)?;
        let (old, new) = (place.join("node_modules"), stage.join("node_modules"));
        if old.is_dir() && stage.join("package.json").is_file() {
            fs::rename(&old, &new).map_err(|e| disk::failed("move", &old, e))?;
            keep_lock(place, &stage)?;
        }
        disk::swap_in(&stage, place)?;
        Ok(copied)
    });
    if result.is_err() {
        let _ = disk::remove(&stage);
    }
    result
}

/// A persistent path without an extension begins as a directory: where the developer has a file, it begins
/// as an empty one, which is an empty database.
fn keep_empty(wanted: &Wanted<'_>, copied: &Copied, stage: &Path) -> Result<(), Diagnostic> {
    let without_end = |path: &&String| Path::new(path).extension().is_none();
    let mut files = copied.data.iter().filter(without_end);
    files.try_for_each(|path| match wanted.source.join(path).is_file() {
        true => disk::write(&stage.join(path), b""),
        false => Ok(()),
    })
}

/// The lock that npm has made of an app without one, as long as its list is the same: each
/// deployment would look for newer packages.
fn keep_lock(place: &Path, stage: &Path) -> Result<(), Diagnostic> {
    let locks = ["package-lock.json", "npm-shrinkwrap.json", "pnpm-lock.yaml", "yarn.lock"];
    let old = place.join(locks[0]);
    let list = |dir: &Path| fs::read(dir.join("package.json")).ok();
    if locks.iter().any(|lock| stage.join(lock).exists()) || list(place) != list(stage) {
        return Ok(());
    }
    let Ok(text) = fs::read(&old) else { return Ok(()) };
    // Written anew: it is newer than the copy of its list.
    disk::write(&stage.join(locks[0]), &text)
}

fn copy_tree(wanted: &Wanted<'_>, stage: &Path) -> Result<Copied, Diagnostic> {
    let leftovers = Leftovers::new();
    let mut copied = Copied::default();
    let mut todo = vec![String::new()];
    while let Some(below) = todo.pop() {
        let dir = wanted.source.join(&below);
        disk::create_dir(&stage.join(&below))?;
        let entries = fs::read_dir(&dir).map_err(|e| disk::failed("read", &dir, e))?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str() else {
                copied.unnamed.push(format!("{}", Path::new(&below).join(&name).display()));
                continue;
            };
            let path = if below.is_empty() { name.into() } else { format!("{below}/{name}") };
            let about = fs::symlink_metadata(entry.path())
                .map_err(|e| disk::failed("read", &entry.path(), e))?;
            match why_not(wanted, &leftovers, &path, about.is_dir()) {
                Some(Why::Secret) => copied.secrets.push(path),
                Some(Why::Data) => copied.data.push(path),
                Some(Why::Made) => {}
                None if about.is_dir() => todo.push(path),
                None => copy_one(&entry.path(), &stage.join(&path), &about)?,
            }
        }
    }
    copied.secrets.sort();
    copied.data.sort();
    copied.unnamed.sort();
    Ok(copied)
}

/// True if the user names this path below the app's directory, to be deployed whatever it is.
pub fn is_named(named: &[String], path: &str) -> bool {
    named.iter().any(|named| named.trim_start_matches("./") == path)
}

/// Why an entry is not copied.
enum Why {
    Secret,
    Data,
    /// Tools make it again.
    Made,
}

fn why_not(wanted: &Wanted<'_>, leftovers: &Leftovers, path: &str, is_dir: bool) -> Option<Why> {
    if is_named(wanted.named, path) {
        return None;
    }
    let is_data = |one: &String| COMPANIONS.iter().any(|end| path == format!("{one}{end}"));
    if wanted.finding.persistent.iter().any(is_data) {
        return Some(Why::Data);
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    if is_dir && name == "node_modules" {
        return Some(Why::Made);
    }
    match leftovers.is(wanted.source, path, is_dir)? {
        Leftover::Secret => Some(Why::Secret),
        Leftover::Environment | Leftover::Tool => Some(Why::Made),
    }
}

pub(super) fn copy_one(from: &Path, to: &Path, about: &fs::Metadata) -> Result<(), Diagnostic> {
    let failed = |e: std::io::Error| disk::failed("copy", from, e);
    if about.is_symlink() {
        return fs::read_link(from).and_then(|target| symlink(target, to)).map_err(failed);
    }
    // Sockets and FIFOs are nothing to deploy.
    if about.is_file() { fs::copy(from, to).map(drop).map_err(failed) } else { Ok(()) }
}

/// `node_modules` is there, and is newer than the lists that it is made of.
pub(super) fn has_modules(dir: &Path) -> bool {
    let changed = |name: &str| fs::metadata(dir.join(name)).and_then(|about| about.modified()).ok();
    let Some(made) = changed("node_modules") else { return false };
    let lists = ["package.json", "package-lock.json", "pnpm-lock.yaml", "yarn.lock"];
    lists.iter().all(|name| changed(name).is_none_or(|time| time <= made))
}
