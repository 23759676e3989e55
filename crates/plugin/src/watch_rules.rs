//! Which changed files of a plugin renew its workers: `.autorestart_includes` and
//! `.autorestart_excludes`, in gitignore syntax.

use std::io;
use std::path::{Path, PathBuf};

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::label::read_small;
use crate::leftovers::{Leftover, Leftovers};
use mfserv_platform::disk;

/// The files that the rules are in.
const INCLUDES: &str = ".autorestart_includes";
const EXCLUDES: &str = ".autorestart_excludes";

/// The rules of one plugin.
#[derive(Debug)]
pub struct WatchRules {
    dir: PathBuf,
    includes: Option<Gitignore>,
    excludes: Gitignore,
    leftovers: Leftovers,
    texts: [Option<String>; 2],
}

/// Two are equal if the same is written in the same place.
impl PartialEq for WatchRules {
    fn eq(&self, other: &Self) -> bool {
        (&self.dir, &self.texts) == (&other.dir, &other.texts)
    }
}

impl WatchRules {
    /// The rules of the plugin in `dir` (a real path); `None` if it has neither file:
    /// then nothing is watched. A pattern that cannot be read is left out.
    pub fn read(dir: &Path) -> Option<WatchRules> {
        let texts = [INCLUDES, EXCLUDES].map(|name| text(&dir.join(name)));
        if texts.iter().all(Option::is_none) {
            return None;
        }
        let [includes, excludes] = &texts;
        let includes = includes.as_deref().and_then(patterns);
        let excludes = excludes.as_deref().and_then(patterns).unwrap_or_else(Gitignore::empty);
        let leftovers = Leftovers::new();
        Some(WatchRules { dir: dir.to_owned(), includes, excludes, leftovers, texts })
    }

    /// The plugin's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A change of this file renews the workers. (The rules themselves do: what they hid
    /// may have changed.)
    pub fn concerns(&self, path: &Path) -> bool {
        let Ok(below) = path.strip_prefix(&self.dir) else { return false };
        if [INCLUDES, EXCLUDES].iter().any(|name| below == Path::new(name)) {
            return true;
        }
        let included = |includes: &Gitignore| includes.matched(below, false).is_ignore();
        !self.is_excluded(below, false) && self.includes.as_ref().is_none_or(included)
    }

    /// Nothing in this directory, or below it, renews the workers.
    pub fn skips(&self, dir: &Path) -> bool {
        self.is_excluded(dir.strip_prefix(&self.dir).unwrap_or(Path::new("")), true)
    }

    fn is_excluded(&self, below: &Path, is_dir: bool) -> bool {
        // What a build is making is no edit, whatever the rules say.
        let made = below.components().any(|part| disk::is_beside(part.as_os_str()));
        let named = !below.as_os_str().is_empty()
            && self.excludes.matched_path_or_any_parents(below, is_dir).is_ignore();
        made || named || self.is_of_a_tool(below, is_dir)
    }

    /// The path is, or is below, a virtual environment, a cache or a directory of an editor.
    fn is_of_a_tool(&self, below: &Path, is_dir: bool) -> bool {
        let dirs = below.ancestors().skip(usize::from(!is_dir));
        let mut names = dirs.filter_map(Path::to_str).filter(|name| !name.is_empty());
        names.any(|name| {
            let kind = self.leftovers.is(&self.dir, name, true);
            matches!(kind, Some(Leftover::Environment | Leftover::Tool))
        })
    }
}

/// What is written in a file; nothing, if it cannot be read although it is there.
fn text(file: &Path) -> Option<String> {
    match read_small(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        read => Some(read.unwrap_or_default()),
    }
}

fn patterns(text: &str) -> Option<Gitignore> {
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
        std::fs::create_dir_all(dir.join("tools/env")).unwrap();
        std::fs::write(dir.join("tools/env/pyvenv.cfg"), "").unwrap();
        let rules = WatchRules::read(&dir).unwrap();
        for (path, concerns) in [
            ("tools/env/lib/x.py", false),
            ("tools/x.py", true),
            (".venv/lib/x.py", false),
            ("main/.mypy_cache/x.json", false),
            (".idea/x.json", false),
            (".vscode/settings.json", false),
            ("main/wsgi.py", true),
            ("main/deep/new.py", true),
            ("config.ini", true),
            ("main/notes.txt", false),
            ("local/lib/x.py", false),
            ("node_modules/x/index.js", false),
            ("main/__pycache__/wsgi.cpython-311.pyc", false),
            (".git/x.py", false),
            (".local.stage.30829.8/lib/x.py", false),
            (".local.stage/x.py", true),
            (".autorestart_excludes", true),
        ] {
            assert_eq!(rules.concerns(&dir.join(path)), concerns, "{path}");
        }
        for (sub, skipped) in [
            ("", false),
            ("main", false),
            ("main/deep", false),
            ("local/lib", true),
            (".git/x", true),
            ("tools/env", true),
            ("tools", false),
            (".pytest_cache", true),
            (".local.stage.30829.8", true),
        ] {
            assert_eq!(rules.skips(&dir.join(sub)), skipped, "{sub}");
        }
        assert_eq!(WatchRules::read(&dir).unwrap(), rules);
        std::fs::write(dir.join(EXCLUDES), "*.py").unwrap();
        assert_ne!(WatchRules::read(&dir).unwrap(), rules);
    }
}
