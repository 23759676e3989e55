//! `mfserv env` and `mfserv exec`: the environment of a plugin's programs.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::plan::Loaded;
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::{Home, generate, label, store};

use super::run_beside::{One, Several};
use super::{app_names, drift, first, variables};
use crate::cli::completions;
use crate::cli::report::{self, Outcome};
use crate::cli::{print, print_json};
use mfserv_node::configure::Module;
use mfserv_node::installed::Directories;
use mfserv_node::places::Places;
use mfserv_node::{configure, installed};

/// A plugin by its name or that of one of its apps (`foo`, `foo.main`), or by the path of its
/// directory.
pub fn load(places: &Places, name_or_dir: &str) -> Result<(PathBuf, Loaded), Diagnostic> {
    load_by(places, &drift::module(places)?, name_or_dir)
}

/// The same, with the configuration of the node that was read.
pub fn load_by(
    places: &Places,
    module: &Module,
    name_or_dir: &str,
) -> Result<(PathBuf, Loaded), Diagnostic> {
    if app_names::is_directory(name_or_dir) {
        let dir = directory(name_or_dir)?;
        let home = Home::new(places.home());
        // The directory of an app that `mfserv dev` has made a plugin of.
        let made = (!is_plugin(&dir)).then(|| generate::made_from(&home, &dir)).flatten();
        let dir = match made {
            Some((name, place)) => match home.link(&name).canonicalize() {
                Ok(linked) if linked == place.canonicalize().unwrap_or_default() => {
                    return load_by(places, module, &name);
                }
                _ => place,
            },
            None => dir,
        };
        let loaded = installed::load_one(places, &dir, module, Directories::Made).map_err(first)?;
        return Ok((dir, loaded));
    }
    // Its workers see the same directory and the same environment.
    let all = installed::configurations(places, module, None)?;
    let (name, app) = app_names::parts(name_or_dir);
    match all.into_iter().find(|plugin| plugin.name == name) {
        Some(plugin) => {
            let loaded = installed::load_one(places, &plugin.dir, module, Directories::Made)
                .map_err(first)?;
            app.map_or(Ok(()), |app| has_app(&loaded.spec, app))?;
            Ok((plugin.dir, loaded))
        }
        None => Err(store::current(&Home::new(places.home()), name)
            .map_or_else(|problem| problem, |_| Diagnostic::error("the plugin was just removed"))),
    }
}

/// The name of the plugin whose variables are meant. Variables are those of a whole plugin:
/// `shop.main` means `shop` if that is its only program; else the name stays, and is refused later. An
/// app that the plugin does not have is an error.
pub fn plugin_of(places: &Places, name: &str) -> Result<String, Diagnostic> {
    let (plugin, Some(_)) = app_names::parts(name) else { return Ok(name.to_owned()) };
    let spec = load(places, name)?.1.spec;
    let is_alone = spec.apps.len() + spec.extra_daemons.len() == 1;
    Ok(if is_alone { plugin } else { name }.to_owned())
}

/// The error of `foo.nothing`: an installed plugin has no such app. A name that no plugin begins is
/// for others to judge.
pub fn unknown_app(places: &Places, name: &str) -> Option<Diagnostic> {
    let (plugin, Some(app)) = app_names::parts(name) else { return None };
    let plugin = store::current(&Home::new(places.home()), plugin).ok()?;
    let spec = installed::own_spec(&plugin.dir, &configure::module(places, &[]).ok()?).ok()?;
    has_app(&spec, app).err()
}

/// Makes an error that of a wrong command line where the name is that of no plugin: `foo` and
/// `foo.main`, but not `front` and the other roles.
pub fn if_not_installed(places: &Places, name: &str, problem: Diagnostic) -> Diagnostic {
    const ROLES: [&str; 7] =
        ["front", "errors", "daemon", "keeper", "telemetry", "telegraf", "stage"];
    let home = Home::new(places.home());
    let there = store::current(&home, app_names::parts(name).0);
    match there.err().filter(|why| why.kind == Kind::Usage && !ROLES.contains(&name)) {
        None => problem,
        Some(why) => {
            let names = why.help.unwrap_or_else(|| "no plugin is installed".into());
            problem.kind(Kind::Usage).because(why.what).because(names)
        }
    }
}

/// Refuses `foo.main` where a plugin is meant.
pub fn only_plugin(places: &Places, name: &str) -> Result<(), Diagnostic> {
    let home = Home::new(places.home());
    let (plugin, app) = app_names::parts(name);
    let is_there = |name: &str| std::fs::symlink_metadata(home.link(name)).is_ok();
    match app {
        Some(_) if !is_there(name) && is_there(plugin) => {
            Err(Diagnostic::error(format!("{name} is an app, and this is about a plugin"))
                .kind(Kind::Usage)
                .because("all apps of a plugin are one release")
                .help(format!("name the plugin: {plugin}")))
        }
        _ => Ok(()),
    }
}

