//! What the layers of MFSERV offered beside the base environment, for plugins that do not declare
//! it: an environment of its own, whose packages are looked for last.

use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use super::{BaseEnvironment, LIMIT, Missing, carried, reach_index, site_packages, toolbox};
use crate::home::Home;
use crate::progress::{Cancel, Progress};
use crate::python::{Interpreter, Packages, Rules};

/// The exact versions of all packages (a pip requirements file).
const LOCK: &str = include_str!("../../python/layers-requirements.txt");
/// The first Python that [`LOCK`] is made for.
const OLDEST: (u32, u32) = (3, 10);
/// The file that says that an environment is whole, written last.
const MARK: &str = ".mfserv-layers";
/// The variable of the module by which plugins get these packages (`[python] legacy_layers`).
pub(crate) const VARIABLE: &str = "MFSERV_PYTHON_LEGACY_LAYERS";

/// Makes the packages of the layers for the Python of a base environment, unless they are there.
/// Needs the network when it makes them, unless the `release` that needs them has brought them
/// along. An older Python has none, which is said.
pub fn ensure_layers(
    home: &Home,
    base: &BaseEnvironment,
    release: Option<&Path>,
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
        let wheels = release.and_then(|dir| carried::layers_of(dir, python));
        if wheels.is_none() {
            let has_base = release.is_some_and(|dir| carried::wheels_of(dir, python).is_ok());
            let missing = Missing {
                what: "the packages of MFSERV's layers are not there",
                why: has_base.then_some(
                    "the package brings none of them: where it was made, [python] legacy_layers is 0",
                ),
                help: "pack it with --standalone where [python] legacy_layers is 1; or set it to 0 \
                       here, if no plugin imports what it does not declare",
            };
            reach_index(&missing, progress)?;
        }
        let from = wheels.as_deref().map_or(Packages::Index, Packages::Wheels);
        let made = make(home, &place, python, from, cancel, progress);
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
    from: Packages<'_>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    let toolbox = toolbox(home, python, cancel);
    progress.step(&format!("making the packages of MFSERV's layers with {}", toolbox.name()));
    disk::remove(place)?;
    toolbox.make_environment(place, progress)?;
    let list = place.join("requirements.txt");
    disk::write(&list, LOCK.as_bytes())?;
    toolbox.install(place, &list, from, progress)?;
    disk::write(&place.join(MARK), b"")
}

/// The list of the packages, beside their wheels.
const LIST: &str = "lock.txt";

/// Fills a directory, which does not exist yet, with the wheels of the layers for an interpreter.
/// An older Python has none.
pub(super) fn fill(
    home: &Home,
    python: &Interpreter,
    dir: &Path,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    if python.is_before(OLDEST) {
        return Ok(());
    }
    disk::create_dir(dir)?;
    disk::write(&dir.join(LIST), LOCK.as_bytes())?;
    progress.step("collecting the packages of MFSERV's layers");
    let toolbox = toolbox(home, python, cancel);
    toolbox.wheels(&dir.join(LIST), dir, &Rules::default(), progress)
}

/// The directory itself, if [`fill`] has filled it with the packages of today.
pub(super) fn wheels_in(dir: &Path) -> Option<PathBuf> {
    let list = std::fs::read(dir.join(LIST)).ok()?;
    (list == LOCK.as_bytes()).then(|| dir.to_owned())
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
