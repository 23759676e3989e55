//! Variables that an administrator adds to the environment of a plugin (`mfserv env set`), and their
//! history: each release has its own, which a rollback brings back with it.
//!
//! One file for each plugin, which its user alone can read. A change is staged in it, tried beside
//! what serves, and then put in force by one more write.

mod names;
mod of_release;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use mfserv_core::suggest::nearest;
use mfserv_core::{Diagnostic, Kind, Location};
use mfserv_platform::{disk, private};
use serde::{Deserialize, Serialize};

use super::claim::Claim;
use super::links::current;
use super::releases::{Release, number_of, releases};
use crate::home::Home;

pub use names::{check_name, value_problem};
pub(super) use of_release::forget_release;

/// How many changes of a release are remembered.
const REMEMBERED: usize = 20;
/// What a developer's directory is called among the releases.
const LINK: &str = "link";

/// A variable.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// Its value.
    pub value: String,
    /// The value is shown nowhere.
    #[serde(default)]
    pub secret: bool,
}

/// A secret is not shown.
impl fmt::Debug for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.secret { "***" } else { &self.value })
    }
}

/// Variables by name.
pub type Variables = BTreeMap<String, Variable>;

/// A change of variables, which can be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The operation that made it.
    pub id: String,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What was done, without values: `set A, B`.
    pub what: String,
    /// What was there before.
    before: Variables,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Edit {
    /// These get these values.
    Set(Variables),
    /// These go.
    Unset(Vec<String>),
    /// The last change is undone.
    Undo,
}

/// A change that is not in force yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Staged {
    id: String,
    at_ms: u64,
    what: String,
    release: String,
    variables: Variables,
    is_undo: bool,
}

/// The variables of a release, and how they came to be.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OfRelease {
    variables: Variables,
    changes: Vec<Change>,
}

/// The file of a plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// Those of a plugin whose current release is not among the others: of the first one after an
    /// uninstallation that has kept them.
    latest: Variables,
    releases: BTreeMap<String, OfRelease>,
    /// The operation whose change was put in force last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    staged: Option<Staged>,
}

impl History {
    /// The file of a plugin; what there is without one.
    pub fn read(home: &Home, plugin: &str) -> Result<Self, Diagnostic> {
        let file = home.variables_file(plugin);
        let text = match private::read(&file) {
            // An older mfserv that was killed has left it so.
            Ok(text) if text.is_empty() => return Ok(Self::default()),
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(disk::failed("read", &file, e)),
        };
        serde_json::from_slice(&text).map_err(|why| {
            let place = format!("line {}, column {}", why.line(), why.column());
            Diagnostic::error(format!("the variables of {plugin} cannot be read"))
                .kind(Kind::BadConfiguration)
                .because(format!("the file is damaged at {place}"))
                .at(Location::new(file.to_string_lossy(), why.line() as u32))
                .help("bring it back from a backup; or remove it, and set the variables again")
        })
    }

    /// Those of a release that is current.
    fn of(&self, release: &str) -> &Variables {
        self.releases.get(release).map_or(&self.latest, |one| &one.variables)
    }

    /// The variables of the plugin in this directory; `is_tried`: with a change that is tried. A
    /// directory that is only called so, in its label, has none: they may be secret.
    pub fn in_force(&self, home: &Home, plugin: &str, dir: &Path, is_tried: bool) -> &Variables {
        static NONE: Variables = Variables::new();
        if !is_tried && !is_of(home, plugin, dir) {
            return &NONE;
        }
        let release = release_of(home, plugin, dir);
        let staged = self.staged.as_ref().filter(|staged| is_tried && staged.release == release);
        if let Some(staged) = staged {
            return &staged.variables;
        }
        match self.releases.contains_key(&release) {
            true => self.of(&release),
            // A new one, before it is current.
            false => self.of(&current_of(home, plugin).unwrap_or(release)),
        }
    }

    /// True while a change is staged.
    pub fn is_staged(&self) -> bool {
        self.staged.is_some()
    }

    /// True if a change of this operation was put in force, which may have been undone since.
    pub fn was_put_in_force_by(&self, id: &str) -> bool {
        let mut changes = self.releases.values().flat_map(|one| &one.changes);
        self.last.as_deref() == Some(id) || changes.any(|change| change.id == id)
    }

