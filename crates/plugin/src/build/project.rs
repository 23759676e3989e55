//! The files of a Python project that lies in the plugin or beside it: which of them are the
//! project, what they say, and a copy of them to build in.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::{Diagnostic, Kind};

use super::PYTHON_SOURCES;
use crate::python::is_virtual_environment;
use mfserv_platform::disk;

/// The most files and bytes that a project has.
const MOST_FILES: usize = 20_000;
const MOST_BYTES: u64 = 256 * 1024 * 1024;
/// What tools make in the directory of a project.
const MADE: &[&str] = &[
    "__pycache__",
    "node_modules",
    ".venv",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".tox",
    ".nox",
    ".hg",
    ".svn",
];
/// The same, where the project begins.
const MADE_AT_THE_TOP: &[&str] = &["build", "dist", "local"];

/// The files of a project by their path in it, sorted. What tools have made is left out: it is
/// no source, and would be found again in wheels.
pub(super) fn files(project: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let mut found = Vec::new();
    let mut bytes = 0;
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        let dir = project.join(&below);
        for entry in fs::read_dir(&dir).map_err(|e| disk::failed("read", &dir, e))?.flatten() {
            let path = below.join(entry.file_name());
            // A link counts as what it leads to.
            let Ok(about) = fs::metadata(entry.path()) else { continue };
            if about.is_dir() {
                if !is_made(project, &path) && path.components().count() < 64 {
                    todo.push(path);
                }
                continue;
            }
            let name = entry.file_name();
            let compiled = Path::new(&name).extension() == Some(OsStr::new("pyc"));
            if !about.is_file() || compiled || name.to_string_lossy().ends_with(".plugin") {
                continue;
            }
            bytes += about.len();
            found.push(path);
            if found.len() > MOST_FILES || bytes > MOST_BYTES {
                return Err(Diagnostic::error(format!(
                    "{} is too large for a Python project",
                    project.display()
                ))
                .kind(Kind::BadConfiguration)
                .because(format!("it has more than {MOST_FILES} files or {MOST_BYTES} bytes"))
                .help("name the directory that has pyproject.toml or setup.py"));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn is_made(project: &Path, path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let text = name.to_string_lossy();
    let top = path.components().count() == 1 && MADE_AT_THE_TOP.contains(&text.as_ref());
    top || MADE.contains(&text.as_ref())
        || text.ends_with(".egg-info")
        || disk::is_beside(name)
        || PYTHON_SOURCES.iter().any(|name| path == Path::new(name).join("src"))
        || text == ".git"
        || is_virtual_environment(&project.join(path))
}

/// Another text of any file is another fingerprint.
pub(super) fn fingerprint(project: &Path) -> Result<String, Diagnostic> {
    let read = |path: &PathBuf| {
        let file = project.join(path);
        let bytes = fs::read(&file).map_err(|e| disk::failed("read", &file, e))?;
        Ok((path.to_string_lossy().into_owned(), bytes))
    };
    let parts = files(project)?.iter().map(read).collect::<Result<Vec<_>, Diagnostic>>()?;
    Ok(disk::fingerprint(parts.iter().map(|(path, bytes)| (path.as_str(), bytes.as_slice()))))
}

/// Copies a project: tools write beside the sources that they build, and those are the
/// developer's. `.git` comes along, since versions are read from it.
pub(super) fn copy(project: &Path, to: &Path) -> Result<(), Diagnostic> {
    for path in files(project)? {
        copy_file(&project.join(&path), &to.join(&path))?;
    }
    if project.join(".git").is_dir() {
        for path in git_files(&project.join(".git"))? {
            copy_file(&project.join(".git").join(&path), &to.join(".git").join(&path))?;
        }
    }
    Ok(())
}

fn git_files(git: &Path) -> Result<Vec<PathBuf>, Diagnostic> {
    let mut found = Vec::new();
    let mut todo = vec![PathBuf::new()];
    while let Some(below) = todo.pop() {
        let dir = git.join(&below);
        for entry in fs::read_dir(&dir).map_err(|e| disk::failed("read", &dir, e))?.flatten() {
            let path = below.join(entry.file_name());
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => todo.push(path),
                Ok(kind) if kind.is_file() => found.push(path),
                Ok(_) | Err(_) => {}
            }
        }
    }
    Ok(found)
}

fn copy_file(from: &Path, to: &Path) -> Result<(), Diagnostic> {
    to.parent().map_or(Ok(()), disk::create_dir)?;
    fs::copy(from, to).map(drop).map_err(|e| disk::failed("copy", from, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_have_made_is_no_part_of_a_project_and_every_source_counts() {
        let folder = tempfile::tempdir().unwrap();
        let project = folder.path().join("lib");
        for path in [
            "pyproject.toml",
            "src/lib/build/x.py",
            "src/lib/__pycache__/x.pyc",
            "src/lib.egg-info/PKG-INFO",
            "build/lib/old.py",
            "dist/lib-1.whl",
            "env/pyvenv.cfg",
            "env/lib/x.py",
            ".git/HEAD",
        ] {
            let file = project.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "x").unwrap();
        }
        let found = files(&project).unwrap();
        assert_eq!(found, [Path::new("pyproject.toml"), Path::new("src/lib/build/x.py")]);
        let before = fingerprint(&project).unwrap();
        fs::write(project.join("build/lib/old.py"), "y").unwrap();
        assert_eq!(fingerprint(&project).unwrap(), before);
        fs::write(project.join("src/lib/build/x.py"), "y").unwrap();
        assert_ne!(fingerprint(&project).unwrap(), before);
        let copied = folder.path().join("copy");
        copy(&project, &copied).unwrap();
        assert_eq!(files(&copied).unwrap(), found);
        assert!(copied.join(".git/HEAD").is_file() && !copied.join("build").exists());
    }
}
