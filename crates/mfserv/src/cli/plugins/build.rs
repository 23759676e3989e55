//! `mfserv build` and `mfserv release`: a plugin's environment, and its package.

use std::path::PathBuf;

use clap::Args;
use mfserv_core::Diagnostic;

use super::{build_in, cancel, hold, pack_in, sentence};
use crate::cli::progress::Steps;
use crate::cli::report::Outcome;
use crate::cli::{print, print_json};
use mfserv_node::places::Places;

#[derive(Debug, Args)]
pub struct Build {
    /// The plugin's directory.
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Build {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let held = hold(places, &self.dir)?;
        let report = build_in(places, &held, &cancel()?, &mut Steps::new())?;
        if self.json {
            print_json(&report)?;
        } else {
            print(&sentence(&report));
        }
        Ok(Outcome::Done)
    }
}

#[derive(Debug, Args)]
pub struct Release {
    /// The plugin's directory.
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    /// Directory of the package.
    #[arg(long, short, default_value = ".", value_hint = clap::ValueHint::DirPath)]
    output: PathBuf,
    /// Pack the base environment too: the package needs no network where it is installed, not
    /// even in a new home.
    #[arg(long)]
    standalone: bool,
}

impl Release {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let mut steps = Steps::new();
        let held = hold(places, &self.dir)?;
        let report = build_in(places, &held, &cancel()?, &mut steps)?;
        let file = pack_in(places, &held, &self.output, self.standalone, &mut steps)?;
        steps.finish();
        print(&sentence(&report));
        let file = file.canonicalize().unwrap_or(file);
        print(&format!("plugin file is ready at {}\n", file.display()));
        Ok(Outcome::Done)
    }
}
