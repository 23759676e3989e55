//! Which changed files of a plugin renew its workers: `.autorestart_includes` and
//! `.autorestart_excludes`, in gitignore syntax.

use std::io;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::label::read_small;

/// The most directories of one plugin that are watched.
const MOST_DIRECTORIES: usize = 10_000;

/// The rules of one plugin.
#[derive(Debug)]
pub struct WatchRules {
    dir: PathBuf,
    includes: Option<Gitignore>,
    excludes: Gitignore,
}

impl WatchRules {
    /// The rules of the plugin in `dir` (a real path); `None` if it has neither file:
    /// then nothing is watched. A pattern that cannot be read is left out.
    pub fn read(dir: &Path) -> Option<WatchRules> {
        let includes = patterns(dir, ".autorestart_includes");
        let excludes = patterns(dir, ".autorestart_excludes");
        if includes.is_none() && excludes.is_none() {
            return None;
        }
        let excludes = excludes.unwrap_or_else(Gitignore::empty);
        Some(WatchRules { dir: dir.to_owned(), includes, excludes })
    }

    /// The plugin's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A change of this file renews the workers.
    pub fn concerns(&self, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.dir) else { return false };
        let included = |includes: &Gitignore| includes.matched(below, false).is_ignore();
        !self.is_excluded(below, false) && self.includes.as_ref().is_none_or(included)
    }

    /// The directory itself and all below it that are not excluded, nearest first.
    pub fn directories(&self, from: &Path) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut todo = std::collections::VecDeque::from([from.to_owned()]);
        while let Some(dir) = todo.pop_front() {
            let below = dir.strip_prefix(&self.dir).unwrap_or(Path::new(""));
            if self.is_excluded(below, true) || found.len() >= MOST_DIRECTORIES {
                continue;
            }
            for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
                // A link to a directory is not followed: it may lead anywhere.
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    todo.push_back(entry.path());
                }
            }
            found.push(dir);
        }
        found
    }

    fn is_excluded(&self, below: &Path, is_dir: bool) -> bool {
        let hidden = below.components().any(|part| part.as_os_str() == ".git");
        let named = !below.as_os_str().is_empty()
            && self.excludes.matched_path_or_any_parents(below, is_dir).is_ignore();
        hidden || named
    }
}

fn patterns(dir: &Path, name: &str) -> Option<Gitignore> {
    let text = match read_small(&dir.join(name)) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(_) => String::new(),
    };
    let mut builder = GitignoreBuilder::new("");
    for line in text.lines() {
        let _ = builder.add_line(None, line);
    }
    builder.build().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_of_the_templates_renew_for_sources_and_not_for_what_is_generated() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        assert!(WatchRules::read(&dir).is_none(), "no rules, nothing watched");
        let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/shared");
        for name in ["autorestart_includes", "autorestart_excludes"] {
            std::fs::copy(shared.join(name), dir.join(format!(".{name}"))).unwrap();
        }
        for sub in ["main/deep", "local/lib", "node_modules/x", ".git/objects"] {
            std::fs::create_dir_all(dir.join(sub)).unwrap();
        }
        let rules = WatchRules::read(&dir).unwrap();
        for (path, concerns) in [
            ("main/wsgi.py", true),
            ("main/deep/new.py", true),
            ("config.ini", true),
            ("main/notes.txt", false),
            ("local/lib/x.py", false),
            ("node_modules/x/index.js", false),
            ("main/__pycache__/wsgi.cpython-311.pyc", false),
            (".git/x.py", false),
        ] {
            assert_eq!(rules.concerns(&dir.join(path)), concerns, "{path}");
        }
        let watched = rules.directories(&dir);
        assert_eq!(watched, [dir.clone(), dir.join("main"), dir.join("main/deep")]);
    }
}
