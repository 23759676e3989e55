//! What the last build of an app was made of, and what it has left. A build of the same does nothing.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_platform::disk;
use serde::{Deserialize, Serialize};

use super::{Purpose, Wanted, beside_place};
use crate::build::{self, BuildOptions, Part};
use crate::python::is_virtual_environment;
use crate::sources::{Sources, content_sum, is_written, stamp_line};

/// What is kept of the last build, beside the plugin's place.
pub(super) const RECORD: &str = "built.json";
/// The format of what is kept of the last build.
const FORMAT: u32 = 1;

/// Is written when a build has gone well, and removed when one begins.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    format: u32,
    /// A sum of all that the build was made of.
    made_of: String,
    /// A sum of the files that the build has left.
    left: String,
    /// The last change of one of these files. Later ones are not the build's.
    at: Time,
    /// The packages, if the build has installed them.
    packages: Option<Part>,
}

impl Record {
    /// What the build has left in this directory is as it was.
    fn is_there(&self, dir: &Path) -> bool {
        let left = left_in(dir, Some(self.at)).ok().flatten();
        left.is_some_and(|(left, _)| left == self.left)
    }
}

/// Seconds and nanoseconds.
type Time = (i64, i64);

/// The last build, beside one that is wanted.
#[derive(Debug)]
pub struct LastBuild {
    file: PathBuf,
    /// What the wanted one would be made of.
    made_of: String,
    /// The last one was made of the same, and what it has left is as it was: nothing is to be done.
    pub(super) is_current: bool,
    /// The packages of the last one.
    packages: Option<Part>,
}

impl LastBuild {
    /// Compares the last build of the plugin in `place`, which has worked in `built`, with one of the app
    /// in `dir`: its sources, its tools and their variables. `None` if nothing is built.
    pub(super) fn of(
        place: &Path,
        (dir, built): (&Path, &Path),
        wanted: &Wanted<'_>,
        options: &BuildOptions,
    ) -> Result<Option<Self>, Diagnostic> {
        let finding = wanted.finding;
        // What is deployed has no packages for development: that is a build as well.
        let is_built = finding.build.is_some() || wanted.purpose == Purpose::Deploy;
        if !finding.has_node || !is_built {
            return Ok(None);
        }
        let sources = match wanted.purpose {
            Purpose::Dev => {
                let made = [finding.served(), finding.made.as_deref()];
                Sources::with_ignored(dir, made.into_iter().flatten()).digest()
            }
            Purpose::Deploy => content(dir)?,
        };
        let node = build::node_version(options)?;
        let (finding, variables) = (format!("{finding:?}"), build::node_variables());
        let parts = [
            ("mfserv", env!("CARGO_PKG_VERSION").as_bytes()),
            ("sources", sources.as_bytes()),
            ("finding", finding.as_bytes()),
            ("node", node.as_bytes()),
        ];
        let variables = variables.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let made_of = disk::fingerprint(parts.into_iter().chain(variables));
        let file = beside_place(place, RECORD);
        let record = fs::read(&file).ok().and_then(|text| serde_json::from_slice(&text).ok());
        let record = record.filter(|record: &Record| record.format == FORMAT);
        let is_current = !options.is_fresh
            && record.as_ref().is_some_and(|last| last.made_of == made_of && last.is_there(built));
        let packages = record.and_then(|last| last.packages);
        Ok(Some(Self { file, made_of, is_current, packages }))
    }

    /// The packages of the last build.
    pub(super) fn packages(&self) -> Option<Part> {
        self.packages.clone().map(|packages| Part { unchanged: true, ..packages })
    }

    /// From now on what is there is not what the last build has left.
    pub(super) fn begins(&self) -> Result<(), Diagnostic> {
        disk::remove(&self.file)
    }

    /// The build has gone well, and has left this.
    pub(super) fn done(&self, dir: &Path, packages: Option<Part>) -> Result<(), Diagnostic> {
        // Of what cannot be looked at nobody can say that it is as it was: the next build is made.
        let Ok(Some((left, at))) = left_in(dir, None) else { return Ok(()) };
        let made_of = self.made_of.clone();
        let record = Record { format: FORMAT, made_of, left, at, packages };
        let text = serde_json::to_string(&record).unwrap_or_default() + "\n";
        disk::write(&self.file, text.as_bytes())
    }
}

