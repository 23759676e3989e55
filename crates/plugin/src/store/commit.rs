//! A release becomes the current one: by the renaming of one link.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::plugin_config::override_text;
use mfserv_core::{Diagnostic, Severity};

use super::claim::Claim;
use super::links::{Origin, current, has_active_line};
use super::{foreign, releases};
use crate::home::Home;
use mfserv_platform::{disk, private};

impl Claim {
    /// Makes a release the current one. On an error nothing has changed. Done again for a
    /// release that is current already, it finishes what a process that died has left open.
    /// Returns the warnings: also which files the app has left in the release before.
    pub fn commit(&self, number: u32) -> Result<Vec<Diagnostic>, Diagnostic> {
        let (home, plugin) = (&self.home, self.plugin.as_str());
        let mut warnings: Vec<Diagnostic> =
            report_before(home, plugin, number).into_iter().collect();
        let overrides = OverrideFile::stage(home, plugin, &home.release(plugin, number))?;
        self.hand_over_variables(number)?;
        disk::create_dir(&home.plugins())?;
        let target = releases::link_target(plugin).join(number.to_string());
        disk::relink(&home.link(plugin), &target)?;
        // From here on it is current: what fails now is only reported.
        warnings.extend(overrides.put());
        let marked = releases::mark_committed(&home.release(plugin, number));
        warnings.extend(marked.err().map(as_warning));
        Ok(warnings)
    }

    /// Removes the oldest releases beyond those that are kept. Returns what is said of those
    /// that stay because the app has left files in them.
    pub fn collect(&self, clean: bool) -> Vec<Diagnostic> {
        match self.current_release() {
            Some(number) => releases::collect(&self.home, &self.plugin, number, clean),
            None => Vec::new(),
        }
    }
}

fn report_before(home: &Home, plugin: &str, next: u32) -> Option<Diagnostic> {
    match current(home, plugin).ok()?.origin {
        Origin::Packed(number) if number == next => None,
        Origin::Packed(number) => foreign::report(number, &home.release(plugin, number)),
        Origin::Dev | Origin::Internal => None,
    }
}

/// An error as a warning.
fn as_warning(mut error: Diagnostic) -> Diagnostic {
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
        // It is there for passwords, among others: others may not read it.
        private::write(&beside, override_text(plugin, &text).as_bytes()).inspect_err(|_| {
            let _ = fs::remove_file(&beside);
        })?;
        Ok(Self { beside, place, warning })
    }

    /// Puts it at its place; what is returned is only a warning.
    fn put(mut self) -> Option<Diagnostic> {
        let warning = self.warning.take();
        match fs::rename(&self.beside, &self.place) {
            Ok(()) => warning,
            Err(e) => Some(as_warning(disk::failed("write", &self.place, e))),
        }
    }
}

impl Drop for OverrideFile {
    fn drop(&mut self) {
        // gone already when it was put at its place
        let _ = fs::remove_file(&self.beside);
    }
}
