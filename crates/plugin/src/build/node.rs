//! The Node part of a build: `package.json` → a lock → `node_modules`. The tool is npm, unless the
//! lock is one of pnpm or Yarn.

mod kept;
mod managers;
mod other;
mod project;
mod scripts;
pub mod workspace;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};
use serde::{Deserialize, Serialize};

use managers::Manager;

use super::resolve::is_older;
use super::{BuildOptions, Part, gyp};
use crate::child::Run;
use crate::progress::{Progress, Silent};
use crate::python::{clean, on_path, with_compiler_help};
use mfserv_platform::disk;

pub use kept::KEPT_MODULES;
pub use project::{NodeProject, build_words};
pub use workspace::refuse_member;

/// What npm's packages are made of, in the plugin's directory.
const INPUTS: [&str; 4] = ["package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"];
/// A lock that is published with a package.
const SHRINKWRAP: &str = "npm-shrinkwrap.json";
/// Says what `node_modules` was made of.
const MARK: &str = ".mfserv-node.json";
/// The largest package.json or package-lock.json, bytes.
const LARGEST: u64 = 64 * 1024 * 1024;

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    format: u32,
    inputs: String,
    node: String,
}

impl Mark {
    /// What the packages of a directory were made of.
    fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join("node_modules").join(MARK)).ok()?).ok()
    }
}

/// What the packages of the plugin in `dir` were made of; empty if it has none.
pub(super) fn identity(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("node_modules").join(MARK)).unwrap_or_default()
}

pub(super) fn build(
    dir: &Path,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<Option<Part>, Diagnostic> {
    let package = dir.join("package.json");
    if !package.is_file() {
        return Ok(None);
    }
    if let Some(manager) = Manager::of(dir) {
        return other::build(dir, manager, options, progress).map(Some);
    }
    let npm = Npm::find(options)?;
    let whole = read(&package).and_then(|text| parse(&package, &text))?;
    let lock = dir.join(lock_name(dir));
    let locked = !is_older(&lock, &package) || agrees(&whole, &lock);
    if locked && Mark::read(dir) == Some(npm.mark(dir)?) {
        return Ok(Some(npm.part(true, &lock)));
    }
    if is_tied_to_its_place(&whole) {
        npm.build_in_place(dir, locked, progress)?;
    } else {
        npm.build_beside(dir, scripts::has_some(&whole), locked, progress)?;
    }
    Ok(Some(npm.part(false, &lock)))
}

/// The files that decide which packages there are, whether they are there or not.
pub(super) fn inputs(dir: &Path) -> [&'static str; 4] {
    Manager::of(dir).map_or(INPUTS, Manager::inputs)
}

/// The tool that installs the packages of a directory and runs its scripts, by its lock.
pub fn tool(dir: &Path) -> &'static str {
    Manager::of(dir).map_or("npm", Manager::name)
}

/// The lock that npm reads: `npm-shrinkwrap.json` where there is one.
fn lock_name(dir: &Path) -> &'static str {
    match dir.join(SHRINKWRAP).is_file() {
        true => SHRINKWRAP,
        false => "package-lock.json",
    }
}

/// The lock is of this list, as npm sees it. By their times alone it would be older in every
/// checkout of git, which writes it first.
fn agrees(package: &serde_json::Value, lock: &Path) -> bool {
    let lock = read(lock).ok().and_then(|text| serde_json::from_str(&text).ok());
    let lock: serde_json::Value = lock.unwrap_or_default();
    let Some(root) = lock.pointer("/packages/") else { return false };
    let list = |of: &serde_json::Value, key: &str| {
        of.get(key).filter(|all| all.as_object().is_none_or(|all| !all.is_empty())).cloned()
    };
    let lists = ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];
    let keys = lists.into_iter().chain(["workspaces"]);
    // The lock does not repeat those.
    list(package, "overrides").is_none()
        && keys.into_iter().all(|key| list(package, key) == list(root, key))
}

