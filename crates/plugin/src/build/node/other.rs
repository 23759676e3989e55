//! Packages that pnpm or Yarn install. They work where the project is: links and notes in
//! `node_modules` name the place, and a developer's own calls find what they expect.

use std::fs;
use std::path::Path;

use mfserv_core::Diagnostic;

use super::super::{BuildOptions, Part};
use super::managers::{Manager, Tool};
use super::{MARK, Mark, node_version, read};
use crate::child::Run;
use crate::progress::Progress;
use crate::python::with_compiler_help;
use mfserv_platform::disk;

/// Builds a plugin whose packages another tool than npm has locked.
pub(super) fn build(
    dir: &Path,
    manager: Manager,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<Part, Diagnostic> {
    let node = node_version(options)?;
    if dir.join(manager.lock()).is_file() && Mark::read(dir) == Some(mark(dir, manager, &node)?) {
        return Ok(part(dir, manager.name(), &node, true));
    }
    let tool = Tool::find(manager, dir, options)?;
    install(dir, &tool, options, progress)
}

/// Installs the packages with this tool, unless they are there.
pub(super) fn install(
    dir: &Path,
    tool: &Tool,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<Part, Diagnostic> {
    let (manager, name) = (tool.manager, tool.manager.name());
    let node = node_version(options)?;
    let modules = dir.join("node_modules");
    let label = format!("{name} {}", tool.version);
    if Mark::read(dir) == Some(mark(dir, manager, &node)?) {
        return Ok(part(dir, &label, &node, true));
    }
    progress.step(&format!("installing the Node packages with {label}"));
    let what = format!("{name} install");
    let run = Run { what: &what, limit: options.limit, cancel: &options.cancel };
    run.run(tool.install(dir), progress).map_err(|problem| {
        let text = problem.because.join("\n");
        let is_outdated = [
            "OUTDATED_LOCKFILE",
            "LOCKFILE_BREAKING_CHANGE",
            "needs to be updated",
            "lockfile would have been modified",
        ];
        match is_outdated.iter().any(|sign| text.contains(sign)) {
            true => problem.help(format!(
                "{} does not fit package.json: run `{name} install` there, and keep the file",
                manager.lock()
            )),
            false => with_compiler_help(problem),
        }
    })?;
    disk::create_dir(&modules)?;
    let text = serde_json::to_string_pretty(&mark(dir, manager, &node)?).unwrap_or_default();
    disk::write(&modules.join(MARK), format!("{text}\n").as_bytes())?;
    Ok(part(dir, &label, &node, false))
}

fn mark(dir: &Path, manager: Manager, node: &str) -> Result<Mark, Diagnostic> {
    let package = read(&dir.join("package.json"))?;
    let others = manager.inputs().into_iter().skip(1);
    let others: Vec<(&str, Vec<u8>)> =
        others.map(|name| (name, fs::read(dir.join(name)).unwrap_or_default())).collect();
    let others = others.iter().map(|(name, text)| (*name, text.as_slice()));
    let inputs = disk::fingerprint([("package", package.as_bytes())].into_iter().chain(others));
    Ok(Mark { format: 1, inputs, node: node.to_owned() })
}

fn part(dir: &Path, tool: &str, node: &str, unchanged: bool) -> Part {
    let lock = ["pnpm-lock.yaml", "yarn.lock"].map(|name| fs::read_to_string(dir.join(name)));
    let lock = lock.into_iter().flatten().next().unwrap_or_default();
    // Each package has one such line.
    let of_packages = ["resolution:", "resolved "];
    let is_package = |line: &&str| of_packages.iter().any(|sign| line.trim().starts_with(sign));
    Part {
        unchanged,
        interpreter: format!("Node {node}"),
        tool: tool.into(),
        packages: lock.lines().filter(is_package).count(),
    }
}
