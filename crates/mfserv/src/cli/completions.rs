//! `mfserv completions SHELL`, and what the script that it prints asks for at each Tab.
//! Only files are read, so that it is quick and works while nothing runs.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use clap_complete::CompleteEnv;
use clap_complete::engine::{CompletionCandidate, PathCompleter, ValueCompleter};
use clap_complete::env::{Bash, EnvCompleter, Fish, Zsh};
use mfserv_core::Diagnostic;
use mfserv_core::ini::{self, Dialect};
use mfserv_plugin::store::{self, Installed};
use mfserv_plugin::{Home, python, templates};

use super::print;
use super::report::Outcome;
use mfserv_node::daemon::plan_in_force;
use mfserv_node::places::Places;

/// With this variable the scripts of shells ask for candidates.
const ASKED: &str = "_MFSERV_COMPLETE";
/// The longest config.ini that is looked at, bytes.
const LONGEST_CONFIG: u64 = 1024 * 1024;

/// The shells that are known.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Args)]
pub struct Completions {
    /// The shell.
    shell: Shell,
}

impl Completions {
    /// Prints the script of a shell, which asks this program at each Tab.
    pub fn run(self) -> Result<Outcome, Diagnostic> {
        let shell: &dyn EnvCompleter = match self.shell {
            Shell::Bash => &Bash,
            Shell::Zsh => &Zsh,
            Shell::Fish => &Fish,
        };
        let mut script = Vec::new();
        shell
            .write_registration(ASKED, "mfserv", "mfserv", &asked_program(), &mut script)
            .map_err(|e| Diagnostic::error("the script cannot be written").because(e))?;
        print(&String::from_utf8_lossy(&script));
        Ok(Outcome::Done)
    }
}

/// By name where that leads here, so that the script outlives an upgrade.
fn asked_program() -> String {
    let own = mfserv_node::program();
    let real = |path: &Path| path.canonicalize().ok();
    match python::on_path("mfserv") {
        Some(found) if real(&found) == real(&own) => "mfserv".into(),
        _ => own.to_string_lossy().into_owned(),
    }
}

/// Answers a shell that asks for candidates, and ends this process then.
pub fn answer(command: fn() -> clap::Command) {
    if std::env::var_os(ASKED).is_some() {
        CompleteEnv::with_factory(command).var(ASKED).complete();
    }
}

/// The names of the installed plugins.
pub fn plugins(current: &OsStr) -> Vec<CompletionCandidate> {
    starting_with(current, installed().into_iter().map(|plugin| (plugin.name, None)))
}

/// The installed plugins, and packages.
pub fn plugins_or_packages(current: &OsStr) -> Vec<CompletionCandidate> {
    plugins(current).into_iter().chain(packages(current)).collect()
}

/// The installed plugins and their apps, and directories.
pub fn apps_or_directories(current: &OsStr) -> Vec<CompletionCandidate> {
    let apps = apps(current).into_iter().filter(|one| one.get_value() != "front");
    apps.chain(PathCompleter::dir().complete(current)).collect()
}

/// `front`, the installed plugins and their apps: `foo`, `foo.main`.
pub fn apps(current: &OsStr) -> Vec<CompletionCandidate> {
    let mut names = vec![("front".to_string(), Some("the front".to_string()))];
    for plugin in installed() {
        let apps = apps_of(&plugin.dir);
        // its only app is meant by its own name
        names.push((plugin.name.clone(), (apps.len() > 1).then(|| "all its apps".into())));
        names.extend(apps.into_iter().map(|app| (format!("{}.{app}", plugin.name), None)));
    }
    starting_with(current, names)
}

/// The jobs of the plan that was applied last, and the plugins that have only one.
pub fn jobs(current: &OsStr) -> Vec<CompletionCandidate> {
    let Ok(places) = Places::choose(home_on_the_line().as_deref()) else { return Vec::new() };
    let jobs = plan_in_force(&places).map(|plan| plan.jobs).unwrap_or_default();
    let of = |plugin: &str| jobs.values().filter(|job| job.plugin == plugin).count();
    let alone = jobs.values().filter(|job| of(&job.plugin) == 1);
    let names = jobs.values().map(mfserv_core::job::JobSpec::id);
    let all = alone.map(|job| job.plugin.clone()).chain(names);
    starting_with(current, all.map(|name| (name, None)))
}

/// The templates of plugins.
pub fn templates(current: &OsStr) -> Vec<CompletionCandidate> {
    let all = templates::list().iter();
    starting_with(current, all.map(|one| (one.name.to_string(), Some(one.summary.to_string()))))
}

/// Packages, and directories on the way to them.
pub fn packages(current: &OsStr) -> Vec<CompletionCandidate> {
    let fits = |path: &Path| path.extension().is_some_and(|end| end == "plugin");
    PathCompleter::any().filter(fits).complete(current)
}

/// The names (with what is said of them) that begin as what is typed.
fn starting_with(
    current: &OsStr,
    names: impl IntoIterator<Item = (String, Option<String>)>,
) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let fits = names.into_iter().filter(|(name, _)| name.starts_with(&*current));
    fits.map(|(name, help)| CompletionCandidate::new(name).help(help.map(Into::into))).collect()
}

fn installed() -> Vec<Installed> {
    let Ok(places) = Places::choose(home_on_the_line().as_deref()) else { return Vec::new() };
    store::list(&Home::new(places.home())).unwrap_or_default()
}

/// `--home` in the line that is being typed.
fn home_on_the_line() -> Option<PathBuf> {
    let mut words = std::env::args_os().skip_while(|word| word != "--");
    while let Some(word) = words.next() {
        if word == "--home" {
            return words.next().map(PathBuf::from);
        }
        if let Some(dir) = word.to_str().and_then(|word| word.strip_prefix("--home=")) {
            return Some(dir.into());
        }
    }
    None
}

/// The apps of a plugin, as its configuration names them.
fn apps_of(dir: &Path) -> Vec<String> {
    let file = dir.join("config.ini");
    let small = std::fs::metadata(&file).is_ok_and(|found| found.len() <= LONGEST_CONFIG);
    let text = small.then(|| std::fs::read_to_string(&file).ok()).flatten().unwrap_or_default();
    let Ok(config) = ini::parse(&text, "config.ini", Dialect::Plugin) else { return Vec::new() };
    let names = config.sections.iter().filter_map(|section| section.name.strip_prefix("app_"));
    names.map(str::to_owned).collect()
}
