//! Plugins: made, built, run from a directory, packed, installed, looked at.

use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_core::plan::Loaded;
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_plugin::build::{BuildOptions, BuildReport, build};
use mfserv_plugin::store::{self, InstallOptions, Installed, Origin};
use mfserv_plugin::templates::{Answers, QUESTIONS};
use mfserv_plugin::{Cancel, Home, archive, base, python, templates, tools};

use super::operate::Wait;
use super::progress::Steps;
use super::report::{self, Outcome};
use super::show::table;
use super::{print, print_json};
use crate::control::protocol::{Applied, Ask};
use crate::places::Places;
use crate::{configure, installed, say};

#[derive(Debug, Args)]
pub struct Setup {
    /// The Python to make the base environment for (python3.12); default: the host's python3.
    #[arg(long)]
    python: Option<String>,
    /// Fetch uv too, with which builds are faster.
    #[arg(long)]
    uv: bool,
    /// Write what the base environment is made of to a file in this directory, for a
    /// machine without a network.
    #[arg(long, value_name = "DIR", conflicts_with = "import")]
    export: Option<PathBuf>,
    /// Make the base environment from such a file, without a network.
    #[arg(long, value_name = "FILE")]
    import: Option<PathBuf>,
}

impl Setup {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        places.create()?;
        let mut steps = Steps::new();
        let home = Home::new(places.home());
        if self.uv {
            let interpreter = python::find(self.python.as_deref())?;
            tools::uv(&home, &interpreter, &cancel()?, &mut steps)?;
        }
        if let Some(dir) = &self.export {
            let interpreter = python::find(self.python.as_deref())?;
            let file = base::export(&home, &interpreter, dir, &cancel()?, &mut steps)?;
            steps.finish();
            print(&format!("{}\n", file.display()));
            return Ok(Outcome::Done);
        }
        let base = match &self.import {
            Some(file) => {
                let interpreter = python::find(self.python.as_deref())?;
                base::import(&home, file, &interpreter, &cancel()?, &mut steps)?
            }
            None => ensure_base(places, self.python.as_deref(), &mut steps)?,
        };
        steps.finish();
        print(&format!("Python {} is ready: {}\n", base.interpreter.version, base.dir.display()));
        Ok(Outcome::Done)
    }
}

fn ensure_base(
    places: &Places,
    python: Option<&str>,
    steps: &mut Steps,
) -> Result<base::BaseEnvironment, Diagnostic> {
    let interpreter = python::find(python)?;
    base::ensure(&Home::new(places.home()), &interpreter, &cancel()?, steps)
}

/// Ctrl-C stops the programs that an operation runs, and leaves nothing half done.
fn cancel() -> Result<Cancel, Diagnostic> {
    Cancel::by_signals().map_err(|e| Diagnostic::error("signals cannot be caught").because(e))
}

#[derive(Debug, Args)]
pub struct New {
    /// The plugin's name.
    #[arg(required_unless_present = "list")]
    name: Option<String>,
    /// The template.
    #[arg(long, short, default_value = "default")]
    template: String,
    /// Ask nothing: every answer is the default one.
    #[arg(long)]
    no_input: bool,
    /// List the templates.
    #[arg(long)]
    list: bool,
}

impl New {
    pub fn run(self) -> Result<Outcome, Diagnostic> {
        if self.list {
            for template in templates::list() {
                print(&format!("{:<20} {}\n", template.name, template.summary));
            }
            return Ok(Outcome::Done);
        }
        let name = self.name.unwrap_or_default();
        let mut answers = Answers::default();
        if !self.no_input && std::io::stdin().is_terminal() {
            ask_questions(&mut answers)?;
        }
        let dir = templates::create(&self.template, &name, &answers, Path::new("."))?;
        let dir = dir.canonicalize().unwrap_or(dir);
        print(&format!(
            "plugin {name} is made in {}\nnext: `mfserv dev {name}` runs it from there\n",
            dir.display()
        ));
        Ok(Outcome::Done)
    }
}