    /// The changes while a release was current, the last one at the end.
    pub fn changes(&self, number: u32) -> &[Change] {
        self.releases.get(&number.to_string()).map_or(&[], |one| &one.changes)
    }

    /// The change that is undone next; `None`: the plugin has had none since its release is current.
    pub fn undoable(&self, home: &Home, plugin: &str) -> Option<&Change> {
        self.releases.get(&current_of(home, plugin)?)?.changes.last()
    }

    /// Each release that was current has its own from now on: those that had none of its own have
    /// what the current one has.
    fn complete(&mut self, all: &[Release], current: &str) {
        let variables = self.of(current).clone();
        let committed = all.iter().filter(|one| one.committed).map(|one| one.number.to_string());
        for release in committed.chain([current.to_string()]) {
            let new = || OfRelease { variables: variables.clone(), changes: Vec::new() };
            self.releases.entry(release).or_insert_with(new);
        }
    }

    fn write(&self, home: &Home, plugin: &str) -> Result<(), Diagnostic> {
        let file = home.variables_file(plugin);
        file.parent().map_or(Ok(()), disk::create_dir)?;
        let text = serde_json::to_vec_pretty(self)
            .map_err(|e| Diagnostic::error("the variables cannot be written").because(e))?;
        private::write(&file, &text)
    }
}

/// What the variables of a directory are kept by.
fn release_of(home: &Home, plugin: &str, dir: &Path) -> String {
    number_of(home, plugin, dir).map_or_else(|| LINK.into(), |number| number.to_string())
}

/// What the variables of the current directory are kept by.
fn current_of(home: &Home, plugin: &str) -> Option<String> {
    Some(release_of(home, plugin, &current(home, plugin).ok()?.dir))
}

/// Whether a directory is the current one of the plugin, or one of its releases.
fn is_of(home: &Home, plugin: &str, dir: &Path) -> bool {
    let is_current = || {
        let current = fs::canonicalize(home.link(plugin));
        current.is_ok_and(|current| fs::canonicalize(dir).is_ok_and(|dir| dir == current))
    };
    number_of(home, plugin, dir).is_some() || is_current()
}

/// Whether a directory is a developer's that is linked as this plugin.
pub fn is_linked(home: &Home, plugin: &str, dir: &Path) -> bool {
    number_of(home, plugin, dir).is_none() && is_of(home, plugin, dir)
}

impl Claim {
    /// Stages a change of the variables of the current release, by this operation. Returns what it
    /// does, without values.
    pub fn stage_variables(&self, edit: Edit, at_ms: u64) -> Result<String, Diagnostic> {
        let (home, plugin) = (&self.home, self.plugin.as_str());
        let dir = current(home, plugin)?.dir;
        let mut history = History::read(home, plugin)?;
        let release = release_of(home, plugin, &dir);
        let mut variables = history.of(&release).clone();
        let is_undo = edit == Edit::Undo;
        let what = match edit {
            Edit::Set(mut set) => {
                set.keys().try_for_each(|name| check_name(name))?;
                let names: Vec<String> = set.keys().cloned().collect();
                stay_secret(&mut set, &variables);
                variables.extend(set);
                format!("set {}", names.join(", "))
            }
            Edit::Unset(names) => {
                names.iter().try_for_each(|name| remove(plugin, &mut variables, name))?;
                format!("unset {}", names.join(", "))
            }
            Edit::Undo => {
                let last = history.releases.get(&release).and_then(|one| one.changes.last());
                let last = last.ok_or_else(|| nothing_to_undo(plugin))?;
                let mut before = last.before.clone();
                stay_secret(&mut before, &variables);
                variables = before;
                format!("undo: {}", last.what)
            }
        };
        let id = self.owner.operation.clone();
        history.staged =
            Some(Staged { id, at_ms, what: what.clone(), release, variables, is_undo });
        history.write(home, plugin)?;
        Ok(what)
    }

