//! A release becomes the current one: by the renaming of one link.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::plugin_config::override_text;
use mfserv_core::{Diagnostic, Severity};

use super::links::{Installed, Origin, current, has_active_line};
use super::{foreign, releases};
use crate::home::Home;
use mfserv_platform::disk;

/// A release that has just become the current one.
pub(super) struct Switched<'a> {
    home: &'a Home,
    plugin: &'a str,
    number: u32,
    overrides: OverrideFile,
    warnings: Vec<Diagnostic>,
}

/// Makes a release the current one. On an error nothing has changed.
pub(super) fn switch<'a>(
    home: &'a Home,
    plugin: &'a str,
    number: u32,
    mut warnings: Vec<Diagnostic>,
) -> Result<Switched<'a>, Diagnostic> {
    warnings.extend(report_before(home, plugin));
    let overrides = OverrideFile::stage(home, plugin, &home.release(plugin, number))?;
    disk::create_dir(&home.plugins())?;
    let target = releases::link_target(plugin).join(number.to_string());
    disk::relink(&home.link(plugin), &target)?;
    Ok(Switched { home, plugin, number, overrides, warnings })
}

impl Switched<'_> {
    /// What is left to do once it is current; what fails now is only said. Returns
    /// what is installed, and the warnings.
    pub(super) fn finish(self, clean: bool) -> Result<(Installed, Vec<Diagnostic>), Diagnostic> {
        let Switched { home, plugin, number, overrides, mut warnings } = self;
        warnings.extend(overrides.put());
        let marked = releases::mark_committed(&home.release(plugin, number));
        warnings.extend(marked.err().map(only_said));
        for kept in releases::collect(home, plugin, number, clean) {
            if !warnings.contains(&kept) {
                warnings.push(kept);
            }
        }
        Ok((current(home, plugin)?, warnings))
    }
}

fn report_before(home: &Home, plugin: &str) -> Option<Diagnostic> {
    match current(home, plugin).ok()?.origin {
        Origin::Packed(number) => foreign::report(number, &home.release(plugin, number)),
        Origin::Dev | Origin::Internal => None,
    }
}

/// An error as a warning.
fn only_said(mut error: Diagnostic) -> Diagnostic {
    error.severity = Severity::Warning;
    error
}

/// `config/plugins/NAME.ini`, written beside its place. One that the administrator
/// has changed is kept, and the new one is put beside it.
struct OverrideFile {
    beside: PathBuf,
    place: PathBuf,
    warning: Option<Diagnostic>,
}

impl OverrideFile {
    fn stage(home: &Home, plugin: &str, dir: &Path) -> Result<Self, Diagnostic> {
        let own = dir.join("config.ini");
        let text = fs::read_to_string(&own).map_err(|e| disk::failed("read", &own, e))?;
        let file = home.override_file(plugin);
        file.parent().map_or(Ok(()), disk::create_dir)?;
        let kept = has_active_line(&file);
        let place = if kept { file.with_extension("ini.new") } else { file.clone() };
        let warning = kept.then(|| {
            Diagnostic::warning(format!("{} is kept as it is", file.display()))
                .because("it has lines that override the plugin's configuration")
                .help(format!("compare it with {}", place.display()))
        });
        let beside = disk::beside(&place, "new");
        fs::write(&beside, override_text(plugin, &text)).map_err(|e| {
            let _ = fs::remove_file(&beside);
            disk::failed("write", &place, e)
        })?;
        Ok(Self { beside, place, warning })
    }

    /// Puts it at its place; what is returned is only a warning.
    fn put(mut self) -> Option<Diagnostic> {
        let warning = self.warning.take();
        match fs::rename(&self.beside, &self.place) {
            Ok(()) => warning,
            Err(e) => Some(only_said(disk::failed("write", &self.place, e))),
        }
    }
}

impl Drop for OverrideFile {
    fn drop(&mut self) {
        // gone already when it was put at its place
        let _ = fs::remove_file(&self.beside);
    }
}
