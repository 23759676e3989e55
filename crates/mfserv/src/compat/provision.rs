//! The packages that a site wants on its nodes, at `mfserv.start`.

use std::path::Path;

use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::archive;

use super::install::{put, said};
use super::lines::Line;
use crate::cli::report;
use mfserv_node::places::Places;
use mfserv_node::site_packages::{self, Wanted};

/// Installs those that are not there, and replaces those whose build is another one, whatever
/// the versions. A developer's directory is left alone, overrides and data too. What fails is
/// said, and holds up nothing. Fragments of nginx may need what a later package brings: what is
/// refused for its configuration is tried again after the others.
pub fn provision(places: &Places) {
    let mut files = site_packages::files();
    loop {
        let before = files.len();
        let tried = files.into_iter().map(|file| (provide(places, &file), file));
        let failed = tried.filter_map(|(done, file)| Some((done.err()?, file)));
        let (refused, failed): (Vec<_>, Vec<_>) =
            failed.partition(|(problem, _)| problem.kind == Kind::BadConfiguration);
        failed.iter().for_each(|(problem, _)| report::print_problem(problem));
        if refused.len() == before || refused.is_empty() {
            refused.iter().for_each(|(problem, _)| report::print_problem(problem));
            return;
        }
        files = refused.into_iter().map(|(_, file)| file).collect();
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
