//! The numbered releases of a plugin.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use mfserv_core::Diagnostic;
use serde::{Deserialize, Serialize};

use super::claim::{Claim, Owner, lock};
use super::links::{Origin, current};
use super::staged::{self, Mark};
use super::{foreign, persistent, variables};
use crate::home::Home;
use mfserv_platform::disk;

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
    /// It is current or was once: it is whole, and can be made current again.
    pub committed: bool,
}

impl Release {
    /// When it became current the last time, milliseconds since the Unix epoch.
    pub fn since_ms(&self) -> Option<u64> {
        let marked = fs::metadata(self.dir.join(COMMITTED)).and_then(|mark| mark.modified());
        let since = marked.ok()?.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    }
}

/// The releases of a plugin, by number.
pub fn releases(home: &Home, plugin: &str) -> Vec<Release> {
    let Ok(entries) = fs::read_dir(home.releases_of(plugin)) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let numbers = names
        .filter_map(|name| name.parse().ok().filter(|number: &u32| number.to_string() == name));
    let linked = fs::canonicalize(home.link(plugin)).ok();
    let linked = linked.and_then(|dir| number_of(home, plugin, &dir));
    let mut found: Vec<Release> = numbers
        .map(|number| {
            let dir = home.release(plugin, number);
            let committed = linked == Some(number) || dir.join(COMMITTED).is_file();
            Release { number, committed, dir }
        })
        .collect();
    found.sort_by_key(|release| release.number);
    found
}

/// The number of the release that is current; `None` if the plugin is not installed, or from a
/// directory.
pub fn current_release(home: &Home, plugin: &str) -> Option<u32> {
    match current(home, plugin).ok()?.origin {
        Origin::Packed(number) => Some(number),
        Origin::Dev | Origin::Internal => None,
    }
}

/// The number of the release that a directory is, if it is one of this plugin.
pub(super) fn number_of(home: &Home, plugin: &str, dir: &Path) -> Option<u32> {
    let inside = dir.parent().is_some_and(|parent| {
        parent == home.releases_of(plugin)
            || fs::canonicalize(home.releases_of(plugin)).is_ok_and(|real| real == parent)
    });
    inside.then(|| dir.file_name()?.to_str()?.parse().ok()).flatten()
}

/// What the link of a plugin says, before the number of its release.
pub(super) fn link_target(plugin: &str) -> PathBuf {
    Path::new("../releases").join(plugin)
}

/// The number of the next release. That of the current one is taken, even if its directory
/// has gone: what is made there would be current at once.
pub(super) fn next_number(home: &Home, plugin: &str) -> u32 {
    let current = match current(home, plugin).map(|there| there.origin) {
        Ok(Origin::Packed(number)) => number,
        _ => 0,
    };
    let last = releases(home, plugin).last().map_or(0, |last| last.number);
    last.max(current).saturating_add(1)
}

/// Says that a release that is current counts; the last write to it.
pub(super) fn mark_committed(dir: &Path) -> Result<(), Diagnostic> {
    disk::remove(&dir.join(persistent::JOURNAL))?;
    disk::write(&dir.join(COMMITTED), b"1\n")?;
    disk::remove(&dir.join(staged::MARK))
}

/// Removes the releases of a plugin that never were current and that no operation owns, and
/// finishes the commit of one that had become current when its operation died.
pub(super) fn sweep(claim: &Claim) {
    let (home, plugin) = (&claim.home, claim.plugin.as_str());
    for release in releases(home, plugin) {
        let mark = Mark::read(&release.dir);
        let owned = mark.as_ref().is_some_and(Mark::is_owned);
        if owned || mark.is_some_and(|mark| mark.owner.operation == claim.owner.operation) {
            continue;
        }
        if !release.committed {
            forget(home, plugin, &release.dir);
        } else if is_open(&release.dir) {
            // What it could not do then is reported by nobody, and tried again the next time.
            let _ = claim.commit(release.number);
        }
        disk::sweep_in(&release.dir);
    }
    // gone with its last release
    let _ = fs::remove_dir(home.releases_of(plugin));
}

