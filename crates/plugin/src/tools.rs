//! Tools that mfserv fetches for itself: uv, and virtualenv for Python 2.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::Diagnostic;

use crate::home::Home;
use crate::progress::{Cancel, Progress};
use crate::python::{Interpreter, Toolbox, find, on_path};
use mfserv_platform::disk;

/// The version of uv that is fetched.
pub const UV: &str = "0.13.9";
/// It with the SHA-256 of its wheels: x86_64, then aarch64 (manylinux both).
const REQUIREMENT: &str = "uv==0.13.9 \
    --hash=sha256:d7f459fe4fd247d830351c75686d3996ace3c6f3f728eb0e85a30b7ada0cef19 \
    --hash=sha256:5435c5ce14a56431208ca0996416d310f1598e8c2c8ba707688985a16bb82dbe\n";
/// The first Python whose pip takes that wheel.
const OLDEST_FOR_UV: (u32, u32) = (3, 8);
/// The last virtualenv that makes environments of Python 2, with what it needs. It brings the
/// pip, setuptools and wheel of Python 2 with it.
const VIRTUALENV: &str = "virtualenv==20.21.1 \
    --hash=sha256:09ddbe1af0c8ed2bb4d6ed226b9e6415718ad18aef9fa0ba023d96b7a8356049\n\
    distlib==0.3.9 \
    --hash=sha256:47f8c22fd27c27e25a65601af709b38e4f0a45ea4fc2e710f65755fa8caaaf87\n\
    filelock==3.12.2 \
    --hash=sha256:cbb791cdea2a72f23da6ac5b5269ab0a0d161e9ef0100e653b69049a7706d1ec\n\
    platformdirs==3.11.0 \
    --hash=sha256:e9d171d00af68be50e9202731309c4e658fd8bc76f55c11c7dd760d023bda68e\n";
/// What a tool was made of; in its directory.
const LIST: &str = ".requirements.txt";
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
        // The index has it for later interpreters; it works for all.
        let host = if python.is_before(OLDEST_FOR_UV) { find(None)? } else { python.clone() };
        fetch(home, &place, REQUIREMENT, &host, cancel, progress)?;
    }
    disk::relink(&link, &Path::new("..").join(name).join("bin/uv"))?;
    Ok(link)
}

/// The directory that has virtualenv, fetched and checked if it is not there.
pub(crate) fn virtualenv(
    home: &Home,
    python: &Interpreter,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Diagnostic> {
    let place = home.base().join(".virtualenv");
    let is_there = || std::fs::read(place.join(LIST)).is_ok_and(|it| it == VIRTUALENV.as_bytes());
    disk::create_dir(&home.base())?;
    let _lock = disk::Lock::wait(&home.base().join(".virtualenv.lock"), "virtualenv", LIMIT)?;
    if !is_there() {
        progress.step("fetching virtualenv, for Python 2");
        fetch(home, &place, VIRTUALENV, python, cancel, progress)?;
    }
    Ok(place)
}

fn fetch(
    home: &Home,
    place: &Path,
    requirements: &str,
    python: &Interpreter,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    disk::sweep_beside(place);
    let stage = disk::beside(place, "stage");
    let list = disk::beside(&home.base().join("tool.txt"), "new");
    disk::write(&list, requirements.as_bytes())?;
    let toolbox = Toolbox { home, interpreter: python, uv: None, limit: LIMIT, cancel };
    let result = toolbox
        .install_checked(&list, &stage, progress)
        .and_then(|()| disk::write(&stage.join(LIST), requirements.as_bytes()))
        .and_then(|()| disk::swap_in(&stage, place));
    let _ = disk::remove(&list);
    if result.is_err() {
        let _ = disk::remove(&stage);
    }
    result
}
