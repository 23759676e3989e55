//! The packages that a site wants on its nodes, at `mfserv.start`.

use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_plugin::archive;

use super::install::{put, said};
use super::lines::Line;
use crate::cli::report;
use mfserv_node::places::Places;
use mfserv_node::site_packages::{self, Wanted};

/// Installs those that are not there, and replaces those whose build is another one, whatever
/// the versions. A developer's directory is left alone, overrides and data too. What fails is
/// said, and holds up nothing.
pub fn provision(places: &Places) {
    for file in site_packages::files() {
        if let Err(problem) = provide(places, &file) {
            report::print_problem(&problem);
        }
    }
}

fn provide(places: &Places, file: &Path) -> Result<(), Diagnostic> {
    let package = archive::read(file)?;
    let wanted = site_packages::wanted(places, &package);
    let doing = match wanted {
        Wanted::Nothing => return Ok(()),
        Wanted::Installation => "Installing",
        Wanted::Update => "Updating",
    };
    let line = Line::of_shell(&format!("- {doing} external plugin: {}...", package.name));
    match put(places, "mfserv.start", file, None, wanted == Wanted::Update) {
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
