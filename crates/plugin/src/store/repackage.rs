//! A package made again from an installed release, with the configuration that is
//! in force on this node.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mfserv_core::ini::{Dialect, parse, set};
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::{Diagnostic, Kind};
use serde::{Deserialize, Serialize};

use super::links::{Origin, current};
use crate::archive;
use crate::home::Home;
use crate::progress::Progress;
use mfserv_platform::disk;

/// A package that was made again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repackaged {
    /// The package.
    pub file: PathBuf,
    /// What differs from the package before: `NEW [section]/key = value` and
    /// `CHANGED [section]/key: old => new`.
    pub changes: Vec<String>,
}

/// Packs the current release of an installed plugin into `out_dir`, with the public
/// keys of `effective` (overrides applied) written into its `config.ini` where they
/// differ from `own` (no overrides); comments and all else stay. Only what the
/// release was installed with is packed: no data, and no file that the app has made.
pub fn repackage(
    home: &Home,
    plugin: &str,
    own: &PluginSpec,
    effective: &PluginSpec,
    out_dir: &Path,
    progress: &mut dyn Progress,
) -> Result<Repackaged, Diagnostic> {
    let installed = current(home, plugin)?;
    if !matches!(installed.origin, Origin::Packed(_)) {
        return Err(Diagnostic::error("can't repackage a devlinked plugin")
            .kind(Kind::Refused)
            .because(format!("{plugin} is a link to {}", installed.dir.display()))
            .help(format!("mfserv release {}", installed.dir.display())));
    }
    let place = home.root().join("tmp").join(format!("repackage-{plugin}"));
    disk::create_dir(&home.root().join("tmp"))?;
    disk::sweep_beside(&place);
    let stage = disk::beside(&place, "stage");
    let result = pack_again(&installed.dir, &stage, own, effective, out_dir, progress);
    let _ = disk::remove(&stage);
    result
}

fn pack_again(
    release: &Path,
    stage: &Path,
    own: &PluginSpec,
    effective: &PluginSpec,
    out_dir: &Path,
    progress: &mut dyn Progress,
) -> Result<Repackaged, Diagnostic> {
    progress.step("copying the installed plugin");
    let data = &own.general.persistent_paths;
    let mut files = archive::read_installed(release)?.files;
    files.push(".layerapi2_label".into());
    for path in
        files.iter().filter(|path| !data.iter().any(|data| Path::new(path).starts_with(data)))
    {
        copy(release, stage, path)?;
    }
    let config = stage.join("config.ini");
    let text = fs::read_to_string(&config).map_err(|e| disk::failed("read", &config, e))?;
    let (text, changes) = merged(&text, own, effective)?;
    disk::write(&config, text.as_bytes())?;
    let file = archive::pack_again(stage, &own.general, out_dir, progress)?;
    Ok(Repackaged { file, changes })
}

/// Copies a file or link of a release; one that the app has removed is left out.
fn copy(release: &Path, stage: &Path, path: &str) -> Result<(), Diagnostic> {
    let (from, to) = (release.join(path), stage.join(path));
    let Ok(found) = fs::symlink_metadata(&from) else { return Ok(()) };
    if to.symlink_metadata().is_ok() || found.is_dir() {
        return Ok(());
    }
    to.parent().map_or(Ok(()), disk::create_dir)?;
    let copied = match found.is_symlink() {
        true => fs::read_link(&from).and_then(|target| symlink(target, &to)),
        false => fs::copy(&from, &to).map(drop),
    };
    copied.map_err(|e| disk::failed("copy", &from, e))
}

/// The text of a `config.ini` with the effective values, and what was changed.
fn merged(
    text: &str,
    own: &PluginSpec,
    effective: &PluginSpec,
) -> Result<(String, Vec<String>), Diagnostic> {
    let document = parse(text, "config.ini", Dialect::Plugin)?;
    let written = |section: &str, key: &str| {
        document
            .section(section)
            .is_some_and(|found| found.entries.iter().any(|entry| entry.key == key))
    };
    let (mut text, mut changes) = (text.to_string(), Vec::new());
    for (section, key, value) in &effective.exported {
        let before = own.exported.iter().find(|(s, k, _)| s == section && k == key);
        let before = before.map(|(_, _, before)| before);
        if before == Some(value) {
            continue;
        }
        changes.push(match before.filter(|_| written(section, key)) {
            Some(before) => format!("CHANGED [{section}]/{key}: {before} => {value}"),
            None => format!("NEW [{section}]/{key} = {value}"),
        });
        let shown = if value.is_empty() { "null" } else { value };
        text = set(&text, section, key, shown);
    }
    Ok((text, changes))
}
