//! Reading what a package says about itself.

use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::ops::ControlFlow;
use std::path::Path;

use md5::{Digest, Md5};
use mfserv_core::Diagnostic;
use serde::{Deserialize, Serialize};

use super::limits::Limits;
use super::manifest::{MANIFEST, Manifest, is_hidden};
use super::tar_stream::{entries, shown};
use super::{FILES, LARGEST_DESCRIPTION, METADATA, TOP};
use crate::label::{name_in_label, read_small};
use mfserv_platform::disk;

/// What a package says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Package {
    /// The plugin.
    pub name: String,
    /// MFSERV's description: version, release, size, summary…
    pub metadata: Metadata,
    /// The paths of its files, below the plugin directory.
    pub files: Vec<String>,
    /// The manifest; `None` for a package of MFSERV.
    pub manifest: Option<Manifest>,
}

impl Package {
    /// The hash of a build that `plugins.hash` prints. Our builds name neither a machine nor a
    /// date, because the same inputs make the same bytes: what tells two of them apart is the
    /// content, which is hashed too. Of a package of MFSERV it is [`Metadata::hash`].
    pub fn hash(&self) -> String {
        let own = self.metadata.hash();
        match self.manifest.as_ref().map(serde_json::to_vec) {
            Some(Ok(content)) => {
                disk::hex(&Md5::new().chain_update(own).chain_update(content).finalize())
            }
            _ => own,
        }
    }

    /// Whether this is the build that a release was installed from, under whatever name.
    pub fn is_same_build(&self, installed: &Package) -> bool {
        *self == Package { name: self.name.clone(), ..installed.clone() }
    }
}

/// `.metadata.json`, all texts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metadata {
    /// `_version`.
    pub version: String,
    /// `_release`.
    pub release: String,
    /// The machine it was built on.
    pub build_host: String,
    /// When it was built: `YYYY-MM-DDTHH:MM:SSZ`.
    pub build_date: String,
    /// The bytes of all files.
    pub size: String,
    /// `_summary`.
    pub summary: String,
    /// `_license`.
    pub license: String,
    /// `_maintainer`.
    pub packager: String,
    /// `_vendor`.
    pub vendor: String,
    /// `_url`.
    pub url: String,
}

/// The longest version or release, and the longest other text of a description, bytes.
const LONGEST_VERSION: usize = 128;
const LONGEST_TEXT: usize = 4096;

impl Metadata {
    /// Every text is short, and is shown as it is written: a package can neither fill nor
    /// command the terminal of who looks at it.
    fn check(&self) -> Result<(), String> {
        let versions = [("version", &self.version), ("release", &self.release)];
        let others = [
            ("build_host", &self.build_host),
            ("build_date", &self.build_date),
            ("size", &self.size),
            ("summary", &self.summary),
            ("license", &self.license),
            ("packager", &self.packager),
            ("vendor", &self.vendor),
            ("url", &self.url),
        ];
        versions.iter().try_for_each(|(key, text)| version(key, text))?;
        others.iter().try_for_each(|(key, text)| plain(key, text, LONGEST_TEXT))
    }

    /// MFSERV's hash of a plugin: the MD5, in hexadecimal, of
    /// `build_host, build_date, size, version, release`.
    pub fn hash(&self) -> String {
        let parts = [&self.build_host, &self.build_date, &self.size, &self.version, &self.release];
        disk::hex(&Md5::digest(parts.map(String::as_str).join(", ")))
    }
}

/// Refuses a text that is too long, or has what a terminal would not show but obey.
fn plain(key: &str, text: &str, longest: usize) -> Result<(), String> {
    if text.len() > longest {
        return Err(format!("{key}: longer than {longest} bytes"));
    }
    match text.chars().any(is_hidden) {
        true => Err(format!("{key}: control characters in {}", shown(text.as_bytes()))),
        false => Ok(()),
    }
}

/// Refuses a version or release that could lead out of a directory as a part of a file's name.
fn version(key: &str, text: &str) -> Result<(), String> {
    plain(key, text, LONGEST_VERSION)?;
    match text.contains('/') || text.starts_with('.') {
        true => Err(format!("{key}: {} would be a path", shown(text.as_bytes()))),
        false => Ok(()),
    }
}

