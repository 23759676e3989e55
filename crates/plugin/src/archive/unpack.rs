//! Unpacking a package into a directory of its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use mfserv_core::Diagnostic;
use sha2::{Digest, Sha256};

use super::manifest::{Kind, MANIFEST, Manifest, Member, bad_link, bad_path};
use super::read::{Found, Package, bad, open};
use super::tape::{Head, entries};
use super::{FILES, METADATA, TOP};
use crate::disk;
use crate::label;

/// What a package may unpack to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The bytes of all files together.
    pub bytes: u64,
    /// The number of files, directories and links.
    pub members: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 4 << 30, members: 500_000 }
    }
}

/// Unpacks a package into `into`, which must not exist and whose parent must.
/// On any error `into` does not exist afterwards, and nothing else was touched.
///
/// Refused: absolute paths, `..`, links that leave the plugin, anything that is
/// not a file, directory or symbolic link, a path twice, more than the limits;
/// and for a package with a manifest, anything that is not as it says.
pub fn unpack(file: &Path, into: &Path, limits: Limits) -> Result<Package, Diagnostic> {
    fs::create_dir(into).map_err(|e| disk::failed("create", into, e))?;
    let result =
        unpack_all(file, into, limits).and_then(|package| check_label(file, into, package));
    if result.is_err() {
        let _ = disk::remove(into);
    }
    result
}

fn unpack_all(file: &Path, into: &Path, limits: Limits) -> Result<Package, Diagnostic> {
    // tar adds a header per member, and rounds
    let overhead = (limits.members as u64).saturating_mul(4096);
    let stream = open(file, limits.bytes.saturating_add(overhead))?;
    let mut unpacking = Unpacking {
        into,
        limits,
        bytes: 0,
        done: BTreeMap::new(),
        found: Found::default(),
        manifest: None,
    };
    entries(stream, |head, content| {
        unpacking.entry(head, content).map(|()| ControlFlow::Continue(()))
    })
    .map_err(|reason| bad(file, reason))?;
    unpacking.finish().map_err(|reason| bad(file, reason))
}

/// The plugin inside must be the one that the package says.
fn check_label(file: &Path, into: &Path, package: Package) -> Result<Package, Diagnostic> {
    let name = label::read_name(into)?;
    if name == package.name {
        return Ok(package);
    }
    Err(bad(file, format!("it says that it is {}, and has the plugin {name} inside", package.name)))
}

struct Unpacking<'a> {
    into: &'a Path,
    limits: Limits,
    bytes: u64,
    /// What has been unpacked, by path.
    done: BTreeMap<String, Kind>,
    found: Found,
    /// What the manifest says, by path, if there is one.
    manifest: Option<BTreeMap<String, Kind>>,
}

