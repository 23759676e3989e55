//! Packing a plugin directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_core::plugin_spec::General;

use super::collect::{Summing, collect, collect_below};
use super::manifest::{Kind, MANIFEST, Manifest, Member};
use super::{FILES, METADATA, TOP};
use crate::base::CARRIED;
use crate::build::{PYTHON_SOURCES, WHEELS_MARK};
use crate::label;
use crate::leftovers::Leftovers;
use crate::progress::Progress;
use mfserv_platform::disk;

/// zstd's level: most of what is to be gained, in little time.
const LEVEL: i32 = 12;

/// The name of the package of a plugin.
pub fn file_name(name: &str, general: &General) -> String {
    format!("{name}-{}-{}.metwork.mfserv.plugin", general.version, general.release)
}

/// Packs the plugin in `dir` into `out_dir`, where it replaces a package of the
/// same name. `general` comes from the plugin's own config.ini alone. The same
/// files give the same bytes. Returns the path of the package.
pub fn pack(
    dir: &Path,
    general: &General,
    out_dir: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Diagnostic> {
    pack_members(dir, general, out_dir, (Leftovers::new(), None), progress)
}

/// The same, with what [`crate::base::carry`] has collected: the package brings its base
/// environment along.
pub fn pack_standalone(
    dir: &Path,
    general: &General,
    out_dir: &Path,
    carried: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Diagnostic> {
    pack_members(dir, general, out_dir, (Leftovers::new(), Some(carried)), progress)
}

/// The same for what was installed: what was packed once is packed again, whatever it is called.
pub(crate) fn pack_again(
    dir: &Path,
    general: &General,
    out_dir: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Diagnostic> {
    let carried = dir.join(CARRIED).is_dir().then_some(dir);
    pack_members(dir, general, out_dir, (Leftovers::none(), carried), progress)
}

fn pack_members(
    dir: &Path,
    general: &General,
    out_dir: &Path,
    (leftovers, carried): (Leftovers, Option<&Path>),
    progress: &mut dyn Progress,
) -> Result<PathBuf, Diagnostic> {
    let name = label::read_name(dir)?;
    check_built(dir)?;
    progress.step("reading the plugin directory");
    let (mut members, findings) = collect(dir, leftovers)?;
    findings.report(progress);
    if let Some(root) = carried {
        members.extend(collect_below(root, CARRIED)?);
    }
    members.sort_by(|a, b| a.path.cmp(&b.path));
    let manifest = Manifest {
        format: 1,
        name: name.clone(),
        version: general.version.clone(),
        release: general.release.clone(),
        total_size: members.iter().map(|member| size_of(&member.kind)).sum(),
        interpreters: interpreters(dir),
        builder: format!("mfserv {}", env!("CARGO_PKG_VERSION")),
        members,
    };
    let place = out_dir.join(file_name(&name, general));
    progress.step(&format!("packing {} files", manifest.members.len()));
    let stage = disk::beside(&place, "new");
    let written = write((dir, carried.unwrap_or(dir)), &manifest, general, &stage)
        .and_then(|()| fs::rename(&stage, &place).map_err(|e| disk::failed("write", &place, e)));
    if written.is_err() {
        let _ = fs::remove_file(&stage);
    }
    written.map(|()| place)
}

/// A package must carry all that its installation needs.
fn check_built(dir: &Path) -> Result<(), Diagnostic> {
    let missing = |what: &str| {
        Diagnostic::error("the plugin is not built")
            .because(format!("{what} is missing"))
            .help(format!("mfserv build {}", dir.display()))
    };
    for (python, frozen) in
        PYTHON_SOURCES.into_iter().zip(["requirements3.txt", "requirements2.txt"])
    {
        let frozen = format!("{python}/{frozen}");
        let loose = dir.join(python).join("requirements-to-freeze.txt");
        if loose.is_file() && !dir.join(&frozen).is_file() {
            return Err(missing(&frozen));
        }
        let list = label::read_small(&dir.join(frozen)).unwrap_or_default();
        let names_something =
            list.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
        if names_something && !dir.join(python).join("src").is_dir() {
            return Err(missing(&format!("{python}/src")));
        }
    }
    if dir.join("package.json").is_file() && !dir.join("node_modules").is_dir() {
        return Err(missing("node_modules"));
    }
    Ok(())
}

fn interpreters(dir: &Path) -> BTreeMap<String, String> {
    let read = |path: &str| -> Option<serde_json::Value> {
        serde_json::from_str(&label::read_small(&dir.join(path)).ok()?).ok()
    };
    let mut found = BTreeMap::new();
    let marks = PYTHON_SOURCES.iter().map(|python| format!("{python}/src/{WHEELS_MARK}"));
    if let Some(mark) = marks.filter_map(|mark| read(&mark)).next() {
        let text = |key: &str| {
            mark.get(key).and_then(|value| value.as_str()).unwrap_or_default().to_string()
        };
        found.insert("python".to_string(), format!("{} {}", text("python"), text("abi")));
    }
    if let Some(node) = read("node_modules/.mfserv-node.json")
        .as_ref()
        .and_then(|mark| mark.get("node")?.as_str().map(str::to_string))
    {
        found.insert("node".to_string(), node);
    }
    found
}

fn size_of(kind: &Kind) -> u64 {
    match kind {
        Kind::File { size, .. } => *size,
        Kind::Directory | Kind::Link { .. } => 0,
    }
}

fn write(
    (dir, carried): (&Path, &Path),
    manifest: &Manifest,
    general: &General,
    stage: &Path,
) -> Result<(), Diagnostic> {
    let failed = |e: io::Error| disk::failed("write", stage, e);
    let file = File::create(stage).map_err(failed)?;
    let mut packer = zstd::Encoder::new(file, LEVEL).map_err(failed)?;
    packer.include_checksum(true).map_err(failed)?;
    let mut tar = TarWriter(tar::Builder::new(packer));
    let json = |value: &serde_json::Value| serde_json::to_vec_pretty(value).unwrap_or_default();
    let content =
        serde_json::to_vec_pretty(manifest).map_err(|e| disk::failed("write", stage, e))?;
    tar.text(MANIFEST, &content).map_err(failed)?;
    tar.text(METADATA, &json(&metadata(manifest, general)?)).map_err(failed)?;
    tar.text(FILES, &json(&file_list(manifest))).map_err(failed)?;
    for member in &manifest.members {
        let root = if Path::new(&member.path).starts_with(CARRIED) { carried } else { dir };
        tar.member(root, member)?;
    }
    let packer = tar.0.into_inner().map_err(failed)?;
    packer.finish().and_then(|file| file.sync_data()).map_err(failed)
}

fn metadata(manifest: &Manifest, general: &General) -> Result<serde_json::Value, Diagnostic> {
    Ok(serde_json::json!({
        "version": general.version,
        "release": general.release,
        "build_host": "reproducible",
        "build_date": build_date()?,
        "size": manifest.total_size.to_string(),
        "summary": general.summary,
        "license": general.license,
        "packager": general.maintainer,
        "vendor": general.vendor,
        "url": general.url,
    }))
}

/// SOURCE_DATE_EPOCH, else 1970: the same files give the same package at any time.
fn build_date() -> Result<String, Diagnostic> {
    let text = std::env::var("SOURCE_DATE_EPOCH").unwrap_or_else(|_| "0".into());
    let date =
        text.trim().parse().ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    let date = date.ok_or_else(|| {
        Diagnostic::error(format!("SOURCE_DATE_EPOCH={text} is not a date"))
            .help("it is a number of seconds since 1970")
    })?;
    Ok(date.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn file_list(manifest: &Manifest) -> serde_json::Value {
    let files = manifest.members.iter().filter(|member| member.kind != Kind::Directory);
    files.map(|member| format!("{TOP}/{}", member.path)).collect::<Vec<_>>().into()
}

/// The tar stream, with headers in which nothing depends on the machine.
struct TarWriter<W: Write>(tar::Builder<W>);

impl<W: Write> TarWriter<W> {
    fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header
    }

    fn text(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = Self::header(tar::EntryType::Regular, 0o644, content.len() as u64);
        self.0.append_data(&mut header, format!("{TOP}/{name}"), content)
    }

    fn member(&mut self, dir: &Path, member: &Member) -> Result<(), Diagnostic> {
        let path = format!("{TOP}/{}", member.path);
        let file = dir.join(&member.path);
        let failed = |e: io::Error| disk::failed("package", &file, e);
        match &member.kind {
            Kind::Directory => {
                let mut header = Self::header(tar::EntryType::Directory, 0o755, 0);
                self.0.append_data(&mut header, path, io::empty()).map_err(failed)
            }
            Kind::Link { target } => {
                let mut header = Self::header(tar::EntryType::Symlink, 0o777, 0);
                self.0.append_link(&mut header, path, target).map_err(failed)
            }
            Kind::File { mode, size, sha256 } => {
                let mut header = Self::header(tar::EntryType::Regular, *mode, *size);
                let mut reader = Summing::new(File::open(&file).map_err(failed)?.take(*size));
                self.0.append_data(&mut header, path, &mut reader).map_err(failed)?;
                if reader.finish() == *sha256 {
                    return Ok(());
                }
                Err(Diagnostic::error(format!(
                    "{} has changed while it was packaged",
                    file.display()
                ))
                .help("pack the plugin again"))
            }
        }
    }
}
