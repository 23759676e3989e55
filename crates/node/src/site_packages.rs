//! The packages that a site wants on its nodes: `mfserv/plugins/*.plugin` of the site's
//! configuration, which automation fills.

use std::path::PathBuf;

use mfserv_plugin::Home;
use mfserv_plugin::archive::{self, Package};
use mfserv_plugin::store::{self, Origin};

use crate::configure;
use crate::places::Places;

/// What a package of the site means for a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// This build is installed, or a developer's directory has its name, which is left alone.
    Nothing,
    /// No plugin of its name is installed.
    Installation,
    /// Another build is installed, whatever the versions.
    Update,
}

/// The packages, sorted by name.
pub fn files() -> Vec<PathBuf> {
    let dir = configure::site_dir().join("mfserv/plugins");
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|end| end == "plugin"))
        .collect();
    files.sort();
    files
}

/// What is to be done with a package.
pub fn wanted(places: &Places, package: &Package) -> Wanted {
    let home = Home::new(places.home());
    let Ok(there) = store::current(&home, &package.name) else { return Wanted::Installation };
    if !matches!(there.origin, Origin::Packed(_)) {
        return Wanted::Nothing;
    }
    match archive::read_installed(&there.dir) {
        Ok(installed) if package.is_same_build(&installed) => Wanted::Nothing,
        _ => Wanted::Update,
    }
}
