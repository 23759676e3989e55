//! `mfserv shell` and `mfserv run APP`: one app, by its name.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;
use clap_complete::ArgValueCompleter;
use mfserv_core::names::WatcherName;
use mfserv_core::plan::split_command;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::generate::Script;

use super::app_names::{is_directory, list, parts};
use super::drift;
use super::env::{become_command, load_by, refuse_pip};
use crate::cli::report::Outcome;
use crate::cli::{complain, completions};
use mfserv_node::places::Places;
use mfserv_node::{installed, taking};

/// What is meant by the name of a plugin with several apps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Several {
    /// Nothing: one has to be named.
    Refused,
    /// What all of them have.
    ThePlugin,
}

/// What a program beside the workers of an app is run with.
pub struct One {
    /// `foo.main`, or the directory.
    name: String,
    /// The variables of a worker, secrets included.
    env: BTreeMap<String, String>,
    /// The plugin's directory.
    dir: PathBuf,
    /// Where its workers run: the plugin's directory, or the one below that their command enters.
    cwd: PathBuf,
    /// What its workers run then; empty for files.
    argv: Vec<String>,
}

impl One {
    pub fn find(places: &Places, name: &str, several: Several) -> Result<One, Diagnostic> {
        let module = drift::module(places)?;
        let (dir, loaded) = load_by(places, &module, name)?;
        let env = loaded.secrets.with(&loaded.env);
        let of_plugin = |dir: PathBuf| One::new(name.to_owned(), env.clone(), dir);
        let is_dir = is_directory(name);
        let (plugin, app) = if is_dir { (&loaded.spec.name[..], None) } else { parts(name) };
        let instead = is_dir.then(|| (plugin.to_owned(), dir.clone()));
        let mut inputs = installed::configurations(places, &module, instead)?;
        inputs.retain(|input| input.name == plugin);
        inputs.iter_mut().for_each(|input| input.loaded = Ok(loaded.clone()));
        let mut watchers = taking::plan(places, &module, inputs).watchers;
        watchers.retain(|watcher, _| watcher.plugin() == Some(plugin));
        let is_app = |name: &&WatcherName| name.as_str().starts_with("app.");
        let apps: Vec<&str> = watchers.keys().filter(is_app).map(WatcherName::short).collect();
        let first = loaded.spec.apps.first().map(|app| app.command.name.as_str());
        let short = match (app, &apps[..]) {
            (Some(app), _) => app,
            (None, [only]) => only,
            (None, [_, ..]) if several == Several::Refused && is_dir => first.unwrap_or_default(),
            (None, all @ [_, ..]) if several == Several::Refused => {
                return Err(Diagnostic::error(format!("{plugin} has several apps"))
                    .kind(Kind::Usage)
                    .help(format!("say which one: {}", list(plugin, all))));
            }
            (None, _) => return Ok(of_plugin(dir)),
        };
        let named = |kind: fn(&str, &str) -> WatcherName| watchers.get(&kind(plugin, short));
        let spec = match name.starts_with("extra.") {
            true => named(WatcherName::extra),
            false => named(WatcherName::app).or_else(|| named(WatcherName::extra)),
        };
        // Files have no workers.
        let Some(spec) = spec else { return Ok(of_plugin(dir)) };
        let mut one = One::new(format!("{plugin}.{short}"), spec.secrets.with(&spec.env), dir);
        one.enter(&spec.argv);
        one.enter_script();
        Ok(one)
    }

    fn new(name: String, mut env: BTreeMap<String, String>, dir: PathBuf) -> One {
        // Of the terminal that we are on, not of the one that the node was started from.
        for name in ["TERM", "COLORTERM"] {
            match std::env::var(name) {
                Ok(value) => env.insert(name.into(), value),
                Err(_) => env.remove(name),
            };
        }
        One { name, env, cwd: dir.clone(), dir, argv: Vec::new() }
    }

    /// The environment of its program.
    pub fn env(&self) -> &BTreeMap<String, String> {
        &self.env
    }

    /// The plugin's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Does what env(1) does at the beginning of a command.
    fn enter(&mut self, argv: &[String]) {
        let mut words = argv.iter().map(String::as_str).peekable();
        if words.next_if(|word| is_env(word)).is_some() {
            while let Some(word) = words.next_if(|word| word.starts_with('-') || word.contains('='))
            {
                let value = |short: &str, long: &str| match word == short {
                    true => Some(None),
                    false => word.strip_prefix(long).map(Some),
                };
                if let Some(below) = value("-C", "--chdir=") {
                    let below = below.or_else(|| words.next());
                    self.cwd = self.cwd.join(below.unwrap_or_default());
                } else if let Some(name) = value("-u", "--unset=") {
                    let name = name.or_else(|| words.next());
                    self.env.remove(name.unwrap_or_default());
                } else if ["-", "-i", "--ignore-environment"].contains(&word) {
                    self.env.clear();
                } else if let Some((name, value)) = word.split_once('=') {
                    self.assign(name, value);
                }
            }
        }
        self.argv = words.map(str::to_owned).collect();
    }