fn check_manifest(manifest: &Manifest) -> Result<(), String> {
    version("version", &manifest.version)?;
    version("release", &manifest.release)?;
    plain("builder", &manifest.builder, LONGEST_TEXT)?;
    let texts = manifest.interpreters.iter().flat_map(|(name, version)| [name, version]);
    texts.into_iter().try_for_each(|text| plain("interpreters", text, LONGEST_VERSION))
}

/// Reads what a package says about itself. Of our own packages only the
/// beginning is read.
pub fn read(file: &Path) -> Result<Package, Diagnostic> {
    let mut found = Found::default();
    entries(open(file, Limits::default().stream())?, |head, content| {
        found.take(&head.path, content).map_err(|e| format!("{}: {e}", shown(&head.path)))?;
        Ok(if found.is_complete() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .map_err(|reason| bad(file, reason))?;
    found.finish().map_err(|reason| bad(file, reason))
}

/// Reads what the package said from which a release was installed. A
/// developer's directory has said nothing: that is an error.
pub fn read_installed(dir: &Path) -> Result<Package, Diagnostic> {
    let mut found = Found::default();
    for name in [MANIFEST, METADATA, FILES, ".layerapi2_label"] {
        let file = dir.join(name);
        let path = format!("{TOP}/{name}");
        match File::open(&file) {
            Ok(mut content) => found
                .take(path.as_bytes(), &mut content)
                .map_err(|e| disk::failed("read", &file, e))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(disk::failed("read", &file, e)),
        }
    }
    let finished = found.finish().map(|package| Package {
        // installed under another name, it has that one
        name: crate::label::read_name(dir).unwrap_or(package.name.clone()),
        ..package
    });
    finished.map_err(|reason| {
        Diagnostic::error(format!("{} was not installed from a package", dir.display()))
            .because(reason)
    })
}

/// The description of a release alone, without its lists of files; `None` when it has no
/// good one.
pub(crate) fn read_metadata(dir: &Path) -> Option<Metadata> {
    let text = read_small(&dir.join(METADATA)).ok()?;
    let metadata: Metadata = serde_json::from_str(&text).ok()?;
    metadata.check().ok().map(|()| metadata)
}

/// The error of a package that can't be read.
pub(super) fn bad(file: &Path, reason: impl std::fmt::Display) -> Diagnostic {
    Diagnostic::error(format!("bad plugin file: {}", file.display())).because(reason)
}

fn unreadable(file: &Path, error: io::Error) -> Diagnostic {
    let help = match error.kind() {
        ErrorKind::IsADirectory => "`mfserv deploy DIR` deploys a directory, packed or not",
        // A package is read more than once.
        ErrorKind::NotSeekable => "name a file: a pipe can be read once",
        ErrorKind::NotFound if file == Path::new("-") => {
            "name a file: a package is not read from standard input"
        }
        ErrorKind::NotFound => {
            "`mfserv release DIR` makes a package of a plugin; `mfserv deploy DIR` needs none"
        }
        _ => return disk::failed("read", file, error),
    };
    disk::failed("read", file, error).help(help)
}

/// The tar stream of a package, whatever it is compressed with; reading more
/// than `limit` bytes from it is an error.
pub(super) fn open(file: &Path, limit: u64) -> Result<Box<dyn Read>, Diagnostic> {
    let mut source = File::open(file).map_err(|e| unreadable(file, e))?;
    let mut magic = [0; 4];
    let length = source
        .read(&mut magic)
        .and_then(|n| source.seek(SeekFrom::Start(0)).map(|_| n))
        .map_err(|e| unreadable(file, e))?;
    let source = BufReader::new(source);
    let reader: Box<dyn Read> = match &magic[..length] {
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Box::new(zstd::Decoder::with_buffer(source).map_err(|e| bad(file, e))?)
        }
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        _ => Box::new(source),
    };
    Ok(Box::new(Bounded { reader, left: limit }))
}

struct Bounded<R> {
    reader: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::other("it unpacks to more than is allowed"))?;
        Ok(count)
    }
}

/// The descriptions found so far.
#[derive(Default)]
pub(super) struct Found {
    manifest: Option<Vec<u8>>,
    metadata: Option<Vec<u8>>,
    files: Option<Vec<u8>>,
    label: Option<Vec<u8>>,
}