fn missing(name: &str) -> Diagnostic {
    Diagnostic::error(format!("{name} is not there"))
        .because("the plugin has a package.json, which needs node and npm")
        .help("apt-get install nodejs npm")
}

/// The version of the node on PATH: `v20.1.0`.
pub fn node_version(options: &BuildOptions) -> Result<String, Diagnostic> {
    let node = on_path("node").ok_or_else(|| missing("node"))?;
    let mut command = clean(&node);
    command.arg("--version");
    let run = Run {
        what: "asking node for its version",
        limit: Duration::from_secs(20),
        cancel: &options.cancel,
    };
    Ok(run.run(command, &mut Silent)?.text())
}

/// The variables that the tools of Node get.
pub fn node_variables() -> Vec<(String, String)> {
    let command = clean(Path::new("node"));
    let text = |text: &OsStr| text.to_string_lossy().into_owned();
    command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?)))).collect()
}

/// npm, and the node it works with.
struct Npm<'a> {
    npm: PathBuf,
    node_version: String,
    options: &'a BuildOptions,
}

impl<'a> Npm<'a> {
    fn find(options: &'a BuildOptions) -> Result<Self, Diagnostic> {
        let node_version = node_version(options)?;
        let npm = on_path("npm").ok_or_else(|| missing("npm"))?;
        Ok(Self { npm, node_version, options })
    }

    fn mark(&self, dir: &Path) -> Result<Mark, Diagnostic> {
        let package = read(&dir.join("package.json"))?;
        let lock = read(&dir.join(lock_name(dir)))?;
        // Another registry may have other packages of the same name.
        let settings = fs::read(dir.join(".npmrc")).unwrap_or_default();
        let parts = [("package", package.as_bytes()), ("lock", lock.as_bytes())];
        let settings = (!settings.is_empty()).then_some((".npmrc", settings.as_slice()));
        let inputs = disk::fingerprint(parts.into_iter().chain(settings));
        Ok(Mark { format: 1, inputs, node: self.node_version.clone() })
    }

    fn part(&self, unchanged: bool, lock: &Path) -> Part {
        let lock: Option<serde_json::Value> =
            fs::read(lock).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let packages = lock.as_ref().and_then(|lock| {
            lock.get("packages")?.as_object().map(|all| all.len().saturating_sub(1))
        });
        Part {
            unchanged,
            interpreter: format!("Node {}", self.node_version),
            tool: "npm".into(),
            packages: packages.unwrap_or_default(),
        }
    }

    /// In a directory of its own, so that running workers and an interrupted
    /// build never see half of `node_modules`.
    fn build_beside(
        &self,
        dir: &Path,
        has_scripts: bool,
        locked: bool,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        let place = dir.join("node_modules");
        disk::sweep_beside(&place);
        let stage = disk::beside(&place, "stage");
        disk::remove(&stage)?;
        let brought = match has_scripts {
            true => scripts::bring(dir, &stage),
            false => Ok(()),
        };
        let filled = brought.and_then(|()| self.fill(dir, &stage, locked, progress));
        let result = filled.and_then(|()| {
            if has_scripts {
                scripts::take_back(&stage, dir)?;
            }
            let name = lock_name(dir);
            disk::write(&dir.join(name), read(&stage.join(name))?.as_bytes())?;
            self.finish(dir, &stage.join("node_modules"))?;
            disk::swap_in(&stage.join("node_modules"), &place)
        });
        let removed = disk::remove(&stage);
        result.and(removed)
    }

    fn fill(
        &self,
        dir: &Path,
        stage: &Path,
        locked: bool,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        disk::create_dir(stage)?;
        for name in INPUTS {
            let source = dir.join(name);
            if source.is_file() {
                fs::copy(&source, stage.join(name))
                    .map_err(|e| disk::failed("copy", &source, e))?;
            }
        }
        self.install(stage, locked, progress)
    }

    /// Workspaces and `file:` dependencies are links to what is beside them.
    fn build_in_place(
        &self,
        dir: &Path,
        locked: bool,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        self.install(dir, locked, progress)?;
        self.finish(dir, &dir.join("node_modules"))
    }

