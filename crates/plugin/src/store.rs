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
//! their place) is removed by the next one, and by [`recover`]. A change of a plugin
//! needs a [`Claim`] on it.

mod claim;
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
mod staged;
mod variables;

pub(crate) use claim::start_ticks;
pub use claim::{Claim, NotClaimed, Owner, claim, claim_within};
pub use describe::{describe, hash};
pub use forecast::{Forecast, forecast};
pub use foreign::foreign_files;
pub use install::{InstallOptions, Prepare, Prepared, Staged, install, postinstall, stage};
pub use links::{Installed, Origin, current, list, list_of, restore_link};
pub(crate) use persistent::COMPANIONS;
pub use persistent::check_persistent_paths;
pub use releases::{KEPT, Release, current_release, releases};
pub use repackage::{Repackaged, repackage};
pub use rollback::{Chosen, choose};
pub use staged::{StagedRelease, adopt, give_up, staged_by};
pub use variables::{
    Change, Edit, History, Variable, Variables, check_name, is_linked, value_problem,
};

use crate::home::Home;

/// Finishes or removes what operations that died have left, of all plugins: for the start of a
/// node. An operation that lives is left alone, and so is a staged release that a node has
/// adopted: its next daemon finishes or undoes that operation.
pub fn recover(home: &Home) {
    releases::sweep_all(home, &Owner::this_process("recovery"));
}
