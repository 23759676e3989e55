//! `mfserv deploy` and `mfserv init`: an existing app, or a plugin, from its directory.

use std::path::PathBuf;

use clap::Args;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::generate::{self, Asked, NodeBuilt, Purpose};
use mfserv_plugin::{Home, Progress, archive, store};

use super::app::{App, AppArgs, refuse_for_plugin, say_taken_back};
use super::install::Install;
use super::variables::SetArgs;
use super::{build_in, cancel, hold, own_spec, sentence};
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
    app: AppArgs,
    /// Deploy this file of the app although its name says that it holds secrets (.env).
    #[arg(long, value_name = "FILE")]
    pack: Vec<String>,
    /// A host name at which the app answers at `/` (for several, once each); later deployments keep
    /// the names until others are given.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Take back a host name of an earlier deployment.
    #[arg(long, value_name = "NAME", conflicts_with = "host")]
    no_host: Vec<String>,
    /// A file or directory that the app writes in its own directory (`uploads`, `data.db`): it outlives
    /// this and all later releases.
    #[arg(long, value_name = "PATH")]
    persist: Vec<String>,
    /// Take back a path of an earlier deployment: what is there stays on disk, for nobody.
    #[arg(long, value_name = "PATH")]
    no_persist: Vec<String>,
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
        self.set.refuse_inside(&self.dir, &self.pack)?;
        let variables = self.set.read()?;
        let json = self.wait.json;
        places.create()?;
        let mut steps = Steps::new();
        let mut app = App::of(&self.dir, &self.app)?;
        let asked = self.asked();
        let cancel = cancel()?;
        let (dir, built) = match &mut app {
            None => {
                refuse_for_plugin(&self.dir, &asked)?;
                (self.dir.clone(), NodeBuilt::default())
            }
            Some(app) => {
                steps.step(&app.sentence());
                app.take_options(places, Purpose::Deploy, &asked)?;
                app.make(places, Purpose::Deploy, &self.pack, self.take_route, &mut steps)?
            }
        };
        let held = hold(places, &dir)?;
        let mut report = build_in(places, &held, &cancel, &mut steps)?;
        built.add_to(&mut report);
        let general = own_spec(places, &dir)?.general;
        let packages = places.tmp().join(format!("deploy-{}", std::process::id()));
        mfserv_platform::disk::create_dir(&packages)?;
        let packed = archive::pack(&dir, &general, &packages, &mut steps);
        drop(held);
        let home = Home::new(places.home());
        let current = || store::current_release(&home, &app.as_ref()?.name);
        let before = current();
        let installed = packed.and_then(|file| {
            steps.finish();
            if !json {
                print(&sentence(&report));
            }
            // What `mfserv dev` runs of the same app gives way.
            let linked = match &app {
                Some(app) => generate::place_of(&home, &app.name, Purpose::Dev),
                None => dir.clone(),
            };
            let flags = (self.take_route, self.force);
            let install = Install::of(file, linked, flags, variables, self.wait);
            install.run(places, "deploy")
        });
        let removed = mfserv_platform::disk::remove(&packages);
        if let Some(app) = &app {
            let is_current = installed.is_ok() || current() != before;
            let goes_on = installed.as_ref().is_err_and(|problem| problem.kind == Kind::Timeout);
            // One that goes on may become current: the next one would lose its persistent paths.
            if is_current || goes_on || cancel.is_cancelled() {
                app.keep_options(places, Purpose::Deploy)?;
            }
            if is_current && !json {
                say_taken_back(&app.name, &asked);
            }
        }
        removed.and(installed)
    }

    fn asked(&self) -> Asked {
        Asked {
            hosts: self.host.clone(),
            no_hosts: self.no_host.clone(),
            persistent: self.persist.clone(),
            no_persistent: self.no_persist.clone(),
        }
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
        let Some(app) = App::of(&self.dir, &self.app)? else {
            print(&format!("{} is a plugin already\n", self.dir.display()));
            return Ok(Outcome::Done);
        };
        let files = app.write_into()?;
        print(&format!("{}\nwritten: {}\n", app.sentence(), files.join(", ")));
        print("next: look at config.ini, then `mfserv dev` or `mfserv deploy`\n");
        Ok(Outcome::Done)
    }
}
