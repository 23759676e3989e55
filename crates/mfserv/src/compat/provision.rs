//! The packages that a site wants on its nodes, at `mfserv.start`.

use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_plugin::archive::{self, Package};

use super::install::{put, said};
use super::lines::Line;
use crate::cli::report;
use mfserv_node::places::Places;
use mfserv_node::site_packages::{self, Wanted};

/// A package that is not installed.
struct Failed {
    file: PathBuf,
    /// The plugin that it is a package of, if it could be read.
    plugin: Option<String>,
    problem: Diagnostic,
}

/// Installs those that are not there, and replaces those whose build is another one, whatever
/// the versions. A developer's directory is left alone, overrides and data too. What fails is
/// said, and holds up nothing; it is tried again when another one has been installed, which may have
/// brought what was missing.
pub fn provision(places: &Places) {
    let mut files = site_packages::files();
    while !files.is_empty() {
        let (mut has_installed, mut failed) = (false, Vec::<Failed>::new());
        for file in files {
            let package = archive::read(&file);
            let plugin = package.as_ref().ok().map(|package| package.name.clone());
            match package.and_then(|package| provide(places, &file, &package)) {
                Ok(is_new) => {
                    has_installed |= is_new;
                    // Of two packages of one plugin the last one stays.
                    let is_same = |one: &Failed| one.plugin == plugin;
                    failed.iter().filter(|one| is_same(one)).for_each(say);
                    failed.retain(|one| !is_same(one));
                }
                Err(problem) => failed.push(Failed { file, plugin, problem }),
            }
        }
        if !has_installed {
            failed.iter().for_each(say);
            return;
        }
        files = failed.into_iter().map(|one| one.file).collect();
    }
}

fn say(failed: &Failed) {
    report::print_problem(&failed.problem);
}

/// True if it has been installed now.
fn provide(places: &Places, file: &Path, package: &Package) -> Result<bool, Diagnostic> {
    let wanted = site_packages::wanted(places, package);
    let doing = match wanted {
        Wanted::Nothing => return Ok(false),
        Wanted::Installation => "Installing",
        Wanted::Update => "Updating",
    };
    let line = Line::of_shell(&format!("- {doing} external plugin: {}...", package.name));
    match put(places, "mfserv.start", file, None, wanted == Wanted::Update) {
        Ok((warnings, _)) => {
            said(line, &warnings);
            Ok(true)
        }
        Err(problem) => {
            line.error("");
            Err(problem)
        }
    }
}