/// A sum of all that is in a directory: names, modes, and the content of files.
fn content(dir: &Path) -> Result<String, Diagnostic> {
    let mut all = Vec::new();
    walk(dir, &|_| Look::Inside, &mut |path, about| {
        let failed = |e| disk::failed("read", path, e);
        let sum = match (about.is_symlink(), about.is_file()) {
            (true, _) => {
                content_sum(&mut fs::read_link(path).map_err(failed)?.as_os_str().as_bytes())
            }
            (false, true) => fs::File::open(path).and_then(|mut file| content_sum(&mut file)),
            (false, false) => Ok(0),
        };
        let (mode, sum) = (about.mode(), sum.map_err(failed)?);
        all.push(format!("{} {mode:o} {sum:x}", path.strip_prefix(dir).unwrap_or(path).display()));
        Ok(())
    })?;
    all.sort();
    Ok(disk::fingerprint(all.iter().map(|line| ("entry", line.as_bytes()))))
}

/// A sum of the files that are there and that were not changed after this time, with the time of the
/// last change. Of packages the notes of their tools count, which are written at each installation.
/// `None` where a link leads out of the directory: what is there may change unseen.
fn left_in(dir: &Path, until: Option<Time>) -> Result<Option<(String, Time)>, Diagnostic> {
    let top = dir.canonicalize().map_err(|e| disk::failed("read", dir, e))?;
    let (mut all, mut last, mut leads_out) = (Vec::new(), Time::default(), false);
    walk(dir, &look_of_packages, &mut |path, about| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if about.is_dir() || is_written(&name) {
            return Ok(());
        }
        leads_out |=
            about.is_symlink() && path.canonicalize().is_ok_and(|to| !to.starts_with(&top));
        let changed = (about.ctime(), about.ctime_nsec());
        // What came later is of the app, or of whoever looks at it.
        if until.is_none_or(|until| changed <= until) {
            last = last.max(changed);
            all.push(stamp_line(path.strip_prefix(dir).unwrap_or(path), about));
        }
        Ok(())
    })?;
    all.sort();
    let sum = disk::fingerprint(all.iter().map(|line| ("left", line.as_bytes())));
    Ok((!leads_out).then_some((sum, last)))
}

/// How a directory is looked at.
enum Look {
    Inside,
    /// Its own entries that are no packages: links, hidden files; and directories of scopes (`@x`).
    Packages,
    NotAtAll,
}

fn look_of_packages(dir: &Path) -> Look {
    let name = |path: &Path| path.file_name().unwrap_or_default().as_bytes().to_owned();
    let is_scope = || dir.parent().is_some_and(|above| name(above) == b"node_modules");
    match &name(dir)[..] {
        b".git" => Look::NotAtAll,
        b"node_modules" => Look::Packages,
        scope if scope.starts_with(b"@") && is_scope() => Look::Packages,
        _ if is_virtual_environment(dir) => Look::NotAtAll,
        _ => Look::Inside,
    }
}

/// Shows each entry of a directory, and of those in it.
fn walk(
    dir: &Path,
    look: &dyn Fn(&Path) -> Look,
    show: &mut dyn FnMut(&Path, &fs::Metadata) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        let of_packages = match look(&dir) {
            Look::NotAtAll => continue,
            Look::Packages => true,
            Look::Inside => false,
        };
        for entry in fs::read_dir(&dir).map_err(|e| disk::failed("read", &dir, e))? {
            let entry = entry.map_err(|e| disk::failed("read", &dir, e))?;
            let path = entry.path();
            let about = entry.metadata().map_err(|e| disk::failed("read", &path, e))?;
            let name = entry.file_name();
            let starts_with = |sign: &[u8]| name.as_bytes().starts_with(sign);
            if about.is_dir() && (!of_packages || starts_with(b"@")) {
                todo.push(path.clone());
            }
            if !of_packages || about.is_symlink() || about.is_file() && starts_with(b".") {
                show(&path, &about)?;
            }
        }
    }
    Ok(())
}
