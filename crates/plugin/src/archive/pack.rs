//! Packing a plugin directory.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};
use mfserv_core::diagnostic::Location;
use mfserv_core::plugin_spec::General;
use mfserv_core::{Diagnostic, Kind as Failure};
use sha2::{Digest, Sha256};

use super::link_cycle::find_cycle;
use super::manifest::{Kind, MANIFEST, Manifest, Member, bad_link, bad_path};
use super::{FILES, METADATA, TOP};
use crate::label;
use crate::leftovers::{Leftover, Leftovers, looks_like_a_secret};
use crate::progress::Progress;
use mfserv_platform::disk;

/// What is not packaged when there is no `.releaseignore`.
const DEFAULT_IGNORE: &str = include_str!("../../templates/shared/releaseignore");
/// What is never packaged: it is made at the place where the plugin is installed.
const NEVER: &str = "/local\n/.local.*\n/.node_modules.*\n/.configuration_cache\n/.manifest.json\n/.metadata.json\n/.files.json\n/.committed\n/.mfserv-files.json\n/.mfserv-moving.json\n/*.plugin\n";
/// How much of a file is looked at for secrets, bytes.
const BEGINNING: u64 = 64 * 1024;
/// zstd's level: most of what is to be gained, in little time.
const LEVEL: i32 = 12;
/// The most members that a package may have.
const MOST_MEMBERS: usize = 500_000;

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
    pack_members(dir, general, out_dir, Leftovers::new(), progress)
}

/// The same for what was installed: what was packed once is packed again, whatever it is called.
pub(crate) fn pack_again(
    dir: &Path,
    general: &General,
    out_dir: &Path,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Diagnostic> {
    pack_members(dir, general, out_dir, Leftovers::none(), progress)
}

fn pack_members(
    dir: &Path,
    general: &General,
    out_dir: &Path,
    leftovers: Leftovers,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Diagnostic> {
    let name = label::read_name(dir)?;
    check_built(dir)?;
    progress.step("reading the plugin directory");
    let (members, findings) = collect(dir, leftovers)?;
    findings.report(progress);
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
    let written = write(dir, &manifest, general, &stage)
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
    let python = dir.join("python3_virtualenv_sources");
    if python.join("requirements-to-freeze.txt").is_file()
        && !python.join("requirements3.txt").is_file()
    {
        return Err(missing("python3_virtualenv_sources/requirements3.txt"));
    }
    let frozen = label::read_small(&python.join("requirements3.txt")).unwrap_or_default();
    let names_something =
        frozen.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    if names_something && !python.join("src").is_dir() {
        return Err(missing("python3_virtualenv_sources/src"));
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
    if let Some(mark) = read("python3_virtualenv_sources/src/.mfserv-wheels.json") {
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
fn collect(dir: &Path, leftovers: Leftovers) -> Result<(Vec<Member>, Findings), Diagnostic> {
    let mut walk = Walk {
        root: dir,
        never: never(dir),
        ignore: ignored(dir)?,
        leftovers,
        members: Vec::new(),
        findings: Findings::default(),
    };
    walk.directory("", None)?;
    let mut members = walk.members;
    members.sort_by(|a, b| a.path.cmp(&b.path));
    refuse_twins(dir, &members)?;
    refuse_cycle(dir, &members)?;
    Ok((members, walk.findings))
}

/// Why something is not packed.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Skipped {
    /// A build makes it anew; nobody asks for it.
    Made,
    /// A pattern of `.releaseignore` names it.
    Pattern(String),
    /// It is no part of the project.
    Leftover(Leftover),
}

impl Skipped {
    /// Nobody misses it: it is named by the patterns of every plugin, or is a tool's.
    fn is_usual(&self) -> bool {
        match self {
            Skipped::Made | Skipped::Leftover(Leftover::Secret) => false,
            Skipped::Leftover(Leftover::Environment | Leftover::Tool) => true,
            Skipped::Pattern(pattern) => DEFAULT_IGNORE.lines().any(|line| line == pattern),
        }
    }
}

/// What is to be said of a package.
#[derive(Debug, Default)]
struct Findings {
    left_out: Vec<(String, Skipped)>,
    secrets: Vec<(String, &'static str)>,
}

/// The most names that one line has.
const MOST_NAMES: usize = 20;

impl Findings {
    fn report(mut self, progress: &mut dyn Progress) {
        self.left_out.sort_by(|a, b| a.0.cmp(&b.0));
        let names = |is: fn(&Skipped) -> bool| -> Vec<&str> {
            let found = self.left_out.iter().filter(|(_, why)| is(why));
            found.map(|(path, _)| path.as_str()).collect()
        };
        let secrets = names(|why| *why == Skipped::Leftover(Leftover::Secret));
        if !secrets.is_empty() {
            progress.notice(
                Diagnostic::warning(format!("left out of the package: {}", listed(&secrets)))
                    .because("it holds secrets, by its name")
                    .help("a line `!NAME` in .releaseignore packs it all the same"),
            );
        }
        let usual = names(Skipped::is_usual);
        if !usual.is_empty() {
            progress.log(&format!("left out of the package: {}", listed(&usual)));
        }
        let by_pattern = |(path, why): &(String, Skipped)| match why {
            Skipped::Pattern(pattern) if !why.is_usual() => Some(format!("{path} ({pattern})")),
            Skipped::Pattern(_) | Skipped::Made | Skipped::Leftover(_) => None,
        };
        let named: Vec<String> = self.left_out.iter().filter_map(by_pattern).collect();
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        if !named.is_empty() {
            progress.notice(
                Diagnostic::warning(format!("left out of the package: {}", listed(&named)))
                    .because("a pattern of .releaseignore names it")
                    .help("remove the pattern if the plugin needs it where it runs"),
            );
        }
        for (path, what) in self.secrets.iter().take(MOST_NAMES) {
            progress.notice(
                Diagnostic::warning(format!("{path} is in the package and looks like {what}"))
                    .because("who has the package can read it")
                    .help("name it in .releaseignore, and keep it in var/data or in the configuration of the server"),
            );
        }
    }
}

fn listed(names: &[&str]) -> String {
    let shown = names[..names.len().min(MOST_NAMES)].join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
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
            || path.starts_with("python3_virtualenv_sources/src/");
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
        Diagnostic::error(format!("{} can't be packaged", file.display()))
            .because(reason)
            .help("remove it, or add it to .releaseignore")
    }
}

fn sum(file: &Path) -> io::Result<(u64, String)> {
    let mut reader = Summing::new(File::open(file)?);
    let size = io::copy(&mut reader, &mut io::sink())?;
    Ok((size, reader.finish()))
}

/// Sums what is read through it.
struct Summing<R> {
    reader: R,
    hash: Sha256,
}

impl<R: Read> Summing<R> {
    fn new(reader: R) -> Self {
        Self { reader, hash: Sha256::new() }
    }

    fn finish(self) -> String {
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

fn size_of(kind: &Kind) -> u64 {
    match kind {
        Kind::File { size, .. } => *size,
        Kind::Directory | Kind::Link { .. } => 0,
    }
}

fn write(
    dir: &Path,
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
        tar.member(dir, member)?;
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
