//! Unpacking a package into a directory of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;

use mfserv_core::Diagnostic;
use mfserv_core::ini::MAX_BYTES;
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use super::limits::Limits;
use super::manifest::MANIFEST;
use super::read::{Found, Package, bad, open};
use super::safety_policy::{Admitted, EntryKind, Policy};
use super::tar_stream::entries;
use super::{FILES, METADATA, TOP};
use crate::label;
use mfserv_platform::disk;

/// A package whose every entry was checked, and of which nothing was unpacked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspected {
    /// What it says about itself.
    pub package: Package,
    /// The room that its installation needs, bytes.
    pub bytes: u64,
    /// The files that its installation makes.
    pub files: u64,
    /// The paths of its files and links.
    pub paths: BTreeSet<String>,
    /// Those that are links.
    pub links: BTreeSet<String>,
    /// The files that were asked for, by path, as far as they are there. They may be no text; of
    /// a file longer than a configuration may be there is one byte more than that.
    pub texts: BTreeMap<String, Vec<u8>>,
}

/// Checks a package as [`unpack`] does, without unpacking it, and reads small texts of it:
/// `config.ini`, `crontab`…
pub fn inspect(file: &Path, limits: Limits, wanted: &[&str]) -> Result<Inspected, Diagnostic> {
    let mut texts = BTreeMap::new();
    let (policy, package) = check(file, limits, wanted, &mut texts)?;
    let ((bytes, files), (paths, links)) = (policy.needs(), policy.contents());
    Ok(Inspected { package, bytes, files, paths, links, texts })
}

/// Unpacks a package into `into`, which must not exist and whose parent must.
/// On any error `into` does not exist afterwards, and nothing else was touched.
///
/// The whole package is read before anything is written. Refused, with the name
/// of the entry: names that are absolute, empty, too long, not UTF-8, with `.` or
/// `..` or control characters, twice, or the same but for the case; links that
/// leave the plugin; hard links, devices, FIFOs, sparse files; setuid, setgid,
/// what everybody may write; more than the limits or the room on the disk; what
/// is cut off or followed by something; and for a package with a manifest,
/// anything that is not as it says.
pub fn unpack(file: &Path, into: &Path, limits: Limits) -> Result<Package, Diagnostic> {
    let (policy, package) = check(file, limits, &[], &mut BTreeMap::new())?;
    let (bytes, files) = policy.needs();
    disk::check_room(into.parent().unwrap_or(into), bytes, files).map_err(|e| {
        e.because(format!("{} {} needs it", package.name, package.metadata.version))
    })?;
    fs::create_dir(into).map_err(|e| disk::failed("create", into, e))?;
    let result = write_all(file, into, limits).and_then(|package| {
        check_links(file, into).and_then(|()| check_label(file, into, package))
    });
    if result.is_err() {
        let _ = disk::remove(into);
    }
    result
}

/// Checks every entry; nothing is written. Returns the policy with what it has counted, and
/// what the package says about itself.
fn check(
    file: &Path,
    limits: Limits,
    wanted: &[&str],
    texts: &mut BTreeMap<String, Vec<u8>>,
) -> Result<(Policy, Package), Diagnostic> {
    let mut policy = Policy::new(limits);
    let mut found = Found::default();
    let read = entries(open(file, limits.stream())?, |head, content| {
        if let Some(admitted) = policy.admit(head)? {
            if wanted.contains(&admitted.path.as_str()) {
                let mut text = Vec::new();
                let read = content.take(MAX_BYTES as u64 + 1).read_to_end(&mut text);
                read.map_err(|e| format!("{}: {e}", admitted.path))?;
                texts.insert(admitted.path.clone(), text);
            }
            let text = found.take_admitted(&admitted.path, content)?;
            if let (MANIFEST, Some(text)) = (admitted.path.as_str(), text) {
                policy.take_manifest(text)?;
            }
        }
        Ok(ControlFlow::Continue(()))
    });
    let package = read.and_then(|()| policy.finish()).and_then(|()| found.finish());
    package.map(|package| (policy, package)).map_err(|reason| bad(file, reason))
}

fn write_all(file: &Path, into: &Path, limits: Limits) -> Result<Package, Diagnostic> {
    let mut writing =
        Writing { into, policy: Policy::new(limits), found: Found::default(), full: false };
    let written = entries(open(file, limits.stream())?, |head, content| {
        let admitted = writing.policy.admit(head)?;
        admitted
            .map_or(Ok(()), |admitted| writing.write(&admitted, content))
            .map(|()| ControlFlow::Continue(()))
    });
    let full = writing.full;
    written.and_then(|()| writing.finish()).map_err(|reason| match full {
        true => Diagnostic::error("no space left on the disk")
            .because(reason)
            .help(format!("make room on the file system of {}", into.display())),
        false => bad(file, reason),
    })
}

