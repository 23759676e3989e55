//! Base environments for machines without a network: the wheels of the lock in one
//! file, made where there is a network and installed where there is none.
//!
//! The file is an archive of the same format as a package, and is checked in the
//! same way.

use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::plugin_spec::General;
use mfserv_core::{Diagnostic, Kind};
use serde::{Deserialize, Serialize};

use super::{BaseEnvironment, current, ensure_from, lock, toolbox};
use crate::archive::{self, Limits};
use crate::home::Home;
use crate::label::read_small;
use crate::progress::{Cancel, Progress};
use crate::python::{Interpreter, Packages, Rules};
use mfserv_platform::disk;

/// What an archive says about itself; in it.
const ABOUT: &str = "base.json";
/// The directory of its wheels.
const WHEELS: &str = "wheels";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct About {
    format: u32,
    lock: String,
    python: String,
    abi: String,
    mfserv: String,
}

impl About {
    pub(super) fn of(python: &Interpreter) -> Self {
        Self {
            format: 1,
            lock: disk::fingerprint([("lock", lock(python).unwrap_or_default().as_bytes())]),
            python: python.short_version.clone(),
            abi: python.abi.clone(),
            mfserv: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// What the directory of an export says about itself.
    fn read(dir: &Path) -> Result<Self, String> {
        let text = read_small(&dir.join(ABOUT)).map_err(|e| format!("{ABOUT}: {e}"))?;
        serde_json::from_str(&text).map_err(|e| format!("{ABOUT}: {e}"))
    }

    /// The error is why the base environment of this interpreter cannot be made of it.
    fn fits(&self, python: &Interpreter) -> Result<(), String> {
        let wanted = Self::of(python);
        if (&self.python, &self.abi) != (&wanted.python, &wanted.abi) {
            let (path, abi) = (python.path.display(), wanted.abi);
            return Err(format!("it is for {}, and {path} is {abi}", self.abi));
        }
        match self.format == wanted.format && self.lock == wanted.lock {
            true => Ok(()),
            false => Err(format!(
                "it has the packages of mfserv {}, and this is mfserv {}",
                self.mfserv, wanted.mfserv
            )),
        }
    }
}

/// The wheels in a directory that [`fill`] has made, if the base environment of this interpreter
/// is made of them. The error is why not.
pub(super) fn wheels_for(dir: &Path, python: &Interpreter) -> Result<PathBuf, String> {
    About::read(dir)?.fits(python)?;
    Ok(dir.join(WHEELS))
}

/// Fills a directory, which does not exist yet, with what the base environment of an interpreter
/// is made of.
pub(super) fn fill(
    home: &Home,
    python: &Interpreter,
    dir: &Path,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    disk::create_dir(&dir.join(WHEELS))?;
    let about = serde_json::to_vec_pretty(&About::of(python)).unwrap_or_default();
    disk::write(&dir.join(ABOUT), &about)?;
    disk::write(&dir.join("lock.txt"), lock(python)?.as_bytes())?;
    progress.step("collecting the packages of the base environment");
    let toolbox = toolbox(home, python, cancel);
    toolbox.wheels(&dir.join("lock.txt"), &dir.join(WHEELS), &Rules::default(), progress)
}

/// Writes what the base environment of an interpreter is made of to
/// `mfserv-base-pythonX.Y.tar.zst` in a directory; returns its path. Needs the
/// network, or the caches of pip.
pub fn export(
    home: &Home,
    python: &Interpreter,
    out_dir: &Path,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<PathBuf, Diagnostic> {
    disk::create_dir(&home.base())?;
    let place = out_dir.join(format!("mfserv-base-python{}.tar.zst", python.short_version));
    with_stage(home, |stage| {
        let name = format!("base-python{}", python.short_version.replace('.', "_"));
        fill(home, python, stage, cancel, progress)?;
        disk::write(&stage.join(".layerapi2_label"), format!("plugin_{name}@mfserv\n").as_bytes())?;
        let file = archive::pack(stage, &general(), &home.base(), progress)?;
        let moved = fs::copy(&file, &place).map_err(|e| disk::failed("write", &place, e));
        let _ = disk::remove(&file);
        moved.map(|_| place.clone())
    })
}

/// Makes the base environment of an interpreter from an exported file, without a
/// network. The file must be of this version of mfserv and for this Python. One
/// that is there already, and up to date, stays.
pub fn import(
    home: &Home,
    file: &Path,
    python: &Interpreter,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<BaseEnvironment, Diagnostic> {
    disk::create_dir(&home.base())?;
    with_stage(home, |stage| {
        progress.step(&format!("reading {}", file.display()));
        archive::unpack(file, stage, Limits::default())?;
        let wheels = checked(file, stage, python)?;
        if let Some(base) = current(home, python) {
            return Ok(base);
        }
        ensure_from(home, python, Packages::Wheels(&wheels), cancel, progress)
    })
}

/// The wheels that were unpacked to `stage`.
fn checked(file: &Path, stage: &Path, python: &Interpreter) -> Result<PathBuf, Diagnostic> {
    wheels_for(stage, python).map_err(|because| {
        Diagnostic::error(format!("{} is no base environment for this machine", file.display()))
            .kind(Kind::Refused)
            .because(because)
            .help("export it again: with this version of mfserv, for this Python, on this kind of machine")
    })
}

/// Runs with a path below `var/base` that does not exist yet, and is removed afterwards.
pub(super) fn with_stage<T>(
    home: &Home,
    run: impl FnOnce(&Path) -> Result<T, Diagnostic>,
) -> Result<T, Diagnostic> {
    let place = home.base().join("portable");
    disk::sweep_beside(&place);
    let stage = disk::beside(&place, "stage");
    let result = run(&stage);
    let _ = disk::remove(&stage);
    result
}

fn general() -> General {
    General {
        version: env!("CARGO_PKG_VERSION").into(),
        release: "1".into(),
        summary: "the packages of a base environment".into(),
        license: String::new(),
        url: String::new(),
        maintainer: String::new(),
        vendor: "mfserv".into(),
        add_plugin_dir_to_python_path: false,
        python: None,
        persistent_paths: Vec::new(),
        nginx: Default::default(),
    }
}
