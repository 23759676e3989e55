//! Going back to a release that was current before.

use std::path::PathBuf;

use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::{Diagnostic, Kind};

use super::commit::switch;
use super::install::Prepare;
use super::links::{Installed, Origin, current};
use super::lock;
use super::releases::{Release, releases, sweep};
use crate::build::environment_from_wheels;
use crate::home::Home;
use crate::progress::{Cancel, Progress};
use mfserv_platform::disk::Lock;

/// An earlier (or later) release that can be started, and is not current. Dropped
/// without [`Rollback::commit`], nothing has changed. It holds the lock of the store.
#[derive(Debug)]
pub struct Rollback {
    home: Home,
    /// What is current.
    pub before: Installed,
    /// The number of the release that is gone back to.
    pub number: u32,
    /// Its directory.
    pub dir: PathBuf,
    /// Its configuration, with the overrides that are in force now.
    pub spec: PluginSpec,
    warnings: Vec<Diagnostic>,
    _lock: Lock,
}

/// Chooses a release of an installed plugin: this one, or the last one before the
/// current. Its configuration is checked, and its environment made again if the
/// interpreter has changed since; its `postinstall` was run when it was installed.
pub fn rollback(
    home: &Home,
    plugin: &str,
    number: Option<u32>,
    prepare: &Prepare<'_>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<Rollback, Diagnostic> {
    let before = current(home, plugin)?;
    let lock = lock(home)?;
    sweep(home);
    let Origin::Packed(now) = before.origin else {
        return Err(Diagnostic::error(format!("{plugin} has no releases"))
            .kind(Kind::Refused)
            .because(format!("it is a link to {}", before.dir.display())));
    };
    let Release { number, dir, .. } = choose(&releases(home, plugin), plugin, now, number)?;
    progress.step(&format!("checking release {number} of {plugin}"));
    let prepared = prepare(&dir)?;
    let python = prepared.spec.general.python.as_deref();
    environment_from_wheels(&dir, home, python, cancel, progress)?;
    let (spec, warnings) = (prepared.spec, prepared.warnings);
    Ok(Rollback { home: home.clone(), before, number, dir, spec, warnings, _lock: lock })
}

fn choose(
    all: &[Release],
    plugin: &str,
    now: u32,
    wanted: Option<u32>,
) -> Result<Release, Diagnostic> {
    let mut others = all.iter().filter(|one| one.number != now);
    let found = match wanted {
        Some(number) => others.find(|one| one.number == number),
        None => others.rfind(|one| one.number < now),
    };
    found.cloned().ok_or_else(|| {
        let numbers: Vec<String> = all.iter().map(|one| one.number.to_string()).collect();
        let what = match wanted {
            Some(number) if number == now => format!("release {number} of {plugin} is current"),
            Some(number) => format!("there is no release {number} of {plugin}"),
            None => format!("there is no release of {plugin} before release {now}"),
        };
        Diagnostic::error(what)
            .kind(Kind::Refused)
            .because(format!("its releases are {}", numbers.join(", ")))
    })
}

impl Rollback {
    /// Makes the release the current one, by the renaming of one link. The others
    /// stay: a rollback can be taken back. Returns what is installed now, and the warnings.
    pub fn commit(self) -> Result<(Installed, Vec<Diagnostic>), Diagnostic> {
        switch(&self.home, &self.before.name, self.number, self.warnings)?.finish(false)
    }
}
