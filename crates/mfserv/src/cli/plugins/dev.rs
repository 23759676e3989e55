//! `mfserv dev`: a plugin runs from its directory.

mod frames;
mod lines;
mod live;
pub mod own_node;
mod rebuild;
mod requests;
mod session;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::build::{BuildOptions, BuildReport};
use mfserv_plugin::generate::{self, Asked, NodeBuilt, Purpose};
use mfserv_plugin::store::Claim;
use mfserv_plugin::{Home, dotenv, label, store};
use serde_json::json;

use super::app::{App, AppArgs, Root, refuse_for_plugin, say_taken_back};
use super::env::is_plugin;
use super::{
    build_in, build_options, cancel, first, hold, is_running, is_served, own_spec, say_dangers,
    say_where, sentence,
};
use crate::cli::operate::Wait;
use crate::cli::operation::{Operation, print_warnings};
use crate::cli::progress::Steps;
use crate::cli::report::Outcome;
use crate::cli::{print, start};
use mfserv_node::operations::{Outcome as OperationOutcome, Request};
use mfserv_node::places::Places;
use mfserv_node::{configure, installed, taking};
use mfserv_platform::disk::Lock;
use rebuild::{Before, Built, Rebuild};
use session::DevSession;

#[derive(Debug, Args)]
pub struct Dev {
    /// The directory of an app, or of a plugin.
    #[arg(default_value = ".", value_hint = clap::ValueHint::DirPath)]
    dir: PathBuf,
    #[command(flatten)]
    app: AppArgs,
    /// Return as soon as the plugin is served; the default without a terminal.
    #[arg(long, short, conflicts_with = "follow")]
    detach: bool,
    /// Show logs and events until Ctrl-C, also without a terminal. (Programs use `logs` and
    /// `events` with --follow --json.)
    #[arg(long, short, conflicts_with = "json")]
    follow: bool,
    /// Have browsers load pages again after an edit: a second address, as long as this runs, adds a
    /// script to HTML.
    #[arg(long, conflicts_with_all = ["detach", "json", "no_wait"])]
    live_reload: bool,
    /// A host name at which the app answers at `/` while it is worked on (for several, once each); it
    /// stays until others are given.
    #[arg(long, value_name = "NAME")]
    host: Vec<String>,
    /// Take back a host name of an earlier `mfserv dev`.
    #[arg(long, value_name = "NAME", conflicts_with = "host")]
    no_host: Vec<String>,
    /// Take routes from other plugins that have them.
    #[arg(long)]
    take_route: bool,
    /// Run build scripts and commands also if no file has changed since they have run.
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    wait: Wait,
}

/// What is served: an app that is a plugin now, or a plugin with a build command.
struct Made {
    built: Built,
    /// Of what is built at edits.
    before: Option<Before>,
    /// Of one that has a build: no other command builds it as long as this is held.
    lock: Option<Lock>,
    /// What the tools of Node have built of it.
    node: NodeBuilt,
    /// What was doubtful while it was made.
    noticed: Vec<Diagnostic>,
}

impl Made {
    /// What was found in the directory of an app.
    fn sentence(&self) -> Option<String> {
        match &self.built {
            Built::App(app) => Some(app.sentence()),
            Built::Plugin { .. } => None,
        }
    }

    /// A command of its own builds it.
    fn has_build(&self) -> bool {
        match &self.built {
            Built::App(app) => app.has_build(),
            Built::Plugin { .. } => true,
        }
    }

    fn keep_options(&self, places: &Places) -> Result<(), Diagnostic> {
        match &self.built {
            Built::App(app) => app.keep_options(places, Purpose::Dev),
            Built::Plugin { .. } => Ok(()),
        }
    }

    fn say_taken_back(&self, asked: &Asked) {
        if let Built::App(app) = &self.built {
            say_taken_back(&app.name, asked);
        }
    }

    /// The plugin is built for the first time: what was edited meanwhile is built after it.
    fn has_linked(&mut self) {
        if matches!(self.built, Built::Plugin { .. }) {
            self.before.iter_mut().for_each(Before::has_built);
        }
    }
}