impl Found {
    /// Keeps the entry if it is one of the descriptions.
    pub(super) fn take(&mut self, path: &[u8], entry: &mut dyn Read) -> io::Result<()> {
        let name = path.strip_prefix(TOP.as_bytes()).and_then(|rest| rest.strip_prefix(b"/"));
        let place = match name.and_then(|name| std::str::from_utf8(name).ok()) {
            Some(MANIFEST) => &mut self.manifest,
            Some(METADATA) => &mut self.metadata,
            Some(FILES) => &mut self.files,
            Some(".layerapi2_label") => &mut self.label,
            _ => return Ok(()),
        };
        let mut text = Vec::new();
        entry.take(LARGEST_DESCRIPTION + 1).read_to_end(&mut text)?;
        if text.len() as u64 > LARGEST_DESCRIPTION {
            return Err(io::Error::other("its description is too long"));
        }
        *place = Some(text);
        Ok(())
    }

    /// The same for an entry that the policy has admitted, by its path below the plugin
    /// directory. Returns its text if it is a description.
    pub(super) fn take_admitted(
        &mut self,
        path: &str,
        entry: &mut dyn Read,
    ) -> Result<Option<&[u8]>, String> {
        self.take(format!("{TOP}/{path}").as_bytes(), entry).map_err(|e| format!("{path}: {e}"))?;
        Ok(match path {
            MANIFEST => self.manifest.as_deref(),
            METADATA => self.metadata.as_deref(),
            FILES => self.files.as_deref(),
            _ => None,
        })
    }

    /// Nothing more has to be read to know everything.
    pub(super) fn is_complete(&self) -> bool {
        self.metadata.is_some()
            && self.files.is_some()
            && (self.manifest.is_some() || self.label.is_some())
    }

    /// The error is the reason for which it is no package.
    pub(super) fn finish(self) -> Result<Package, String> {
        let missing = |name: &str| format!("can't read/find {TOP}/{name} file in plugin");
        let metadata = self.metadata.ok_or_else(|| missing(METADATA))?;
        let metadata: Metadata =
            serde_json::from_slice(&metadata).map_err(|e| format!("{METADATA}: {e}"))?;
        metadata.check().map_err(|reason| format!("{METADATA}: {reason}"))?;
        let files = self.files.ok_or_else(|| missing(FILES))?;
        let files: Vec<String> =
            serde_json::from_slice(&files).map_err(|e| format!("{FILES}: {e}"))?;
        files
            .iter()
            .try_for_each(|path| plain("a path", path, LONGEST_TEXT))
            .map_err(|reason| format!("{FILES}: {reason}"))?;
        let files = files.iter().map(|path| {
            path.strip_prefix(TOP)
                .map_or(path.as_str(), |rest| rest.trim_start_matches('/'))
                .to_string()
        });
        let manifest: Option<Manifest> = match self.manifest {
            Some(text) => {
                Some(serde_json::from_slice(&text).map_err(|e| format!("{MANIFEST}: {e}"))?)
            }
            None => None,
        };
        manifest
            .as_ref()
            .map_or(Ok(()), check_manifest)
            .map_err(|reason| format!("{MANIFEST}: {reason}"))?;
        let name = match (&manifest, self.label) {
            (Some(manifest), _) if manifest.format != 1 => {
                return Err(format!("it has format {}, and we know format 1", manifest.format));
            }
            (Some(manifest), _) => name_in_label(&format!("plugin_{}@mfserv", manifest.name))?,
            (None, Some(label)) => name_in_label(&String::from_utf8_lossy(&label))?,
            (None, None) => return Err(missing(".layerapi2_label")),
        };
        Ok(Package { name, metadata, files: files.collect(), manifest })
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_version_or_release_that_would_be_a_path_is_refused() {
        for text in ["a/b", "../../x", "..", "/x", ".x", "1\n2", &"1".repeat(300)] {
            assert!(super::version("version", text).is_err(), "{text:?}");
        }
        for text in ["1.0", "integration.x.1", "1.el8"] {
            assert_eq!(super::version("release", text), Ok(()));
        }
    }
}
