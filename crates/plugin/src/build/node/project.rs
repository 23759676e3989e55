//! An existing app with a `package.json`: its packages, its scripts, and what of it is deployed.

use std::fs;
use std::path::Path;
use std::process::Command;

use mfserv_core::Diagnostic;

use super::super::BuildOptions;
use super::managers::{Manager, Tool};
use super::{MARK, Npm, build, other, parse, read};
use crate::child::Run;
use crate::progress::Progress;
use mfserv_platform::disk;

/// A directory with a `package.json`, and the tool that its lock is of.
pub struct NodeProject<'a> {
    dir: &'a Path,
    options: &'a BuildOptions,
    /// `None`: npm.
    tool: Option<Tool>,
}

impl<'a> NodeProject<'a> {
    /// Finds or fetches the tool.
    pub fn open(
        dir: &'a Path,
        options: &'a BuildOptions,
        progress: &mut dyn Progress,
    ) -> Result<Self, Diagnostic> {
        let tool = match Manager::of(dir) {
            None => None,
            Some(manager) => {
                progress.step(&format!("looking for {}", manager.name()));
                Some(Tool::find(manager, dir, options)?)
            }
        };
        Ok(Self { dir, options, tool })
    }

    /// Its packages, as its lock says.
    pub fn packages(&self, progress: &mut dyn Progress) -> Result<(), Diagnostic> {
        match &self.tool {
            None => build(self.dir, self.options, progress).map(drop),
            Some(tool) => other::install(self.dir, tool, self.options, progress).map(drop),
        }
    }

    /// Runs one of its scripts.
    pub fn script(&self, script: &str, progress: &mut dyn Progress) -> Result<(), Diagnostic> {
        let (name, command) = match &self.tool {
            None => ("npm", self.npm(&["run", script])?),
            Some(tool) => (tool.manager.name(), tool.command(self.dir, &["run", script])),
        };
        self.run(&format!("{name} run {script}"), command, progress)
    }

    /// Removes the packages that only building needs. The next build installs them again.
    pub fn leave_production(&self, progress: &mut dyn Progress) -> Result<(), Diagnostic> {
        let package = self.dir.join("package.json");
        let whole = read(&package).and_then(|text| parse(&package, &text))?;
        let development = whole.get("devDependencies").and_then(|all| all.as_object());
        if development.is_none_or(serde_json::Map::is_empty) {
            return Ok(());
        }
        let command = match &self.tool {
            None => self.npm(&[
                "prune",
                "--omit=dev",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--no-progress",
            ])?,
            Some(tool) => tool.leave_production(self.dir),
        };
        // Also where it fails halfway, nobody takes what is there for whole.
        disk::remove(&self.dir.join("node_modules").join(MARK))?;
        self.run("removing the packages for development", command, progress)?;
        fs::create_dir_all(self.dir.join("node_modules"))
            .map_err(|e| disk::failed("create", &self.dir.join("node_modules"), e))
    }

    fn npm(&self, arguments: &[&str]) -> Result<Command, Diagnostic> {
        let mut command = crate::python::clean(&Npm::find(self.options)?.npm);
        command.args(arguments).current_dir(self.dir);
        Ok(command)
    }

    fn run(
        &self,
        what: &str,
        command: Command,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        progress.step(what);
        let run = Run { what, limit: self.options.limit, cancel: &self.options.cancel };
        run.run(command, progress).map(drop)
    }
}
