//! Which files of a plugin directory are packed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use mfserv_core::diagnostic::Location;
use mfserv_core::{Diagnostic, Kind as Failure};
use sha2::{Digest, Sha256};

use super::left_out::{Findings, Skipped};
use super::link_cycle::find_cycle;
use super::manifest::{Kind, Member, bad_link, bad_path};
use crate::build::PYTHON_SOURCES;
use crate::generate::{CODE, made_of};
use crate::label;
use crate::leftovers::{Leftovers, looks_like_a_secret};
use mfserv_platform::disk;

/// What is not packaged when there is no `.releaseignore`.
pub(super) const DEFAULT_IGNORE: &str = include_str!("../../templates/shared/releaseignore");

/// What is never packaged: it is made at the place where the plugin is installed.
const NEVER: &str = "/local\n/.local.*\n/.node_modules.*\n/.configuration_cache\n/.manifest.json\n/.metadata.json\n/.files.json\n/.committed\n/.mfserv-files.json\n/.mfserv-moving.json\n/.mfserv-base\n/*.plugin\n";

/// How much of a file is looked at for secrets, bytes.
const BEGINNING: u64 = 64 * 1024;

/// The most members that a package may have.
const MOST_MEMBERS: usize = 500_000;

/// The patterns of `.releaseignore`, each with its line.
fn ignored(dir: &Path) -> Result<Gitignore, Diagnostic> {
    let file = dir.join(".releaseignore");
    let text = match label::read_small(&file) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => DEFAULT_IGNORE.to_string(),
        Err(e) => return Err(disk::failed("read", &file, e)),
    };
    let mut builder = GitignoreBuilder::new(dir);
    for (number, line) in (1..).zip(text.lines()) {
        builder.add_line(None, line).map_err(|e| {
            Diagnostic::error(format!("bad pattern {line:?}"))
                .kind(Failure::BadConfiguration)
                .because(e)
                .at(Location::new(file.display().to_string(), number))
        })?;
    }
    builder.build().map_err(|e| disk::failed("read", &file, e))
}

fn never(dir: &Path) -> Gitignore {
    let mut builder = GitignoreBuilder::new(dir);
    for line in NEVER.lines() {
        let _ = builder.add_line(None, line);
    }
    builder.build().unwrap_or_else(|_| Gitignore::empty())
}

/// Everything to package, sorted by path, and what is to be said of the rest.
pub(super) fn collect(
    dir: &Path,
    leftovers: Leftovers,
) -> Result<(Vec<Member>, Findings), Diagnostic> {
    let mut walk = Walk {
        root: dir,
        never: never(dir),
        ignore: ignored(dir)?,
        leftovers,
        members: Vec::new(),
        findings: Findings { is_made: made_of(dir).is_some(), ..Findings::default() },
    };
    walk.directory("", None)?;
    let mut members = walk.members;
    members.sort_by(|a, b| a.path.cmp(&b.path));
    refuse_twins(dir, &members)?;
    refuse_cycle(dir, &members)?;
    Ok((members, walk.findings))
}

/// All that is at and below `path` in a directory, as it is.
pub(super) fn collect_below(root: &Path, path: &str) -> Result<Vec<Member>, Diagnostic> {
    let mut walk = Walk {
        root,
        never: Gitignore::empty(),
        ignore: Gitignore::empty(),
        leftovers: Leftovers::none(),
        members: Vec::new(),
        findings: Findings::default(),
    };
    walk.entry(path.to_owned(), None)?;
    Ok(walk.members)
}

/// Two names that differ only in the case of their letters are one file on some
/// disks: the package would not be the same everywhere.
fn refuse_twins(dir: &Path, members: &[Member]) -> Result<(), Diagnostic> {
    let mut folded = BTreeMap::new();
    for member in members {
        if let Some(twin) = folded.insert(member.path.to_lowercase(), &member.path) {
            return Err(Diagnostic::error(format!(
                "{} can't be packaged",
                dir.join(&member.path).display()
            ))
            .because(format!("it differs from {twin} only in upper and lower case"))
            .help("rename one of them, or add it to .releaseignore"));
        }
    }
    Ok(())
}

/// Links that lead to each other can't be followed, and can't be installed.
fn refuse_cycle(dir: &Path, members: &[Member]) -> Result<(), Diagnostic> {
    let links = members.iter().filter_map(|member| match &member.kind {
        Kind::Link { target } => Some((member.path.clone(), target.clone())),
        Kind::File { .. } | Kind::Directory => None,
    });
    match find_cycle(&links.collect()) {
        None => Ok(()),
        Some(link) => {
            Err(Diagnostic::error(format!("{} can't be packaged", dir.join(link).display()))
                .because("the link leads to itself")
                .help("remove it, or add it to .releaseignore"))
        }
    }
}

struct Walk<'a> {
    root: &'a Path,
    never: Gitignore,
    ignore: Gitignore,
    leftovers: Leftovers,
    members: Vec<Member>,
    findings: Findings,
}

