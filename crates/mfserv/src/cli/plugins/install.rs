//! `mfserv install` and `mfserv uninstall`.

use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::store::{self, InstallOptions, Origin, Staged};
use mfserv_plugin::{Cancel, Home, Progress, archive, base};

use super::{Changed, cancel, ensure_base, first, reload, say_dangers, take_over, try_release};
use crate::cli::completions;
use crate::cli::operate::Wait;
use crate::cli::progress::Steps;
use crate::cli::report::{self, Outcome};
use crate::cli::{print, print_json};
use mfserv_node::places::Places;
use mfserv_node::{configure, installed};

#[derive(Debug, Args)]
pub struct Install {
    /// The package.
    #[arg(add = ArgValueCompleter::new(completions::packages))]
    file: PathBuf,
    /// Install the plugin under another name.
    #[arg(long, value_name = "NAME")]
    new_name: Option<String>,
    /// Remove the oldest releases even if they have files that the app has made.
    #[arg(long)]
    clean: bool,
    #[command(flatten)]
    wait: Wait,
}

impl Install {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        places.create()?;
        let mut steps = Steps::new();
        let cancel = cancel()?;
        let (new_name, clean) = (self.new_name, self.clean);
        let wanted = Stage { replace: true, new_name, clean, cancel: cancel.clone() };
        let staged = stage(places, &self.file, wanted, &mut steps)?;
        steps.finish();
        say_dangers(&staged.dir, &staged.spec);
        // If a worker of it fails, the staged release is dropped and nothing has changed.
        try_release(places, &self.wait, (&staged.spec.name, &staged.dir), &cancel)?;
        take_over(places, &self.wait, staged.commit()?, "is installed")
    }
}

#[derive(Debug, Args)]
pub struct Hotswap {
    #[command(flatten)]
    install: Install,
}

impl Hotswap {
    /// [`Install`], of a plugin that is installed from a package already.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let package = archive::read(&self.install.file)?;
        let name = self.install.new_name.as_ref().unwrap_or(&package.name);
        let there = store::current(&Home::new(places.home()), name)
            .map_err(|problem| problem.kind(Kind::Refused).help("mfserv install installs it"))?;
        match there.origin {
            Origin::Packed(_) => self.install.run(places),
            Origin::Dev | Origin::Internal => {
                Err(Diagnostic::error(format!("{name} can't be replaced by a package"))
                    .kind(Kind::Refused)
                    .because(format!("it is a link to {}", there.dir.display())))
            }
        }
    }
}

/// How a package is staged.
#[derive(Debug, Default)]
pub struct Stage {
    /// Accept that a packed plugin of that name is installed.
    pub replace: bool,
    /// Install the plugin under another name.
    pub new_name: Option<String>,
    /// Remove the oldest releases even if the app has left files in them.
    pub clean: bool,
    /// When to give it up.
    pub cancel: Cancel,
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
        cancel: wanted.cancel,
        prepare: &prepare,
    };
    store::stage(&Home::new(places.home()), file, &options, steps)
}

#[derive(Debug, Args)]
pub struct Uninstall {
    /// The plugin's name.
    #[arg(add = ArgValueCompleter::new(completions::plugins))]
    name: String,
    /// Also remove its data, its overrides and the files that it has made in its releases.
    #[arg(long)]
    clean: bool,
    #[command(flatten)]
    wait: Wait,
}

impl Uninstall {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let home = Home::new(places.home());
        if self.clean && store::remove_kept(&home, &self.name)? {
            if self.wait.json {
                print_json(&Changed { plugin: None, warnings: Vec::new(), applied: None })?;
            } else {
                print(&format!("what was kept of {} is removed\n", self.name));
            }
            return Ok(Outcome::Done);
        }
        let plugin = store::unlink(&home, &self.name, self.clean)?;
        // Its workers finish their requests before their files go.
        let applied = reload(places, &self.wait, "waiting until its workers have ended")?;
        let warnings = store::remove_unlinked(&home, &self.name, self.clean)?;
        if self.wait.json {
            print_json(&Changed { plugin: Some(plugin), warnings, applied })?;
            return Ok(Outcome::Done);
        }
        warnings.iter().for_each(report::print_problem);
        print(&format!("{} is uninstalled\n", self.name));
        Ok(Outcome::Done)
    }
}
