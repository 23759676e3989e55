//! A lock on a file.

use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use mfserv_core::{Diagnostic, Kind};
use rustix::fs::{FlockOperation, flock};

use super::{create_dir, failed};

/// An exclusive lock on a file, held until dropped. Refused at once when
/// another process (or thread) holds it.
#[derive(Debug)]
pub struct Lock(fs::File);

impl Drop for Lock {
    /// A process that another thread starts this very moment has a copy of the descriptor until
    /// its exec: the close alone would give the lock back only then.
    fn drop(&mut self) {
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

impl Lock {
    /// Takes the lock; `what` names what is locked in the error.
    pub fn take(file: &Path, what: &str) -> Result<Self, Diagnostic> {
        if let Some(parent) = file.parent() {
            create_dir(parent)?;
        }
        loop {
            if let Some(lock) = Self::hold(open(file)?, file, what)? {
                let _ = lock.0.set_len(0);
                let _ = writeln!(&lock.0, "{}", std::process::id());
                return Ok(lock);
            }
        }
    }

    /// Locks an open file; `None` if it is not what is at its path any more: a cleaner has removed
    /// it since it was opened, and another process would lock another file.
    fn hold(lock: fs::File, file: &Path, what: &str) -> Result<Option<Self>, Diagnostic> {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let there = fs::metadata(file).ok().zip(lock.metadata().ok());
                let is_it = |(one, other): (fs::Metadata, fs::Metadata)| {
                    (one.dev(), one.ino()) == (other.dev(), other.ino())
                };
                Ok(there.is_some_and(is_it).then_some(Self(lock)))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let holder = fs::read_to_string(file).unwrap_or_default();
                Err(Diagnostic::error(format!("{what} is being changed by another command"))
                    .kind(Kind::Refused)
                    .because(format!("process {} holds {}", holder.trim(), file.display()))
                    .help("try again when it has ended"))
            }
            Err(e) => Err(failed("lock", file, e)),
        }
    }

    /// Takes the lock, waiting for its holder at most `patience`.
    pub fn wait(file: &Path, what: &str, patience: Duration) -> Result<Self, Diagnostic> {
        let deadline = Instant::now() + patience;
        loop {
            match Self::take(file, what) {
                Err(error) if error.kind == Kind::Refused && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                result => return result,
            }
        }
    }
}

fn open(file: &Path) -> Result<fs::File, Diagnostic> {
    let mut how = fs::OpenOptions::new();
    how.create(true).truncate(false).read(true).write(true);
    how.open(file).map_err(|e| failed("open", file, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_removed_before_it_was_locked_is_no_lock() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let old = open(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let held = Lock::take(&path, "it").unwrap();
        assert!(Lock::hold(old, &path, "it").unwrap().is_none());
        drop(held);
        assert!(Lock::hold(open(&path).unwrap(), &path, "it").unwrap().is_some());
    }
}
