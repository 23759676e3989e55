//! The plugin that `deploy`, `build`, `release` and `check` read: that of a directory, or what is made of
//! the app in it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_node::configure::Module;
use mfserv_node::inspect;
use mfserv_node::places::Places;
use mfserv_platform::disk;
use mfserv_plugin::build::{BuildOptions, BuildReport, Held};
use mfserv_plugin::generate::{Asked, NodeBuilt, Purpose};
use mfserv_plugin::{Cancel, Home, Progress};

use super::app::{App, AppArgs, Root, refuse_for_plugin, say_taken_back};
use super::{build_in, build_options, hold};

/// What a package of an app is made with; a plugin says it in its own files.
#[derive(Debug, Default, Args)]
pub struct PackArgs {
    #[command(flatten)]
    pub app: AppArgs,
    /// Pack this file of the app although its name says that it holds secrets (.env), or it is a
    /// database of yours.
    #[arg(long, value_name = "FILE")]
    pub pack: Vec<String>,
    /// A host name at which the app answers at `/` (for several, once each); later packages keep
    /// the names until others are given.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Take back a host name of an earlier package.
    #[arg(long, value_name = "NAME", conflicts_with = "host")]
    no_host: Vec<String>,
    /// A file or directory that the app writes in its own directory (`uploads`, `data.db`): it outlives
    /// this and all later releases.
    #[arg(long, value_name = "PATH")]
    persist: Vec<String>,
    /// Take back a path of an earlier package: what is there stays on disk, for nobody.
    #[arg(long, value_name = "PATH")]
    no_persist: Vec<String>,
    /// Do not serve the app at `/` of the node, only at /NAME/ and its host names; later packages do
    /// not either, until --root.
    #[arg(long, conflicts_with = "root")]
    no_root: bool,
    /// Take back the --no-root of an earlier package.
    #[arg(long)]
    root: bool,
    /// Run build scripts and commands also if no file has changed since they have run.
    #[arg(long)]
    no_cache: bool,
}

impl PackArgs {
    /// No options of a package.
    pub fn of(app: AppArgs, no_cache: bool) -> PackArgs {
        PackArgs { app, no_cache, ..PackArgs::default() }
    }

    fn asked(&self) -> Asked {
        Asked {
            hosts: self.host.clone(),
            no_hosts: self.no_host.clone(),
            persistent: self.persist.clone(),
            no_persistent: self.no_persist.clone(),
            packed: self.pack.clone(),
            root: (self.root || self.no_root).then_some(self.root),
        }
    }

    /// The plugin of a directory, to be built and packed. An app is copied into the home first; its
    /// own directory stays as it is.
    pub fn make(
        &self,
        places: &Places,
        dir: &Path,
        root: Root,
        steps: &mut dyn Progress,
    ) -> Result<Made, Diagnostic> {
        places.create()?;
        let asked = self.asked();
        let Some(mut app) = App::of(dir, &self.app, Some((places, Purpose::Deploy)))? else {
            refuse_for_plugin(dir, &asked)?;
            let (dir, is_fresh) = (dir.to_owned(), self.no_cache);
            return Ok(Made { dir, app: None, node: NodeBuilt::default(), asked, is_fresh });
        };
        steps.step(&app.sentence());
        app.is_fresh = self.no_cache;
        app.take_options(places, Purpose::Deploy, &asked)?;
        let (dir, node) = {
            let _held = hold(places, &app.make_place(places, Purpose::Deploy)?)?;
            app.make(places, Purpose::Deploy, &self.pack, root, steps)?
        };
        Ok(Made { dir, app: Some(app), node, asked, is_fresh: self.no_cache })
    }
}

/// A plugin that can be built and packed.
pub struct Made {
    /// Its directory.
    pub dir: PathBuf,
    /// The app that it is made of.
    pub app: Option<App>,
    /// What the tools of Node have built of that.
    node: NodeBuilt,
    asked: Asked,
    /// Commands run also if nothing has changed.
    is_fresh: bool,
}

impl Made {
    /// Builds it; no other command builds or packs it as long as what is returned is held.
    pub fn build(
        &self,
        places: &Places,
        cancel: &Cancel,
        steps: &mut dyn Progress,
    ) -> Result<(Held, BuildReport), Diagnostic> {
        let held = hold(places, &self.dir)?;
        let options = BuildOptions { is_fresh: self.is_fresh, ..build_options(places, cancel) };
        let mut report = build_in(places, &held, options, steps)?;
        self.node.clone().add_to(&mut report);
        Ok((held, report))
    }

    /// The options of its app are those of later commands, too.
    pub fn keep_options(&self, places: &Places) -> Result<(), Diagnostic> {
        match &self.app {
            Some(app) => app.keep_options(places, Purpose::Deploy),
            None => Ok(()),
        }
    }

    /// Says what is no more, by these options.
    pub fn say_taken_back(&self) {
        if let Some(app) = &self.app {
            say_taken_back(&app.name, &self.asked);
        }
    }
}

/// What is wrong with the plugin of a directory, or with what an app would become. Nothing in the
/// directory or in the home is changed.
pub fn check(
    places: &Places,
    dir: &Path,
    args: &AppArgs,
    module: &Module,
    steps: &mut dyn Progress,
) -> Result<Vec<Diagnostic>, Diagnostic> {
    let Some(mut app) = App::of(dir, args, Some((places, Purpose::Deploy)))? else {
        return Ok(inspect::plugin(places, dir, module));
    };
    steps.step(&app.sentence());
    app.take_options(places, Purpose::Deploy, &Asked::default())?;
    let aside = std::env::temp_dir().join(format!("mfserv-check-{}", std::process::id()));
    // Nobody else has made it: it is made here, for this user alone.
    let made = std::fs::DirBuilder::new().mode(0o700).create(&aside);
    made.map_err(|e| disk::failed("create", &aside, e))?;
    let mut said = Said(Vec::new());
    let place = app.make_aside(places, Home::new(&aside), &mut said);
    let problems = place.map(|place| inspect::plugin(places, &place, module));
    disk::remove(&aside)?;
    Ok(said.0.into_iter().chain(problems?).collect())
}

/// Collects warnings: a check shows them with what else it has found.
struct Said(Vec<Diagnostic>);

impl Progress for Said {
    fn step(&mut self, _what: &str) {}

    fn line(&mut self, _text: &str) {}

    fn notice(&mut self, notice: Diagnostic) {
        self.0.push(notice);
    }
}
