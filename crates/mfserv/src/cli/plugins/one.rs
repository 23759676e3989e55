//! `mfserv shell`, `mfserv run APP` and `mfserv open`: one app, by its name.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::names::WatcherName;
use mfserv_core::status::{PluginStatus, Status};
use mfserv_core::watcher::WatcherSpec;
use mfserv_core::{Diagnostic, Kind};

use super::env::{become_command, load};
use super::{drift, python};
use crate::cli::report::{self, Outcome};
use crate::cli::{complain, completions, print, reach};
use mfserv_node::places::Places;
use mfserv_node::{configure, installed, taking};

/// The plugin and the app of `foo`, `foo.main`, `app.foo.main` or `extra.foo.job`.
pub fn parts(name: &str) -> (&str, Option<&str>) {
    let kinds = ["app.", "extra."].iter().find_map(|kind| name.strip_prefix(kind));
    let name = kinds.filter(|rest| rest.contains('.')).unwrap_or(name);
    name.split_once('.').map_or((name, None), |(plugin, app)| (plugin, Some(app)))
}

/// The error of an app that a plugin does not have.
pub fn no_app(plugin: &str, app: &str, names: &[&str]) -> Diagnostic {
    let error = Diagnostic::error(format!("{plugin} has no app {app}")).kind(Kind::Usage);
    match names.is_empty() {
        true => error.because("it has none: it is static files"),
        false => error.help(format!("it has {}", list(plugin, names))),
    }
}

fn list(plugin: &str, names: &[&str]) -> String {
    names.iter().map(|name| format!("{plugin}.{name}")).collect::<Vec<_>>().join(", ")
}

/// What a program beside the workers of an app is run with.
struct One {
    /// `foo.main`, or the directory.
    name: String,
    /// The variables of a worker, secrets included.
    env: BTreeMap<String, String>,
    /// The plugin's directory.
    dir: PathBuf,
    /// What its workers run; empty for files.
    argv: Vec<String>,
}

impl One {
    fn find(places: &Places, name: &str) -> Result<One, Diagnostic> {
        let (dir, loaded) = load(places, name)?;
        let of_plugin = || One {
            name: name.to_owned(),
            env: loaded.secrets.with(&loaded.env),
            dir: dir.clone(),
            argv: Vec::new(),
        };
        if name.contains('/') || name == "." {
            let one = of_plugin();
            let argv = loaded.spec.apps.first().map(|app| app.command.command.as_str());
            let argv = argv.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
            return Ok(One { argv, ..one });
        }
        let (plugin, app) = parts(name);
        let module = configure::module(places, &drift::sets_of_daemon(places))?;
        let mut inputs = installed::configurations(places, &module, None)?;
        inputs.retain(|input| input.name == plugin);
        inputs.iter_mut().for_each(|input| input.loaded = Ok(loaded.clone()));
        let mut watchers = taking::plan(places, &module, inputs).watchers;
        watchers.retain(|watcher, _| watcher.plugin() == Some(plugin));
        let is_app = |name: &&WatcherName| name.as_str().starts_with("app.");
        let apps: Vec<&str> = watchers.keys().filter(is_app).map(WatcherName::short).collect();
        let short = match (app, &apps[..]) {
            (Some(app), _) => app,
            (None, [only]) => only,
            (None, []) => return Ok(of_plugin()),
            (None, several) => {
                return Err(Diagnostic::error(format!("{plugin} has several apps"))
                    .kind(Kind::Usage)
                    .help(format!("say which one: {}", list(plugin, several))));
            }
        };
        let named = |kind: fn(&str, &str) -> WatcherName| watchers.get(&kind(plugin, short));
        let spec = match name.starts_with("extra.") {
            true => named(WatcherName::extra),
            false => named(WatcherName::app).or_else(|| named(WatcherName::extra)),
        };
        match spec {
            Some(spec) => Ok(One::of(spec, format!("{plugin}.{short}"), dir)),
            // Files have no workers.
            None => Ok(of_plugin()),
        }
    }

    fn of(spec: &WatcherSpec, name: String, dir: PathBuf) -> One {
        let mut env = spec.secrets.with(&spec.env);
        // Of the terminal that we are on, not of the one that the node was started from.
        for name in ["TERM", "COLORTERM"] {
            match std::env::var(name) {
                Ok(value) => env.insert(name.into(), value),
                Err(_) => env.remove(name),
            };
        }
        One { name, env, dir, argv: spec.argv.clone() }
    }

