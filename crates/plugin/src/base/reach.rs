//! Whether the package index can be reached, before pip and uv try.

use mfserv_core::Diagnostic;

use crate::progress::Progress;
use crate::python::{self, Reach};

/// What to do without a network.
pub(super) const ONCE: &str = "making it needs the Python package index once: check the network, the proxy \
    or PIP_INDEX_URL; without a network, `mfserv setup --export DIR` on a machine that has one, \
    and `mfserv setup --import FILE` here";

/// An error at once where the network is not there: pip and uv would try again for half a minute,
/// and say a page.
pub(super) fn reach_index(
    missing: &Missing<'_>,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    let unreachable = match python::reach_index() {
        Reach::Likely => return Ok(()),
        Reach::Unknown(silence) => {
            progress.notice(
                Diagnostic::warning("the Python package index may be out of reach")
                    .because(silence)
                    .help("pip and uv say more, if it is: their trials take a while"),
            );
            return Ok(());
        }
        Reach::Never(why) => why,
    };
    let Missing { what, why, help } = missing;
    let error = Diagnostic::error(format!("{what}, and cannot be made here"));
    let error = why.iter().fold(error, |error, why| error.because(why));
    Err(error.because(unreachable).help(format!("{ONCE}; {help}")))
}

/// What the index is needed for.
pub(super) struct Missing<'a> {
    /// What is not there.
    pub what: &'a str,
    /// Why a package has not brought it along.
    pub why: Option<&'a str>,
    /// What else helps.
    pub help: &'a str,
}

/// What helps where there is no network.
pub(super) const NEEDS_NONE: &str = "`mfserv release --standalone` makes packages that need none";
