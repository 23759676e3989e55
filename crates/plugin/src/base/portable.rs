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

use super::{BaseEnvironment, LIMIT, current, ensure_from, lock};
use crate::archive::{self, Limits};
use crate::home::Home;
use crate::label::read_small;
use crate::progress::{Cancel, Progress};
use crate::python::{Interpreter, Packages, Rules, Toolbox};
use mfserv_platform::disk;

/// What an archive says about itself; in it.
const ABOUT: &str = "base.json";

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct About {
    format: u32,
    lock: String,
    python: String,
    abi: String,
    mfserv: String,
}

impl About {
    fn of(python: &Interpreter) -> Self {
        Self {
            format: 1,
            lock: disk::fingerprint([("lock", lock(python).unwrap_or_default().as_bytes())]),
            python: python.short_version.clone(),
            abi: python.abi.clone(),
            mfserv: env!("CARGO_PKG_VERSION").into(),
        }
    }
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
        disk::create_dir(&stage.join("wheels"))?;
        let about = serde_json::to_vec_pretty(&About::of(python)).unwrap_or_default();
        disk::write(&stage.join(ABOUT), &about)?;
        disk::write(&stage.join("lock.txt"), lock(python)?.as_bytes())?;
        disk::write(&stage.join(".layerapi2_label"), format!("plugin_{name}@mfserv\n").as_bytes())?;
        progress.step("collecting the packages of the base environment");
        let uv = Toolbox::find_uv(home, python);
        let toolbox = Toolbox { home, interpreter: python, uv, limit: LIMIT, cancel };
        let wheels = stage.join("wheels");
        toolbox.wheels(&stage.join("lock.txt"), &wheels, &Rules::default(), progress)?;
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
        check(file, stage, python)?;
        if let Some(base) = current(home, python) {
            return Ok(base);
        }
        ensure_from(home, python, Packages::Wheels(&stage.join("wheels")), cancel, progress)
    })
}

fn check(file: &Path, stage: &Path, python: &Interpreter) -> Result<(), Diagnostic> {
    let refused = |because: String| {
        Diagnostic::error(format!("{} is no base environment for this machine", file.display()))
            .kind(Kind::Refused)
            .because(because)
            .help("export it again: with this version of mfserv, for this Python, on this kind of machine")
    };
    let text = read_small(&stage.join(ABOUT)).map_err(|e| refused(format!("{ABOUT}: {e}")))?;
    let about: About = serde_json::from_str(&text).map_err(|e| refused(format!("{ABOUT}: {e}")))?;
    let wanted = About::of(python);
    if (&about.python, &about.abi) != (&wanted.python, &wanted.abi) {
        return Err(refused(format!(
            "it is for {}, and {} is {}",
            about.abi,
            python.path.display(),
            wanted.abi
        )));
    }
    if about.format != wanted.format || about.lock != wanted.lock {
        return Err(refused(format!(
            "it has the packages of mfserv {}, and this is mfserv {}",
            about.mfserv, wanted.mfserv
        )));
    }
    Ok(())
}

/// Runs with a path below `var/base` that does not exist yet, and is removed afterwards.
fn with_stage<T>(
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