    /// Where its workers run: the plugin's directory, or the one below that `env -C` enters.
    fn cwd(&self) -> PathBuf {
        match &self.argv[..] {
            [env, flag, below, ..] if is_env(env) && flag == "-C" => self.dir.join(below),
            _ => self.dir.clone(),
        }
    }

    /// The program that its workers begin with, without `env`.
    fn program(&self) -> &str {
        let mut words = self.argv.iter().map(String::as_str).peekable();
        if words.next_if(|word| is_env(word)).is_some() {
            if words.next_if_eq(&"-C").is_some() {
                words.next();
            }
            while words.next_if(|word| word.contains('=')).is_some() {}
        }
        words.next().unwrap_or_default()
    }

    /// What is typed into: the language of the app.
    fn interpreter(&self, cwd: &Path) -> Vec<&'static str> {
        let program = self.program().rsplit('/').next().unwrap_or_default();
        let script = |end: &str| self.argv.iter().any(|word| word.ends_with(end));
        let is_node = ["node", "nodejs", "npm", "npx", "yarn", "pnpm"].contains(&program)
            || script(".js") && !program.starts_with("python");
        let has_python = self.dir.join("local/bin/python").exists();
        if is_node {
            return vec!["node"];
        }
        if program.starts_with("python")
            || program.ends_with(".py")
            || is_server(program)
            || has_python
        {
            return match cwd.join("manage.py").is_file() {
                true => vec!["python", "manage.py", "shell"],
                false => vec!["python"],
            };
        }
        match self.dir.join("node_modules").is_dir() {
            true => vec!["node"],
            false => vec!["sh"],
        }
    }
}

fn is_env(word: &str) -> bool {
    word == "env" || word.ends_with("/env")
}

/// A server of Python apps.
fn is_server(program: &str) -> bool {
    const SERVERS: [&str; 9] = [
        "mfserv_worker",
        "uvicorn",
        "gunicorn",
        "hypercorn",
        "daphne",
        "granian",
        "uwsgi",
        "waitress-serve",
        "streamlit",
    ];
    SERVERS.contains(&program)
}

/// Type into an app: a shell of its language, with its packages, variables and secrets.
///
/// Python apps get python (`manage.py shell` where there is a manage.py), Node apps node, all
/// others sh. It runs beside the workers and in their directory, and sees their data.
#[derive(Debug, Args)]
pub struct Shell {
    /// Start sh, whatever the app is written in.
    #[arg(long)]
    sh: bool,
    /// The app (`foo.main`; `foo` if it has one), or a plugin's directory.
    #[arg(add = ArgValueCompleter::new(completions::apps_or_directories))]
    app: String,
}

impl Shell {
    /// This process becomes the shell.
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let one = One::find(places, &self.app)?;
        let cwd = one.cwd();
        let words = if self.sh { vec!["sh"] } else { one.interpreter(&cwd) };
        if std::io::stderr().is_terminal() {
            complain(&format!("- {} of {} in {}", words.join(" "), one.name, cwd.display()));
        }
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        Ok(become_command(&words, &one.env, Some(&cwd)))
    }
}

/// A command beside the workers of an app: in their directory, with their variables and secrets. This
/// process becomes the command, so that signals reach it and its exit code is ours.
pub fn run(places: &Places, app: &str, command: &[String]) -> Result<Outcome, Diagnostic> {
    let mut words = command.iter().map(String::as_str).peekable();
    words.next_if_eq(&"--");
    let words: Vec<String> = words.map(str::to_owned).collect();
    if words.is_empty() {
        return Err(Diagnostic::error(format!("there is no command to run in {app}"))
            .kind(Kind::Usage)
            .help(format!("`mfserv run {app} -- COMMAND`; `mfserv run` alone runs the node")));
    }
    let one = One::find(places, app)?;
    Ok(become_command(&words, &one.env, Some(&one.cwd())))
}

/// Print where an app answers, and open it in a browser.
///
/// The browser is $BROWSER, else xdg-open on a desktop; without either the address is only printed.
#[derive(Debug, Args)]
pub struct Open {
    /// Only print the address.
    #[arg(long)]
    print: bool,
    /// The app (`foo.main`), or the plugin (`foo`).
    #[arg(add = ArgValueCompleter::new(completions::apps))]
    app: String,
}