impl Unpacking<'_> {
    fn entry(&mut self, head: &Head, content: &mut dyn Read) -> Result<(), String> {
        let whole = std::str::from_utf8(&head.path)
            .map_err(|_| format!("a name is not UTF-8: {}", String::from_utf8_lossy(&head.path)))?;
        let whole = whole.strip_prefix("./").unwrap_or(whole);
        let is_dir = head.kind == tar::EntryType::Directory;
        let trimmed = if is_dir { whole.trim_end_matches('/') } else { whole };
        if trimmed == TOP && is_dir {
            return Ok(());
        }
        let path = trimmed
            .strip_prefix(TOP)
            .and_then(|rest| rest.strip_prefix('/'))
            .ok_or_else(|| format!("{whole:?} is not below {TOP}/"))?;
        if let Some(reason) = bad_path(path) {
            return Err(format!("{whole:?}: {reason}"));
        }
        if self.done.contains_key(path) {
            return Err(format!("{path} is there twice"));
        }
        if self.done.len() >= self.limits.members {
            return Err(format!("it has more than {} files", self.limits.members));
        }
        let kind = match head.kind {
            tar::EntryType::Directory => self.directory(path)?,
            tar::EntryType::Regular | tar::EntryType::Continuous => {
                self.file(path, head, content)?
            }
            tar::EntryType::Symlink => self.link(path, head)?,
            other => {
                return Err(format!(
                    "{path} is neither a file, nor a directory, nor a link ({other:?})"
                ));
            }
        };
        self.compare(path, &kind)?;
        self.done.insert(path.into(), kind);
        Ok(())
    }

    fn directory(&mut self, path: &str) -> Result<Kind, String> {
        self.parents(path)?;
        match fs::create_dir(self.into.join(path)) {
            // made as a parent of something before
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.is_real_directory(path) => {
                Ok(Kind::Directory)
            }
            result => result.map(|()| Kind::Directory).map_err(|e| format!("{path}: {e}")),
        }
    }

    fn file(&mut self, path: &str, head: &Head, content: &mut dyn Read) -> Result<Kind, String> {
        self.parents(path)?;
        let mode = if head.mode & 0o111 == 0 { 0o644 } else { 0o755 };
        let size = head.size;
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.limits.bytes {
            return Err(format!("it unpacks to more than {} bytes", self.limits.bytes));
        }
        if [MANIFEST, METADATA, FILES].contains(&path) {
            return self.description(path, content, mode);
        }
        let place = self.into.join(path);
        let created = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&place);
        let created = created.map_err(|e| format!("{path}: {e}"))?;
        let (written, sha256) = copy(content, created).map_err(|e| format!("{path}: {e}"))?;
        if written != size {
            return Err(format!("{path} is cut off"));
        }
        Ok(Kind::File { mode, size, sha256 })
    }

    fn description(
        &mut self,
        path: &str,
        content: &mut dyn Read,
        mode: u32,
    ) -> Result<Kind, String> {
        let mut text = Vec::new();
        let mut copying = Tee { reader: content, copy: &mut text };
        self.found
            .take(format!("{TOP}/{path}").as_bytes(), &mut copying)
            .map_err(|e| format!("{path}: {e}"))?;
        if path == MANIFEST {
            if !self.done.is_empty() {
                return Err(format!("{MANIFEST} is not the first"));
            }
            let manifest: Manifest =
                serde_json::from_slice(&text).map_err(|e| format!("{MANIFEST}: {e}"))?;
            if manifest.total_size > self.limits.bytes
                || manifest.members.len() > self.limits.members
            {
                return Err(format!(
                    "it unpacks to {} bytes, and {} are allowed",
                    manifest.total_size, self.limits.bytes
                ));
            }
            self.manifest = Some(
                manifest.members.into_iter().map(|Member { path, kind }| (path, kind)).collect(),
            );
        }
        fs::write(self.into.join(path), &text).map_err(|e| format!("{path}: {e}"))?;
        Ok(Kind::File { mode, size: text.len() as u64, sha256: disk::hex(&Sha256::digest(&text)) })
    }

    fn link(&mut self, path: &str, head: &Head) -> Result<Kind, String> {
        self.parents(path)?;
        let target = String::from_utf8(head.link.clone())
            .map_err(|_| format!("{path}: it points to a name that is not UTF-8"))?;
        if let Some(reason) = bad_link(path, &target) {
            return Err(format!("{path}: {reason}"));
        }
        symlink(&target, self.into.join(path)).map_err(|e| format!("{path}: {e}"))?;
        Ok(Kind::Link { target })
    }

    /// Makes the directories above a path; each must be a real directory, so
    /// that nothing is written through a link.
    fn parents(&self, path: &str) -> Result<(), String> {
        for (end, _) in path.match_indices('/') {
            let parent = &path[..end];
            if self.is_real_directory(parent) {
                continue;
            }
            fs::create_dir(self.into.join(parent)).map_err(|e| format!("{path}: {parent}: {e}"))?;
        }
        Ok(())
    }

    fn is_real_directory(&self, path: &str) -> bool {
        fs::symlink_metadata(self.into.join(path)).is_ok_and(|found| found.is_dir())
    }

    fn compare(&self, path: &str, kind: &Kind) -> Result<(), String> {
        let Some(manifest) = &self.manifest else { return Ok(()) };
        if [MANIFEST, METADATA, FILES].contains(&path) || manifest.get(path) == Some(kind) {
            return Ok(());
        }
        Err(format!("{path} is not as the manifest says"))
    }

    fn finish(self) -> Result<Package, String> {
        for path in self.manifest.iter().flat_map(BTreeMap::keys) {
            if !self.done.contains_key(path) {
                return Err(format!("{path} is missing"));
            }
        }
        let mut found = self.found;
        if let Ok(label) = fs::read(self.into.join(".layerapi2_label")) {
            let path = format!("{TOP}/.layerapi2_label");
            found.take(path.as_bytes(), &mut label.as_slice()).map_err(|e| e.to_string())?;
        }
        found.finish()
    }
}

fn copy(reader: &mut dyn Read, mut into: File) -> io::Result<(u64, String)> {
    let (mut hash, mut total, mut buffer) = (Sha256::new(), 0, vec![0; 128 * 1024]);
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok((total, disk::hex(&hash.finalize())));
        }
        hash.update(&buffer[..count]);
        into.write_all(&buffer[..count])?;
        total += count as u64;
    }
}

/// Keeps a copy of what is read through it.
struct Tee<'a> {
    reader: &'a mut dyn Read,
    copy: &'a mut Vec<u8>,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.copy.extend_from_slice(&buffer[..count]);
        Ok(count)
    }
}
