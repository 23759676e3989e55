//! A lock on a file.

use std::fs;
use std::io::Write;
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
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(file)
            .map_err(|e| failed("open", file, e))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let _ = lock.set_len(0);
                let _ = writeln!(&lock, "{}", std::process::id());
                Ok(Self(lock))
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