    fn install(
        &self,
        dir: &Path,
        locked: bool,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        if !locked {
            progress.step("resolving the Node packages with npm");
            self.npm(dir, &["install", "--package-lock-only"], "npm install", progress)?;
        }
        progress.step("installing the Node packages with npm");
        self.npm(dir, &["ci"], "npm ci", progress)
    }

    fn finish(&self, dir: &Path, modules: &Path) -> Result<(), Diagnostic> {
        // npm makes none when there is no dependency
        disk::create_dir(modules)?;
        gyp::remove_notes(modules)?;
        let text = serde_json::to_string_pretty(&self.mark(dir)?).unwrap_or_default() + "\n";
        disk::write(&modules.join(MARK), text.as_bytes())
    }

    fn npm(
        &self,
        dir: &Path,
        arguments: &[&str],
        what: &str,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        let mut command: Command = clean(&self.npm);
        command.args(arguments).args(["--no-audit", "--no-fund", "--no-progress"]).current_dir(dir);
        let run = Run { what, limit: self.options.limit, cancel: &self.options.cancel };
        run.run(command, progress).map(drop).map_err(|problem| {
            let problem = with_compiler_help(problem);
            let is_script =
                problem.because.iter().any(|text| text.contains("npm error command sh"));
            if problem.help.is_some() || !is_script {
                return problem;
            }
            problem.help(format!(
                "a script of package.json, or of one of the packages, has failed: its output is \
                 above; `{what}` shows it again in the directory of package.json"
            ))
        })
    }
}

fn read(file: &Path) -> Result<String, Diagnostic> {
    let small = fs::metadata(file).is_ok_and(|found| found.len() <= LARGEST);
    if !small {
        return Err(disk::failed(
            "read",
            file,
            format!("it is missing or larger than {LARGEST} bytes"),
        ));
    }
    fs::read_to_string(file).map_err(|e| disk::failed("read", file, e))
}

fn parse(file: &Path, text: &str) -> Result<serde_json::Value, Diagnostic> {
    serde_json::from_str(text).map_err(|e| {
        Diagnostic::error("package.json is not valid JSON")
            .kind(Kind::BadConfiguration)
            .because(&e)
            .at(mfserv_core::diagnostic::Location::new(
                file.display().to_string(),
                u32::try_from(e.line()).unwrap_or(0),
            ))
    })
}

fn is_tied_to_its_place(package: &serde_json::Value) -> bool {
    let workspaces = package
        .get("workspaces")
        .is_some_and(|all| all.as_array().is_none_or(|list| !list.is_empty()));
    let local = |key: &str| {
        let versions = package
            .get(key)
            .and_then(|all| all.as_object())
            .into_iter()
            .flat_map(|all| all.values());
        versions.filter_map(|version| version.as_str()).any(|version| {
            version.starts_with("file:") || version.starts_with("link:") || version.starts_with('.')
        })
    };
    workspaces || ["dependencies", "devDependencies", "optionalDependencies"].into_iter().any(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_of_the_list_that_it_repeats_whichever_file_is_older() {
        let folder = tempfile::tempdir().unwrap();
        let lock = folder.path().join("package-lock.json");
        let text = r#"{"packages": {"": {"name": "a", "dependencies": {"x": "^1"}}}}"#;
        fs::write(&lock, text).unwrap();
        for (package, expected) in [
            (r#"{"dependencies": {"x": "^1"}, "devDependencies": {}}"#, true),
            (r#"{"dependencies": {"x": "^2"}}"#, false),
            (r#"{"dependencies": {"x": "^1"}, "devDependencies": {"y": "1"}}"#, false),
            (r#"{"dependencies": {"x": "^1"}, "overrides": {"z": "1"}}"#, false),
        ] {
            let package = serde_json::from_str(package).unwrap();
            assert_eq!(agrees(&package, &lock), expected, "{package}");
        }
        assert!(!agrees(&serde_json::json!({}), &folder.path().join("none")));
    }
}
