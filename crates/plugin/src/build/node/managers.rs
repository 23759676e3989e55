//! pnpm and Yarn: which one a project uses, how it is found or fetched, and how it is called.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};
use serde_json::Value;

use super::super::BuildOptions;
use crate::child::Run;
use crate::progress::Silent;
use crate::python::{clean, on_path};

/// How long a tool may take to say its version, if it is fetched for that.
const FETCH: Duration = Duration::from_secs(120);

/// Who installs the packages of a project, if not npm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::build) enum Manager {
    Pnpm,
    /// Yarn 1.
    Yarn,
    /// Yarn 2 and later.
    Berry,
}

impl Manager {
    /// Who locked the packages of this directory; `None`: npm, or nobody. Where there is a lock of
    /// npm, too, `packageManager` decides.
    pub(in crate::build) fn of(dir: &Path) -> Option<Manager> {
        let there = |name: &str| dir.join(name).is_file();
        let named = package_manager(dir);
        let named = named.as_deref().and_then(|text| text.split('@').next());
        let npm = there("package-lock.json") || there(super::SHRINKWRAP);
        let is = |name: &str, lock: &str| match named {
            Some(named) => named == name && (there(lock) || !npm),
            None => there(lock) && !npm,
        };
        if !there("package.json") {
            None
        } else if is("pnpm", "pnpm-lock.yaml") {
            Some(Manager::Pnpm)
        } else if is("yarn", "yarn.lock") {
            let lock = fs::read_to_string(dir.join("yarn.lock")).unwrap_or_default();
            let modern = package_manager(dir).and_then(|text| major(text.split('@').nth(1)?));
            let is_modern = lock.contains("\n__metadata:") || modern.is_some_and(|it| it > 1);
            Some(if is_modern { Manager::Berry } else { Manager::Yarn })
        } else {
            None
        }
    }

    pub(in crate::build) fn lock(self) -> &'static str {
        match self {
            Manager::Pnpm => "pnpm-lock.yaml",
            Manager::Yarn | Manager::Berry => "yarn.lock",
        }
    }

    /// The files that decide what it installs.
    pub(in crate::build) fn inputs(self) -> [&'static str; 4] {
        let settings = match self {
            Manager::Pnpm => "pnpm-workspace.yaml",
            Manager::Yarn => ".yarnrc",
            Manager::Berry => ".yarnrc.yml",
        };
        ["package.json", self.lock(), ".npmrc", settings]
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Manager::Pnpm => "pnpm",
            Manager::Yarn | Manager::Berry => "yarn",
        }
    }

    /// Installs what the lock says, all of it.
    fn install(self, locked: bool) -> Vec<&'static str> {
        match (self, locked) {
            (Manager::Pnpm, true) => vec!["install", "--frozen-lockfile"],
            (Manager::Pnpm, false) => vec!["install", "--no-frozen-lockfile"],
            (Manager::Yarn, true) => vec!["install", "--non-interactive", "--frozen-lockfile"],
            (Manager::Yarn, false) => vec!["install", "--non-interactive"],
            (Manager::Berry, true) => vec!["install", "--immutable"],
            (Manager::Berry, false) => vec!["install", "--no-immutable"],
        }
    }

    /// Leaves what is needed to run. Scripts have run at the installation.
    fn leave_production(self) -> &'static [&'static str] {
        match self {
            Manager::Pnpm => &["install", "--prod", "--frozen-lockfile", "--ignore-scripts"],
            Manager::Yarn => &[
                "install",
                "--non-interactive",
                "--frozen-lockfile",
                "--production",
                "--ignore-scripts",
            ],
            Manager::Berry => &["workspaces", "focus", "--production"],
        }
    }

    /// The version that the project asks for, or that its lock was written by, and the majors that
    /// do as well: another one would refuse the lock, or write another.
    fn version(self, dir: &Path) -> (String, RangeInclusive<u32>) {
        let named = package_manager(dir);
        let named =
            named.as_deref().and_then(|text| text.strip_prefix(self.name())?.strip_prefix('@'));
        if let Some(version) = named.and_then(|text| text.split('+').next()) {
            let only = major(version).map_or(0..=u32::MAX, |it| it..=it);
            return (version.to_owned(), only);
        }
        let lock = fs::read_to_string(dir.join(self.lock())).unwrap_or_default();
        let (version, majors) = match (self, self.format(&lock)) {
            (Manager::Pnpm, Some(..=5)) => ("7", 1..=7),
            (Manager::Pnpm, Some(6..=8)) => ("8", 8..=8),
            (Manager::Pnpm, Some(_)) => ("10", 9..=u32::MAX),
            (Manager::Pnpm, None) => ("10", 1..=u32::MAX),
            (Manager::Yarn, _) => ("1", 1..=1),
            (Manager::Berry, Some(..=4)) => ("2", 2..=2),
            (Manager::Berry, Some(5..=7)) => ("3", 3..=3),
            (Manager::Berry, _) => ("4", 4..=u32::MAX),
        };
        (version.to_owned(), majors)
    }

    /// The version of the format of its lock.
    fn format(self, lock: &str) -> Option<u32> {
        let text = match self {
            Manager::Pnpm => lock.lines().find_map(|line| line.strip_prefix("lockfileVersion:")),
            Manager::Yarn => None,
            Manager::Berry => {
                let about = lock.lines().skip_while(|line| *line != "__metadata:");
                about.skip(1).find_map(|line| line.strip_prefix("  version:"))
            }
        };
        major(text?.trim().trim_matches(['\'', '"']))
    }

    fn suits(self, version: &str, majors: &RangeInclusive<u32>) -> bool {
        major(version).is_some_and(|major| {
            majors.contains(&major)
                && match self {
                    Manager::Pnpm => true,
                    Manager::Yarn => major == 1,
                    Manager::Berry => major > 1,
                }
        })
    }
}

