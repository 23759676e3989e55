//! The sources that the `build` script of an app reads, and which of them have changed: all files
//! of its directory but what git ignores, what tools keep there, packages, what builds make, and
//! what the app writes.

mod causes;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Metadata};
use std::hash::{DefaultHasher, Hasher};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::WalkBuilder;

pub use causes::{Causes, QUIET};

use crate::leftovers::{Leftover, Leftovers};
use mfserv_platform::disk;

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
/// The same, at the top only: below it, these are names of sources, too. The last ones have what
/// apps write while they run.
const MADE_AT_TOP: &[&str] =
    &["build", "out", "_site", "coverage", "log", "logs", "tmp", "uploads"];
/// Files that apps write while they run, by the end of their names.
const WRITTEN: &[&str] = &[
    ".log",
    ".pid",
    ".db",
    ".sqlite",
    ".sqlite3",
    "-wal",
    "-shm",
    ".db-journal",
    ".sqlite-journal",
    ".sqlite3-journal",
];
/// The content of larger files is not compared…
const LARGEST: u64 = 1024 * 1024;
/// …nor that of more than this in one look.
const MOST: u64 = 64 * 1024 * 1024;

/// The identity of a file's content.
type Stamp = (i64, i64, u64, u64);

/// A file at the last look.
#[derive(Debug, Clone, Copy)]
struct Seen {
    stamp: Stamp,
    /// A sum of its content, if that is small enough.
    content: Option<u64>,
}

/// What has happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    New,
    Content,
    /// It was written, and has the same content.
    Written,
    Gone,
}

/// The sources in a directory, as they were at the last look.
#[derive(Debug)]
pub struct Sources {
    dir: PathBuf,
    /// What a build makes, below it.
    made_here: Vec<String>,
    which: Which,
    leftovers: Arc<Leftovers>,
    seen: BTreeMap<PathBuf, Seen>,
    /// Files that the last build has written, surely: they came into being during it, or had the
    /// same content after it.
    made: BTreeSet<PathBuf>,
    /// Files that came into being during a build.
    born: BTreeSet<PathBuf>,
}

/// Which files count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    Sources,
    /// Those that git ignores, too.
    WithIgnored,
    /// Also those that a build has made.
    All,
}

impl Sources {
    /// Those in a directory, as they are now; `served` has what the build makes.
    pub fn of(dir: &Path, served: Option<&str>) -> Self {
        Self::new(dir, served.into_iter(), Which::Sources)
    }

    /// Those of a plugin whose `[build]` makes these directories and files.
    pub fn of_plugin(dir: &Path, out: &[String]) -> Self {
        Self::new(dir, out.iter().map(String::as_str), Which::Sources)
    }

