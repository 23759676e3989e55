//! A plugin directory that one command alone builds and packs.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};
use mfserv_platform::disk;

use crate::home::Home;
use crate::progress::Cancel;

/// How often one that waits looks whether the directory is free.
const LOOK: Duration = Duration::from_millis(100);

/// A plugin directory. As long as this is held, no other command builds or packs it: what is packed
/// is what one build has made.
#[derive(Debug)]
pub struct Held {
    dir: PathBuf,
    _lock: disk::Lock,
}

impl Held {
    /// Refused ([`Kind::Refused`]) while another command holds the directory.
    pub fn take(home: &Home, dir: &Path) -> Result<Self, Diagnostic> {
        let dir = std::fs::canonicalize(dir).map_err(|e| disk::failed("read", dir, e))?;
        let what = format!("the plugin directory {}", dir.display());
        let lock = disk::Lock::take(&lock_file(home, &dir), &what)?;
        Ok(Held { dir, _lock: lock })
    }

    /// Waits until no other command holds the directory, or until it is cancelled.
    pub fn wait(home: &Home, dir: &Path, cancel: &Cancel) -> Result<Self, Diagnostic> {
        loop {
            match Self::take(home, dir) {
                Err(problem) if problem.kind == Kind::Refused && !cancel.is_cancelled() => {
                    std::thread::sleep(LOOK);
                }
                held => return held,
            }
        }
    }

    /// The directory, without links.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The lock is outside the plugin directory, which is the developer's.
fn lock_file(home: &Home, dir: &Path) -> PathBuf {
    home.root().join("tmp").join(format!("build-{}.lock", short_name(dir)))
}

/// A name for a file of the home that is about a directory, without links in its path.
pub(super) fn short_name(dir: &Path) -> String {
    let name = disk::fingerprint([("dir", dir.as_os_str().as_bytes())]);
    name[..16].to_owned()
}