/// The plugin of a directory: its own name, or that of the plugin that `mfserv dev` has made of the
/// app in it.
pub fn name_of_directory(places: &Places, dir: &str) -> Result<String, Diagnostic> {
    let path = directory(dir)?;
    match generate::made_from(&Home::new(places.home()), &path) {
        Some((name, _)) if !is_plugin(&path) => Ok(name),
        _ => label::read_name(&path),
    }
}

fn directory(text: &str) -> Result<PathBuf, Diagnostic> {
    let failed = |e| Diagnostic::error(format!("{text} is not a plugin directory")).because(e);
    PathBuf::from(text).canonicalize().map_err(failed)
}

/// True for a directory that is a plugin already.
pub(super) fn is_plugin(dir: &Path) -> bool {
    std::fs::symlink_metadata(dir.join(".layerapi2_label")).is_ok()
}

fn has_app(spec: &PluginSpec, app: &str) -> Result<(), Diagnostic> {
    let extra = spec.extra_daemons.iter().map(|extra| extra.command.name.as_str());
    let names = spec.apps.iter().map(|app| app.command.name.as_str()).chain(extra);
    let names: Vec<&str> = names.collect();
    match names.contains(&app) {
        true => Ok(()),
        false => Err(app_names::no_app(&spec.name, app, &names)),
    }
}

/// Print the environment variables of a plugin's programs, or change those that this node sets.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Env {
    #[command(subcommand)]
    command: Option<variables::Command>,
    /// A plugin or app (`foo`, `foo.main`), or a plugin's directory.
    #[arg(required = true, add = ArgValueCompleter::new(completions::apps_or_directories))]
    name_or_dir: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl Env {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        if let Some(command) = self.command {
            return command.run(places);
        }
        let name = self.name_or_dir.unwrap_or_default();
        let (_, loaded) = load(places, &name)?;
        if let Some(drift) = drift::of(places, &loaded.spec.name, &loaded) {
            report::print_problem(&drift);
        }
        if self.json {
            print_json(&loaded.env)?;
            return Ok(Outcome::Done);
        }
        let secrets: String = loaded.secrets.names().map(hidden).collect();
        print(&(exports(&loaded.env, &[]) + &secrets));
        Ok(Outcome::Done)
    }
}

/// A line for a shell that sets nothing.
fn hidden(name: &str) -> String {
    format!("# {name} is set, and secret: `mfserv exec` has it\n")
}

/// `export K='v'` lines, without the variables of `but` and those that no shell can have.
pub fn exports(env: &BTreeMap<String, String>, but: &[&str]) -> String {
    let sign = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named = |key: &str| key.chars().all(sign) && !key.starts_with(|c: char| c.is_ascii_digit());
    let wanted = env.iter().filter(|(key, _)| named(key) && !but.contains(&key.as_str()));
    wanted
        .map(|(key, value)| format!("export {key}='{}'\n", value.replace('\'', r"'\''")))
        .collect()
}

#[derive(Debug, Args)]
pub struct Exec {
    /// Run the command in the plugin's directory.
    #[arg(long)]
    cwd: bool,
    /// A plugin or app (`foo`, `foo.main`), or a plugin's directory.
    #[arg(add = ArgValueCompleter::new(completions::apps_or_directories))]
    name_or_dir: String,
    /// The command.
    #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    /// This process becomes the command; its exit code is the command's.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let one = One::find(places, &self.name_or_dir, Several::ThePlugin)?;
        let mut words = self.command.iter().map(String::as_str).peekable();
        // `mfserv exec NAME -- CMD` and `mfserv exec NAME CMD` are the same.
        words.next_if_eq(&"--");
        let words: Vec<String> = words.map(str::to_owned).collect();
        refuse_pip(&words, one.env(), one.dir())?;
        Ok(become_command(&words, one.env(), self.cwd.then_some(one.dir())))
    }
}

/// This process becomes the command, with this environment and no other. It only returns
/// when that cannot be done, which has been said: 127 when there is no such program, else 126.
pub fn become_command(
    words: &[String],
    env: &BTreeMap<String, String>,
    cwd: Option<&Path>,
) -> Outcome {
    let (program, rest) = words.split_first().map_or(("", words), |(p, rest)| (p, rest));
    let path = env.get("PATH").cloned().unwrap_or_default();
    #[expect(clippy::disallowed_methods, reason = "`mfserv exec` replaces itself by the program")]
    let mut command = Command::new(find_program(program, &path, cwd));
    command.arg0(program).args(rest).env_clear().envs(env);
    if let Some(dir) = cwd {
        command.current_dir(dir);
    }
    let error = command.exec();
    if let Some(dir) = cwd.filter(|dir| !dir.is_dir()) {
        report::print_problem(
            &Diagnostic::error(format!("{program} cannot be run in {}", dir.display()))
                .because("there is no such directory")
                .help("the command of an app enters it with `env -C`, in its config.ini"),
        );
        return Outcome::Code(126);
    }
    let code = if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 };
    report::print_problem(&Diagnostic::error(format!("{program} cannot be run")).because(error));
    Outcome::Code(code)
}