/// The commit of a release that is current was not finished.
fn is_open(dir: &Path) -> bool {
    !dir.join(COMMITTED).is_file() || dir.join(staged::MARK).is_file()
}

/// [`sweep`], of every plugin that nobody changes, and of what is left beside the places of
/// files.
pub(super) fn sweep_all(home: &Home, owner: &Owner) {
    let files = [home.override_file("x"), home.variables_file("x")];
    let places = files.map(|file| file.with_file_name(""));
    for dir in [home.plugins(), home.releases()].iter().chain(&places) {
        disk::sweep_in(dir);
    }
    let Ok(entries) = fs::read_dir(home.releases()) else { return };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    for plugin in names.filter(|name| !name.starts_with('.') && is_unclean(home, name)) {
        if let Ok(claim) = lock(home, &plugin, owner) {
            sweep(&claim);
        }
    }
}

/// There may be something to sweep: the others are not locked, not even for a moment.
fn is_unclean(home: &Home, plugin: &str) -> bool {
    let all = releases(home, plugin);
    let unclean = |one: &Release| match Mark::read(&one.dir) {
        Some(mark) => !mark.is_owned(),
        None => !one.committed || is_open(&one.dir),
    };
    all.is_empty() || all.iter().any(unclean)
}

/// Removes a release that does not count, and what its installation has made
/// elsewhere; what is empty then goes too. For whoever has the plugin.
pub(super) fn forget(home: &Home, plugin: &str, dir: &Path) {
    if let Some(number) = number_of(home, plugin, dir) {
        variables::forget_release(home, plugin, number);
    }
    forget_files(home, plugin, dir);
}

/// [`forget`], of files alone: nobody else is in their way.
pub(super) fn forget_files(home: &Home, plugin: &str, dir: &Path) {
    persistent::undo(dir);
    let _ = disk::remove(dir);
    let _ = fs::remove_dir(home.releases_of(plugin));
    if fs::symlink_metadata(home.link(plugin)).is_err() {
        let _ = fs::remove_dir(home.plugin_data(plugin));
        let _ = fs::remove_dir(home.tmp_of(plugin));
    }
}

/// Removes the oldest releases beyond [`KEPT`], never the current one, and one in
/// which the app has left files only with `clean`. Returns what is said of those.
pub(super) fn collect(home: &Home, plugin: &str, current: u32, clean: bool) -> Vec<Diagnostic> {
    let all = releases(home, plugin);
    let others: Vec<&Release> = all.iter().filter(|release| release.number != current).collect();
    remove_all(surplus(&others), clean)
}

/// Those that are too many when one more release is current.
pub(super) fn surplus<'a>(others: &'a [&'a Release]) -> &'a [&'a Release] {
    &others[..others.len().saturating_sub(KEPT - 1)]
}

fn remove_all(releases: &[&Release], clean: bool) -> Vec<Diagnostic> {
    let mut kept = Vec::new();
    for release in releases {
        match foreign::report(release.number, &release.dir) {
            Some(report) if !clean => kept.push(report),
            _ => drop(disk::remove(&release.dir)),
        }
    }
    kept
}

/// Removes all releases of a plugin that is not linked any more, except, without
/// `clean`, those in which the app has left files: what is said of those is
/// returned. Call it once nothing runs from them.
pub(super) fn remove_releases(claim: &Claim, clean: bool) -> Result<Vec<Diagnostic>, Diagnostic> {
    let (home, plugin) = (&claim.home, claim.plugin.as_str());
    if fs::symlink_metadata(home.link(plugin)).is_ok() {
        return Err(Diagnostic::error(format!("the plugin {plugin} is installed"))
            .kind(mfserv_core::Kind::Refused)
            .help("uninstall it first"));
    }
    let all = releases(home, plugin);
    let kept = remove_all(&all.iter().collect::<Vec<_>>(), clean);
    if kept.is_empty() {
        disk::remove(&home.releases_of(plugin))?;
    }
    disk::remove(&home.tmp_of(plugin))?;
    Ok(kept)
}
