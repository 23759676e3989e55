//! `mfserv install` and `mfserv uninstall`.

use std::path::{Path, PathBuf};

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_plugin::store::{self, InstallOptions, Staged};
use mfserv_plugin::{Home, Progress, archive, base};

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
        let mut steps = Steps::new();
        let wanted = Stage { replace: true, new_name: self.new_name, clean: self.clean };
        let staged = stage(places, &self.file, wanted, &mut steps)?;
        steps.finish();
        if is_running(places) && !self.wait.no_wait {
            start_beside(places, &staged, &self.wait)?;
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

/// How a package is staged.
#[derive(Debug, Default)]
pub struct Stage {
    /// Accept that a packed plugin of that name is installed.
    pub replace: bool,
    /// Install it under this name instead of its own.
    pub new_name: Option<String>,
    /// Remove the oldest releases even if the app has left files in them.
    pub clean: bool,
}

/// Makes a package the next release of its plugin, not current yet.
pub fn stage(
    places: &Places,
    file: &Path,
    wanted: Stage,
    steps: &mut dyn Progress,
) -> Result<Staged, Diagnostic> {
    places.create()?;
    let module = configure::module(places, &[])?;
    let prepare = |dir: &Path| {
        let prepared = installed::prepare(places, dir, &module).map_err(first)?;
        if base::is_wanted(dir, &prepared.spec) {
            let python = prepared.spec.general.python.as_deref();
            ensure_base(places, python, &mut Steps::new())?;
        }
        Ok(prepared)
    };
    let options = InstallOptions {
        replace: wanted.replace,
        new_name: wanted.new_name,
        clean: wanted.clean,
        limits: archive::Limits::default(),
        cancel: cancel()?,
        prepare: &prepare,
    };
    store::stage(&Home::new(places.home()), file, &options, steps)
}

/// The old release serves until every worker of the new one is ready; if one fails, the
/// staged release is to be dropped, and nothing has changed.
pub fn start_beside(places: &Places, staged: &Staged, wait: &Wait) -> Result<(), Diagnostic> {
    let (plugin, dir) = (staged.spec.name.clone(), staged.dir.clone());
    let ask = |wait_s| Ask::Prepare { plugin: plugin.clone(), dir: dir.clone(), wait_s };
    wait.ask(places, "starting the new release beside the old one", ask).map(drop)
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
