//! An existing app with a `package.json`: its packages, its scripts, and what of it is deployed.

use std::fs;
use std::path::Path;
use std::process::Command;

use mfserv_core::Diagnostic;
use serde_json::Value;

use super::super::{BuildOptions, Part};
use super::managers::{Manager, Tool};
use super::workspace::{arguments, lock_in};
use super::{MARK, Npm, build, kept, other, parse, read};
use crate::child::Run;
use crate::discover::Member;
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
    pub fn packages(&self, progress: &mut dyn Progress) -> Result<Option<Part>, Diagnostic> {
        match &self.tool {
            None => build(self.dir, self.options, progress),
            Some(tool) => other::install(self.dir, tool, self.options, progress).map(Some),
        }
    }

    /// Runs its `build` script, or that of a member of the workspace that it is.
    pub fn build(
        &self,
        member: Option<&Member>,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        let words = build_words(self.dir, member);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (name, command) = match &self.tool {
            None => ("npm", self.npm(&words)?),
            Some(tool) => (tool.manager.name(), tool.command(self.dir, &words)),
        };
        self.run(&format!("{name} {}", words.join(" ")), command, progress)
    }

    /// All packages are there again that a deployment has left out.
    pub fn bring_back(&self) -> Result<(), Diagnostic> {
        kept::bring_back(self.dir)
    }

    /// Removes the packages that only building needs; they are kept for the next build.
    pub fn leave_production(
        &self,
        member: Option<&Member>,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        let package = self.dir.join("package.json");
        let whole = read(&package).and_then(|text| parse(&package, &text))?;
        let development = whole.get("devDependencies").and_then(|all| all.as_object());
        if development.is_none_or(serde_json::Map::is_empty) {
            return Ok(());
        }
        let what = "the packages for development are deployed, too";
        if let Some(why) = self.tool.as_ref().and_then(Tool::keeps_all) {
            progress.notice(Diagnostic::warning(what).because(why));
            return Ok(());
        }
        let started = match member {
            None => whole.clone(),
            Some(member) => {
                let package = self.dir.join(&member.dir).join("package.json");
                read(&package).and_then(|text| parse(&package, &text))?
            }
        };
        if let Some((program, package)) = started_with(self.dir, &started) {
            progress.notice(
                Diagnostic::warning(what)
                    .because(format!(
                        "the script `start` calls {program} of {package}, one of devDependencies"
                    ))
                    .help(format!("with {package} in dependencies the others are left out")),
            );
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
        kept::keep(self.dir)?;
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

/// What the tool is told to run the `build` script of an app, or of a member of the workspace.
pub fn build_words(dir: &Path, member: Option<&Member>) -> Vec<String> {
    let lock = lock_in(dir).unwrap_or_default();
    match member.filter(|member| member.is_built) {
        Some(one) => arguments(lock, &one.dir, &one.name, &["run", "build"]),
        None => vec!["run".into(), "build".into()],
    }
}

/// The program that the script `start`, or one that it runs, calls of a package of
/// `devDependencies`, and that package.
fn started_with(dir: &Path, package: &Value) -> Option<(String, String)> {
    let text = |script: &str| package.get("scripts")?.get(script)?.as_str();
    let mut words: Vec<&str> = Vec::new();
    let mut todo = vec!["prestart", "start"];
    let mut done: Vec<&str> = Vec::new();
    while let Some(script) = todo.pop() {
        done.push(script);
        let all = text(script).unwrap_or_default().split(|c: char| " \t\n;&|()'\"".contains(c));
        for word in all.filter(|word| !word.is_empty()) {
            // Any word may be the name of a script after `npm run`.
            if text(word).is_some() && !done.contains(&word) {
                todo.push(word);
            }
            let word = word.trim_start_matches("./").trim_start_matches("node_modules/.bin/");
            words.push(word.split('/').next().unwrap_or(word));
        }
    }
    let development = package.get("devDependencies")?.as_object()?;
    let is_needed =
        |name: &str| package.get("dependencies").is_some_and(|it| it.get(name).is_some());
    development.keys().filter(|name| !is_needed(name)).find_map(|name| {
        let program = programs_of(dir, name).into_iter().find(|it| words.contains(&it.as_str()))?;
        Some((program, name.clone()))
    })
}

/// The programs that an installed package has.
fn programs_of(dir: &Path, name: &str) -> Vec<String> {
    let file = dir.join("node_modules").join(name).join("package.json");
    let package = read(&file).and_then(|text| parse(&file, &text)).unwrap_or_default();
    match package.get("bin") {
        Some(Value::String(_)) => vec![name.rsplit('/').next().unwrap_or(name).to_owned()],
        Some(Value::Object(all)) => all.keys().cloned().collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_start_calls_of_a_package_for_development_is_found_also_through_other_scripts() {
        let folder = tempfile::tempdir().unwrap();
        for (name, bin) in [
            ("tsx", r#"{"bin": "x.js"}"#),
            ("@scope/cli", r#"{"bin": "x.js"}"#),
            ("typescript", r#"{"bin": {"tsc": "x", "tsserver": "y"}}"#),
        ] {
            let dir = folder.path().join("node_modules").join(name);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join("package.json"), bin).unwrap();
        }
        for (scripts, found) in [
            (r#"{"start": "tsx server.ts"}"#, Some(("tsx", "tsx"))),
            (r#"{"start": "node --import tsx server.ts"}"#, Some(("tsx", "tsx"))),
            (r#"{"start": "X=1 ./node_modules/.bin/cli"}"#, Some(("cli", "@scope/cli"))),
            (
                r#"{"start": "npm run serve", "serve": "tsc && node x"}"#,
                Some(("tsc", "typescript")),
            ),
            (r#"{"prestart": "tsc", "start": "node start"}"#, Some(("tsc", "typescript"))),
            (r#"{"build": "tsc", "start": "node dist/server.js"}"#, None),
            (r#"{"start": "needed"}"#, None),
        ] {
            let text = format!(
                r#"{{"scripts": {scripts}, "dependencies": {{"needed": "1"}},
                "devDependencies": {{"tsx": "1", "@scope/cli": "1", "typescript": "1"}}}}"#
            );
            let package = serde_json::from_str(&text).unwrap();
            let wanted = found.map(|(program, name)| (program.to_string(), name.to_string()));
            assert_eq!(started_with(folder.path(), &package), wanted, "{scripts}");
        }
    }
}
