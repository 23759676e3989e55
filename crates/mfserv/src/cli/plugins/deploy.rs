//! `mfserv deploy` and `mfserv init`: an existing app, or a plugin, from its directory.

use std::path::PathBuf;

use clap::Args;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::generate::{self, Purpose};
use mfserv_plugin::{Home, archive, store};

use super::app::{App, AppArgs, Root};
use super::app_or_plugin::PackArgs;
use super::install::Install;
use super::variables::SetArgs;
use super::{cancel, own_spec, sentence};
use crate::cli::operate::Wait;
use crate::cli::print;
use crate::cli::progress::Steps;
use crate::cli::report::Outcome;
use mfserv_node::places::Places;

#[derive(Debug, Args)]
pub struct Deploy {
    /// The directory of an app, or of a plugin.
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    #[command(flatten)]
    pack: PackArgs,
    /// Take routes from other plugins that have them.
    #[arg(long)]
    take_route: bool,
    /// Make a new release also when the same is installed already.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    set: SetArgs,
    #[command(flatten)]
    wait: Wait,
}

impl Deploy {
    /// Builds, packs, installs and switches in one go.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        // A bad name is no reason to build first.
        self.set.refuse_inside(&self.dir, &self.pack.pack)?;
        let variables = self.set.read()?;
        let json = self.wait.json;
        let mut steps = Steps::new();
        let cancel = cancel()?;
        let root = if self.take_route { Root::Always } else { Root::IfFree };
        let made = self.pack.make(places, &self.dir, root, &mut steps)?;
        let (held, report) = made.build(places, &cancel, &mut steps)?;
        let general = own_spec(places, &made.dir)?.general;
        let packages = places.tmp().join(format!("deploy-{}", std::process::id()));
        mfserv_platform::disk::create_dir(&packages)?;
        let packed = archive::pack(&made.dir, &general, &packages, &mut steps);
        drop(held);
        let home = Home::new(places.home());
        let current = || store::current_release(&home, &made.app.as_ref()?.name);
        let before = current();
        let installed = packed.and_then(|file| {
            steps.finish();
            if !json {
                print(&sentence(&report));
            }
            // What `mfserv dev` runs of the same app gives way.
            let linked = match &made.app {
                Some(app) => generate::place_of(&home, &app.name, Purpose::Dev),
                None => made.dir.clone(),
            };
            let flags = (self.take_route, self.force);
            let mut install = Install::of(file, linked, flags, variables, self.wait);
            install.noticed = steps.noticed();
            install.run(places, "deploy")
        });
        let removed = mfserv_platform::disk::remove(&packages);
        let is_current = installed.is_ok() || current() != before;
        let goes_on = installed.as_ref().is_err_and(|problem| problem.kind == Kind::Timeout);
        // One that goes on may become current: the next one would lose its persistent paths.
        if is_current || goes_on || cancel.is_cancelled() {
            made.keep_options(places)?;
        }
        if is_current && !json {
            made.say_taken_back();
        }
        removed.and(installed)
    }
}

#[derive(Debug, Args)]
pub struct Init {
    /// The directory of an app.
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    #[command(flatten)]
    app: AppArgs,
}

impl Init {
    /// Makes a plugin of the app's directory: the only command that writes files of ours there.
    pub fn run(self) -> Result<Outcome, Diagnostic> {
        let Some(app) = App::of(&self.dir, &self.app, None)? else {
            print(&format!("{} is a plugin already\n", self.dir.display()));
            return Ok(Outcome::Done);
        };
        let files = app.write_into()?;
        print(&format!("{}\nwritten: {}\n", app.sentence(), files.join(", ")));
        print("next: look at config.ini, then `mfserv dev` or `mfserv deploy`\n");
        Ok(Outcome::Done)
    }
}
