//! `mfserv install` and `mfserv uninstall`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::status::{Status, WatcherStatus};
use mfserv_core::{Diagnostic, Kind, Severity};
use mfserv_plugin::store::{self, InstallOptions, Installed, Origin, Owner, Staged, Variables};
use mfserv_plugin::{Cancel, Home, Progress, archive, base};
use serde_json::json;

use super::variables::{SetArgs, are_set};
use super::{ensure_base, env, first, say_current, say_dangers, say_undeclared};
use crate::cli::completions;
use crate::cli::keeper::QUICK;
use crate::cli::operate::Wait;
use crate::cli::operation::{Operation, print_nothing_to_do, print_warnings};
use crate::cli::print;
use crate::cli::progress::Steps;
use crate::cli::report::Outcome;
use mfserv_node::control::client;
use mfserv_node::installed::Directories;
use mfserv_node::operations::{Outcome as OperationOutcome, Request};
use mfserv_node::places::Places;
use mfserv_node::{configure, fragment_check, inspect, installed, taking};

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
    /// Take routes from other plugins that have them.
    #[arg(long)]
    take_route: bool,
    /// Make a new release also when the same package is installed already.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    set: SetArgs,
    #[command(flatten)]
    wait: Wait,
    /// Variables that were read already.
    #[arg(skip)]
    variables: Variables,
    /// A developer's directory whose link gives way.
    #[arg(skip)]
    replace_link: Option<PathBuf>,
    /// What was doubtful while the package was made: programs are told it with the outcome.
    #[arg(skip)]
    pub noticed: Vec<Diagnostic>,
}

impl Install {
    /// The installation of a package that was just made; `linked`: the developer's directory that
    /// it is of, which may be linked under its name.
    pub fn of(
        file: PathBuf,
        linked: PathBuf,
        (take_route, force): (bool, bool),
        variables: Variables,
        wait: Wait,
    ) -> Self {
        Install {
            file,
            variables,
            take_route,
            force,
            wait,
            replace_link: Some(linked),
            new_name: None,
            clean: false,
            set: SetArgs::default(),
            noticed: Vec::new(),
        }
    }

    pub fn run(mut self, places: &Places, command: &str) -> Result<Outcome, Diagnostic> {
        self.variables.extend(self.set.read()?);
        if let Some(there) = self.is_there(places)? {
            self.say_nothing_to_do(there);
            return Ok(Outcome::Done);
        }
        let mut op = Operation::new(places, command, &self.wait)?;
        op.noticed(std::mem::take(&mut self.noticed));
        let package = PackageFile {
            file: &self.file,
            replace: true,
            replace_link: self.replace_link.clone(),
            new_name: self.new_name.clone(),
            clean: self.clean,
            take_route: self.take_route,
            variables: self.variables.clone(),
        };
        let is_ours = self.replace_link.is_some();
        let mut say = |spec: &PluginSpec| {
            if !is_ours {
                say_dangers(places, spec)
            }
        };
        let deployed = deploy(places, &mut op, package, &mut say);
        if let (Ok(outcome), false) = (&deployed, self.wait.json) {
            say_current(places, outcome, "is installed");
            self.say_variables(outcome);
        }
        let names: Vec<&String> = self.variables.keys().collect();
        // They are set together with the release, or not at all.
        let is_there = deployed.as_ref().is_ok_and(|outcome| outcome.plugin.is_some());
        let more = match is_there && !names.is_empty() {
            true => json!({ "variables_set": names }),
            false => json!({}),
        };
        op.end(deployed, more).map(|_| Outcome::Done)
    }

    /// Says which variables came with it, without their values.
    fn say_variables(&self, outcome: &OperationOutcome) {
        if let (Some(plugin), false) = (&outcome.plugin, self.variables.is_empty()) {
            let names: Vec<&str> = self.variables.keys().map(String::as_str).collect();
            print(&format!("{}: set {}\n", plugin.name, names.join(", ")));
        }
    }

    /// What is installed, if it is this very build and runs as it is configured. (What was
    /// stopped runs again when it is installed again.)
    fn is_there(&self, places: &Places) -> Result<Option<Installed>, Diagnostic> {
        if self.force || self.take_route {
            return Ok(None);
        }
        let package = archive::read(&self.file)?;
        let name = self.new_name.as_ref().unwrap_or(&package.name);
        let there = store::current(&Home::new(places.home()), name).ok();
        let there = there.filter(|there| matches!(there.origin, Origin::Packed(_)));
        let there = there.filter(|there| are_set(places, there, &self.variables));
        let same = there.filter(|there| {
            let installed = archive::read_installed(&there.dir);
            there.problem.is_none() && installed.is_ok_and(|it| package.is_same_build(&it))
        });
        let held = |status: Status| {
            let own = |one: &&WatcherStatus| one.plugin.as_deref() == Some(name.as_str());
            let mut counts = status.watchers.iter().filter(own).filter_map(|w| w.scaled.as_ref());
            counts.any(|count| count.held)
        };
        Ok(same.filter(|_| !client::status(&places.control_socket(), QUICK).is_ok_and(held)))
    }

