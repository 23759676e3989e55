//! What is left out of a package, and what people read about it.

use mfserv_core::Diagnostic;

use super::collect::DEFAULT_IGNORE;
use crate::leftovers::Leftover;
use crate::progress::Progress;

/// Why something is not packed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Skipped {
    /// A build makes it anew; nobody asks for it.
    Made,
    /// A pattern of `.releaseignore` names it.
    Pattern(String),
    /// It is no part of the project.
    Leftover(Leftover),
}

impl Skipped {
    /// Nobody misses it: it is named by the patterns of every plugin, or is a tool's.
    pub(super) fn is_usual(&self) -> bool {
        match self {
            Skipped::Made | Skipped::Leftover(Leftover::Secret) => false,
            Skipped::Leftover(Leftover::Environment | Leftover::Tool) => true,
            Skipped::Pattern(pattern) => DEFAULT_IGNORE.lines().any(|line| line == pattern),
        }
    }
}

/// What is to be said of a package.
#[derive(Debug, Default)]
pub(super) struct Findings {
    /// The patterns are ours: the plugin is made of an app, whose author has written none.
    pub(super) is_made: bool,
    pub(super) left_out: Vec<(String, Skipped)>,
    pub(super) secrets: Vec<(String, &'static str)>,
}

/// The most names that one line has.
const MOST_NAMES: usize = 20;

impl Findings {
    pub(super) fn report(mut self, progress: &mut dyn Progress) {
        // Nobody but this program has written them.
        self.left_out.retain(|(path, _)| !path.starts_with(".mfserv-"));
        self.left_out.sort_by(|a, b| a.0.cmp(&b.0));
        let names = |is: fn(&Skipped) -> bool| -> Vec<&str> {
            let found = self.left_out.iter().filter(|(_, why)| is(why));
            found.map(|(path, _)| path.as_str()).collect()
        };
        let secrets = names(|why| *why == Skipped::Leftover(Leftover::Secret));
        if !secrets.is_empty() {
            progress.notice(
                Diagnostic::warning(format!("left out of the package: {}", listed(&secrets)))
                    .because("it holds secrets, by its name")
                    .help("a line `!NAME` in .releaseignore packs it all the same"),
            );
        }
        let of_ours = |why: &Skipped| self.is_made && matches!(why, Skipped::Pattern(_));
        let usual: Vec<&str> = self
            .left_out
            .iter()
            .filter(|(_, why)| why.is_usual() || of_ours(why))
            .map(|(path, _)| path.as_str())
            .collect();
        if !usual.is_empty() {
            progress.log(&format!("left out of the package: {}", listed(&usual)));
        }
        let by_pattern = |(path, why): &(String, Skipped)| match why {
            Skipped::Pattern(pattern) if !why.is_usual() && !of_ours(why) => {
                Some(format!("{path} ({pattern})"))
            }
            Skipped::Pattern(_) | Skipped::Made | Skipped::Leftover(_) => None,
        };
        let named: Vec<String> = self.left_out.iter().filter_map(by_pattern).collect();
        let named: Vec<&str> = named.iter().map(String::as_str).collect();
        if !named.is_empty() {
            progress.notice(
                Diagnostic::warning(format!("left out of the package: {}", listed(&named)))
                    .because("a pattern of .releaseignore names it")
                    .help("remove the pattern if the plugin needs it where it runs"),
            );
        }
        for (path, what) in self.secrets.iter().take(MOST_NAMES) {
            progress.notice(
                Diagnostic::warning(format!("{path} is in the package and looks like {what}"))
                    .because("who has the package can read it")
                    .help("name it in .releaseignore, and keep it in var/data or in the configuration of the server"),
            );
        }
    }
}

fn listed(names: &[&str]) -> String {
    let shown = names[..names.len().min(MOST_NAMES)].join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
