//! Which entries a package may have: names, kinds, modes, links, sizes. No input or output:
//! the policy sees every entry before anything is written, and again while it is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tar::EntryType;

use super::limits::Limits;
use super::link_cycle::find_cycle;
use super::manifest::{Kind, MANIFEST, Manifest, Member, bad_link, bad_path};
use super::tar_stream::{Head, shown};
use super::{FILES, METADATA, TOP};

/// Files that mfserv writes into a release: a package cannot bring them.
const RESERVED: &[&str] =
    &[".committed", ".mfserv-files.json", ".mfserv-moving.json", ".mfserv-staged.json"];

/// An entry that the policy admits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Its path below the plugin directory.
    pub(super) path: String,
    /// What it is.
    pub(super) kind: EntryKind,
}

/// What an entry is, as far as its header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EntryKind {
    Directory,
    File { mode: u32, size: u64 },
    Link { target: String },
}

/// The policy, with what it has admitted so far.
pub(super) struct Policy {
    limits: Limits,
    /// The bytes of all files.
    bytes: u64,
    /// The bytes of the wheels among them: they are unpacked once more.
    wheels: u64,
    /// Every path, parents of entries included.
    seen: BTreeMap<String, Seen>,
    /// Paths by their lower-case form: two that differ only in case are refused.
    folded: HashMap<String, String>,
    /// The members of the manifest by path, if the package has one.
    manifest: Option<BTreeMap<String, Kind>>,
    /// Where each link points, by its path.
    links: BTreeMap<String, String>,
    /// The bytes of all files by the manifest.
    claimed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    directory: bool,
    /// False for a directory that is only known as the parent of something.
    named: bool,
}

