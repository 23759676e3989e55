//! The lines that the programs of a plugin write, from now on.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

use mfserv_core::names::WatcherName;
use mfserv_telemetry::{Follower, tail};

use super::frames::Frames;
use crate::cli::output::for_terminal;
use crate::cli::report;

/// So many lines are remembered, to say nothing twice.
const REMEMBERED: usize = 200;
/// The colours of programs, by their turn.
const COLOURS: [&str; 6] = ["36", "35", "34", "33", "32", "31"];

/// Where a file ends now; 0 if it does not exist.
pub fn end_of(file: &Path) -> u64 {
    tail(file, 0).map_or(0, |(_, end)| end)
}

/// `main` for `app.hello.main`.
pub fn short(watcher: &WatcherName) -> &str {
    watcher.as_str().rsplit('.').next().unwrap_or(watcher.as_str())
}

/// Follows the logs of programs.
pub struct Lines {
    dir: PathBuf,
    follower: Follower,
    /// Where the logs that were there before ended.
    ends: BTreeMap<PathBuf, u64>,
    /// By file: what its lines begin with.
    labels: BTreeMap<PathBuf, String>,
    recent: VecDeque<String>,
    /// By file: the traceback that it is in.
    frames: BTreeMap<PathBuf, Frames>,
}

impl Lines {
    /// Of nobody yet; what is in the logs of this directory now is past.
    pub fn new(dir: PathBuf) -> Lines {
        let files = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let ends = files.map(|entry| entry.path()).map(|file| (file.clone(), end_of(&file)));
        Lines {
            ends: ends.collect(),
            dir,
            follower: Follower::new([]),
            labels: BTreeMap::new(),
            recent: VecDeque::new(),
            frames: BTreeMap::new(),
        }
    }

    /// Follows these programs, as far as they have logs already.
    pub fn follow(&mut self, programs: &[WatcherName]) {
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let file = entry.path();
            if self.labels.contains_key(&file) {
                continue;
            }
            let Some(label) = programs.iter().find_map(|program| label(program, &file)) else {
                continue;
            };
            let colour = COLOURS[self.labels.len() % COLOURS.len()];
            let label = match report::colours(&std::io::stdout()) {
                true => format!("\x1b[{colour}m{label} |\x1b[0m "),
                false => format!("{label} | "),
            };
            let from = self.ends.get(&file).copied().unwrap_or(0);
            self.follower.add_from(file.clone(), from);
            self.labels.insert(file, label);
        }
    }

    /// What they have written since the last time, each line behind the name of its program; frames
    /// of libraries are left out of tracebacks.
    pub fn take(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        let (labels, recent, frames) = (&self.labels, &mut self.recent, &mut self.frames);
        self.follower.poll(&mut |file, line| {
            let label = labels.get(file).map_or("", String::as_str);
            let line = String::from_utf8_lossy(line);
            let frames = frames.entry(file.to_owned()).or_default();
            let shown = frames.take(line.trim_end_matches('\r')).into_iter();
            lines.extend(shown.map(|line| format!("{label}{}", for_terminal(&line))));
            recent.push_back(line.trim().into());
            if recent.len() > REMEMBERED {
                recent.pop_front();
            }
        });
        lines
    }

    /// This line was among the last ones.
    pub fn have_said(&self, line: &str) -> bool {
        !line.trim().is_empty() && self.recent.iter().any(|said| said == line.trim())
    }
}

/// What the lines of a file begin with, if it is a log of this program.
fn label(program: &WatcherName, file: &Path) -> Option<String> {
    let end = file.extension().unwrap_or_default().to_string_lossy();
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let rest = stem.strip_prefix(&program.as_str().replace('.', "_"))?;
    let own = rest.is_empty() || rest.starts_with("_worker");
    let live = ["log", "stdout", "stderr"].contains(&&*end);
    (own && live).then(|| format!("{}{rest}", short(program)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_named_after_its_program_and_no_other() {
        let program = WatcherName::app("hello", "main");
        for (file, expected) in [
            ("app_hello_main.log", Some("main")),
            ("app_hello_main_worker2.stderr", Some("main_worker2")),
            ("app_hello_main.log.1", None),
            ("app_hello_mainland.log", None),
            ("app_hello_world_main.log", None),
        ] {
            let found = label(&program, &Path::new("/log").join(file));
            assert_eq!(found.as_deref(), expected, "{file}");
        }
    }
}
