//! `mfserv dev`: a plugin runs from its directory.

use std::path::PathBuf;

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_plugin::{Home, store};

use super::{build_in, cancel, first, reload, say_where, sentence};
use crate::cli::operate::Wait;
use crate::cli::print;
use crate::cli::progress::Steps;
use crate::cli::report::{self, Outcome};
use crate::places::Places;
use crate::{configure, installed};

#[derive(Debug, Args)]
pub struct Dev {
    /// The plugin's directory.
    #[arg(default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    wait: Wait,
}

impl Dev {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let report = build_in(places, &self.dir)?;
        let home = Home::new(places.home());
        let module = configure::module(places, &[])?;
        let dir = self.dir.canonicalize().unwrap_or(self.dir);
        let prepared = installed::prepare(places, &dir, &module).map_err(first)?;
        prepared.warnings.iter().for_each(report::print_problem);
        store::postinstall(&home, &dir, &prepared, &cancel()?, &mut Steps::new())?;
        let plugin = store::dev_link(&home, &dir)?;
        print(&sentence(&report));
        if let Some(applied) = reload(places, &self.wait)? {
            say_where(places, &plugin.name, &applied);
        }
        Ok(Outcome::Done)
    }
}