impl Dev {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        if self.live_reload && !self.stays() {
            return Err(Diagnostic::error("live reload is a part of a session")
                .kind(Kind::Usage)
                .because("without a terminal `mfserv dev` returns once the plugin is served")
                .help("add --follow"));
        }
        let name = match is_plugin(&self.dir) {
            false => self.app.name_in(&self.dir)?,
            true => {
                refuse_for_plugin(&self.dir, &self.asked())?;
                label::read_name(&self.dir)?
            }
        };
        let own = own_node::wanted(places, &name)?;
        let earlier = (own.as_ref().map_or(places, |own| &own.places), Purpose::Dev);
        let app = App::of(&self.dir, &self.app, Some(earlier))?;
        if let (Some(own), false) = (&own, self.wait.json) {
            print(&own.sentence(&name));
        }
        self.serve(own.as_ref().map_or(places, |own| &own.places), app)
    }

    fn serve(mut self, places: &Places, app: Option<App>) -> Result<Outcome, Diagnostic> {
        places.create()?;
        let mut app = self.make_plugin(places, app)?;
        let found = app.as_ref().and_then(Made::sentence);
        let wait = Wait { no_wait: self.wait.no_wait || self.stays(), ..self.wait };
        let mut op = Operation::new(places, "dev", &wait)?;
        op.noticed(app.iter_mut().flat_map(|made| std::mem::take(&mut made.noticed)).collect());
        let mut built = None;
        let linked = self.link(places, &mut op, &mut built);
        if let (Some(made), Some(report)) = (&mut app, &mut built) {
            std::mem::take(&mut made.node).add_to(report);
        }
        let built = match (&linked, built, wait.json) {
            (_, Some(report), false) => {
                print(&sentence(&report));
                json!({})
            }
            (_, report, _) => json!({ "build": report, "found": found }),
        };
        let outcome = op.end(linked, built)?;
        app.iter_mut().for_each(Made::has_linked);
        app.iter().try_for_each(|made| made.keep_options(places))?;
        if !wait.json {
            app.iter().for_each(|made| made.say_taken_back(&self.asked()));
            say_variables(&self.dir);
            print_warnings(&outcome);
        }
        let Some(plugin) = outcome.plugin else { return Ok(Outcome::Done) };
        if self.stays() {
            return self.stay(places, &plugin.name, app);
        }
        if outcome.applied.is_none() && !wait.json {
            let start = own_node::command(places, "start");
            print(&format!("the node is not running: it is served after `{start}`\n"));
        }
        if !wait.no_wait {
            // Nothing is said to be served that is not.
            is_served(places, &plugin.name)?;
        }
        if let Some(applied) = outcome.applied.filter(|_| !wait.json) {
            say_where(places, &plugin.name, &applied);
        }
        if !wait.json {
            self.say_build(places, app.as_ref());
        }
        Ok(Outcome::Done)
    }

    /// Nobody builds again what is served detached.
    fn say_build(&self, places: &Places, app: Option<&Made>) {
        let has_build = match app {
            Some(made) => made.has_build(),
            None => own_spec(places, &self.dir).is_ok_and(|spec| spec.build.is_some()),
        };
        if has_build {
            print(
                "its build does not run again at edits: run `mfserv dev` again, or work in a session \
                 (`mfserv dev --follow`), which builds at each edit\n",
            );
        }
    }

    /// From here on the directory is a plugin: for an app that is none, one in the home. Returns
    /// what may be built again.
    fn make_plugin(
        &mut self,
        places: &Places,
        app: Option<App>,
    ) -> Result<Option<Made>, Diagnostic> {
        let Some(mut app) = app else { return self.with_command(places) };
        app.take_options(places, Purpose::Dev, &self.asked())?;
        app.is_fresh = self.no_cache;
        app.builds_at_edits = self.stays() && app.has_build();
        let lock = if app.has_build() { Some(lock_build(places, &app.name)?) } else { None };
        // What is edited while it is made is built after it.
        let built = Built::App(Box::new(app.clone()));
        let mut before = app.builds_at_edits.then(|| Before::new(&built));
        let mut steps = Steps::new();
        if !self.wait.json {
            print(&format!("{}\n", app.sentence()));
        }
        let root = if self.take_route { Root::Always } else { Root::IfFree };
        let (dir, node) = app.make(places, Purpose::Dev, &[], root, &mut steps)?;
        self.dir = dir;
        steps.finish();
        before.iter_mut().for_each(Before::has_built);
        Ok(Some(Made { built, before, lock, node, noticed: steps.noticed() }))
    }

    /// A plugin whose command runs again at edits, as long as the session lasts.
    fn with_command(&self, places: &Places) -> Result<Option<Made>, Diagnostic> {
        if !self.stays() {
            return Ok(None);
        }
        let section = own_spec(places, &self.dir)?.build;
        let dir = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
        Ok(section.map(|section| {
            let built = Built::Plugin { dir, out: section.out };
            let before = Some(Before::new(&built));
            Made { built, before, lock: None, node: NodeBuilt::default(), noticed: Vec::new() }
        }))
    }

    fn link(
        &self,
        places: &Places,
        op: &mut Operation<'_>,
        built: &mut Option<BuildReport>,
    ) -> Result<OperationOutcome, Diagnostic> {
        // A refusal comes before a build, which takes long.
        let claim = claim_for_link(places, &self.dir, op)?;
        if !self.take_route {
            let dir = self.dir.canonicalize().unwrap_or_else(|_| self.dir.clone());
            taking::refuse_by_disk(places, claim.plugin(), &dir)?;
        }
        drop(claim);
        let held = hold(places, &self.dir)?;
        let usual = build_options(places, op.cancel());
        let options = BuildOptions { is_fresh: self.no_cache, ..usual };
        *built = Some(build_in(places, &held, options, op.steps())?);
        drop(held);
        if !self.stays() && !self.wait.no_wait && !is_running(places) {
            // It returns when the plugin is served.
            let sets = own_node::port(places, !self.wait.json)?;
            start::bring_up(places, &sets, start::PATIENCE, op.steps())?;
        }
        link(places, &self.dir, op, self.take_route)
    }

    fn asked(&self) -> Asked {
        let (hosts, no_hosts) = (self.host.clone(), self.no_host.clone());
        Asked { hosts, no_hosts, ..Asked::default() }
    }

    fn stays(&self) -> bool {
        let asked_for_an_end = self.detach || self.wait.no_wait;
        self.follow || std::io::stdout().is_terminal() && !asked_for_an_end
    }

    /// In the foreground, until Ctrl-C. A node that runs for this alone ends with it.
    fn stay(self, places: &Places, plugin: &str, app: Option<Made>) -> Result<Outcome, Diagnostic> {
        let interrupted = cancel()?;
        let dir = self.dir.canonicalize().unwrap_or(self.dir);
        let started = !is_running(places);
        let (rebuild, _lock) = match app {
            None => (None, None),
            Some(Made { built, before, lock, .. }) => {
                let new = |before| Rebuild::new(places, built, before, interrupted.clone());
                (before.map(new), Some(lock))
            }
        };
        let mut session = DevSession::new(places, plugin, &dir, interrupted, rebuild);
        session.wants_live_reload = self.live_reload;
        if started {
            start::up(places, own_node::port(places, true)?)?;
        }
        session.run(started)
    }
}

