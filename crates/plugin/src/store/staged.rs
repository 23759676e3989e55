//! A release between its staging and its commit: whole, startable, not current. It is marked by
//! a file in it, so that one process can stage it and another one can commit it.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk;
use serde::{Deserialize, Serialize};

use super::claim::{Claim, Owner, lock};
use super::releases;
use crate::home::Home;

/// The mark, in the release.
pub(super) const MARK: &str = ".mfserv-staged.json";

/// What is known of a staged release. Written after everything else of its staging, synced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// Who has staged it.
    pub owner: Owner,
    /// A node conducts its operation: the release stays when its stager ends.
    pub adopted: bool,
    /// The oldest releases go even if the app has left files in them.
    pub clean: bool,
    /// What is doubtful in it.
    pub warnings: Vec<Diagnostic>,
}

impl Mark {
    pub fn read(release: &Path) -> Option<Mark> {
        serde_json::from_slice(&fs::read(release.join(MARK)).ok()?).ok()
    }

    pub fn write(&self, release: &Path) -> Result<(), Diagnostic> {
        disk::write(&release.join(MARK), &serde_json::to_vec(self).unwrap_or_default())
    }

    /// Its operation goes on: it is not to be removed.
    pub fn is_owned(&self) -> bool {
        self.adopted || self.owner.lives()
    }
}

/// A staged release, as it lies on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagedRelease {
    /// Its plugin.
    pub plugin: String,
    /// Its number.
    pub number: u32,
    /// Its directory, the final one.
    pub dir: PathBuf,
    /// What is doubtful in it.
    pub warnings: Vec<Diagnostic>,
    /// The oldest releases go even if the app has left files in them.
    pub clean: bool,
}

/// From here on the release belongs to this operation, whatever becomes of the process that
/// has staged it. Refused when there is no such staged release, or another operation has it.
pub fn adopt(home: &Home, plugin: &str, number: u32, operation: &str) -> Result<(), Diagnostic> {
    let dir = home.release(plugin, number);
    let mut mark = marked(home, plugin, number)?;
    if mark.adopted && mark.owner.operation != operation {
        return Err(mark.owner.refusal(plugin));
    }
    mark.adopted = true;
    mark.owner.operation = operation.into();
    mark.write(&dir)
}

fn marked(home: &Home, plugin: &str, number: u32) -> Result<Mark, Diagnostic> {
    let is_name = mfserv_core::names::check_plugin_name(plugin).is_ok();
    let mark = is_name.then(|| Mark::read(&home.release(plugin, number))).flatten();
    mark.ok_or_else(|| {
        Diagnostic::error(format!("there is no staged release {number} of {plugin}"))
            .kind(Kind::Refused)
            .help("`mfserv install` stages and deploys a package")
    })
}

/// Removes a release that was staged and has not become current: at once, or, if somebody has
/// its plugin at this moment, by the next operation on it.
pub fn give_up(home: &Home, plugin: &str, number: u32) {
    let Ok(mut mark) = marked(home, plugin, number) else { return };
    match lock(home, plugin, &mark.owner) {
        Ok(claim) => claim.discard(number),
        Err(_) => {
            mark.adopted = false;
            mark.owner.start_ticks = 0;
            let _ = mark.write(&home.release(plugin, number));
        }
    }
}

/// What was staged for an operation: its plugin and its number.
pub fn staged_by(home: &Home, operation: &str) -> Option<(String, u32)> {
    let entries = fs::read_dir(home.releases()).into_iter().flatten().flatten();
    let plugins = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let of = |plugin: String| {
        let all = releases::releases(home, &plugin).into_iter();
        let mut staged = all.filter(|one| {
            Mark::read(&one.dir).is_some_and(|mark| mark.owner.operation == operation)
        });
        staged.next().map(|found| (plugin, found.number))
    };
    plugins.filter(|name| !name.starts_with('.')).find_map(of)
}

impl Claim {
    /// The staged release of this number.
    pub fn staged(&self, number: u32) -> Result<StagedRelease, Diagnostic> {
        let Mark { warnings, clean, .. } = marked(&self.home, &self.plugin, number)?;
        let dir = self.home.release(&self.plugin, number);
        Ok(StagedRelease { plugin: self.plugin.clone(), number, dir, warnings, clean })
    }

    /// Removes a release that was staged and is not current, and what its staging has made
    /// elsewhere.
    pub fn discard(&self, number: u32) {
        let all = releases::releases(&self.home, &self.plugin);
        if let Some(found) = all.iter().find(|one| one.number == number && !one.committed) {
            releases::forget(&self.home, &self.plugin, &found.dir);
        }
    }

    /// The number of the release that is current.
    pub fn current_release(&self) -> Option<u32> {
        releases::current_release(&self.home, &self.plugin)
    }
}