    /// Those in a directory with what git ignores: a build may read that too. A script that has written
    /// such a file elsewhere than in `made` finds it changed the next time.
    pub fn with_ignored<'a>(dir: &Path, made: impl Iterator<Item = &'a str>) -> Self {
        Self::new(dir, made, Which::WithIgnored)
    }

    fn new<'a>(dir: &Path, made: impl Iterator<Item = &'a str>, which: Which) -> Self {
        let mut sources = Sources {
            dir: dir.to_owned(),
            made_here: made.map(str::to_owned).collect(),
            which,
            leftovers: Arc::new(Leftovers::new()),
            seen: BTreeMap::new(),
            made: BTreeSet::new(),
            born: BTreeSet::new(),
        };
        sources.seen = sources.scan();
        sources
    }

    /// All of them as they were at the last look, below the directory.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.seen.keys().map(|file| self.below(file))
    }

    /// A sum of all of them as they were at the last look: of their content, where that is small enough.
    pub fn digest(&self) -> String {
        let line = |(file, seen): (&PathBuf, &Seen)| {
            let file = self.below(file);
            match seen.content {
                Some(content) => format!("{} {content:x}", file.display()),
                None => format!("{} {:?}", file.display(), seen.stamp),
            }
        };
        let all: Vec<String> = self.seen.iter().map(line).collect();
        disk::fingerprint(all.iter().map(|line| ("source", line.as_bytes())))
    }

    /// All files of a directory that is served as it is, also where a build has made them.
    pub fn served(dir: &Path) -> Self {
        Self::new(dir, std::iter::empty(), Which::All)
    }

    /// The files that have changed, come or gone since the last look, below the directory. Nothing
    /// if the directory itself is gone.
    pub fn changed(&mut self) -> Vec<PathBuf> {
        let changed = self.look();
        for (file, _) in &changed {
            // Between builds it is not a build that writes.
            self.made.remove(file);
            self.born.remove(file);
        }
        changed.into_iter().map(|(file, _)| self.below(&file)).collect()
    }

    /// The same after a build, without what the build has made. `has_built`: it has gone well.
    pub fn changed_meanwhile(&mut self, has_built: bool) -> Vec<PathBuf> {
        let mut made = BTreeSet::new();
        let mut causes = Vec::new();
        for (file, change) in self.look() {
            let is_known = self.made.contains(&file);
            match change {
                Change::New => {
                    self.born.insert(file.clone());
                    made.insert(file);
                }
                Change::Written => drop(made.insert(file)),
                Change::Content if is_known => drop(made.insert(file)),
                Change::Gone if is_known || self.born.contains(&file) => {}
                Change::Content | Change::Gone => causes.push(self.below(&file)),
            }
        }
        match has_built {
            true => self.made = made,
            // It may have ended before it has written all.
            false => self.made.extend(made),
        }
        causes
    }

    fn below(&self, file: &Path) -> PathBuf {
        file.strip_prefix(&self.dir).unwrap_or(file).to_owned()
    }

    fn look(&mut self) -> Vec<(PathBuf, Change)> {
        if !self.dir.is_dir() {
            return Vec::new();
        }
        let now = self.scan();
        let before = std::mem::replace(&mut self.seen, now);
        let changed = self.seen.iter().filter_map(|(file, seen)| {
            let change = match before.get(file) {
                None => Change::New,
                Some(was) if was.stamp == seen.stamp => return None,
                Some(was) if seen.content.is_some() && was.content == seen.content => {
                    Change::Written
                }
                Some(_) => Change::Content,
            };
            Some((file.clone(), change))
        });
        let gone = before.keys().filter(|file| !self.seen.contains_key(*file));
        changed.chain(gone.map(|file| (file.clone(), Change::Gone))).collect()
    }

    fn scan(&self) -> BTreeMap<PathBuf, Seen> {
        let (dir, made) = (self.dir.clone(), self.made_here.clone());
        let (leftovers, all) = (self.leftovers.clone(), self.which == Which::All);
        let walk = WalkBuilder::new(&self.dir)
            .standard_filters(false)
            .git_ignore(self.which == Which::Sources)
            .require_git(false)
            .filter_entry(move |entry| {
                let is_dir = entry.file_type().is_some_and(|kind| kind.is_dir());
                let below = entry.path().strip_prefix(&dir).ok().and_then(Path::to_str);
                below.is_some_and(|it| {
                    let name = it.rsplit('/').next().unwrap_or(it);
                    match all {
                        true => !name.starts_with('.') && name != "node_modules",
                        false => is_source(&dir, it, is_dir, &made, &leftovers),
                    }
                })
            })
            .build();
        let files = walk.flatten().map(ignore::DirEntry::into_path);
        // Tools read these although git ignores them.
        let top = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let settings = top.filter(|one| one.file_name().to_string_lossy().starts_with(".env"));
        let files = files.chain(settings.map(|one| one.path()));
        let mut left = MOST;
        let seen = files.filter_map(|file| {
            let about = std::fs::metadata(&file).ok().filter(Metadata::is_file)?;
            let stamp = (about.mtime(), about.mtime_nsec(), about.size(), about.ino());
            let content = match self.seen.get(&file) {
                Some(was) if was.stamp == stamp => was.content,
                _ => sum(&file, about.size(), &mut left),
            };
            Some((file, Seen { stamp, content }))
        });
        seen.collect()
    }
}

/// A sum of a file's content, as long as there is something left of what may be read.
fn sum(file: &Path, size: u64, left: &mut u64) -> Option<u64> {
    if size > LARGEST {
        return None;
    }
    *left = left.checked_sub(size)?;
    content_sum(&mut File::open(file).ok()?).ok()
}

/// A sum of what can be read, for this build of mfserv alone.
pub fn content_sum(from: &mut dyn Read) -> io::Result<u64> {
    let (mut hasher, mut some) = (DefaultHasher::new(), vec![0; 64 * 1024]);
    loop {
        match from.read(&mut some)? {
            0 => return Ok(hasher.finish()),
            length => hasher.write(&some[..length]),
        }
    }
}

/// A file as it is now: its path, length and times. That of the last change is among them: a tool that
/// copies may keep the other one.
pub fn stamp_line(path: &Path, about: &Metadata) -> String {
    let written = (about.mtime(), about.mtime_nsec());
    let changed = (about.ctime(), about.ctime_nsec());
    format!("{} {} {written:?} {changed:?}", path.display(), about.len())
}

fn is_source(
    dir: &Path,
    below: &str,
    is_dir: bool,
    made_here: &[String],
    leftovers: &Leftovers,
) -> bool {
    let name = below.rsplit('/').next().unwrap_or(below);
    let made = MADE.contains(&name) || MADE_AT_TOP.contains(&below);
    let is_named = made_here.iter().any(|one| one == below);
    let of_a_tool = || {
        let kind = leftovers.is(dir, below, is_dir);
        matches!(kind, Some(Leftover::Environment | Leftover::Tool))
    };
    let is_written = || !is_dir && is_written(name);
    below.is_empty() || !(is_named || is_dir && made || of_a_tool() || is_written())
}

/// An app writes files of such names while it runs.
pub fn is_written(name: &str) -> bool {
    WRITTEN.iter().any(|ending| name.ends_with(ending))
}

#[cfg(test)]
mod tests;
