//! Plugins: made, built, run from a directory, packed, installed, looked at. Here is what
//! these commands share.

pub mod app;
pub mod app_names;
pub mod app_or_plugin;
mod build;
mod deploy;
pub mod dev;
mod drift;
pub mod env;
mod info;
pub mod install;
pub mod new;
mod open;
mod preview;
pub mod releases;
pub mod run_beside;
mod setup;
mod variables;

use std::path::{Path, PathBuf};
use std::time::Instant;

pub use build::{Build, Release};
pub use deploy::{Deploy, Init};
pub use dev::Dev;
pub use env::{Env, Exec};
pub use info::{Info, List};
pub use install::{Hotswap, Install, Uninstall};
use mfserv_core::keys::{FRONT_KIND, PYTHON_LEGACY_LAYERS};
use mfserv_core::plan::PluginState;
use mfserv_core::plugin_spec::{BuildSection, PluginSpec};
use mfserv_core::status::WatcherStatus;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::build::{
    BuildOptions, BuildReport, CommandReport, Held, build_held, command as build_command,
};
use mfserv_plugin::dangers::dangers;
use mfserv_plugin::{Cancel, Home, Progress, archive, base, imports, label, python};
pub use new::New;
pub use open::Open;
pub use releases::{Releases, Repackage, Rollback};
pub use run_beside::Shell;
pub use setup::Setup;

pub use super::interrupt::cancel;
use super::operation::print_warnings;
use super::{print, report};
use mfserv_node::installed::Directories;
use mfserv_node::operations::{Applied, Outcome as OperationOutcome};
use mfserv_node::places::Places;
use mfserv_node::{configure, installed, render};

/// How long the daemon may take to say its status.
const STATUS: std::time::Duration = std::time::Duration::from_secs(10);

/// The base environment; `release`: what needs it, and may have brought it along.
fn ensure_base(
    places: &Places,
    python: Option<&str>,
    release: Option<&Path>,
    cancel: &Cancel,
    steps: &mut dyn Progress,
) -> Result<base::BaseEnvironment, Diagnostic> {
    let interpreter = python::find(python)?;
    let home = Home::new(places.home());
    let base = base::ensure(&home, &interpreter, release, cancel, steps)?;
    if has_layers(places)? {
        base::ensure_layers(&home, &base, release, cancel, steps)?;
    }
    Ok(base)
}

/// Whether plugins of this node get the packages of MFSERV's layers.
fn has_layers(places: &Places) -> Result<bool, Diagnostic> {
    Ok(configure::module(places, &[])?.resolution.config.get(PYTHON_LEGACY_LAYERS))
}

/// Keeps other commands from building or packing a plugin directory.
pub fn hold(places: &Places, dir: &Path) -> Result<Held, Diagnostic> {
    places.create()?;
    Held::take(&Home::new(places.home()), dir)
}

/// Builds a plugin for a session of `mfserv dev`, as soon as no other command builds or packs it.
fn build_when_free(
    places: &Places,
    dir: &Path,
    cancel: &Cancel,
    steps: &mut dyn Progress,
) -> Result<BuildReport, Diagnostic> {
    let held = Held::wait(&Home::new(places.home()), dir, cancel)?;
    build_in(places, &held, build_options(places, cancel), steps)
}

/// Packs a plugin that is built; `standalone`: with the base environment that it needs.
pub fn pack_in(
    places: &Places,
    held: &Held,
    out_dir: &Path,
    standalone: bool,
    steps: &mut dyn Progress,
) -> Result<PathBuf, Diagnostic> {
    let dir = held.dir();
    let spec = own_spec(places, dir)?;
    if !standalone || !base::is_wanted(dir, &spec) {
        return archive::pack(dir, &spec.general, out_dir, steps);
    }
    let interpreter = python::find(spec.general.python.as_deref())?;
    let (home, layers, cancel) = (Home::new(places.home()), has_layers(places)?, cancel()?);
    base::carry(&home, &interpreter, layers, &cancel, steps, |carried, steps| {
        archive::pack_standalone(dir, &spec.general, out_dir, carried, steps)
    })
}

/// The usual options of a build in this home.
pub fn build_options(places: &Places, cancel: &Cancel) -> BuildOptions {
    BuildOptions { cancel: cancel.clone(), ..BuildOptions::new(Home::new(places.home())) }
}

/// Builds what a plugin needs: the base environment, if its commands are Python; its own packages.
/// The interpreter is the one that it asks for.
pub fn build_in(
    places: &Places,
    held: &Held,
    options: BuildOptions,
    steps: &mut dyn Progress,
) -> Result<BuildReport, Diagnostic> {
    let dir = held.dir();
    let plugin = label::read_name(dir)?;
    let spec = own_spec(places, dir)?;
    let python = spec.general.python.clone();
    if base::is_wanted(dir, &spec) {
        ensure_base(places, python.as_deref(), None, &options.cancel, steps)?;
    }
    let options = BuildOptions { python, ..options };
    let mut report = build_held(held, plugin, &options, steps)?;
    if let Some(section) = &spec.build {
        let begin = Instant::now();
        report.command = Some(run_command(places, held, section, &options, steps)?);
        report.elapsed_ms += u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
    }
    say_undeclared(places, dir, &options.cancel, steps);
    Ok(report)
}

/// Runs the build command of a plugin, as its programs run.
fn run_command(
    places: &Places,
    held: &Held,
    section: &BuildSection,
    options: &BuildOptions,
    steps: &mut dyn Progress,
) -> Result<CommandReport, Diagnostic> {
    let module = configure::module(places, &[])?;
    let loaded = installed::load_one(places, held.dir(), &module, Directories::Made);
    let loaded = loaded.map_err(first)?;
    build_command(held, section, &loaded.env, options, steps)
}

