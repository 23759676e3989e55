//! The installed plugins: numbered releases, developers' directories, and the
//! links that say which one is current.
//!
//! ```text
//! var/releases/NAME/7/            a release, at the path where it was built
//! var/releases/NAME/7/.committed  written last: without it the release does not count
//! var/plugins/NAME                the link to the current one
//! var/data/NAME/                  what outlives the releases
//! ```
//!
//! A release becomes current by the renaming of one link. What an operation that
//! died has left (releases without `.committed` that are not current, files beside
//! their place) is removed by the next one, and by [`recover`].

mod commit;
mod describe;
mod forecast;
mod foreign;
mod install;
mod links;
mod persistent;
mod releases;
mod repackage;
mod rollback;

pub use describe::{describe, hash};
pub use forecast::{Forecast, forecast};
pub use foreign::foreign_files;
pub use install::{InstallOptions, Prepare, Prepared, Staged, install, postinstall, stage};
pub use links::{
    DevLink, Installed, Origin, current, dev_link, list, list_of, prepare_dev_link, remove_kept,
    remove_unlinked, uninstall, unlink,
};
pub use persistent::check_persistent_paths;
pub use releases::{KEPT, Release, releases, remove_releases};
pub use repackage::{Repackaged, repackage};
pub use rollback::{Rollback, rollback};

use std::path::PathBuf;

use mfserv_core::{Diagnostic, Kind};

use crate::home::Home;
use mfserv_platform::disk::Lock;

/// Finishes or removes what an operation that died has left: for the start of a
/// node. An operation that lives is left alone.
pub fn recover(home: &Home) {
    if home.releases().is_dir() {
        if let Ok(_lock) = lock(home) {
            releases::sweep(home);
        }
    }
}

/// What the lock of the store is on.
const LOCKED: &str = "the set of plugins";

/// The lock that every change of the store of plugins holds.
fn lock(home: &Home) -> Result<Lock, Diagnostic> {
    Lock::take(&lock_file(home), LOCKED)
}

/// Whether an operation was refused because another one holds the lock of the store: nothing
/// was done, and it may be tried again.
pub fn is_busy(problem: &Diagnostic) -> bool {
    problem.kind == Kind::Refused && problem.what.starts_with(LOCKED)
}

fn lock_file(home: &Home) -> PathBuf {
    home.releases().join(".lock")
}