    /// Puts the staged change of an operation in force. Done again, it changes nothing.
    pub fn commit_variables(&self, id: &str) -> Result<(), Diagnostic> {
        let (home, plugin) = (&self.home, self.plugin.as_str());
        let mut history = History::read(home, plugin)?;
        let release = release_of(home, plugin, &current(home, plugin)?.dir);
        let Some(staged) = history.staged.take().filter(|staged| staged.id == id) else {
            return Err(overtaken(plugin));
        };
        if staged.release != release {
            return Err(overtaken(plugin));
        }
        let before = history.of(&release).clone();
        let all = releases(home, plugin);
        history.complete(&all, &release);
        let is_there =
            |name: &str| name == LINK || all.iter().any(|o| o.number.to_string() == name);
        history.releases.retain(|name, _| is_there(name));
        history.last = Some(id.into());
        let own = history.releases.entry(release).or_default();
        match staged.is_undo {
            true => drop(own.changes.pop()),
            false => {
                let Staged { id, at_ms, what, .. } = staged;
                own.changes.push(Change { id, at_ms, what, before });
            }
        }
        let surplus = own.changes.len().saturating_sub(REMEMBERED);
        own.changes.drain(..surplus);
        own.variables = staged.variables;
        history.write(home, plugin)
    }

    /// Forgets the staged change of an operation.
    pub fn give_up_variables(&self, id: &str) -> Result<(), Diagnostic> {
        let mut history = History::read(&self.home, &self.plugin)?;
        match history.staged.take().filter(|staged| staged.id == id) {
            Some(_) => history.write(&self.home, &self.plugin),
            None => Ok(()),
        }
    }

    /// Before the link of the plugin goes: what is in force is what an uninstallation keeps.
    pub(super) fn remember_variables(&self) -> Result<(), Diagnostic> {
        let (home, plugin) = (&self.home, self.plugin.as_str());
        // One that is damaged is left to whoever can mend it.
        let Ok(mut history) = History::read(home, plugin) else { return Ok(()) };
        let current = current_of(home, plugin).unwrap_or_default();
        let latest = history.of(&current).clone();
        if history.latest == latest {
            return Ok(());
        }
        history.latest = latest;
        history.write(home, plugin)
    }

    /// After its uninstallation: the history goes with the releases; the variables are kept as the
    /// override file is, unless all is to go.
    pub(super) fn keep_variables(&self, clean: bool) -> Result<(), Diagnostic> {
        let file = self.home.variables_file(&self.plugin);
        disk::sweep_beside(&file);
        if clean {
            return disk::remove(&file);
        }
        // One that is damaged is left to whoever can mend it.
        let Ok(History { latest, .. }) = History::read(&self.home, &self.plugin) else {
            return Ok(());
        };
        match latest.is_empty() {
            true => disk::remove(&file),
            false => {
                let kept = History { latest, ..History::default() };
                kept.write(&self.home, &self.plugin)
            }
        }
    }
}

/// What is secret now is not shown because somebody forgets to say so, or because it once was not.
fn stay_secret(next: &mut Variables, now: &Variables) {
    for (name, variable) in next {
        variable.secret |= now.get(name).is_some_and(|now| now.secret);
    }
}

fn remove(plugin: &str, variables: &mut Variables, name: &str) -> Result<(), Diagnostic> {
    if variables.remove(name).is_some() {
        return Ok(());
    }
    let unknown = Diagnostic::error(format!("{name} is not among the variables of {plugin}"))
        .kind(Kind::Usage);
    let names = || variables.keys().map(String::as_str);
    Err(match (nearest(name, names()), variables.is_empty()) {
        (Some(near), _) => unknown.help(format!("did you mean {near}?")),
        (None, true) => unknown.because("none was set: `mfserv env set` sets them"),
        (None, false) => {
            unknown.help(format!("there are {}", names().collect::<Vec<_>>().join(", ")))
        }
    })
}

fn nothing_to_undo(plugin: &str) -> Diagnostic {
    Diagnostic::error(format!("no variable of {plugin} has changed since its release is current"))
        .kind(Kind::Refused)
        .help("another operation may have undone the last one: look at `mfserv releases`")
}

fn overtaken(plugin: &str) -> Diagnostic {
    Diagnostic::error(format!("the variables of {plugin} are as they were"))
        .kind(Kind::Refused)
        .because("another change of the plugin came between")
        .help("look at `mfserv env list`, and try again")
}
