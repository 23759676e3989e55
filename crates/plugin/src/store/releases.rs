//! The numbered releases of a plugin.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use serde::{Deserialize, Serialize};

use crate::disk;
use crate::home::Home;

/// How many committed releases of a plugin are kept, the current one included.
pub const KEPT: usize = 5;
/// The file that says that a release counts.
const COMMITTED: &str = ".committed";

/// A release on disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its number, from 1.
    pub number: u32,
    /// Its directory.
    pub dir: PathBuf,
    /// It was committed once: it is whole, and can be made current again.
    pub committed: bool,
}

/// The releases of a plugin, by number.
pub fn releases(home: &Home, plugin: &str) -> Vec<Release> {
    let Ok(entries) = fs::read_dir(home.releases_of(plugin)) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let numbers = names
        .filter_map(|name| name.parse().ok().filter(|number: &u32| number.to_string() == name));
    let mut found: Vec<Release> = numbers
        .map(|number| {
            let dir = home.release(plugin, number);
            Release { number, committed: dir.join(COMMITTED).is_file(), dir }
        })
        .collect();
    found.sort_by_key(|release| release.number);
    found
}

/// The number of the release that a directory is, if it is one of this plugin.
pub(super) fn number_of(home: &Home, plugin: &str, dir: &Path) -> Option<u32> {
    let inside = dir.parent().is_some_and(|parent| {
        parent == home.releases_of(plugin)
            || fs::canonicalize(home.releases_of(plugin)).is_ok_and(|real| real == parent)
    });
    inside.then(|| dir.file_name()?.to_str()?.parse().ok()).flatten()
}

/// The number of the next release.
pub(super) fn next_number(home: &Home, plugin: &str) -> u32 {
    releases(home, plugin).last().map_or(1, |last| last.number.saturating_add(1))
}

/// Says that a release counts; the last write to it.
pub(super) fn mark_committed(dir: &Path) -> Result<(), Diagnostic> {
    disk::write(&dir.join(COMMITTED), b"1\n")
}

/// Removes the releases that never were committed, of all plugins. Called with
/// the lock held, so that none of them belongs to a living operation.
pub(super) fn sweep(home: &Home) {
    let Ok(entries) = fs::read_dir(home.releases()) else { return };
    for plugin in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        for release in releases(home, &plugin).iter().filter(|release| !release.committed) {
            let _ = disk::remove(&release.dir);
        }
        // gone with its last release
        let _ = fs::remove_dir(home.releases_of(&plugin));
    }
}

/// Removes the oldest releases beyond [`KEPT`], never the current one.
pub(super) fn collect(home: &Home, plugin: &str, current: u32) {
    let all = releases(home, plugin);
    let others: Vec<&Release> = all.iter().filter(|release| release.number != current).collect();
    let too_many = others.len().saturating_sub(KEPT - 1);
    for release in &others[..too_many] {
        let _ = disk::remove(&release.dir);
    }
}

/// Removes all releases of a plugin that is not linked any more. Call it once
/// nothing runs from them.
pub fn remove_releases(home: &Home, plugin: &str) -> Result<(), Diagnostic> {
    let _lock = super::lock(home)?;
    if fs::symlink_metadata(home.link(plugin)).is_ok() {
        return Err(Diagnostic::error(format!("the plugin {plugin} is installed"))
            .kind(mfserv_core::Kind::Refused)
            .help("uninstall it first"));
    }
    disk::remove(&home.releases_of(plugin))?;
    disk::remove(&home.tmp_of(plugin))
}
