//! Going back to a release that was current before.

use std::path::PathBuf;

use mfserv_core::{Diagnostic, Kind};

use super::claim::Claim;
use super::install::Prepare;
use super::links::{Origin, current};
use super::releases::{Release, releases};
use crate::build::environment_from_wheels;
use crate::home::Home;
use crate::progress::{Cancel, Progress};

/// An earlier (or later) release of an installed plugin, which is not current.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Its number.
    pub number: u32,
    /// Its directory.
    pub dir: PathBuf,
}

/// Chooses a release to go back to: this one, or the last one before the current.
pub fn choose(home: &Home, plugin: &str, number: Option<u32>) -> Result<Chosen, Diagnostic> {
    let before = current(home, plugin)?;
    let Origin::Packed(now) = before.origin else {
        return Err(Diagnostic::error(format!("{plugin} has no releases"))
            .kind(Kind::Refused)
            .because(format!("it is a link to {}", before.dir.display())));
    };
    let all: Vec<Release> =
        releases(home, plugin).into_iter().filter(|one| one.committed).collect();
    let Release { number, dir, .. } = among(&all, plugin, now, number)?;
    Ok(Chosen { number, dir })
}

impl Claim {
    /// [`fn@choose`], while nobody else changes the plugin.
    pub fn choose(&self, number: Option<u32>) -> Result<Chosen, Diagnostic> {
        choose(&self.home, &self.plugin, number)
    }

    /// Checks the configuration of a release that was current before, and makes its environment
    /// again if the interpreter has changed since; its `postinstall` was run when it was
    /// installed. Returns what is doubtful in it.
    pub fn make_ready(
        &self,
        chosen: &Chosen,
        prepare: &Prepare<'_>,
        cancel: &Cancel,
        progress: &mut dyn Progress,
    ) -> Result<Vec<Diagnostic>, Diagnostic> {
        progress.step(&format!("checking release {} of {}", chosen.number, self.plugin));
        let prepared = prepare(&chosen.dir)?;
        let python = prepared.spec.general.python.as_deref();
        environment_from_wheels(&chosen.dir, &self.home, python, cancel, progress)?;
        Ok(prepared.warnings)
    }
}

fn among(
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
