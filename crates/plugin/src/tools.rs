//! Tools that mfserv fetches for itself: uv.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::Diagnostic;

use crate::home::Home;
use crate::progress::{Cancel, Progress};
use crate::python::{Interpreter, Toolbox, on_path};
use mfserv_platform::disk;

/// The version of uv that is fetched.
pub const UV: &str = "0.13.9";
/// It with the SHA-256 of its wheels: x86_64, then aarch64 (manylinux both).
const REQUIREMENT: &str = "uv==0.13.9 \
    --hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19 \
    --hash=sha256:5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe\n";
/// How long fetching may take, a slow network included.
const LIMIT: Duration = Duration::from_secs(600);

/// uv, as builds will use it: the one on PATH, else the one in `var/base/bin`,
/// which is fetched from the Python package index and checked if it is not there.
pub fn uv(
    home: &Home,
    python: &Interpreter,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Diagnostic> {
    if let Some(uv) = on_path("uv") {
        return Ok(uv);
    }
    let name = format!(".uv-{UV}");
    let place = home.base().join(&name);
    let link = home.base().join("bin/uv");
    if link.canonicalize().is_ok_and(|there| there.starts_with(&place)) {
        return Ok(link);
    }
    disk::create_dir(&home.base().join("bin"))?;
    let _lock = disk::Lock::wait(&home.base().join(".uv.lock"), "uv", LIMIT)?;
    if !place.join("bin/uv").is_file() {
        progress.step(&format!("fetching uv {UV}"));
        fetch(home, &place, python, cancel, progress)?;
    }
    disk::relink(&link, &Path::new("..").join(name).join("bin/uv"))?;
    Ok(link)
}

fn fetch(
    home: &Home,
    place: &Path,
    python: &Interpreter,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    disk::sweep_beside(place);
    let stage = disk::beside(place, "stage");
    let list = disk::beside(&home.base().join("uv.txt"), "new");
    disk::write(&list, REQUIREMENT.as_bytes())?;
    let toolbox = Toolbox { home, interpreter: python, uv: None, limit: LIMIT, cancel };
    let result = toolbox
        .install_checked(&list, &stage, progress)
        .and_then(|()| disk::swap_in(&stage, place));
    let _ = disk::remove(&list);
    if result.is_err() {
        let _ = disk::remove(&stage);
    }
    result
}
