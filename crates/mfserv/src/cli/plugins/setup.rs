//! `mfserv setup`: what plugins need from the machine, and the commands under their old names.

use std::path::PathBuf;

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_plugin::{Home, base, python, tools};

use super::{cancel, ensure_base};
use crate::cli::print;
use crate::cli::progress::Steps;
use crate::cli::report::Outcome;
use crate::compat::links;
use mfserv_node::places::Places;

#[derive(Debug, Args)]
pub struct Setup {
    /// The Python to make the base environment for (python3.12); default: the host's python3.
    #[arg(long)]
    python: Option<String>,
    /// Download uv too: builds are faster with it.
    #[arg(long)]
    uv: bool,
    /// Export the packages of the base environment to a file in this directory, for a
    /// machine without a network.
    #[arg(long, value_name = "DIR", conflicts_with = "import")]
    export: Option<PathBuf>,
    /// Make the base environment from an exported file, without a network.
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
    /// Link the commands of MFSERV (MetWork) into this directory; their files go into
    /// `share` beside it.
    #[arg(long, value_name = "PREFIX/bin", conflicts_with_all = ["python", "uv", "export", "import"])]
    commands: Option<PathBuf>,
}

impl Setup {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        if let Some(bin) = &self.commands {
            let written = links::write(bin, &mfserv_node::program())?;
            for path in &written.changed {
                print(&format!("{}\n", path.display()));
            }
            print(&format!("{} commands are in {}\n", written.links, bin.display()));
            return Ok(Outcome::Done);
        }
        places.create()?;
        let mut steps = Steps::new();
        let home = Home::new(places.home());
        if self.uv {
            let interpreter = python::find(self.python.as_deref())?;
            tools::uv(&home, &interpreter, &cancel()?, &mut steps)?;
        }
        if let Some(dir) = &self.export {
            let interpreter = python::find(self.python.as_deref())?;
            let file = base::export(&home, &interpreter, dir, &cancel()?, &mut steps)?;
            steps.finish();
            print(&format!("{}\n", file.display()));
            return Ok(Outcome::Done);
        }
        let base = match &self.import {
            Some(file) => {
                let interpreter = python::find(self.python.as_deref())?;
                base::import(&home, file, &interpreter, &cancel()?, &mut steps)?
            }
            None => ensure_base(places, self.python.as_deref(), None, &cancel()?, &mut steps)?,
        };
        steps.finish();
        print(&format!("Python {} is ready: {}\n", base.interpreter.version, base.dir.display()));
        Ok(Outcome::Done)
    }
}