/// Says which modules the sources of a plugin import and nothing provides. A plugin that cannot
/// be loaded is none of this: whatever runs it says why.
pub fn say_undeclared(places: &Places, dir: &Path, cancel: &Cancel, steps: &mut dyn Progress) {
    let Ok(module) = configure::module(places, &[]) else { return };
    if let Ok(loaded) = installed::load_one(places, dir, &module, Directories::Left) {
        let home = Home::new(places.home());
        let found = imports::undeclared(&home, dir, &loaded.spec, &loaded.env, cancel);
        found.into_iter().for_each(|one| steps.notice(one));
    }
}

/// What a build did, in a sentence.
pub fn sentence(report: &BuildReport) -> String {
    let mut parts = Vec::new();
    for part in [&report.python, &report.node].into_iter().flatten() {
        let what = if part.unchanged { "unchanged" } else { "built" };
        parts.push(format!(
            "{} with {}: {what} ({} packages)",
            part.interpreter, part.tool, part.packages
        ));
    }
    if let Some(command) = &report.command {
        parts.push(format!(
            "build command: {}",
            if command.unchanged { "unchanged" } else { "done" }
        ));
    }
    if parts.is_empty() {
        return format!("{}: nothing to build\n", report.plugin);
    }
    format!("{}: {} in {}\n", report.plugin, parts.join(", "), render::span(report.elapsed_ms))
}

/// The configuration of the directory alone: what is packed must not depend on
/// overrides of this machine.
pub fn own_spec(places: &Places, dir: &Path) -> Result<PluginSpec, Diagnostic> {
    let module = configure::module(places, &[])?;
    installed::own_spec(dir, &module).map_err(first)
}

/// The first error; the others are printed.
pub fn first(problems: Vec<Diagnostic>) -> Diagnostic {
    let mut errors = problems.into_iter().filter(Diagnostic::is_error);
    let first = errors.next().unwrap_or_else(|| Diagnostic::error("the plugin is refused"));
    errors.for_each(|other| report::print_problem(&other));
    first
}

/// Whether a daemon answers.
pub fn is_running(places: &Places) -> bool {
    std::os::unix::net::UnixStream::connect(places.control_socket()).is_ok()
}

/// Says what was installed, or goes on serving as it was, and where it answers.
fn say_current(places: &Places, outcome: &OperationOutcome, done: &str) {
    print_warnings(outcome);
    let Some(plugin) = &outcome.plugin else { return };
    print(&format!("{} {} {done} ({})\n", plugin.name, plugin.version, plugin.dir.display()));
    match &outcome.applied {
        None => print("the node is not running: it is served after `mfserv start`\n"),
        Some(applied) => say_where(places, &plugin.name, applied),
    }
}

fn say_dangers(places: &Places, spec: &PluginSpec) {
    for danger in dangers(spec, has_nginx(places)) {
        report::print_problem(&Diagnostic::warning(danger.trim_start_matches("WARNING: ")));
    }
}

/// True if nginx is the front of the node.
pub fn has_nginx(places: &Places) -> bool {
    let module = configure::module(places, &[]);
    module.is_ok_and(|module| module.resolution.config.get(FRONT_KIND) == "nginx")
}

/// An error if the plugin is refused, or not served with all its workers.
fn is_served(places: &Places, name: &str) -> Result<(), Diagnostic> {
    let socket = places.control_socket();
    let status = mfserv_node::control::client::status(&socket, STATUS)?;
    let fails = |why: &str| Diagnostic::error(format!("{name} is not served")).because(why);
    let planned = status.plugins.iter().find(|plugin| plugin.name == name);
    let planned = planned.ok_or_else(|| fails("it is not in the plan of the node"))?;
    if planned.state != PluginState::Active {
        let about = status.problems.iter().find(|one| one.is_error() && one.is_about(name));
        let refused = || fails("its configuration is refused").kind(Kind::BadConfiguration);
        return Err(about.cloned().unwrap_or_else(refused));
    }
    let own = |watcher: &&WatcherStatus| watcher.plugin.as_deref() == Some(name);
    if let Some(watcher) = status.watchers.iter().filter(own).find(|w| w.ready < w.wanted) {
        let (ready, wanted) = (watcher.ready, watcher.wanted);
        let mut problem = fails(&format!("{}: {ready} of {wanted} workers ready", watcher.name));
        if let Some(end) = &watcher.last_end {
            problem = problem.because(format!("{}\n{}", end.why, end.last_output.trim_end()));
        }
        return Err(problem.help("`mfserv status` and `mfserv logs` show more"));
    }
    let is_routed = !planned.paths.is_empty() || !planned.hosts.is_empty();
    match status.address.is_none() && is_routed {
        true => Err(fails("the node has no front ([nginx] flag or port)")),
        false => Ok(()),
    }
}

fn say_where(places: &Places, name: &str, applied: &Applied) {
    let status = mfserv_node::control::client::status(&places.control_socket(), STATUS);
    let Ok(status) = status else { return };
    let Some(address) = status.address else {
        return print("no front listens: [nginx] flag or port is 0\n");
    };
    for plugin in status.plugins.iter().filter(|p| p.name == name) {
        for url in plugin.urls(&address) {
            print(&format!("{url}\n"));
        }
    }
    let of_plugin = |p: &&Diagnostic| p.is_about(name);
    applied.problems.iter().filter(of_plugin).for_each(report::print_problem);
}
