//! The wheels of packages that do not come from the index. A plugin is packed with wheels alone,
//! so each is made here, at the build.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::{Diagnostic, Kind as Failure};

use super::origin::{Kind, Origin};
use super::sources::package_name;
use super::{git, project};
use crate::progress::Progress;
use crate::python::{Rules, Toolbox};
use mfserv_platform::disk;

/// A wheel that was made.
#[derive(Debug, Clone)]
pub(super) struct Made {
    /// The file.
    pub(super) wheel: PathBuf,
    /// The name of the package, as the wheel has it.
    pub(super) name: String,
    /// Where exactly it comes from: with a commit, and a path from the plugin's directory.
    pub(super) address: String,
}

/// Wheels that a build has made, in a directory that is removed with this.
pub(super) struct Directs<'a> {
    /// The plugin's directory.
    dir: &'a Path,
    toolbox: &'a Toolbox<'a>,
    stage: PathBuf,
    made: BTreeMap<String, Made>,
}

impl<'a> Directs<'a> {
    pub(super) fn new(dir: &'a Path, toolbox: &'a Toolbox<'a>) -> Self {
        let place = toolbox.home.base().join("direct");
        disk::sweep_beside(&place);
        Self { dir, toolbox, stage: disk::beside(&place, "stage"), made: BTreeMap::new() }
    }

    /// The wheel of a package from elsewhere; made once.
    pub(super) fn wheel(
        &mut self,
        origin: &Origin,
        rules: &Rules,
        progress: &mut dyn Progress,
    ) -> Result<Made, Diagnostic> {
        if let Some(made) = self.made.get(&origin.address) {
            return Ok(made.clone());
        }
        progress.step(&format!("building the Python package of {}", origin.address));
        let number = self.made.len();
        let (wheels, sources) =
            (self.stage.join(format!("wheels{number}")), self.stage.join(format!("from{number}")));
        disk::create_dir(&wheels)?;
        let (package, address) = self.fetch(origin, &sources, progress)?;
        let built = self.toolbox.wheel(&package, &wheels, rules, progress);
        built.map_err(|error| error.because(format!("it is required as {}", origin.address)))?;
        let (wheel, name) = only_wheel(&wheels, origin)?;
        let made = Made { wheel, name, address };
        let _ = disk::remove(&sources);
        self.made.insert(origin.address.clone(), made.clone());
        self.made.insert(made.address.clone(), made.clone());
        Ok(made)
    }

    /// What pip makes a wheel of, and where exactly that comes from.
    fn fetch(
        &self,
        origin: &Origin,
        sources: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(OsString, String), Diagnostic> {
        match &origin.kind {
            Kind::Git(git) => {
                let url = filled(&git.url);
                let commit = git::checkout(git, &url, sources, self.toolbox, progress)?;
                let project = sources.join(git.subdirectory.as_deref().unwrap_or_default());
                Ok((project.into(), git.at(&commit)))
            }
            Kind::Local(place) if place.is_dir() => {
                let name = place.canonicalize().ok();
                let name = name.as_deref().and_then(Path::file_name).unwrap_or_default();
                let copied = sources.join(name);
                project::copy(place, &copied)?;
                Ok((copied.into(), self.relative(place, origin)))
            }
            Kind::Local(file) => Ok((file.into(), self.relative(file, origin))),
            Kind::Remote => Ok((filled(&origin.address).into(), origin.address.clone())),
        }
    }

    /// A path as it is written into the list of exact versions: it holds wherever the plugin is.
    fn relative(&self, place: &Path, origin: &Origin) -> String {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        match real(place).strip_prefix(real(self.dir)) {
            Ok(below) => Path::new(".").join(below).to_string_lossy().into_owned(),
            Err(_) => origin.address.clone(),
        }
    }
}

impl Drop for Directs<'_> {
    fn drop(&mut self) {
        let _ = disk::remove(&self.stage);
    }
}

/// `${NAME}` of an address, filled in from our environment: a token is not written down.
fn filled(text: &str) -> String {
    let mut parts = text.split("${");
    let mut filled = parts.next().unwrap_or_default().to_string();
    for part in parts {
        match part.split_once('}').map(|(name, rest)| (std::env::var(name), rest)) {
            Some((Ok(value), rest)) => filled += &(value + rest),
            _ => filled += &format!("${{{part}"),
        }
    }
    filled
}

fn only_wheel(wheels: &Path, origin: &Origin) -> Result<(PathBuf, String), Diagnostic> {
    let entries = fs::read_dir(wheels).map_err(|e| disk::failed("read", wheels, e))?;
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<String> = names.filter(|name| name.ends_with(".whl")).collect();
    let wheel = found.pop().filter(|_| found.is_empty());
    let failed = |because: String| {
        Diagnostic::error("building a Python package failed")
            .kind(Failure::BadConfiguration)
            .because(because)
    };
    let wheel = wheel.ok_or_else(|| failed(format!("{} gave no wheel", origin.address)))?;
    let name = wheel.split('-').next().unwrap_or_default().to_string();
    match &origin.name {
        Some(wanted) if package_name(wanted) != package_name(&name) => Err(failed(format!(
            "{} is the package {name}, and the requirement says {wanted}",
            origin.address
        ))),
        _ => Ok((wheels.join(wheel), package_name(&name))),
    }
}

/// What the wheels of packages in the plugin or beside it are made of: an edit there is an edit
/// of the list.
pub(super) fn contents<'o>(
    origins: impl Iterator<Item = &'o Origin>,
) -> Result<String, Diagnostic> {
    let mut all = String::new();
    for origin in origins {
        let Kind::Local(place) = &origin.kind else { continue };
        let sum = match place.is_dir() {
            true => project::fingerprint(place)?,
            false => {
                let bytes = fs::read(place).map_err(|e| disk::failed("read", place, e))?;
                disk::fingerprint([("file", bytes.as_slice())])
            }
        };
        all += &format!("{} {sum}\n", origin.address);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_an_address_are_filled_in_and_unknown_ones_stay() {
        assert_eq!(filled("https://x/"), "https://x/");
        assert_eq!(filled("https://${NO_SUCH_VARIABLE}@x/"), "https://${NO_SUCH_VARIABLE}@x/");
        let home = std::env::var("HOME").unwrap();
        assert_eq!(filled("a${HOME}b"), format!("a{home}b"));
    }
}