fn ask_questions(answers: &mut Answers) -> Result<(), Diagnostic> {
    let failed = |e: std::io::Error| Diagnostic::error("the question cannot be asked").because(e);
    for question in QUESTIONS {
        loop {
            for (index, choice) in question.choices.iter().enumerate() {
                print(&format!("  {}. {choice}\n", index + 1));
            }
            print(&format!("{} [{}]: ", question.key, question.default));
            std::io::stdout().flush().map_err(failed)?;
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map_err(failed)?;
            match answers.set(question.key, line.trim()) {
                Ok(()) => break,
                Err(why) => print(&format!("{why}\n")),
            }
        }
    }
    Ok(())
}

#[derive(Debug, Args)]
pub struct Build {
    /// The plugin's directory.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Build {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let report = build_in(places, &self.dir)?;
        if self.json {
            print_json(&report)?;
        } else {
            print(&sentence(&report));
        }
        Ok(Outcome::Done)
    }
}

/// Builds what a plugin needs: the base environment, if its commands are Python; its own packages.
fn build_in(places: &Places, dir: &Path) -> Result<BuildReport, Diagnostic> {
    places.create()?;
    let mut steps = Steps::new();
    let spec = own_spec(places, dir)?;
    let python = spec.general.python.clone();
    if base::is_wanted(dir, &spec) {
        ensure_base(places, python.as_deref(), &mut steps)?;
    }
    let options =
        BuildOptions { python, cancel: cancel()?, ..BuildOptions::new(Home::new(places.home())) };
    build(dir, &options, &mut steps)
}

fn sentence(report: &BuildReport) -> String {
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
    format!("{}: {} in {}\n", report.plugin, parts.join(", "), say::span(report.elapsed_ms))
}

/// The configuration of the directory alone: what is packed must not depend on
/// overrides of this machine.
fn own_spec(places: &Places, dir: &Path) -> Result<PluginSpec, Diagnostic> {
    let module = configure::module(places, &[])?;
    installed::own_spec(dir, &module).map_err(first)
}

fn first(problems: Vec<Diagnostic>) -> Diagnostic {
    let mut errors = problems.into_iter().filter(Diagnostic::is_error);
    let first = errors.next().unwrap_or_else(|| Diagnostic::error("the plugin is refused"));
    errors.for_each(|other| report::print_problem(&other));
    first
}

#[derive(Debug, Args)]
pub struct Dev {
    /// The plugin's directory.
    #[arg(default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    wait: Wait,
}

impl Dev {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let report = build_in(places, &self.dir)?;
        let home = Home::new(places.home());
        let module = configure::module(places, &[])?;
        let dir = self.dir.canonicalize().unwrap_or(self.dir);
        let prepared = installed::prepare(places, &dir, &module).map_err(first)?;
        prepared.warnings.iter().for_each(report::print_problem);
        store::postinstall(&home, &dir, &prepared, &cancel()?, &mut Steps::new())?;
        let plugin = store::dev_link(&home, &dir)?;
        print(&sentence(&report));
        if let Some(applied) = reload(places, &self.wait)? {
            say_where(places, &plugin.name, &applied);
        }
        Ok(Outcome::Done)
    }
}

fn is_running(places: &Places) -> bool {
    std::os::unix::net::UnixStream::connect(places.control_socket()).is_ok()
}

/// Tells a running node; `None` when there is none.
fn reload(places: &Places, wait: &Wait) -> Result<Option<Applied>, Diagnostic> {
    if !is_running(places) {
        print("the node is not running: it is served after `mfserv start`\n");
        return Ok(None);
    }
    wait.ask(places, "waiting until it is served", |wait_s| Ask::Reload { wait_s }).map(Some)
}

fn say_where(places: &Places, name: &str, applied: &Applied) {
    let ask = crate::control::client::ask::<mfserv_core::status::Status>;
    let status = ask(&places.control_socket(), &Ask::Status, std::time::Duration::from_secs(10));
    let Ok(status) = status else { return };
    let address = status.address.unwrap_or_default();
    for plugin in status.plugins.iter().filter(|p| p.name == name) {
        for path in &plugin.paths {
            print(&format!("{address}{path}\n"));
        }
    }
    let of_plugin = |p: &&Diagnostic| p.to_string().contains(name);
    applied.problems.iter().filter(of_plugin).for_each(report::print_problem);
}