    fn say_nothing_to_do(&self, there: Installed) {
        let Installed { name, version, release, dir, .. } = &there;
        let text = format!(
            "{name} {version}-{release} is installed from this package already ({}): nothing to \
             do (--force makes a new release)\n",
            dir.display()
        );
        if !self.wait.json {
            return print(&text);
        }
        print_nothing_to_do(there, self.noticed.clone());
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
            Origin::Packed(_) => self.install.run(places, "hotswap"),
            Origin::Dev | Origin::Internal => {
                Err(Diagnostic::error(format!("{name} can't be replaced by a package"))
                    .kind(Kind::Refused)
                    .because(format!("it is a link to {}", there.dir.display())))
            }
        }
    }
}

/// A package that is to be deployed.
pub struct PackageFile<'a> {
    /// The file.
    pub file: &'a Path,
    /// Accept that a packed plugin of that name is installed.
    pub replace: bool,
    /// Accept that this developer's directory is linked under that name.
    pub replace_link: Option<PathBuf>,
    /// Install the plugin under another name.
    pub new_name: Option<String>,
    /// Remove the oldest releases even if the app has left files in them.
    pub clean: bool,
    /// Accept that it takes routes from other plugins.
    pub take_route: bool,
    /// Variables that are set together with the release.
    pub variables: Variables,
}

/// Stages a package in this process, and has the node deploy it. `staged` gets what it is.
pub fn deploy(
    places: &Places,
    op: &mut Operation<'_>,
    package: PackageFile<'_>,
    staged: &mut dyn FnMut(&PluginSpec),
) -> Result<OperationOutcome, Diagnostic> {
    let (clean, take_route) = (package.clean, package.take_route);
    let (owner, patience, cancel) = (op.owner(), op.patience(), op.cancel().clone());
    let release = stage(places, package, (owner, patience), cancel, op.steps())?;
    staged(&release.spec);
    let (plugin, number) = (release.spec.name.clone(), release.number);
    op.submit(Request::Deploy { plugin, release: number, clean, take_route })
}

/// Makes a package the next release of its plugin, not current yet.
pub fn stage(
    places: &Places,
    package: PackageFile<'_>,
    (owner, patience): (Owner, Duration),
    cancel: Cancel,
    steps: &mut dyn Progress,
) -> Result<Staged, Diagnostic> {
    places.create()?;
    let module = configure::module(places, &[])?;
    let base_cancel = cancel.clone();
    let prepare = |dir: &Path| {
        let mut prepared = installed::prepare(places, dir, &module).map_err(first)?;
        if !package.take_route {
            // Before the postinstall hook, which may change data of what is installed.
            taking::refuse_by_disk(places, &prepared.spec.name, dir)?;
        }
        let doubtful = fragment_check::refuse(places, &prepared.spec, dir, &module)?;
        prepared.warnings.extend(doubtful);
        if base::is_wanted(dir, &prepared.spec) {
            let python = prepared.spec.general.python.as_deref();
            ensure_base(places, python, Some(dir), &base_cancel, &mut Steps::silent())?;
        }
        Ok(prepared)
    };
    let options = InstallOptions {
        replace: package.replace,
        replace_link: package.replace_link,
        new_name: package.new_name,
        clean: package.clean,
        variables: package.variables,
        limits: archive::Limits::default(),
        cancel,
        owner,
        patience,
        prepare: &prepare,
    };
    let cancel = options.cancel.clone();
    let staged = store::stage(&Home::new(places.home()), package.file, &options, steps)?;
    say_undeclared(places, &staged.dir, &cancel, steps);
    say_missing(places, &staged.dir, &module, steps);
    Ok(staged)
}

/// Says which programs a release cannot be started without, and this machine lacks. It is
/// installed all the same: they may come later.
fn say_missing(places: &Places, dir: &Path, module: &configure::Module, steps: &mut dyn Progress) {
    let Ok(loaded) = installed::load_one(places, dir, module, Directories::Left) else { return };
    for missing in inspect::missing_programs(dir, &loaded, true) {
        steps.notice(Diagnostic { severity: Severity::Warning, ..missing });
    }
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
        env::only_plugin(places, &self.name)?;
        let mut op = Operation::new(places, "uninstall", &self.wait)?;
        let (plugin, clean) = (self.name.clone(), self.clean);
        let submitted = op.submit(Request::Uninstall { plugin, clean });
        let outcome = op.end(submitted, json!({}))?;
        if !self.wait.json {
            print_warnings(&outcome);
            print(&match outcome.plugin {
                Some(_) => format!("{} is uninstalled\n", self.name),
                None => format!("what was kept of {} is removed\n", self.name),
            });
        }
        Ok(Outcome::Done)
    }
}
