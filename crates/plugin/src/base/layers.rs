//! What the layers of MFSERV offered beside the base environment, for plugins that do not declare
//! it: an environment of its own, whose packages are looked for last.

use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use super::{BaseEnvironment, LIMIT, site_packages};
use crate::home::Home;
use crate::progress::{Cancel, Progress};
use crate::python::{Interpreter, Packages, Toolbox};

/// The exact versions of all packages (a pip requirements file).
const LOCK: &str = include_str!("../../python/layers-requirements.txt");
/// The first Python that [`LOCK`] is made for.
const OLDEST: (u32, u32) = (3, 10);
/// The file that says that an environment is whole, written last.
const MARK: &str = ".mfserv-layers";
/// The variable of the module by which plugins get these packages (`[python] legacy_layers`).
pub(crate) const VARIABLE: &str = "MFSERV_PYTHON_LEGACY_LAYERS";

/// Makes the packages of the layers for the Python of a base environment, unless they are there.
/// Needs the network when it makes them. An older Python has none, which is said.
pub fn ensure_layers(
    home: &Home,
    base: &BaseEnvironment,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    let python = &base.interpreter;
    if python.is_before(OLDEST) {
        let what =
            format!("the packages of MFSERV's layers are not there for Python {}", python.version);
        progress.notice(
            Diagnostic::warning(what)
                .because("[python] legacy_layers is for Python 3.10 and later")
                .help("declare what the plugin needs in its requirements"),
        );
        return Ok(());
    }
    let fingerprint =
        disk::fingerprint([("lock", LOCK.as_bytes()), ("python", python.identity().as_bytes())]);
    let name = format!(".layers-python{}-{}", python.short_version, &fingerprint[..12]);
    let place = super::place(home, &name)?;
    let _lock = disk::Lock::wait(&home.base().join(".layers.lock"), "the layers", LIMIT)?;
    if !place.join(MARK).is_file() {
        let made = make(home, &place, python, cancel, progress);
        if made.is_err() {
            let _ = disk::remove(&place);
        }
        made?;
    }
    disk::relink(&link(&home.base(), python), Path::new(&name))
}

fn make(
    home: &Home,
    place: &Path,
    python: &Interpreter,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    let uv = Toolbox::find_uv(home, python);
    let toolbox = Toolbox { home, interpreter: python, uv, limit: LIMIT, cancel };
    progress.step(&format!("making the packages of MFSERV's layers with {}", toolbox.name()));
    disk::remove(place)?;
    toolbox.make_environment(place, progress)?;
    let list = place.join("requirements.txt");
    disk::write(&list, LOCK.as_bytes())?;
    toolbox.install(place, &list, Packages::Index, progress)?;
    disk::write(&place.join(MARK), b"")
}

fn link(dir: &Path, python: &Interpreter) -> PathBuf {
    dir.join(format!("layers-python{}", python.short_version))
}

/// Whether the layers had a package.
pub(crate) fn is_of_layers(package: &str) -> bool {
    let lines = LOCK.lines().filter_map(|line| line.split_once("=="));
    lines.into_iter().any(|(name, _)| name.eq_ignore_ascii_case(package))
}

/// Where the packages of the layers are, beside a base environment, if they were made.
pub(crate) fn layers_beside(base: &BaseEnvironment) -> Option<PathBuf> {
    let place = link(base.dir.parent()?, &base.interpreter).canonicalize().ok()?;
    Some(site_packages(&place, &base.interpreter))
}
