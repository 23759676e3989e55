//! Locks of other tools (uv, Poetry, Pipenv) and `pyproject.toml`, in place of lists of ours.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::{Diagnostic, Kind, Location};
use mfserv_platform::disk;
use serde::Deserialize;

use super::direct::Directs;
use super::requirements::{self, Requirements, Wanted};
use super::resolve::resolve;
use super::sources::Sources;
use crate::label::read_bounded;
use crate::progress::Progress;
use crate::python::Toolbox;

/// Translates a lock; runs in the environment of our pip.
const SCRIPT: &str = include_str!("../../python/locks.py");
/// The project that a lock belongs to.
const PROJECT: &str = "pyproject.toml";
/// What is looked for in the directory of a plugin, in this order.
pub(crate) const FILES: [&str; 4] = ["uv.lock", "poetry.lock", "Pipfile.lock", PROJECT];
/// The largest lock, bytes.
const LARGEST: u64 = 16 * 1024 * 1024;
/// How the first line of a list begins that a build has made of a lock.
const MADE_FROM: &str = "# made by mfserv from the lock ";

/// The file that the packages of a plugin are taken from, if it is not a list of ours: those go
/// first. A list without packages is none.
pub(super) fn used(sources: &Sources, loose: &Requirements) -> Option<PathBuf> {
    let foreign_list = || {
        let text = read_bounded(&sources.frozen, requirements::LONGEST).unwrap_or_default();
        !text.is_empty() && !text.starts_with("# made by mfserv from ")
    };
    if !loose.wanted.is_empty() || foreign_list() {
        return None;
    }
    let files = FILES.iter().map(|name| sources.dir.join(name));
    files.into_iter().find(|file| file.is_file() && (!file.ends_with(PROJECT) || names_any(file)))
}

/// Whether a `pyproject.toml` names packages: most only configure tools.
fn names_any(file: &Path) -> bool {
    let text = read_bounded(file, LARGEST).unwrap_or_default();
    let mut in_project = false;
    text.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            in_project = line == "[project]";
        }
        line == "[tool.poetry.dependencies]" || in_project && line.starts_with("dependencies")
    })
}

#[derive(Deserialize)]
struct Translated {
    #[serde(default)]
    lines: Vec<String>,
    #[serde(default)]
    indexes: Vec<String>,
    error: Option<String>,
}

/// Why a lock cannot be used.
fn refusal(file: &Path, because: String, toolbox: &Toolbox<'_>) -> Diagnostic {
    // Of an existing app it is a link to the file that people edit.
    let edited = std::fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
    let is_version = because.contains("requires Python");
    let problem = Diagnostic::error("the Python packages of the plugin can't be built")
        .kind(Kind::BadConfiguration)
        .because(because)
        .at(Location::new(edited.to_string_lossy(), 0));
    if is_version {
        return problem
            .because(format!("it would run with Python {}", toolbox.interpreter.version))
            .help(
                "install such a Python and name it in .python-version of an app, or in _python of \
                 a plugin's [general]; or change what is required",
            );
    }
    problem.help("make the lock again with its tool, or write a requirements-to-freeze.txt")
}

/// The text of requirements3.txt of a lock, made again when the lock, the project or the
/// interpreter has changed. The indexes that the lock names become options of `loose`.
pub(super) fn freeze(
    file: &Path,
    sources: &Sources,
    loose: &mut Requirements,
    directs: &mut Directs<'_>,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<String, Diagnostic> {
    let project = sources.dir.join(PROJECT);
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = read_bounded(file, LARGEST).map_err(|e| disk::failed("read", file, e))?;
    let beside = read_bounded(&project, LARGEST).unwrap_or_default();
    let translated = toolbox.translate(SCRIPT, file, &project, progress)?;
    let refused = |because: String| refusal(file, because, toolbox);
    let translated: Translated =
        serde_json::from_str(&translated).map_err(|e| refused(e.to_string()))?;
    if let Some(error) = translated.error {
        return Err(refused(error));
    }
    let options = translated.indexes.iter().map(|index| format!("--extra-index-url {index}"));
    loose.options.extend(options);
    let version = toolbox.interpreter.short_version.as_str();
    let sum = disk::fingerprint([
        ("lock", text.as_bytes()),
        ("project", beside.as_bytes()),
        ("python", version.as_bytes()),
    ]);
    let head = format!("{MADE_FROM}{name} for Python {version}, SHA-256 {sum}");
    let there = read_bounded(&sources.frozen, requirements::LONGEST).unwrap_or_default();
    if there.lines().next() == Some(&head) {
        return Ok(there);
    }
    progress.step(&format!("taking the Python packages from {name}"));
    let lines = match name == PROJECT {
        false => translated.lines.iter().map(|line| line.clone() + "\n").collect(),
        true => {
            for line in &translated.lines {
                let wanted = Wanted::read(line, &[&sources.dir]);
                loose.wanted.push(wanted.map_err(|why| refused(format!("`{line}`: {why}")))?);
            }
            match loose.wanted.is_empty() {
                true => String::new(),
                false => resolve(sources, loose, directs, toolbox, progress)?,
            }
        }
    };
    let text = format!("{head}\n{lines}");
    if let Some(dir) = sources.frozen.parent() {
        fs::create_dir_all(dir).map_err(|e| disk::failed("write", dir, e))?;
    }
    disk::write(&sources.frozen, text.as_bytes())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_ours_go_before_locks_and_a_project_that_names_no_package_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::of(folder.path(), false);
        let write = |name: &str, text: &str| {
            let file = folder.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        let used = || {
            let file = used(&sources, &sources.loose().unwrap())?;
            Some(file.file_name()?.to_string_lossy().into_owned())
        };
        assert_eq!(used(), None);
        write(PROJECT, "[project]\nname = 'x'\n[tool.ruff]\ndependencies = 1\n");
        assert_eq!(used(), None);
        write(PROJECT, "[project]\nname = 'x'\ndependencies = [\n  'six',\n]\n");
        assert_eq!(used().as_deref(), Some(PROJECT));
        write("Pipfile.lock", "{}");
        write("poetry.lock", "");
        assert_eq!(used().as_deref(), Some("poetry.lock"));
        write("uv.lock", "");
        write("python3_virtualenv_sources/requirements-to-freeze.txt", "# none\n");
        write("python3_virtualenv_sources/requirements3.txt", "# made by mfserv from x\n");
        assert_eq!(used().as_deref(), Some("uv.lock"));
        write("python3_virtualenv_sources/requirements3.txt", "six==1.17.0\n");
        assert_eq!(used(), None);
        write("python3_virtualenv_sources/requirements3.txt", "");
        write("python3_virtualenv_sources/requirements-to-freeze.txt", "six\n");
        assert_eq!(used(), None);
    }
}