impl Policy {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            bytes: 0,
            wheels: 0,
            seen: BTreeMap::new(),
            folded: HashMap::new(),
            manifest: None,
            links: BTreeMap::new(),
            claimed: 0,
        }
    }

    /// Admits an entry; `None` for the top directory itself. The error names the
    /// entry and says why it is refused.
    pub(super) fn admit(&mut self, head: &Head) -> Result<Option<Admitted>, String> {
        let refuse = |reason: String| format!("{}: {reason}", shown(&head.path));
        let Some(path) = path_below(head).map_err(refuse)? else { return Ok(None) };
        let kind = entry_kind(head, &path).map_err(refuse)?;
        self.count(&path, &kind).map_err(refuse)?;
        self.add_path(&path, kind == EntryKind::Directory).map_err(refuse)?;
        self.compare(&path, &kind, head.mode).map_err(refuse)?;
        if let EntryKind::Link { target } = &kind {
            self.links.insert(path.clone(), target.clone());
        }
        Ok(Some(Admitted { path, kind }))
    }

    /// Reads the manifest, which must be the first entry: later entries are compared with it.
    pub(super) fn take_manifest(&mut self, text: &[u8]) -> Result<(), String> {
        let manifest: Manifest =
            serde_json::from_slice(text).map_err(|e| format!("{MANIFEST}: {e}"))?;
        if self.seen.values().filter(|seen| seen.named).count() > 1 {
            return Err(format!("{MANIFEST} is not the first"));
        }
        if manifest.format != 1 {
            return Err(format!("{MANIFEST}: format {}, and we know format 1", manifest.format));
        }
        if manifest.members.len() > self.limits.members {
            return Err(self.too_many());
        }
        let mut sum = 0u64;
        let mut members = BTreeMap::new();
        for Member { path, kind } in manifest.members {
            if let Kind::File { size, .. } = &kind {
                sum = sum.saturating_add(*size);
            }
            let twice = members.insert(path.clone(), kind).is_some();
            if twice || bad_path(&path).is_some() {
                return Err(format!("{MANIFEST}: a bad path: {}", shown(path.as_bytes())));
            }
        }
        if sum != manifest.total_size {
            return Err(format!(
                "{MANIFEST}: its files have {sum} bytes, and it says {}",
                manifest.total_size
            ));
        }
        if sum > self.limits.bytes {
            return Err(format!(
                "it unpacks to {sum} bytes, and {} are allowed",
                self.limits.bytes
            ));
        }
        self.claimed = sum;
        self.manifest = Some(members);
        Ok(())
    }

    /// Compares the sum of a file with the manifest.
    pub(super) fn check_sum(&self, path: &str, sum: &str) -> Result<(), String> {
        match self.in_manifest(path) {
            Some(Kind::File { sha256, .. }) if sha256 != sum => {
                Err(format!("{path}: its SHA-256 is not as the manifest says"))
            }
            _ => Ok(()),
        }
    }

    /// The paths of the files and links, and which of them are links.
    pub(super) fn contents(&self) -> (BTreeSet<String>, BTreeSet<String>) {
        let files = self.seen.iter().filter(|(_, seen)| !seen.directory);
        (files.map(|(path, _)| path.clone()).collect(), self.links.keys().cloned().collect())
    }

    /// After the last entry: refuses a package without a member that its manifest names, and
    /// links that lead to themselves.
    pub(super) fn finish(&self) -> Result<(), String> {
        if let Some(link) = find_cycle(&self.links) {
            return Err(format!("{link}: the link leads to itself"));
        }
        let missing = |path: &&String| !self.seen.get(*path).is_some_and(|seen| seen.named);
        match self.manifest.iter().flat_map(BTreeMap::keys).find(missing) {
            Some(path) => Err(format!("{path} is missing: the manifest names it")),
            None => Ok(()),
        }
    }

    /// The bytes and the files that an installation needs: the unpacked files in whole
    /// blocks, and the environment that is made of the wheels.
    pub(super) fn needs(&self) -> (u64, u64) {
        let files = self.seen.len() as u64;
        let blocks = self.bytes.max(self.claimed).saturating_add(files.saturating_mul(4096));
        // measured: installed and compiled, a wheel takes 4 to 6 times its size
        (blocks.saturating_add(self.wheels.saturating_mul(6)), files)
    }

    fn in_manifest(&self, path: &str) -> Option<&Kind> {
        self.manifest.as_ref()?.get(path)
    }

    fn too_many(&self) -> String {
        format!("it has more than {} files", self.limits.members)
    }

    fn count(&mut self, path: &str, kind: &EntryKind) -> Result<(), String> {
        if self.seen.len() >= self.limits.members {
            return Err(self.too_many());
        }
        let EntryKind::File { size, .. } = kind else { return Ok(()) };
        self.bytes = self.bytes.saturating_add(*size);
        if path.ends_with(".whl") {
            self.wheels = self.wheels.saturating_add(*size);
        }
        if self.bytes > self.limits.bytes {
            return Err(format!("it unpacks to more than {} bytes", self.limits.bytes));
        }
        Ok(())
    }

    /// Adds a path and its parents. Refuses a path that exists, a path below a file or link,
    /// and a path that differs from another only in the case of its letters.
    fn add_path(&mut self, path: &str, directory: bool) -> Result<(), String> {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            match self.seen.get(parent) {
                Some(seen) if !seen.directory => {
                    return Err(format!("{parent} is not a directory"));
                }
                Some(_) => {}
                None => self.insert(parent, Seen { directory: true, named: false })?,
            }
        }
        match self.seen.get(path) {
            Some(seen) if seen.named || !directory => Err("it is there twice".into()),
            _ => self.insert(path, Seen { directory, named: true }),
        }
    }

    fn insert(&mut self, path: &str, seen: Seen) -> Result<(), String> {
        let before = self.folded.insert(path.to_lowercase(), path.to_string());
        if let Some(twin) = before.filter(|before| before != path) {
            return Err(format!("it differs from {twin:?} only in upper and lower case"));
        }
        self.seen.insert(path.into(), seen);
        if self.seen.len() > self.limits.members {
            return Err(self.too_many());
        }
        Ok(())
    }

    fn compare(&self, path: &str, kind: &EntryKind, mode: u32) -> Result<(), String> {
        if self.manifest.is_none() || [MANIFEST, METADATA, FILES].contains(&path) {
            return Ok(());
        }
        match (self.in_manifest(path), kind) {
            (None, _) => Err("the manifest does not name it".into()),
            (Some(Kind::Directory), EntryKind::Directory) => Ok(()),
            (Some(Kind::Link { target: said }), EntryKind::Link { target }) if said == target => {
                Ok(())
            }
            (Some(Kind::Link { target: said }), EntryKind::Link { target }) => Err(format!(
                "it points to {}, and the manifest says {}",
                shown(target.as_bytes()),
                shown(said.as_bytes())
            )),
            (Some(Kind::File { size: said, .. }), EntryKind::File { size, .. }) if said != size => {
                Err(format!("it has {size} bytes, and the manifest says {said}"))
            }
            (Some(Kind::File { mode: said, .. }), EntryKind::File { .. })
                if *said != mode || ![0o644, 0o755].contains(said) =>
            {
                Err(format!("it has the mode {mode:o}, and the manifest says {said:o}"))
            }
            (Some(Kind::File { .. }), EntryKind::File { .. }) => Ok(()),
            (Some(_), _) => Err("it is not what the manifest says: file, directory or link".into()),
        }
    }
}

