//! `bootstrap_plugin.py`: a plugin from a template, as far as into the node if asked.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::{Args, CommandFactory, Parser, Subcommand};
use mfserv_core::Diagnostic;
use mfserv_core::names::check_plugin_name;
use mfserv_plugin::templates::{self, Answers};

use super::{failed, places, prefix};
use crate::cli::plugins::new::{ask_questions, check_front};
use crate::cli::report::Outcome;
use crate::cli::{complain, print};

/// Make plugins from templates.
#[derive(Debug, Parser)]
#[command(name = "bootstrap_plugin.py")]
struct Bootstrap {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the templates.
    List,
    /// Make a plugin.
    Create(Create),
}

#[derive(Debug, Args)]
struct Create {
    /// The template.
    #[arg(long, default_value = templates::DEFAULT)]
    template: String,
    /// Ask nothing.
    #[arg(long)]
    no_input: bool,
    /// Run `make release` in it.
    #[arg(long)]
    make: bool,
    /// Install the plugin that was made.
    #[arg(long, requires = "make")]
    install: bool,
    /// Keep the plugin that was made, and remove the directory.
    #[arg(long, requires = "make")]
    delete: bool,
    /// The plugin's name.
    name: String,
}

pub fn run() -> Result<Outcome, Diagnostic> {
    match Bootstrap::parse().verb {
        None => {
            print(&format!("{}\n", Bootstrap::command().render_help()));
            Ok(Outcome::Done)
        }
        Some(Verb::List) => {
            print("List of available plugin templates:\n");
            let names = templates::list().iter().map(|template| template.name);
            std::iter::once(templates::DEFAULT)
                .chain(names)
                .for_each(|name| print(&format!("     * {name}\n")));
            Ok(Outcome::Done)
        }
        Some(Verb::Create(args)) => args.run(),
    }
}

impl Create {
    fn run(self) -> Result<Outcome, Diagnostic> {
        let cwd = std::env::current_dir()
            .map_err(|e| Diagnostic::error("the current directory is gone").because(e))?;
        if let Some(refusal) = self.refusal(&cwd) {
            complain(&refusal.to_string());
            return failed();
        }
        check_front(&places()?, &self.template)?;
        let mut answers = Answers::default();
        if !self.no_input {
            ask_questions(&mut answers)?;
        }
        let dir = templates::create(&self.template, &self.name, &answers, &cwd)?;
        let made =
            format!("Plugin {} successfully created on directory {}", self.name, dir.display());
        if self.make && !self.goes_on(&dir, &made)? {
            return failed();
        }
        print(&format!("{made}\n"));
        print(
            "Whats next? => in the directory: `mfserv check .`, then `make develop`; `mfserv dev .` shows it\n",
        );
        Ok(Outcome::Done)
    }

    fn refusal(&self, cwd: &Path) -> Option<String> {
        let Some(template) = templates::find(&self.template) else {
            return Some(format!("ERROR : this template [{}] does not exist", self.template));
        };
        if let Err(reason) = check_plugin_name(&self.name) {
            return Some(format!(
                "ERROR: the plugin name: {} is not valid\nValidation error: {reason}",
                self.name
            ));
        }
        if let Some(reason) = template.refuses(&self.name) {
            return Some(format!("ERROR: {reason}"));
        }
        let there = cwd.join(&self.name).symlink_metadata().is_ok();
        let cwd = cwd.display();
        there.then(|| format!("ERROR : the subdirectory {} already exists in {cwd}", self.name))
    }

    /// `make release`, then what was asked besides; false if that failed, which has been said.
    fn goes_on(&self, dir: &Path, made: &str) -> Result<bool, Diagnostic> {
        if !succeeds(command("make").arg("release").current_dir(dir)) {
            complain(&format!("{made}\nbut MAKE ERROR"));
            return Ok(false);
        }
        let packages = packages(dir)?;
        for package in packages.iter().filter(|_| self.install) {
            if !succeeds(command("plugins.install").arg(package)) {
                complain(&format!("{made}\nbut PLUGIN INSTALL ERROR"));
                return Ok(false);
            }
        }
        if self.delete {
            let failed = |e: std::io::Error| {
                Diagnostic::error(format!("{} cannot be removed", dir.display())).because(e)
            };
            for package in &packages {
                let up = dir.parent().unwrap_or(dir).join(package.file_name().unwrap_or_default());
                std::fs::rename(package, up).map_err(failed)?;
            }
            std::fs::remove_dir_all(dir).map_err(failed)?;
        }
        Ok(true)
    }
}

fn packages(dir: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let entries = std::fs::read_dir(dir)
        .map_err(|e| Diagnostic::error(format!("cannot read {}", dir.display())).because(e))?;
    let files = entries.flatten().map(|entry| entry.path());
    Ok(files.filter(|file| file.extension().is_some_and(|end| end == "plugin")).collect())
}

/// A command of this installation, which finds its others.
fn command(name: &str) -> Command {
    #[expect(
        clippy::disallowed_methods,
        reason = "the old command calls the other commands of its family"
    )]
    let mut command = Command::new(name);
    if let Some(prefix) = prefix() {
        let own = std::iter::once(prefix.join("bin"));
        let path = std::env::var_os("PATH").unwrap_or_default();
        if let Ok(path) = std::env::join_paths(own.chain(std::env::split_paths(&path))) {
            command.env("PATH", path);
        }
        for name in ["MFSERV_HOME", "MFEXT_HOME", "MFMODULE_HOME"] {
            command.env(name, &prefix);
        }
    }
    command
}

fn succeeds(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => {
            complain(&format!("{}: {error}", command.get_program().to_string_lossy()));
            false
        }
    }
}
