//! Plugins: made, built, run from a directory, packed, installed, looked at. Here is what
//! these commands share.

mod build;
pub mod dev;
pub mod env;
mod info;
pub mod install;
pub mod new;
mod preview;
pub mod releases;
mod setup;

use std::path::Path;

pub use build::{Build, Release};
pub use dev::Dev;
pub use env::{Env, Exec};
pub use info::{Info, List};
pub use install::{Hotswap, Install, Uninstall};
use mfserv_core::Diagnostic;
use mfserv_core::ini::Dialect;
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_plugin::build::{BuildOptions, BuildReport, build as build_plugin};
use mfserv_plugin::dangers::dangers;
use mfserv_plugin::store::Installed;
use mfserv_plugin::{Cancel, Home, Progress, base, python};
pub use new::New;
pub use releases::{Releases, Repackage, Rollback};
use serde::Serialize;
pub use setup::Setup;

use super::operate::Wait;
use super::report::Outcome;
use super::{print, print_json, report};
use mfserv_node::control::protocol::{Applied, Ask};
use mfserv_node::places::Places;
use mfserv_node::{configure, installed, render};

fn ensure_base(
    places: &Places,
    python: Option<&str>,
    steps: &mut dyn Progress,
) -> Result<base::BaseEnvironment, Diagnostic> {
    let interpreter = python::find(python)?;
    base::ensure(&Home::new(places.home()), &interpreter, &cancel()?, steps)
}

/// Ctrl-C stops the programs that an operation runs, and leaves nothing half done.
pub fn cancel() -> Result<Cancel, Diagnostic> {
    Cancel::by_signals().map_err(|e| Diagnostic::error("signals cannot be caught").because(e))
}

/// Builds what a plugin needs: the base environment, if its commands are Python; its own packages.
pub fn build_in(
    places: &Places,
    dir: &Path,
    steps: &mut dyn Progress,
) -> Result<BuildReport, Diagnostic> {
    places.create()?;
    let spec = own_spec(places, dir)?;
    let python = spec.general.python.clone();
    if base::is_wanted(dir, &spec) {
        ensure_base(places, python.as_deref(), steps)?;
    }
    let options =
        BuildOptions { python, cancel: cancel()?, ..BuildOptions::new(Home::new(places.home())) };
    build_plugin(dir, &options, steps)
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
    if parts.is_empty() {
        parts.push("nothing to build".into());
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

/// What a command did to the set of plugins, as JSON.
#[derive(Debug, Serialize)]
struct Changed {
    /// What is installed now; of an uninstallation, what was; `null` when only what had been
    /// kept of it was removed.
    plugin: Option<Installed>,
    warnings: Vec<Diagnostic>,
    /// What the node did; `null` when it does not run.
    applied: Option<Applied>,
}

/// Starts the workers of a release that is not current yet beside those that serve, and
/// waits until all are ready. If one fails, nothing has changed.
fn try_release(
    places: &Places,
    wait: &Wait,
    (plugin, dir): (&str, &Path),
    cancel: &Cancel,
) -> Result<(), Diagnostic> {
    if !wait.no_wait && is_running(places) {
        let ask = |wait_s| Ask::Prepare { plugin: plugin.into(), dir: dir.to_owned(), wait_s };
        let what = "starting the new release beside the old one";
        let ready = wait.ask_unless(places, what, cancel, ask);
        last_moment(cancel)?;
        ready?;
    }
    last_moment(cancel)
}

/// Ctrl-C before what was prepared becomes current: nothing has changed.
pub fn last_moment(cancel: &Cancel) -> Result<(), Diagnostic> {
    match cancel.is_cancelled() {
        true => Err(Diagnostic::error("interrupted: nothing has changed")),
        false => Ok(()),
    }
}

/// Lets a release serve that has just become current, and says what was done.
fn take_over(
    places: &Places,
    wait: &Wait,
    (plugin, warnings): (Installed, Vec<Diagnostic>),
    done: &str,
) -> Result<Outcome, Diagnostic> {
    if !wait.json {
        warnings.iter().for_each(report::print_problem);
        let (name, version, dir) = (&plugin.name, &plugin.version, plugin.dir.display());
        print(&format!("{name} {version} {done} ({dir})\n"));
    }
    let applied = serve(places, wait)?;
    if wait.json {
        print_json(&Changed { plugin: Some(plugin), warnings, applied })?;
    } else if let Some(applied) = applied {
        say_where(places, &plugin.name, &applied);
    }
    Ok(Outcome::Done)
}

/// Which keys of a plugin could break others, in MFSERV's words.
pub fn dangers_in(dir: &Path, spec: &PluginSpec) -> Vec<String> {
    match configure::read_document(&dir.join("config.ini"), Dialect::Plugin) {
        Ok(Some(own)) => dangers(&own, spec),
        _ => Vec::new(),
    }
}

fn say_dangers(dir: &Path, spec: &PluginSpec) {
    for danger in dangers_in(dir, spec) {
        report::print_problem(&Diagnostic::warning(danger.trim_start_matches("WARNING: ")));
    }
}

/// Lets a running node serve what is current now; `None` when there is none.
fn serve(places: &Places, wait: &Wait) -> Result<Option<Applied>, Diagnostic> {
    if !is_running(places) && !wait.json {
        print("the node is not running: it is served after `mfserv start`\n");
    }
    reload(places, wait, "waiting until it is served")
}

/// Tells a running node, and waits; `None` when there is none.
fn reload(places: &Places, wait: &Wait, what: &str) -> Result<Option<Applied>, Diagnostic> {
    if !is_running(places) {
        return Ok(None);
    }
    wait.ask(places, what, |wait_s| Ask::Reload { wait_s }).map(Some)
}

fn say_where(places: &Places, name: &str, applied: &Applied) {
    let status = mfserv_node::control::client::status;
    let status = status(&places.control_socket(), std::time::Duration::from_secs(10));
    let Ok(status) = status else { return };
    let address = status.address.unwrap_or_default();
    for plugin in status.plugins.iter().filter(|p| p.name == name) {
        for path in &plugin.paths {
            print(&format!("{address}{path}\n"));
        }
    }
    let of_plugin = |p: &&Diagnostic| p.is_about(name);
    applied.problems.iter().filter(of_plugin).for_each(report::print_problem);
}