/// Refuses links that leave the plugin together: each target alone was checked by the policy
/// before, and here the links are followed over each other on the disk.
fn check_links(file: &Path, into: &Path) -> Result<(), Diagnostic> {
    let root = fs::canonicalize(into).map_err(|e| disk::failed("read", into, e))?;
    let mut todo = vec![root.clone()];
    while let Some(dir) = todo.pop() {
        let entries = fs::read_dir(&dir).map_err(|e| disk::failed("read", &dir, e))?;
        for entry in entries {
            let entry = entry.map_err(|e| disk::failed("read", &dir, e))?;
            let kind = entry.file_type().map_err(|e| disk::failed("read", &dir, e))?;
            let path = entry.path();
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_symlink() {
                let name = path.strip_prefix(&root).unwrap_or(&path).display();
                match fs::canonicalize(&path) {
                    Ok(end) if !end.starts_with(&root) => {
                        return Err(bad(file, format!("{name}: the link leads out of the plugin")));
                    }
                    Err(e) if e.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => {
                        return Err(bad(file, format!("{name}: the link leads to itself")));
                    }
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// The plugin inside must be the one that the package says.
fn check_label(file: &Path, into: &Path, package: Package) -> Result<Package, Diagnostic> {
    let name = label::read_name(into).map_err(|e| bad(file, e))?;
    if name == package.name {
        return Ok(package);
    }
    Err(bad(
        file,
        format!(
            ".layerapi2_label: it is the plugin {name}, and the package says that it is {}",
            package.name
        ),
    ))
}

struct Writing<'a> {
    into: &'a Path,
    policy: Policy,
    found: Found,
    /// The disk is full: the package is not to blame.
    full: bool,
}

impl Writing<'_> {
    fn write(&mut self, admitted: &Admitted, content: &mut dyn Read) -> Result<(), String> {
        let result = self.parents(&admitted.path).and_then(|()| match &admitted.kind {
            EntryKind::Directory => self.directory(&admitted.path),
            EntryKind::Link { target } => symlink(target, self.into.join(&admitted.path)),
            EntryKind::File { mode, .. } => self.file(&admitted.path, *mode, content),
        });
        result.map_err(|e| {
            self.full |= e.kind() == io::ErrorKind::StorageFull;
            format!("{}: {e}", admitted.path)
        })
    }

    fn directory(&self, path: &str) -> io::Result<()> {
        match fs::create_dir(self.into.join(path)) {
            // made as a parent of something before
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists && self.is_directory(path) => Ok(()),
            result => result,
        }
    }

    fn file(&mut self, path: &str, mode: u32, content: &mut dyn Read) -> io::Result<()> {
        let place = self.into.join(path);
        let mut created =
            fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(place)?;
        if [MANIFEST, METADATA, FILES].contains(&path) {
            let text = self.found.take_admitted(path, content).map_err(io::Error::other)?;
            let text = text.unwrap_or_default();
            if path == MANIFEST {
                self.policy.take_manifest(text).map_err(io::Error::other)?;
            }
            return created.write_all(text);
        }
        let sum = copy(content, created)?;
        self.policy.check_sum(path, &sum).map_err(io::Error::other)
    }

    /// Makes the directories above a path; each must be a real directory, so
    /// that nothing is written through a link.
    fn parents(&self, path: &str) -> io::Result<()> {
        for (end, _) in path.match_indices('/') {
            if !self.is_directory(&path[..end]) {
                fs::create_dir(self.into.join(&path[..end]))?;
            }
        }
        Ok(())
    }

    fn is_directory(&self, path: &str) -> bool {
        fs::symlink_metadata(self.into.join(path)).is_ok_and(|found| found.is_dir())
    }

    fn finish(mut self) -> Result<Package, String> {
        self.policy.finish()?;
        if let Ok(label) = fs::read(self.into.join(".layerapi2_label")) {
            let path = format!("{TOP}/.layerapi2_label");
            self.found.take(path.as_bytes(), &mut label.as_slice()).map_err(|e| e.to_string())?;
        }
        self.found.finish()
    }
}

fn copy(reader: &mut dyn Read, mut into: File) -> io::Result<String> {
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 128 * 1024]);
    loop {
        let count = reader.read(&mut buffer)?;
        if count == 0 {
            return Ok(disk::hex(&hash.finalize()));
        }
        hash.update(&buffer[..count]);
        into.write_all(&buffer[..count])?;
    }
}
