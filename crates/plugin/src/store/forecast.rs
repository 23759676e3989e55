//! What an installation would find and do, said before anything is done.

use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;

use super::install::check_place;
use super::links::Installed;
use super::releases;
use crate::archive::Inspected;
use crate::home::Home;
use mfserv_platform::disk;

/// What the installation of a package would find and do. Nothing was changed.
#[derive(Debug, Clone)]
pub struct Forecast {
    /// The number that its release would have.
    pub number: u32,
    /// The directory of that release.
    pub dir: PathBuf,
    /// What it would replace.
    pub replaces: Option<Installed>,
    /// The releases that would be removed afterwards, unless the app has left files in them.
    pub removes: Vec<u32>,
    /// What is free on the disk, bytes; `None` when that cannot be told.
    pub free_bytes: Option<u64>,
    /// Why it would be refused: the place is taken by a link, the disk is too small.
    pub problems: Vec<Diagnostic>,
}

/// Looks at the store for the installation of a package of this plugin.
pub fn forecast(home: &Home, plugin: &str, inspected: &Inspected) -> Forecast {
    let number = releases::next_number(home, plugin);
    let mut problems = Vec::new();
    let replaces = check_place(home, plugin, true).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    let all = releases::releases(home, plugin);
    let committed: Vec<_> = all.iter().filter(|release| release.committed).collect();
    let removes = releases::surplus(&committed).iter().map(|release| release.number).collect();
    let disk = home.releases();
    let disk = disk.ancestors().find(|dir| dir.is_dir()).unwrap_or(Path::new("/"));
    problems.extend(disk::check_room(disk, inspected.bytes, inspected.files).err());
    Forecast {
        number,
        dir: home.release(plugin, number),
        replaces,
        removes,
        free_bytes: disk::free_bytes(disk),
        problems,
    }
}