impl Open {
    pub fn run(self, places: &Places) -> Result<Outcome, Diagnostic> {
        let status = reach::status(places)?;
        let urls = urls(&status, &self.app)?;
        for url in &urls {
            print(&format!("{url}\n"));
        }
        let Some(first) = urls.first().filter(|_| !self.print) else { return Ok(Outcome::Done) };
        if let Err(problem) = browse(first) {
            report::print_problem(&problem);
        }
        Ok(Outcome::Done)
    }
}

/// Where an app or a plugin answers.
fn urls(status: &Status, name: &str) -> Result<Vec<String>, Diagnostic> {
    let (plugin, app) = parts(name);
    let of_plugin = status.plugins.iter().find(|one| one.name == plugin).ok_or_else(|| {
        let names: Vec<&str> = status.plugins.iter().map(|one| one.name.as_str()).collect();
        Diagnostic::error(format!("the node serves no plugin {plugin}"))
            .help(format!("it serves {}", names.join(", ")))
    })?;
    let mut served = of_plugin.clone();
    if let Some(app) = app {
        let own = WatcherName::app(plugin, app);
        let watcher = status.watchers.iter().find(|one| one.name == own).ok_or_else(|| {
            let of = status.watchers.iter().filter(|one| one.plugin.as_deref() == Some(plugin));
            no_app(plugin, app, &of.map(|one| one.name.short()).collect::<Vec<_>>())
        })?;
        let (paths, hosts) = (watcher.path.iter().cloned().collect(), watcher.hosts.clone());
        served = PluginStatus { paths, hosts, ..served };
    }
    // No browser finds a wildcard.
    served.hosts.retain(|host| !host.contains('*'));
    let Some(address) = status.address.as_ref() else {
        return Err(Diagnostic::error("the node has no front")
            .kind(Kind::Refused)
            .because("[nginx] flag or port is 0"));
    };
    match served.urls(address) {
        urls if urls.is_empty() => Err(Diagnostic::error(format!("{name} answers nowhere"))
            .kind(Kind::Refused)
            .because("it has no route: it is no web app, or its routes are not in force")
            .help("`mfserv status` shows what runs")),
        urls => Ok(urls),
    }
}

/// Starts a browser, if there is one for people here. It lives on after us.
fn browse(url: &str) -> Result<(), Diagnostic> {
    let set = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let asked = set("BROWSER");
    let has_desktop = set("DISPLAY").or_else(|| set("WAYLAND_DISPLAY")).is_some();
    let usual =
        || Some("xdg-open".to_owned()).filter(|it| has_desktop && python::on_path(it).is_some());
    let Some(browsers) = asked.or_else(usual) else { return Ok(()) };
    let mut failed = Diagnostic::warning("no browser could be started");
    for browser in browsers.split(':') {
        let words = browser.split_whitespace().map(|word| word.replace("%s", url));
        let mut words: Vec<String> = words.collect();
        if !browser.contains("%s") {
            words.push(url.to_owned());
        }
        let Some((program, rest)) = words.split_first() else { continue };
        #[expect(clippy::disallowed_methods, reason = "a browser is started for who asked for it")]
        let mut command = Command::new(program);
        command.args(rest).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.spawn() {
            Ok(_) => return Ok(()),
            Err(error) => failed = failed.because(format!("{program}: {error}")),
        }
    }
    Err(failed.help("open the address by hand; BROWSER names the program"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(command: &str) -> One {
        let argv = command.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
        One { name: String::new(), env: BTreeMap::new(), dir: "/nowhere".into(), argv }
    }

    #[test]
    fn names_are_plugins_and_their_apps_in_one_spelling() {
        for (name, expected) in [
            ("shop", ("shop", None)),
            ("shop.main", ("shop", Some("main"))),
            ("app.shop.main", ("shop", Some("main"))),
            ("extra.shop.job", ("shop", Some("job"))),
            ("app.main", ("app", Some("main"))),
        ] {
            assert_eq!(parts(name), expected, "{name}");
        }
    }

    #[test]
    fn the_language_is_that_of_the_program_that_the_workers_run() {
        for (command, expected) in [
            ("env -C main A=b mfserv_worker x:app", "python"),
            ("/opt/python3.12 -u x.py", "python"),
            ("env PORT=1 node server.js", "node"),
            ("npm start", "node"),
            ("bin/web", "sh"),
            ("", "sh"),
        ] {
            let one = one(command);
            assert_eq!(one.interpreter(&one.cwd()), [expected], "{command}");
        }
        assert_eq!(one("env -C main x").cwd(), Path::new("/nowhere/main"));
        assert_eq!(one("x").cwd(), Path::new("/nowhere"));
    }
}