/// The path below the plugin directory; `None` for that directory itself.
fn path_below(head: &Head) -> Result<Option<String>, String> {
    let whole = std::str::from_utf8(&head.path).map_err(|_| "the name is not UTF-8")?;
    let directory = head.kind == EntryType::Directory;
    if directory && [".", "./"].contains(&whole) {
        return Ok(None);
    }
    let whole = whole.strip_prefix("./").unwrap_or(whole);
    let trimmed = if directory { whole.strip_suffix('/').unwrap_or(whole) } else { whole };
    if directory && trimmed == TOP {
        return Ok(None);
    }
    let path = trimmed
        .strip_prefix(TOP)
        .and_then(|rest| rest.strip_prefix('/'))
        .ok_or_else(|| format!("it is not below {TOP}/"))?;
    if let Some(reason) = bad_path(path) {
        return Err(reason);
    }
    if RESERVED.contains(&path) {
        return Err("mfserv itself writes this file".into());
    }
    Ok(Some(path.into()))
}

fn entry_kind(head: &Head, path: &str) -> Result<EntryKind, String> {
    if head.kind != EntryType::Symlink && head.mode & 0o002 != 0 {
        return Err(format!("everybody may write it (mode {:o})", head.mode & 0o7777));
    }
    // a directory with setgid only passes its group on, and we take no group
    let special = if head.kind == EntryType::Directory { 0o4000 } else { 0o6000 };
    if head.kind != EntryType::Symlink && head.mode & special != 0 {
        return Err(format!("it is setuid or setgid (mode {:o})", head.mode & 0o7777));
    }
    match head.kind {
        EntryType::Regular | EntryType::Continuous => {
            let mode = if head.mode & 0o111 == 0 { 0o644 } else { 0o755 };
            Ok(EntryKind::File { mode, size: head.size })
        }
        EntryType::Directory | EntryType::Symlink if head.size > 0 => {
            Err("a directory or link with a content".into())
        }
        EntryType::Directory => Ok(EntryKind::Directory),
        EntryType::Symlink => {
            let target = String::from_utf8(head.link.clone())
                .map_err(|_| "it points to a name that is not UTF-8".to_string())?;
            match bad_link(path, &target) {
                Some(reason) => Err(reason),
                None => Ok(EntryKind::Link { target }),
            }
        }
        EntryType::Link => Err(format!("a hard link (to {})", shown(&head.link))),
        EntryType::GNUSparse => Err("a sparse file".into()),
        EntryType::Block | EntryType::Char => Err("a device".into()),
        EntryType::Fifo => Err("a FIFO".into()),
        other => Err(format!(
            "neither a file, nor a directory, nor a link (type {:?})",
            other.as_byte() as char
        )),
    }
}