#[derive(Debug, Args)]
pub struct Release {
    /// The plugin's directory.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Where the package is put.
    #[arg(long, short, default_value = ".")]
    output: PathBuf,
}

impl Release {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let general = own_spec(places, &self.dir)?.general;
        let report = build_in(places, &self.dir)?;
        let mut steps = Steps::new();
        let file = archive::pack(&self.dir, &general, &self.output, &mut steps)?;
        steps.finish();
        print(&sentence(&report));
        let file = file.canonicalize().unwrap_or(file);
        print(&format!("plugin file is ready at {}\n", file.display()));
        Ok(Outcome::Done)
    }
}

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
        let home = Home::new(places.home());
        let module = configure::module(places, &[])?;
        let mut steps = Steps::new();
        let prepare = |dir: &Path| {
            let prepared = installed::prepare(places, dir, &module).map_err(first)?;
            if base::is_wanted(dir, &prepared.spec) {
                let python = prepared.spec.general.python.as_deref();
                ensure_base(places, python, &mut Steps::new())?;
            }
            Ok(prepared)
        };
        let options = InstallOptions {
            replace: true,
            new_name: self.new_name.clone(),
            clean: self.clean,
            limits: archive::Limits::default(),
            cancel: cancel()?,
            prepare: &prepare,
        };
        let staged = store::stage(&home, &self.file, &options, &mut steps)?;
        steps.finish();
        if is_running(places) && !self.wait.no_wait {
            // The old release serves until every worker of the new one is ready; if one
            // fails, what was staged is dropped and nothing has changed.
            let (plugin, dir) = (staged.package.name.clone(), staged.dir.clone());
            self.wait.ask(places, "starting the new release beside the old one", |wait_s| {
                Ask::Prepare { plugin: plugin.clone(), dir: dir.clone(), wait_s }
            })?;
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

#[derive(Debug, Args)]
pub struct List {
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl List {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let all = store::list(&Home::new(places.home()));
        if self.json {
            print_json(&all)?;
            return Ok(Outcome::Done);
        }
        let titles = ["NAME", "VERSION", "RELEASE", "FROM", "DIRECTORY"].map(str::to_owned);
        let rows = all.iter().map(|plugin| {
            let from = origin(plugin);
            let dir = plugin.dir.display().to_string();
            vec![plugin.name.clone(), plugin.version.clone(), plugin.release.clone(), from, dir]
        });
        let rows: Vec<Vec<String>> = std::iter::once(titles.to_vec()).chain(rows).collect();
        print(&table(&rows));
        all.iter().filter_map(|plugin| plugin.problem.as_ref()).for_each(report::print_problem);
        Ok(Outcome::Done)
    }
}

fn origin(plugin: &Installed) -> String {
    match plugin.origin {
        Origin::Packed(number) => format!("release {number}"),
        Origin::Dev => "directory".into(),
        Origin::Internal => "mfserv".into(),
    }
}

#[derive(Debug, Args)]
pub struct Info {
    /// A plugin's name, or a package file.
    name_or_file: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Info {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let path = Path::new(&self.name_or_file);
        if self.name_or_file.contains(['/', '.']) || path.is_file() {
            let package = archive::read(path)?;
            return self.say(&[
                ("name", package.name.clone()),
                ("version", package.metadata.version.clone()),
                ("release", package.metadata.release.clone()),
                ("summary", package.metadata.summary.clone()),
                ("license", package.metadata.license.clone()),
                ("maintainer", package.metadata.packager.clone()),
                ("vendor", package.metadata.vendor.clone()),
                ("url", package.metadata.url.clone()),
                ("size", package.metadata.size.clone()),
                ("files", package.files.len().to_string()),
            ]);
        }
        let home = Home::new(places.home());
        let plugin = store::current(&home, &self.name_or_file)?;
        let module = configure::module(places, &[])?;
        let general = installed::own_spec(&plugin.dir, &module).map_err(first)?.general;
        let releases: Vec<String> =
            store::releases(&home, &plugin.name).iter().map(|r| r.number.to_string()).collect();
        self.say(&[
            ("name", plugin.name.clone()),
            ("version", plugin.version.clone()),
            ("release", plugin.release.clone()),
            ("summary", general.summary),
            ("license", general.license),
            ("maintainer", general.maintainer),
            ("vendor", general.vendor),
            ("url", general.url),
            ("from", origin(&plugin)),
            ("directory", plugin.dir.display().to_string()),
            ("releases", releases.join(" ")),
        ])
    }

    fn say(&self, rows: &[(&str, String)]) -> Result<Outcome, Diagnostic> {
        if self.json {
            print_json(&rows.iter().cloned().collect::<BTreeMap<_, _>>())?;
        } else {
            let rows: Vec<Vec<String>> =
                rows.iter().map(|(key, value)| vec![key.to_string(), value.clone()]).collect();
            print(&table(&rows));
        }
        Ok(Outcome::Done)
    }
}

/// A plugin by name, or by the path of its directory.
fn load(places: &Places, name_or_dir: &str) -> Result<(PathBuf, Loaded), Diagnostic> {
    let module = configure::module(places, &[])?;
    if name_or_dir.contains('/') || name_or_dir == "." {
        let dir = PathBuf::from(name_or_dir).canonicalize().map_err(|e| {
            Diagnostic::error(format!("{name_or_dir} is not a plugin directory")).because(e)
        })?;
        let loaded = installed::load_one(places, &dir, &module).map_err(first)?;
        return Ok((dir, loaded));
    }
    // Its workers see the same directory and the same environment.
    let mut all = installed::load_all(places, &module)?;
    match all.iter().position(|plugin| plugin.name == name_or_dir) {
        Some(index) => {
            let plugin = all.swap_remove(index);
            Ok((plugin.dir, plugin.loaded.map_err(first)?))
        }
        None => Err(store::current(&Home::new(places.home()), name_or_dir)
            .map_or_else(|problem| problem, |_| Diagnostic::error("the plugin was just removed"))),
    }
}

#[derive(Debug, Args)]
pub struct Env {
    /// A plugin's name, or its directory.
    name_or_dir: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Env {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let (_, loaded) = load(places, &self.name_or_dir)?;
        if self.json {
            print_json(&loaded.env)?;
            return Ok(Outcome::Done);
        }
        for (key, value) in &loaded.env {
            print(&format!("export {key}='{}'\n", value.replace('\'', r"'\''")));
        }
        Ok(Outcome::Done)
    }
}

#[derive(Debug, Args)]
pub struct Exec {
    /// Go to the plugin's directory first.
    #[arg(long)]
    cwd: bool,
    /// A plugin's name, or its directory.
    name_or_dir: String,
    /// The command.
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    /// This process becomes the command; its exit code is the command's.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let (dir, loaded) = load(places, &self.name_or_dir)?;
        let mut words = self.command.iter().map(String::as_str).peekable();
        // `mfserv exec NAME -- CMD` and `mfserv exec NAME CMD` are the same.
        words.next_if_eq(&"--");
        let program = words.next().unwrap_or_default().to_string();
        let path = loaded.env.get("PATH").cloned().unwrap_or_default();
        let found = find_program(&program, &path, self.cwd.then_some(dir.as_path()));
        let mut command = Command::new(&found);
        command.arg0(&program).args(words).env_clear().envs(&loaded.env);
        if self.cwd {
            command.current_dir(&dir);
        }
        let error = command.exec();
        let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
        report::print_problem(
            &Diagnostic::error(format!("{program} cannot be run")).because(error),
        );
        Ok(Outcome::Code(code))
    }
}

/// Where the plugin's PATH leads: ours must not be looked at.
fn find_program(program: &str, path: &str, cwd: Option<&Path>) -> PathBuf {
    if program.contains('/') {
        return cwd.map_or_else(|| PathBuf::from(program), |cwd| cwd.join(program));
    }
    let places = std::env::split_paths(path).map(|dir| dir.join(program));
    places.into_iter().find(|file| file.is_file()).unwrap_or_else(|| "/nonexistent".into())
}
