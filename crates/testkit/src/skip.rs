//! What a machine cannot have is left out of the tests, and said.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// Says that something is not tested on this machine, and why: on standard error, and in
/// `skipped-tests` of the target directory, which `make test` prints at its end. (The output of a
/// test that passes is not shown.)
///
/// # Panics
/// When `MFSERV_NO_SKIP` is set, for machines that are known to have everything.
pub fn skipped(what: &str) {
    eprintln!("SKIPPED: {what}");
    assert!(std::env::var_os("MFSERV_NO_SKIP").is_none(), "MFSERV_NO_SKIP is set: {what}");
    let record =
        record().and_then(|path| OpenOptions::new().create(true).append(true).open(path).ok());
    if let Some(mut record) = record {
        let _ = writeln!(record, "SKIPPED: {what}");
    }
}

/// Tests run from `target/PROFILE/deps`.
fn record() -> Option<PathBuf> {
    Some(std::env::current_exe().ok()?.ancestors().nth(3)?.join("skipped-tests"))
}
