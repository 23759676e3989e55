//! The packages that a site wants on its nodes: `mfserv/plugins/*.plugin` of the site's
//! configuration, which automation fills.

use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_plugin::Home;
use mfserv_plugin::archive;
use mfserv_plugin::store::{self, Origin};

use super::install::{put, said};
use super::lines::Line;
use crate::cli::report;
use mfserv_node::configure;
use mfserv_node::places::Places;

/// Installs those that are not there, and replaces those whose build is another one, whatever
/// the versions. A developer's directory is left alone, overrides and data too. What fails is
/// said, and holds up nothing.
pub fn provision(places: &Places) {
    let dir = configure::site_dir().join("mfserv/plugins");
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|file| file.extension().is_some_and(|end| end == "plugin"))
        .collect();
    files.sort();
    for file in files {
        if let Err(problem) = provide(places, &file) {
            report::print_problem(&problem);
        }
    }
}

fn provide(places: &Places, file: &Path) -> Result<(), Diagnostic> {
    let home = Home::new(places.home());
    let package = archive::read(file)?;
    let (name, there) = (&package.name, store::current(&home, &package.name).ok());
    let doing = match &there {
        None => "Installing",
        Some(plugin) if !matches!(plugin.origin, Origin::Packed(_)) => return Ok(()),
        Some(plugin) => match archive::read_installed(&plugin.dir) {
            Ok(installed) if package.is_same_build(&installed) => return Ok(()),
            _ => "Updating",
        },
    };
    let line = Line::of_shell(&format!("- {doing} external plugin: {name}..."));
    match put(places, "mfserv.start", file, None, there.is_some()) {
        Ok((warnings, _)) => {
            said(line, &warnings);
            Ok(())
        }
        Err(problem) => {
            line.error("");
            Err(problem)
        }
    }
}
