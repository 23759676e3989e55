//! The right to change one plugin. One process has it at a time; different plugins are
//! changed at the same time.
//!
//! It is a lock (flock) on `var/releases/.locks/HASH`, which the kernel takes back when its
//! holder dies. A staged release is the second half of it: between its staging and its commit,
//! which may be in two processes, the plugin belongs to the operation that the release is
//! marked with.

use std::fmt;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::releases;
use super::staged::Mark;
use crate::home::Home;
use crate::progress::{Cancel, Progress};

/// How often a plugin is tried to be claimed that another operation has.
const LOOK: Duration = Duration::from_millis(50);

/// Who changes a plugin: an operation, and the process that carries it out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The id of the operation.
    pub operation: String,
    /// The process.
    pub pid: u32,
    /// When the process was started, in clock ticks since boot: a later process with the same
    /// number is another one.
    pub start_ticks: u64,
    /// The command line of the process, shortened: `mfserv install`.
    pub command: String,
}

impl Owner {
    /// This process, for an operation.
    pub fn this_process(operation: impl Into<String>) -> Owner {
        let pid = std::process::id();
        let words = std::env::args_os().take(2).map(|word| {
            let name = Path::new(&word).file_name().unwrap_or(&word).to_owned();
            name.to_string_lossy().into_owned()
        });
        let command = words.collect::<Vec<_>>().join(" ");
        Owner {
            operation: operation.into(),
            pid,
            start_ticks: start_ticks(pid).unwrap_or(0),
            command,
        }
    }

    /// The process has not ended.
    pub fn lives(&self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }

    /// Why something was refused that needs a plugin which this owner has.
    pub fn refusal(&self, plugin: &str) -> Diagnostic {
        Diagnostic::error(format!("the plugin {plugin} is being changed by another command"))
            .kind(Kind::Refused)
            .because(format!("{self} has it (operation {})", self.operation))
            .help("try again when it has ended; `mfserv operations` lists what runs")
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.command.is_empty() {
            true => write!(f, "process {}", self.pid),
            false => write!(f, "process {} ({})", self.pid, self.command),
        }
    }
}

/// Field 22 of proc_pid_stat(5); `None` when there is no such process, or only its zombie.
pub(crate) fn start_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit(')').next()?.split_ascii_whitespace();
    let state = fields.next()?;
    (state != "Z").then(|| fields.nth(18)?.parse().ok())?
}

/// Why a plugin could not be claimed.
#[derive(Debug)]
pub enum NotClaimed {
    /// Another operation has it: nothing was done, and it may be tried again.
    Busy(Owner),
    /// It cannot be locked at all.
    Failed(Diagnostic),
}

/// The right to change a plugin, until it is dropped.
#[derive(Debug)]
pub struct Claim {
    pub(super) home: Home,
    pub(super) plugin: String,
    pub(super) owner: Owner,
    lock: File,
}

impl Drop for Claim {
    /// A process that another thread starts this very moment has a copy of the descriptor until
    /// its exec: the close alone would give the lock back only then.
    fn drop(&mut self) {
        let _ = flock(&self.lock, FlockOperation::Unlock);
    }
}

impl Claim {
    /// The plugin.
    pub fn plugin(&self) -> &str {
        &self.plugin
    }
}

/// Claims a plugin for an operation. What an operation that died has left of it is removed, or
/// finished if it had become current.
pub fn claim(home: &Home, plugin: &str, owner: &Owner) -> Result<Claim, NotClaimed> {
    let claim = lock(home, plugin, owner)?;
    let marks = releases::releases(home, plugin).into_iter();
    let mut marks = marks.filter(|one| !one.committed).filter_map(|one| Mark::read(&one.dir));
    let other = marks.find(|mark| mark.is_owned() && mark.owner.operation != owner.operation);
    if let Some(other) = other {
        return Err(NotClaimed::Busy(other.owner));
    }
    releases::sweep(&claim);
    Ok(claim)
}

/// [`fn@claim`], waiting at most `patience` for the operation that has the plugin. For whom it
/// waits is a step.
pub fn claim_within(
    home: &Home,
    plugin: &str,
    owner: &Owner,
    patience: Duration,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<Claim, Diagnostic> {
    let began = Instant::now();
    let mut shown = None;
    loop {
        let other = match claim(home, plugin, owner) {
            Ok(claim) => return Ok(claim),
            Err(NotClaimed::Failed(problem)) => return Err(problem),
            Err(NotClaimed::Busy(other)) => other,
        };
        if cancel.is_cancelled() {
            return Err(Diagnostic::error("interrupted: nothing has changed"));
        }
        if began.elapsed() >= patience {
            return Err(other.refusal(plugin));
        }
        if shown.as_ref() != Some(&other) {
            progress.step(&format!("waiting for {other}, which changes {plugin}"));
            shown = Some(other);
        }
        std::thread::sleep(LOOK);
    }
}

/// Takes the lock of a plugin and writes into it who has it.
pub(super) fn lock(home: &Home, plugin: &str, owner: &Owner) -> Result<Claim, NotClaimed> {
    let path = lock_file(home, plugin);
    let failed =
        |verb: &str, e: &dyn fmt::Display| NotClaimed::Failed(disk::failed(verb, &path, e));
    path.parent().map_or(Ok(()), disk::create_dir).map_err(NotClaimed::Failed)?;
    let mut options = fs::OpenOptions::new();
    let opened = options.create(true).truncate(false).read(true).write(true).open(&path);
    let mut file = opened.map_err(|e| failed("open", &e))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Err(NotClaimed::Busy(holder(&path))),
        Err(e) => return Err(failed("lock", &e)),
    }
    let text = serde_json::to_vec(owner).unwrap_or_default();
    let written = file.set_len(0).and_then(|()| file.rewind()).and_then(|()| file.write_all(&text));
    written.map_err(|e| failed("write", &e))?;
    Ok(Claim { home: home.clone(), plugin: plugin.into(), owner: owner.clone(), lock: file })
}

/// Who holds a lock, as the lock says; it may have been taken this very moment.
fn holder(path: &Path) -> Owner {
    let known = fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok());
    known.unwrap_or_else(|| Owner {
        operation: "unknown".into(),
        pid: 0,
        start_ticks: 0,
        command: String::new(),
    })
}

/// Named by a hash: the name of a plugin that is uninstalled stands nowhere any more.
fn lock_file(home: &Home, plugin: &str) -> PathBuf {
    let hash = mfserv_core::fingerprint::of(plugin.as_bytes());
    home.releases().join(".locks").join(format!("{hash:016x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_has_one_owner_at_a_time_and_another_plugin_has_another_one() {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::new(folder.path());
        let (one, two) = (Owner::this_process("one"), Owner::this_process("two"));
        let held = claim(&home, "foo", &one).unwrap();
        match claim(&home, "foo", &two) {
            Err(NotClaimed::Busy(owner)) => assert_eq!(owner, one),
            other => panic!("{other:?}"),
        }
        claim(&home, "bar", &two).unwrap();
        // Whoever has a copy of the descriptor, as a process has before its exec, has no lock.
        let _copy = held.lock.try_clone().unwrap();
        drop(held);
        claim(&home, "foo", &two).unwrap();
    }

    #[test]
    fn this_process_lives_and_one_with_its_number_and_another_start_does_not() {
        let owner = Owner::this_process("one");
        assert!(owner.lives());
        assert!(!Owner { start_ticks: owner.start_ticks + 1, ..owner.clone() }.lives());
        assert!(!Owner { pid: 4_999_999, ..owner }.lives());
    }
}
