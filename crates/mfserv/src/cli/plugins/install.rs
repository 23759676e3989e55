//! `mfserv install` and `mfserv uninstall`.

use std::path::{Path, PathBuf};

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_plugin::store::{self, InstallOptions};
use mfserv_plugin::{Home, archive, base};

use super::{cancel, ensure_base, first, is_running, reload, say_where};
use crate::cli::operate::Wait;
use crate::cli::print;
use crate::cli::progress::Steps;
use crate::cli::report::{self, Outcome};
use crate::control::protocol::Ask;
use crate::places::Places;
use crate::{configure, installed};

#[derive(Debug, Args)]
pub struct Install {
    /// The package.
    file: PathBuf,
    /// Install it under this name instead of its own.
    #[arg(long, value_name = "NAME")]
    new_name: Option<String>,
    /// Remove the oldest releases even if the app has left files in them.
    #[arg(long)]
    clean: bool,
    #[command(flatten)]
    wait: Wait,
}

impl Install {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        places.create()?;
        let home = Home::new(places.home());
        let module = configure::module(places, &[])?;
        let mut steps = Steps::new();
        let prepare = |dir: &Path| {
            let prepared = installed::prepare(places, dir, &module).map_err(first)?;
            if base::is_wanted(dir, &prepared.spec) {
                let python = prepared.spec.general.python.as_deref();
                ensure_base(places, python, &mut Steps::new())?;
            }
            Ok(prepared)
        };
        let options = InstallOptions {
            replace: true,
            new_name: self.new_name.clone(),
            clean: self.clean,
            limits: archive::Limits::default(),
            cancel: cancel()?,
            prepare: &prepare,
        };
        let staged = store::stage(&home, &self.file, &options, &mut steps)?;
        steps.finish();
        if is_running(places) && !self.wait.no_wait {
            // The old release serves until every worker of the new one is ready; if one
            // fails, what was staged is dropped and nothing has changed.
            let (plugin, dir) = (staged.package.name.clone(), staged.dir.clone());
            self.wait.ask(places, "starting the new release beside the old one", |wait_s| {
                Ask::Prepare { plugin: plugin.clone(), dir: dir.clone(), wait_s }
            })?;
        }
        let (plugin, warnings) = staged.commit()?;
        warnings.iter().for_each(report::print_problem);
        print(&format!(
            "{} {} is installed ({})\n",
            plugin.name,
            plugin.version,
            plugin.dir.display()
        ));
        if let Some(applied) = reload(places, &self.wait)? {
            say_where(places, &plugin.name, &applied);
        }
        Ok(Outcome::Done)
    }
}

#[derive(Debug, Args)]
pub struct Uninstall {
    /// The plugin's name.
    name: String,
    /// Remove its data, its overrides and the files that it has left in its releases too.
    #[arg(long)]
    clean: bool,
    #[command(flatten)]
    wait: Wait,
}

impl Uninstall {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let home = Home::new(places.home());
        store::unlink(&home, &self.name, self.clean)?;
        // Its workers finish their requests before their files go.
        reload(places, &self.wait)?;
        let kept = store::remove_unlinked(&home, &self.name, self.clean)?;
        kept.iter().for_each(report::print_problem);
        print(&format!("{} is uninstalled\n", self.name));
        Ok(Outcome::Done)
    }
}