fn package_manager(dir: &Path) -> Option<String> {
    let text = super::read(&dir.join("package.json")).ok()?;
    let value: Value = serde_json::from_str(&text).ok()?;
    Some(value.get("packageManager")?.as_str()?.to_owned())
}

fn major(version: &str) -> Option<u32> {
    version.split('.').next()?.trim().parse().ok()
}

/// The tools that this process has found: each look takes its time, and fetches perhaps.
static FOUND: Mutex<Vec<(String, Tool)>> = Mutex::new(Vec::new());

/// A package manager that answers.
#[derive(Clone)]
pub(super) struct Tool {
    pub(super) manager: Manager,
    program: PathBuf,
    /// What stands before its own arguments.
    before: Vec<String>,
    pub(super) version: String,
}

impl Tool {
    /// The one on PATH, else that of corepack, else the one that npm fetches.
    pub(super) fn find(
        manager: Manager,
        dir: &Path,
        options: &BuildOptions,
    ) -> Result<Tool, Diagnostic> {
        let (name, (wanted, majors)) = (manager.name(), manager.version(dir));
        let key = format!("{name}@{wanted} {majors:?}");
        let known = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tool)) =
            known.iter().find(|(one, tool)| *one == key && tool.manager == manager)
        {
            return Ok(tool.clone());
        }
        drop(known);
        let tool = Tool::look_for(manager, (&wanted, &majors), dir, options)?;
        FOUND.lock().unwrap_or_else(PoisonError::into_inner).push((key, tool.clone()));
        Ok(tool)
    }

    fn look_for(
        manager: Manager,
        (wanted, majors): (&str, &RangeInclusive<u32>),
        dir: &Path,
        options: &BuildOptions,
    ) -> Result<Tool, Diagnostic> {
        let name = manager.name();
        let package = if manager == Manager::Berry { "@yarnpkg/cli-dist" } else { name };
        let by_corepack = vec![format!("{name}@{wanted}")];
        let by_npm = ["exec", "--yes", "--prefer-offline"].map(str::to_owned).to_vec();
        let by_npm =
            [by_npm, vec![format!("--package={package}@{wanted}"), "--".into(), name.into()]];
        let mut problem = Diagnostic::error(format!("{name} is not there")).kind(Kind::Failed);
        for (program, before) in
            [(name, Vec::new()), ("corepack", by_corepack), ("npm", by_npm.concat())]
        {
            let Some(path) = on_path(program) else {
                problem = problem.because(format!("{program} is not on PATH"));
                continue;
            };
            let mut tool = Tool { manager, program: path, before, version: String::new() };
            match tool.ask(dir, options) {
                Ok(version) if manager.suits(&version, majors) => {
                    tool.version = version;
                    return Ok(tool);
                }
                Ok(version) => {
                    problem = problem
                        .because(format!("{program} has {name} {version}, which is another one"));
                }
                Err(_) if options.cancel.is_cancelled() => {
                    return Err(Diagnostic::error(format!("looking for {name} was interrupted")));
                }
                Err(why) => {
                    problem =
                        problem.because(format!("{program} does not give it: {}", said(&why)));
                }
            }
        }
        Err(problem.help(format!(
            "{} is a file of {name} {wanted}: `npm install -g {package}@{wanted}` installs it; or \
             remove the file, and npm installs the packages",
            manager.lock()
        )))
    }

    fn ask(&self, dir: &Path, options: &BuildOptions) -> Result<String, Diagnostic> {
        let mut command = self.command(dir, &["--version"]);
        // Of a registry that does not answer nobody waits for minutes.
        command.env("npm_config_fetch_retries", "0");
        let run = Run { what: "asking for its version", limit: FETCH, cancel: &options.cancel };
        let said = run.run(command, &mut Silent)?.text();
        Ok(said.lines().last().unwrap_or_default().trim().to_owned())
    }

    pub(super) fn command(&self, dir: &Path, arguments: &[&str]) -> Command {
        let mut command = clean(&self.program);
        command.args(&self.before).args(arguments).current_dir(dir);
        // Nobody is there to be asked, and the project's files stay as they are.
        command.env("COREPACK_ENABLE_DOWNLOAD_PROMPT", "0").env("COREPACK_ENABLE_AUTO_PIN", "0");
        if self.manager == Manager::Berry {
            // Programs that know nothing of Plug'n'Play find packages in node_modules.
            command.env("YARN_NODE_LINKER", "node-modules").env("YARN_ENABLE_TELEMETRY", "0");
        }
        command
    }

    pub(super) fn install(&self, dir: &Path) -> Command {
        let locked = dir.join(self.manager.lock()).is_file();
        self.without_questions(dir, &self.manager.install(locked))
    }

    pub(super) fn leave_production(&self, dir: &Path) -> Command {
        self.without_questions(dir, self.manager.leave_production())
    }

    /// Why all packages stay; `None`, if [`Tool::leave_production`] works.
    pub(super) fn keeps_all(&self) -> Option<String> {
        let is_too_old =
            self.manager == Manager::Berry && major(&self.version).is_some_and(|it| it < 4);
        is_too_old.then(|| {
            format!("Yarn {} leaves nothing out: `workspaces focus` came with Yarn 4", self.version)
        })
    }

    fn without_questions(&self, dir: &Path, arguments: &[&str]) -> Command {
        let mut command = self.command(dir, arguments);
        if self.manager == Manager::Pnpm {
            // It asks before it removes packages that another tool has installed.
            command.env("CI", "1");
        }
        command
    }
}

