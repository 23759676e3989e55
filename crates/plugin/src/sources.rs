//! The sources that the `build` script of an app reads, and which of them have changed: all files
//! of its directory but what git ignores, what tools keep there, packages, and what builds make.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::WalkBuilder;

use crate::leftovers::{Leftover, Leftovers};

/// Directories of packages and of what builds make, wherever they are.
const MADE: &[&str] = &[
    "node_modules",
    "dist",
    ".next",
    ".nuxt",
    ".output",
    ".svelte-kit",
    ".astro",
    ".vite",
    ".angular",
    ".docusaurus",
];
/// The same, at the top only: below it, these are names of sources, too.
const MADE_AT_TOP: &[&str] = &["build", "out", "_site", "coverage"];

/// The identity of a file's content.
type Stamp = (i64, i64, u64, u64);

/// The sources in a directory, as they were at the last look.
#[derive(Debug)]
pub struct Sources {
    dir: PathBuf,
    /// The directory that is served, below it.
    served: Option<String>,
    leftovers: Arc<Leftovers>,
    seen: BTreeMap<PathBuf, Stamp>,
    /// Files that have changed during a build: the build may write them.
    doubtful: BTreeSet<PathBuf>,
}

impl Sources {
    /// Those in a directory, as they are now; `served` has what the build makes.
    pub fn of(dir: &Path, served: Option<&str>) -> Self {
        let mut sources = Sources {
            dir: dir.to_owned(),
            served: served.map(str::to_owned),
            leftovers: Arc::new(Leftovers::new()),
            seen: BTreeMap::new(),
            doubtful: BTreeSet::new(),
        };
        sources.seen = sources.scan();
        sources
    }

    /// The files that have changed, come or gone since the last look, below the directory. Nothing
    /// if the directory itself is gone.
    pub fn changed(&mut self) -> Vec<PathBuf> {
        if !self.dir.is_dir() {
            return Vec::new();
        }
        let now = self.scan();
        let before = std::mem::replace(&mut self.seen, now);
        let changed = self.seen.iter().filter(|(file, stamp)| before.get(*file) != Some(*stamp));
        let gone = before.keys().filter(|file| !self.seen.contains_key(*file));
        let all = changed.map(|(file, _)| file).chain(gone);
        all.map(|file| file.strip_prefix(&self.dir).unwrap_or(file).to_owned()).collect()
    }

    /// The same after a build: a file that has changed during an earlier one, too, is written by
    /// builds, and no reason for another one.
    pub fn changed_meanwhile(&mut self) -> Vec<PathBuf> {
        let changed = self.changed();
        changed.into_iter().filter(|file| self.doubtful.insert(file.clone())).collect()
    }

    fn scan(&self) -> BTreeMap<PathBuf, Stamp> {
        let (dir, served) = (self.dir.clone(), self.served.clone());
        let leftovers = self.leftovers.clone();
        let walk = WalkBuilder::new(&self.dir)
            .standard_filters(false)
            .git_ignore(true)
            .require_git(false)
            .filter_entry(move |entry| {
                let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
                let below = entry.path().strip_prefix(&dir).ok().and_then(Path::to_str);
                below.is_some_and(|it| is_source(&dir, it, is_dir, served.as_deref(), &leftovers))
            })
            .build();
        let files = walk.flatten().map(ignore::DirEntry::into_path);
        // Tools read these although git ignores them.
        let top = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let settings = top.filter(|one| one.file_name().to_string_lossy().starts_with(".env"));
        let files = files.chain(settings.map(|one| one.path()));
        let stamped = files.filter_map(|file| {
            let about = std::fs::metadata(&file).ok().filter(Metadata::is_file)?;
            Some((file, (about.mtime(), about.mtime_nsec(), about.size(), about.ino())))
        });
        stamped.collect()
    }
}

fn is_source(
    dir: &Path,
    below: &str,
    is_dir: bool,
    served: Option<&str>,
    leftovers: &Leftovers,
) -> bool {
    let name = below.rsplit('/').next().unwrap_or(below);
    let made = MADE.contains(&name) || MADE_AT_TOP.contains(&below) || served == Some(below);
    let of_a_tool = || {
        let kind = leftovers.is(dir, below, is_dir);
        matches!(kind, Some(Leftover::Environment | Leftover::Tool))
    };
    below.is_empty() || !(is_dir && made || of_a_tool())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, file: &str, text: &str) {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn sources_are_what_people_edit_and_neither_packages_nor_what_tools_and_builds_write() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().canonicalize().unwrap();
        write(&dir, ".gitignore", "/generated\n.env\n");
        write(&dir, "env/pyvenv.cfg", "");
        let mut sources = Sources::of(&dir, Some("public/site"));
        let edited = [
            "src/a.ts",
            "index.html",
            ".env",
            ".env.local",
            "src/build/b.ts",
            "package.json",
            "assets/x.css",
        ];
        let others = [
            "node_modules/x/index.js",
            "packages/y/node_modules/x.js",
            "dist/a.js",
            "build/a.js",
            "public/site/a.js",
            "generated/a.ts",
            ".git/index",
            "src/.a.ts.swp",
            "src/a.ts~",
            "env/lib/x.py",
            ".vscode/settings.json",
            ".next/x",
        ];
        edited.iter().chain(&others).for_each(|file| write(&dir, file, "1"));
        let mut wanted: Vec<PathBuf> = edited.iter().map(PathBuf::from).collect();
        wanted.sort();
        assert_eq!(sources.changed(), wanted);
        assert_eq!(sources.changed(), [] as [PathBuf; 0]);
        std::fs::remove_file(dir.join("src/a.ts")).unwrap();
        write(&dir, "index.html", "22");
        assert_eq!(sources.changed(), ["index.html", "src/a.ts"].map(PathBuf::from));
    }

    #[test]
    fn a_file_that_builds_write_is_built_once_more_and_an_edit_between_builds_always_counts() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().canonicalize().unwrap();
        let mut sources = Sources::of(&dir, None);
        write(&dir, "version.ts", "1");
        assert_eq!(sources.changed_meanwhile(), [PathBuf::from("version.ts")]);
        write(&dir, "version.ts", "22");
        assert_eq!(sources.changed_meanwhile(), [] as [PathBuf; 0]);
        write(&dir, "version.ts", "333");
        assert_eq!(sources.changed(), [PathBuf::from("version.ts")]);
    }
}
