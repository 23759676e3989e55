//! The base environment that a package brings along: the wheels of its lock, and of the layers of
//! MFSERV where the node has them. An installation makes its base environment of these when the
//! home has none yet, without a network.

use std::path::{Path, PathBuf};

use mfserv_core::{Diagnostic, Kind};

use super::portable::{fill, wheels_for, with_stage};
use super::{Missing, layers, lock, reach_index};
use crate::home::Home;
use crate::progress::{Cancel, Progress};
use crate::python::Interpreter;
use mfserv_platform::disk;

/// Where a package has it, below the plugin's directory.
pub const CARRIED: &str = ".mfserv-base";
/// The layers, in it.
const LAYERS: &str = "layers";

/// Collects what a package is to bring along, with the packages of MFSERV's layers if `layers`
/// says so, and packs it. `pack` gets the directory that has [`CARRIED`], which is removed
/// afterwards. Needs the network, or the caches of pip.
pub fn carry<T>(
    home: &Home,
    python: &Interpreter,
    layers: bool,
    cancel: &Cancel,
    progress: &mut dyn Progress,
    pack: impl FnOnce(&Path, &mut dyn Progress) -> Result<T, Diagnostic>,
) -> Result<T, Diagnostic> {
    lock(python)?;
    if python.is_2() {
        return Err(Diagnostic::error("the package cannot bring its base environment along")
            .kind(Kind::Refused)
            .because("environments of Python 2 are made with virtualenv, which is fetched")
            .help("pack it without --standalone, and run `mfserv setup` where it is installed"));
    }
    let missing = Missing {
        what: "the packages that --standalone brings along are not at hand",
        why: None,
        help: "or pack it without --standalone",
    };
    reach_index(&missing, progress)?;
    disk::create_dir(&home.base())?;
    with_stage(home, |stage| {
        let place = stage.join(CARRIED);
        disk::create_dir(stage)?;
        fill(home, python, &place, cancel, progress)?;
        if layers {
            layers::fill(home, python, &place.join(LAYERS), cancel, progress)?;
        }
        pack(stage, progress)
    })
}

/// A release has brought packages along.
pub(super) fn has(release: &Path) -> bool {
    release.join(CARRIED).is_dir()
}

/// The wheels for the base environment of an interpreter that a release has brought along. The
/// error is why there are none.
pub(super) fn wheels_of(release: &Path, python: &Interpreter) -> Result<PathBuf, String> {
    let place = release.join(CARRIED);
    if !place.is_dir() {
        return Err("the package does not bring it along: it was made without --standalone".into());
    }
    wheels_for(&place, python).map_err(|why| format!("the package brings another one: {why}"))
}

/// The wheels of MFSERV's layers that a release has brought along for an interpreter.
pub(super) fn layers_of(release: &Path, python: &Interpreter) -> Option<PathBuf> {
    wheels_of(release, python).ok()?;
    layers::wheels_in(&release.join(CARRIED).join(LAYERS))
}

#[cfg(test)]
mod tests {
    use super::super::portable::About;
    use super::super::some_python;
    use super::*;

    #[test]
    fn what_a_package_has_not_brought_along_or_brought_for_others_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let python = some_python();
        let why = |python: &Interpreter| wheels_of(folder.path(), python).unwrap_err();
        assert!(why(&python).contains("without --standalone"), "{}", why(&python));
        let place = folder.path().join(CARRIED);
        disk::create_dir(&place).unwrap();
        assert!(why(&python).contains("base.json"), "{}", why(&python));
        let about = serde_json::to_string(&About::of(&python)).unwrap();
        let is = |text: &str| disk::write(&place.join("base.json"), text.as_bytes()).unwrap();
        is(&about);
        assert_eq!(wheels_of(folder.path(), &python), Ok(place.join("wheels")));
        let other = Interpreter { abi: "cpython-399".into(), ..python.clone() };
        assert!(why(&other).contains("/usr/bin/python3 is cpython-399"), "{}", why(&other));
        let mut value: serde_json::Value = serde_json::from_str(&about).unwrap();
        value["lock"] = "of another day".into();
        value["mfserv"] = "0.0.9".into();
        is(&value.to_string());
        assert!(why(&python).contains("the packages of mfserv 0.0.9"), "{}", why(&python));
        assert_eq!(layers_of(folder.path(), &python), None);
    }
}