impl Walk<'_> {
    /// Adds what a directory has, which is itself skipped or not; true if it has anything to
    /// package.
    fn directory(&mut self, path: &str, skipped: Option<&Skipped>) -> Result<bool, Diagnostic> {
        let dir = self.root.join(path);
        let entries = fs::read_dir(&dir)
            .and_then(Iterator::collect::<io::Result<Vec<_>>>)
            .map_err(|e| disk::failed("read", &dir, e))?;
        let mut any = false;
        for entry in entries {
            let name = entry.file_name();
            let name =
                name.to_str().ok_or_else(|| self.refuse(&entry.path(), "its name is not UTF-8"))?;
            let below = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
            any |= self.entry(below, skipped)?;
        }
        Ok(any)
    }

    /// Why an entry is not packed. What must never be packed comes first, then what the plugin
    /// says, then what is usual.
    fn skipped(&self, path: &str, is_dir: bool, above: Option<&Skipped>) -> Option<Skipped> {
        if self.never.matched_path_or_any_parents(path, is_dir).is_ignore() {
            return Some(Skipped::Made);
        }
        match self.ignore.matched_path_or_any_parents(path, is_dir) {
            Match::Ignore(glob)
                if ["*.pyc", "__pycache__", "/local"].contains(&glob.original()) =>
            {
                Some(Skipped::Made)
            }
            Match::Ignore(glob) => Some(Skipped::Pattern(glob.original().to_string())),
            Match::Whitelist(_) => None,
            Match::None => {
                let leftover = self.leftovers.is(self.root, path, is_dir).map(Skipped::Leftover);
                above.cloned().or(leftover)
            }
        }
    }

    fn entry(&mut self, path: String, above: Option<&Skipped>) -> Result<bool, Diagnostic> {
        let file = self.root.join(&path);
        let found = fs::symlink_metadata(&file).map_err(|e| disk::failed("read", &file, e))?;
        let is_dir = found.is_dir();
        let skipped = self.skipped(&path, is_dir, above);
        if let Some(why) = skipped.as_ref().filter(|_| above.is_none()) {
            let compiled = path.ends_with(".pyc") || path.ends_with("__pycache__");
            if *why != Skipped::Made && !compiled {
                self.findings.left_out.push((path.clone(), why.clone()));
            }
        }
        if skipped.is_some() && (!is_dir || self.ignore.num_whitelists() == 0) {
            return Ok(false);
        }
        if let Some(reason) = bad_path(&path) {
            return Err(self.refuse(&file, &reason));
        }
        if is_dir {
            // An ignored directory is packaged if something in it is not ignored.
            let any = self.directory(&path, skipped.as_ref())?;
            let packed = any || skipped.is_none();
            if packed {
                self.add(path, Kind::Directory)?;
            }
            return Ok(packed);
        }
        let kind = self.kind(&path, &file, &found)?;
        self.look_for_secrets(&path, &file, &kind);
        self.add(path, kind)?;
        Ok(true)
    }

    /// Notes a file of the project that may hold a secret; packages of others are theirs.
    fn look_for_secrets(&mut self, path: &str, file: &Path, kind: &Kind) {
        let foreign = path.split('/').any(|name| name == "node_modules")
            || PYTHON_SOURCES.iter().any(|python| path.starts_with(&format!("{python}/src/")));
        if foreign || !matches!(kind, Kind::File { .. }) {
            return;
        }
        let mut beginning = Vec::new();
        let read = File::open(file).map(|file| file.take(BEGINNING).read_to_end(&mut beginning));
        if let Some(what) = read.ok().and_then(|_| looks_like_a_secret(path, &beginning)) {
            self.findings.secrets.push((path.to_string(), what));
        }
    }

    fn kind(&self, path: &str, file: &Path, found: &fs::Metadata) -> Result<Kind, Diagnostic> {
        if found.is_symlink() {
            let target = fs::read_link(file).map_err(|e| disk::failed("read", file, e))?;
            let target = target
                .to_str()
                .ok_or_else(|| self.refuse(file, "it points to a name that is not UTF-8"))?;
            return match bad_link(path, target) {
                None => Ok(Kind::Link { target: target.into() }),
                Some(reason) => Err(self.refuse(file, &reason)),
            };
        }
        if !found.is_file() {
            return Err(self.refuse(file, "it is neither a file, nor a directory, nor a link"));
        }
        let mode = if found.permissions().mode() & 0o111 == 0 { 0o644 } else { 0o755 };
        let (size, sha256) = sum(file).map_err(|e| disk::failed("read", file, e))?;
        Ok(Kind::File { mode, size, sha256 })
    }

    fn add(&mut self, path: String, kind: Kind) -> Result<(), Diagnostic> {
        if self.members.len() >= MOST_MEMBERS {
            return Err(Diagnostic::error("the plugin can't be packaged")
                .because(format!("it has more than {MOST_MEMBERS} files")));
        }
        self.members.push(Member { path, kind });
        Ok(())
    }

    fn refuse(&self, file: &Path, reason: &str) -> Diagnostic {
        // Of an app that exists it is the app's own file that has to change.
        let own = made_of(self.root).and_then(|app| {
            let below = file.strip_prefix(self.root.join(CODE)).ok()?;
            Some(app.join(below))
        });
        let problem = |file: &Path| {
            let file = file.display().to_string().replace('\n', "\\n");
            Diagnostic::error(format!("{file} can't be packaged")).because(reason)
        };
        match own {
            None => problem(file).help("remove it, or add it to .releaseignore"),
            Some(own) if file.is_symlink() => problem(&own).help(
                "what is deployed has only the files of the app's directory: put what the link leads to \
                 there in its place, or remove the link",
            ),
            Some(own) => problem(&own).help("rename it, or move it out of the app's directory"),
        }
    }
}

fn sum(file: &Path) -> io::Result<(u64, String)> {
    let mut reader = Summing::new(File::open(file)?);
    let size = io::copy(&mut reader, &mut io::sink())?;
    Ok((size, reader.finish()))
}

/// Sums what is read through it.
pub(super) struct Summing<R> {
    reader: R,
    hash: Sha256,
}

impl<R: Read> Summing<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, hash: Sha256::new() }
    }

    pub(super) fn finish(self) -> String {
        disk::hex(&self.hash.finalize())
    }
}

impl<R: Read> Read for Summing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.hash.update(&buffer[..count]);
        Ok(count)
    }
}