/// Refuses a pip that is not the plugin's own: an environment has none, and the next one on PATH would
/// list and change the packages of the machine's Python.
pub fn refuse_pip(
    words: &[String],
    env: &BTreeMap<String, String>,
    dir: &Path,
) -> Result<(), Diagnostic> {
    let program = words.first().map_or("", String::as_str);
    let found = find_program(program, env.get("PATH").map_or("", String::as_str), None);
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_own = found.parent().is_some_and(|above| real(above).starts_with(real(dir)));
    let is_module = module_of(words) == Some("pip");
    // The environment of the app has one, since the app asks for it.
    let is_own = is_own && (!is_module || found.with_file_name("pip").is_file());
    if !(is_module || is_called(program, "pip")) || is_own || !found.is_file() {
        return Ok(());
    }
    let (program, other) = match is_module {
        true => ("pip", format!("what {program} finds")),
        false => (program, found.display().to_string()),
    };
    let installed = dir.join("requirements3.txt");
    let list = match installed.is_file() {
        true => format!("; {} has what it has now", installed.display()),
        false => String::new(),
    };
    Err(Diagnostic::error(format!("{program} is not run here"))
        .kind(Kind::Usage)
        .because(format!(
            "the app has no {program}: {other} is of another Python, whose packages it would list and change"
        ))
        .help(format!(
            "packages come from the app's list (requirements.txt): add them there and deploy again{list}"
        )))
}

/// `pip`, `pip3`, `pip3.12` of `pip`.
fn is_called(program: &str, name: &str) -> bool {
    let version = program.strip_prefix(name);
    version.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit() || c == '.'))
}

/// The module that `python -m MODULE` runs.
fn module_of(words: &[String]) -> Option<&str> {
    let (program, rest) = words.split_first()?;
    if !is_called(program.rsplit('/').next()?, "python") {
        return None;
    }
    let mut rest = rest.iter().map(String::as_str);
    loop {
        let option = rest.next()?;
        if option.starts_with("--") {
            continue;
        }
        let letters = option.strip_prefix('-').filter(|letters| !letters.is_empty())?;
        // Those with a value end a group: it is what follows, or the next word.
        let Some(at) = letters.find(['m', 'c', 'W', 'X']) else { continue };
        let (letter, value) = letters[at..].split_at(1);
        let value = if value.is_empty() { rest.next() } else { Some(value) };
        match letter {
            "m" => return value,
            "c" => return None,
            _ => {}
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pip_of_another_python_is_refused_and_one_of_the_plugin_is_run() {
        let folder = tempfile::tempdir().unwrap();
        let [own, other] = ["own", "other"].map(|name| folder.path().join(name));
        for dir in [&own, &other] {
            std::fs::create_dir(dir).unwrap();
            let files = ["pip3", "pipx", "python3"];
            files.iter().for_each(|name| std::fs::write(dir.join(name), "").unwrap());
        }
        let run = |program: &str, path: &Path| {
            let env = [("PATH".to_string(), path.display().to_string())].into();
            let words: Vec<String> = program.split(' ').map(str::to_string).collect();
            refuse_pip(&words, &env, &own)
        };
        for path in [&own, &other] {
            let problem = run("python3 -m pip install x", path).unwrap_err();
            assert!(problem.to_string().contains("requirements.txt"), "{problem}");
            assert!(run("python3 -m site", path).is_ok());
        }
        std::fs::write(own.join("pip"), "").unwrap();
        assert!(run("python3 -m pip list", &own).is_ok());
        std::fs::remove_file(own.join("pip")).unwrap();
        let problem = run("pip3", &other).unwrap_err();
        assert_eq!(problem.kind, Kind::Usage);
        assert!(problem.to_string().contains("requirements.txt"), "{problem}");
        for (program, path) in [("pip3", &own), ("pip", &other), ("pipx", &other), ("ls", &other)] {
            assert!(run(program, path).is_ok(), "{program}");
        }
    }

    #[test]
    fn a_module_is_found_behind_the_options_of_its_interpreter() {
        for (line, module) in [
            ("python -m pip install x", Some("pip")),
            ("/usr/bin/python3.12 -I -X dev -W error -m pip list", Some("pip")),
            ("python3 -mpip list", Some("pip")),
            ("python3 -Im pip list", Some("pip")),
            ("python3 -Wdefault -um pip", Some("pip")),
            ("python -m http.server", Some("http.server")),
            ("python manage.py -m pip", None),
            ("python -c x -m pip", None),
            ("python -", None),
            ("pythonic -m pip", None),
            ("node -m pip", None),
        ] {
            let words: Vec<String> = line.split(' ').map(str::to_string).collect();
            assert_eq!(module_of(&words), module, "{line}");
        }
    }

    #[test]
    fn what_a_shell_reads_says_what_was_meant_whatever_is_in_it() {
        let texts =
            [("A", "it's $(x) `y` \"z\""), ("B-C", "no name"), ("1D", "no name"), ("E", "")];
        let env = texts.map(|(key, value)| (key.to_string(), value.to_string())).into();
        let text = exports(&env, &["E"]);
        assert_eq!(text, "export A='it'\\''s $(x) `y` \"z\"'\n");
    }
}
