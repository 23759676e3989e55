//! `mfserv build` and `mfserv release`: the environment of an app or a plugin, and its package.

use std::path::PathBuf;

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_plugin::build::BuildReport;
use serde::Serialize;

use super::app::{AppArgs, Root};
use super::app_or_plugin::PackArgs;
use super::{cancel, pack_in, sentence};
use crate::cli::progress::Steps;
use crate::cli::report::Outcome;
use crate::cli::{print, print_json};
use mfserv_node::places::Places;

#[derive(Debug, Args)]
pub struct Build {
    /// The directory of an app, or of a plugin.
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    #[command(flatten)]
    app: AppArgs,
    /// Run build scripts and commands also if no file has changed since they have run.
    #[arg(long)]
    no_cache: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Build {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let mut steps = Steps::new();
        let pack = PackArgs::of(self.app, self.no_cache);
        let made = pack.make(places, &self.dir, Root::IfFree, &mut steps)?;
        let (_held, report) = made.build(places, &cancel()?, &mut steps)?;
        steps.finish();
        made.keep_options(places)?;
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
    /// The directory of an app, or of a plugin.
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    #[command(flatten)]
    pack: PackArgs,
    /// Directory of the package.
    #[arg(long, short, default_value = ".", value_hint = clap::ValueHint::DirPath)]
    output: PathBuf,
    /// Pack the base environment too: the package needs no network where it is installed, not
    /// even in a new home.
    #[arg(long)]
    standalone: bool,
    /// Print the package's file and the report of the build as JSON.
    #[arg(long)]
    json: bool,
}

/// What `mfserv release --json` prints.
#[derive(Debug, Serialize)]
struct Released {
    /// The package, an absolute path.
    file: PathBuf,
    #[serde(flatten)]
    report: BuildReport,
}

impl Release {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let mut steps = Steps::new();
        mfserv_platform::disk::create_dir(&self.output)?;
        // Who has `/` where the package will be installed is not known here; who installs it is told.
        let made = self.pack.make(places, &self.dir, Root::Always, &mut steps)?;
        let (held, report) = made.build(places, &cancel()?, &mut steps)?;
        let file = pack_in(places, &held, &self.output, self.standalone, &mut steps)?;
        steps.finish();
        made.keep_options(places)?;
        let file = file.canonicalize().unwrap_or(file);
        if self.json {
            print_json(&Released { file, report })?;
            return Ok(Outcome::Done);
        }
        print(&sentence(&report));
        made.say_taken_back();
        print(&format!("plugin file is ready at {}\n", file.display()));
        Ok(Outcome::Done)
    }
}
