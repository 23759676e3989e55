//! The variables that a release begins with: those in force, and what is set together with it.

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use super::super::claim::Claim;
use super::super::links::current;
use super::super::releases::releases;
use super::{History, OfRelease, Variables, check_name, current_of, release_of, stay_secret};
use crate::home::Home;

impl Claim {
    /// Before anything of a new release runs: these are set, besides what is in force. Its hooks have
    /// them, and its workers while they are tried; no other release has. What a release of this
    /// number has left goes.
    pub(in super::super) fn set_with_release(
        &self,
        number: u32,
        set: &Variables,
    ) -> Result<(), Diagnostic> {
        let (home, plugin) = (&self.home, self.plugin.as_str());
        forget_release(home, plugin, number);
        if set.is_empty() {
            return Ok(());
        }
        set.keys().try_for_each(|name| check_name(name))?;
        let mut history = History::read(home, plugin)?;
        let current = current_of(home, plugin).unwrap_or_default();
        let before = history.of(&current).clone();
        let mut variables = before.clone();
        variables.extend(set.clone());
        stay_secret(&mut variables, &before);
        let own = OfRelease { variables, changes: Vec::new() };
        history.releases.insert(number.to_string(), own);
        history.write(home, plugin)
    }

    /// Before a release becomes current: a new one has the variables of the one before, and what was
    /// set with it; one that is gone back to has those that it had.
    pub(in super::super) fn hand_over_variables(&self, number: u32) -> Result<(), Diagnostic> {
        let (home, plugin) = (&self.home, self.plugin.as_str());
        let before = History::read(home, plugin)?;
        let Ok(there) = current(home, plugin) else { return Ok(()) };
        let (from, to) = (release_of(home, plugin, &there.dir), number.to_string());
        if before == History::default() || from == to {
            return Ok(());
        }
        let mut next = before.clone();
        next.complete(&releases(home, plugin), &from);
        let now = next.of(&from).clone();
        let new = || OfRelease { variables: now.clone(), changes: Vec::new() };
        let own = next.releases.entry(to).or_insert_with(new);
        stay_secret(&mut own.variables, &now);
        if next == before { Ok(()) } else { next.write(home, plugin) }
    }
}

/// Forgets the variables of a release that does not count. What cannot be written now is forgotten
/// when the number is taken again.
pub(in super::super) fn forget_release(home: &Home, plugin: &str, number: u32) {
    let Ok(mut history) = History::read(home, plugin) else { return };
    if history.releases.remove(&number.to_string()).is_none() {
        return;
    }
    let _ = match history == History::default() {
        true => disk::remove(&home.variables_file(plugin)),
        false => history.write(home, plugin),
    };
}
