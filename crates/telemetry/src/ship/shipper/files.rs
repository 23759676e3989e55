//! Which files are followed: new ones of a pattern are found, vanished ones are let go.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_core::Diagnostic;

use super::{Begin, EXPAND, Followed, Pattern, Said, Shipper};
use crate::ship::state;

/// A file of a pattern that has vanished for so long does not come back: a rotation, or an app
/// that opens its log again, takes seconds.
const VANISHED: Duration = Duration::from_secs(600);

impl Shipper<'_> {
    /// Begins to follow files that have appeared.
    pub(super) fn follow_new_files(&mut self) {
        if self.expanded.is_some_and(|when| when.elapsed() < EXPAND) {
            return;
        }
        for path in self.new_paths() {
            if let Err(problem) = self.follow(&path, self.options.later) {
                if self.refused.insert(path) {
                    (self.observer)(Said::Notice(&problem.to_string()));
                }
            }
        }
    }

    /// Forgets the files of patterns that have vanished. Nothing may be under way.
    pub(super) fn let_go_of_vanished(&mut self) {
        if self.let_go.is_some_and(|when| when.elapsed() < EXPAND) {
            return;
        }
        self.let_go = Some(Instant::now());
        let mut kept = Vec::with_capacity(self.files.len());
        for mut file in std::mem::take(&mut self.files) {
            let is_named = self.options.patterns.iter().any(|it| it.file() == Some(file.path()));
            let vanished = if is_named { Ok(false) } else { file.has_vanished_for(VANISHED) };
            let result = match vanished {
                Ok(true) => file.forget(),
                other => {
                    kept.push(file);
                    other.map(|_| ())
                }
            };
            if let Err(problem) = result {
                self.complain(&problem.to_string());
            }
        }
        self.files = kept;
    }

    /// Follows the files of patterns that vanished while nobody looked: their rotated files may
    /// have an unread rest, and their state is removed in the end.
    pub(super) fn follow_vanished(&mut self) -> Result<(), Diagnostic> {
        let root = self.options.state.clone();
        let patterns = self.options.patterns.iter().filter(|it| it.file().is_none());
        let known: BTreeSet<PathBuf> = patterns
            .flat_map(|pattern| match &root {
                Some(root) => state::paths_in(root).filter(|it| pattern.is_of(it)).collect(),
                None => pattern.with_state(),
            })
            .collect();
        let is_new = |path: &&PathBuf| !self.files.iter().any(|file| file.path() == *path);
        let vanished: Vec<PathBuf> = known.iter().filter(is_new).cloned().collect();
        vanished.iter().try_for_each(|path| self.follow(path, self.options.later))
    }

    /// The files of the patterns that are not followed yet.
    pub(super) fn new_paths(&mut self) -> Vec<PathBuf> {
        self.expanded = Some(Instant::now());
        let found: BTreeSet<PathBuf> =
            self.options.patterns.iter().flat_map(Pattern::expand).collect();
        let is_new = |path: &PathBuf| !self.files.iter().any(|file| file.path() == path);
        found.into_iter().filter(is_new).collect()
    }

    /// Follows a file.
    pub(super) fn follow(&mut self, path: &Path, begin: Begin) -> Result<(), Diagnostic> {
        let state = state::dir_of(self.options.state.as_deref(), path);
        self.files.push(Followed::open(path, &state, self.options.lines, begin)?);
        Ok(())
    }
}