/// Two builds at a time would write into the same files.
fn lock_build(places: &Places, name: &str) -> Result<Lock, Diagnostic> {
    let file = places.home().join("var/dev-locks").join(name);
    Lock::take(&file, name).map_err(|problem| match problem.kind {
        Kind::Refused => problem
            .because("a `mfserv dev` builds it, at each edit if it is a session")
            .help("end it first, or work with it"),
        _ => problem,
    })
}

/// Which variables the `.env` of the directory sets, without their values.
fn say_variables(dir: &Path) {
    let names = dotenv::names(dir);
    if !names.is_empty() {
        print(&format!(
            "variables of {}, for this directory alone: {}\n",
            dotenv::FILE,
            names.join(", ")
        ));
    }
}

/// Checks a plugin that is built in its directory, runs its postinstall hook and has the node
/// make it the current one of its name.
pub fn link(
    places: &Places,
    dir: &Path,
    op: &mut Operation<'_>,
    take_route: bool,
) -> Result<OperationOutcome, Diagnostic> {
    let home = Home::new(places.home());
    // Before the hook, which may change data that belong to what is installed.
    let claim = claim_for_link(places, dir, op)?;
    let module = configure::module(places, &[])?;
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let prepared = installed::prepare(places, &dir, &module).map_err(first)?;
    if !take_route {
        taking::refuse_by_disk(places, claim.plugin(), &dir)?;
    }
    if generate::made_of(&dir).is_none() {
        say_dangers(places, &prepared.spec);
    }
    let cancel = op.cancel().clone();
    let complaint = store::postinstall(&home, &dir, &prepared, &cancel, op.steps())?;
    op.warn(prepared.warnings);
    op.warn(complaint.into_iter().collect());
    let plugin = claim.plugin().to_string();
    drop(claim);
    op.submit(Request::Link { plugin, dir, take_route })
}

fn claim_for_link(
    places: &Places,
    dir: &Path,
    op: &mut Operation<'_>,
) -> Result<Claim, Diagnostic> {
    let home = Home::new(places.home());
    let name = label::read_name(dir)?;
    let (owner, patience, cancel) = (op.owner(), op.patience(), op.cancel().clone());
    let claim = store::claim_within(&home, &name, &owner, patience, &cancel, op.steps())?;
    claim.may_link(dir)?;
    Ok(claim)
}