/// The line of a failure that says most.
fn said(why: &Diagnostic) -> String {
    let text = why.because.join("\n");
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let line =
        lines().find(|line| line.to_ascii_lowercase().contains("error")).or(lines().next_back());
    line.unwrap_or(&why.what).chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_says_who_installs_and_in_which_version() {
        let yarn_1 = ("yarn.lock", "# yarn lockfile v1\n");
        let yarn_4 = ("yarn.lock", "# x\n\n__metadata:\n  version: 8\n");
        let yarn_3 = ("yarn.lock", "# x\n\n__metadata:\n  version: 6\n  cacheKey: 8\n");
        let pnpm = ("pnpm-lock.yaml", "lockfileVersion: '9.0'\n");
        let npm = ("package-lock.json", "{}");
        for (package, locks, wanted) in [
            ("{}", vec![npm], None),
            ("{}", vec![], None),
            ("{}", vec![pnpm], Some((Manager::Pnpm, "10"))),
            ("{}", vec![("pnpm-lock.yaml", "lockfileVersion: 5.4\n")], Some((Manager::Pnpm, "7"))),
            ("{}", vec![yarn_1], Some((Manager::Yarn, "1"))),
            ("{}", vec![yarn_4], Some((Manager::Berry, "4"))),
            ("{}", vec![yarn_3], Some((Manager::Berry, "3"))),
            ("{}", vec![npm, yarn_1], None),
            (
                r#"{"packageManager": "pnpm@9.1.0+sha512.x"}"#,
                vec![],
                Some((Manager::Pnpm, "9.1.0")),
            ),
            (
                r#"{"packageManager": "yarn@4.5.0"}"#,
                vec![npm, yarn_4],
                Some((Manager::Berry, "4.5.0")),
            ),
            (r#"{"packageManager": "yarn@4.5.0"}"#, vec![npm], None),
            (r#"{"packageManager": "npm@10.0.0"}"#, vec![yarn_1], None),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("package.json"), package).unwrap();
            for (name, text) in &locks {
                fs::write(dir.path().join(name), text).unwrap();
            }
            let found = Manager::of(dir.path());
            let found = found.map(|manager| (manager, manager.version(dir.path()).0));
            let wanted = wanted.map(|(manager, version)| (manager, version.to_string()));
            assert_eq!(found, wanted, "{package} {locks:?}");
        }
    }
    #[test]
    fn a_tool_of_another_generation_than_the_lock_or_the_project_asks_for_does_not_suit() {
        for (package, name, lock, version, suits) in [
            ("{}", "pnpm-lock.yaml", "lockfileVersion: '9.0'\n", "9.15.0", true),
            ("{}", "pnpm-lock.yaml", "lockfileVersion: '9.0'\n", "8.15.0", false),
            ("{}", "pnpm-lock.yaml", "lockfileVersion: '6.0'\n", "10.0.0", false),
            (r#"{"packageManager": "pnpm@9.1.0"}"#, "pnpm-lock.yaml", "", "10.0.0", false),
            (r#"{"packageManager": "pnpm@9.1.0"}"#, "pnpm-lock.yaml", "", "9.0.1", true),
            ("{}", "yarn.lock", "\n__metadata:\n  version: 6\n", "4.5.0", false),
            ("{}", "yarn.lock", "\n__metadata:\n  version: 6\n", "3.6.4", true),
            ("{}", "yarn.lock", "\n__metadata:\n  version: 8\n", "3.6.4", false),
            ("{}", "yarn.lock", "# yarn lockfile v1\n", "1.22.22", true),
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("package.json"), package).unwrap();
            fs::write(dir.path().join(name), lock).unwrap();
            let manager = Manager::of(dir.path()).unwrap();
            let (_, majors) = manager.version(dir.path());
            assert_eq!(manager.suits(version, &majors), suits, "{package} {lock} {version}");
        }
    }
}