    /// Sets a variable, unless its value is that of one worker alone, or known to a shell alone.
    fn assign(&mut self, name: &str, value: &str) {
        const OF_A_WORKER: [&str; 5] = ["{unix_socket_path}", "{port}", "{host}", "$", "`"];
        if !OF_A_WORKER.iter().any(|one| value.contains(one)) {
            self.env.insert(name.into(), value.into());
        }
    }

    /// The same for the line of a Procfile, which a script of ours runs.
    fn enter_script(&mut self) {
        let script = self.argv.first().and_then(|program| Script::read(&self.dir, program));
        let Some(Script { dir, line, .. }) = script else { return };
        self.cwd = self.cwd.join(dir);
        let mut words = split_command(&line, &[], &[]).unwrap_or_default();
        let ends =
            |word: &String| ["&&", "||", "|", "&"].contains(&&word[..]) || word.ends_with(';');
        // What is before the last program prepares it.
        if let Some(at) = words.iter().rposition(ends) {
            words.drain(..=at);
        }
        if words.first().is_some_and(|word| word == "exec") {
            words.remove(0);
        }
        if !words.first().is_some_and(|word| is_env(word)) {
            words.insert(0, "env".into());
        }
        self.enter(&words);
    }

    /// The program that its workers run.
    fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }

    /// What is typed into: the language of the app.
    fn interpreter(&self) -> Vec<&'static str> {
        let program = self.program().rsplit('/').next().unwrap_or_default();
        let script = |end: &str| self.argv.iter().any(|word| word.ends_with(end));
        let is_node = ["node", "nodejs", "npm", "npx", "yarn", "pnpm"].contains(&program)
            || script(".js") && !program.starts_with("python");
        let has_python = self.dir.join("local/bin/python").exists()
            || self.dir.join("python3_virtualenv_sources").is_dir();
        if is_node {
            return vec!["node"];
        }
        if program.starts_with("python")
            || program.ends_with(".py")
            || is_server(program)
            || has_python
        {
            return match self.cwd.join("manage.py").is_file() {
                true => vec!["python", "manage.py", "shell"],
                false => vec!["python"],
            };
        }
        let is_of_node =
            self.dir.join("node_modules").is_dir() || self.cwd.join("package.json").is_file();
        vec![if is_of_node { "node" } else { "sh" }]
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
        let one = One::find(places, &self.app, Several::Refused)?;
        let words = if self.sh { vec!["sh"] } else { one.interpreter() };
        if std::io::stderr().is_terminal() {
            complain(&format!("- {} of {} in {}", words.join(" "), one.name, one.cwd.display()));
        }
        let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        Ok(become_command(&words, &one.env, Some(&one.cwd)))
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
    let one = One::find(places, app, Several::Refused)?;
    refuse_pip(&words, &one.env, &one.dir)?;
    Ok(become_command(&words, &one.env, Some(&one.cwd)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(command: &str) -> One {
        let argv: Vec<String> = command.split_whitespace().map(str::to_owned).collect();
        let mut one = One::new(String::new(), BTreeMap::new(), "/nowhere".into());
        one.enter(&argv);
        one
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
            assert_eq!(one(command).interpreter(), [expected], "{command}");
        }
    }

    #[test]
    fn what_env_does_for_a_command_is_done_for_what_runs_beside_it() {
        let is = |command: &str| {
            let mut one = one(command);
            one.env.retain(|name, _| !["TERM", "COLORTERM"].contains(&&name[..]));
            let env: Vec<String> =
                one.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
            format!("{} [{}] {}", one.cwd.display(), env.join(" "), one.argv.join(" "))
        };
        assert_eq!(
            is("env -C main A=1 B=x=y PORT={port} x C=2"),
            "/nowhere/main [A=1 B=x=y] x C=2"
        );
        assert_eq!(is("/usr/bin/env --chdir=a A=1 -u A B=2 x"), "/nowhere/a [B=2] x");
        assert_eq!(is("env -i A=1 x -C y"), "/nowhere [A=1] x -C y");
        assert_eq!(is("x"), "/nowhere [] x");
    }
}
