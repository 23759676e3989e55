//! The files of a directory that say what it is: names, and the text of those that matter.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mfserv_core::Diagnostic;

use super::packages::is_list;
use super::versions::PYTHON as VERSIONS;
use crate::build::workspace::PNPM;
use crate::leftovers::Leftovers;
use mfserv_platform::disk;

/// The most entries that are looked at.
const MOST: usize = 5000;
/// The longest text that is read, bytes.
const LONGEST: u64 = 256 * 1024;
/// How deep apps are looked for: `src/shop/api/main.py`.
const DEEPEST: usize = 4;
/// Directories that hold no app.
const NEVER: &[&str] =
    &["node_modules", "tests", "test", "docs", "examples", "migrations", "alembic", "local"];

/// One file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    /// Its text, if it is one of those that are read.
    text: Option<String>,
    is_executable: bool,
}

/// The files of a directory, by their path in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    files: BTreeMap<String, Entry>,
}

impl Listing {
    /// Reads a directory: nothing in it is run. Virtual environments, caches and secrets are
    /// passed over.
    pub fn read(dir: &Path) -> Result<Listing, Diagnostic> {
        let mut listing = Listing::default();
        let leftovers = Leftovers::new();
        let mut todo = vec![String::new()];
        let mut seen = 0;
        while let Some(below) = todo.pop() {
            let place = dir.join(&below);
            let entries = match fs::read_dir(&place) {
                Ok(entries) => entries,
                Err(e) if below.is_empty() => return Err(unreadable(dir, e)),
                Err(_) => continue,
            };
            for entry in entries.flatten() {
                seen += 1;
                if seen > MOST {
                    return Ok(listing);
                }
                let Ok(name) = entry.file_name().into_string() else { continue };
                let path = if below.is_empty() { name.clone() } else { format!("{below}/{name}") };
                let Ok(about) = fs::metadata(entry.path()) else { continue };
                if leftovers.is(dir, &path, about.is_dir()).is_some() {
                    continue;
                }
                if about.is_dir() {
                    let deep = path.split('/').count();
                    if deep < DEEPEST && !name.starts_with('.') && !NEVER.contains(&&*name) {
                        todo.push(path);
                    }
                } else if about.is_file() {
                    let is_executable = about.permissions().mode() & 0o111 != 0;
                    let wanted = about.len() <= LONGEST && is_read(&path, is_executable);
                    let text = wanted.then(|| fs::read(entry.path()).ok()).flatten();
                    let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                    listing.files.insert(path, Entry { text, is_executable });
                }
            }
        }
        Ok(listing)
    }

    /// A listing that is written down, for tests.
    #[cfg(test)]
    pub(super) fn of(files: &[(&str, &str)]) -> Listing {
        let entry = |(path, text): &(&str, &str)| {
            let is_executable = text.starts_with("#!");
            (path.to_string(), Entry { text: Some(text.to_string()), is_executable })
        };
        Listing { files: files.iter().map(entry).collect() }
    }

    /// A file is there.
    pub fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }

    /// The text of a file; `None` if it is not there, is no text or is too long.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path)?.text.as_deref()
    }

    /// The files whose names end so, with their texts.
    pub(super) fn ending<'a>(
        &'a self,
        end: &'a str,
    ) -> impl Iterator<Item = (&'a str, &'a str)> + 'a {
        let read = self.files.iter().filter_map(|(path, one)| Some((path, one.text.as_deref()?)));
        read.filter(move |(path, _)| path.ends_with(end)).map(|(path, text)| (path.as_str(), text))
    }

    /// The programs in the directory itself.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&str, Option<&str>)> {
        let top = self.files.iter().filter(|(path, one)| !path.contains('/') && one.is_executable);
        top.map(|(path, one)| (path.as_str(), one.text.as_deref()))
    }
}

/// Files that are read at the top, whatever their ending.
const NAMES: [&str; 7] =
    ["Procfile", "package.json", "index.html", ".nvmrc", ".node-version", ".flaskenv", PNPM];

fn is_read(path: &str, is_executable: bool) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let top = !path.contains('/');
    name.ends_with(".py")
        || is_list(path)
        || VERSIONS.contains(&name)
        // Members of a workspace have theirs.
        || name == "package.json"
        || top
            && (is_executable
                || NAMES.contains(&name)
                || [".txt", ".toml", ".lock", ".js", ".mjs", ".cjs", ".ts"]
                    .iter()
                    .any(|end| name.ends_with(end)))
}

fn unreadable(dir: &Path, error: std::io::Error) -> Diagnostic {
    let problem = disk::failed("read", dir, &error);
    match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory => {
            problem.help("name the directory of an app or of a plugin")
        }
        _ => problem,
    }
}
