//! The Python part of a build: requirements → exact versions → wheels → environment.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};

use super::direct::Directs;
use super::frozen::{Frozen, Wheels, frozen_requirements};
use super::origin::Kind as From;
use super::requirements;
use super::resolve::freeze;
use super::sources::{Mark, Sources, names_in};
use super::wheels::{collect_wheels, staged};
use super::{BuildOptions, Part, lock, project};
use crate::base::site_packages;
use crate::home::Home;
use crate::label::read_bounded;
use crate::progress::{Cancel, Progress};
use crate::python::{self, Interpreter, Packages, Toolbox};
use crate::python2::is_python2;
use mfserv_platform::disk;

/// Says what an environment was made of; in `local/`.
const ENVIRONMENT_MARK: &str = ".mfserv-environment.json";
/// Says what the wheels were made for; beside them, in `src` of [`super::PYTHON_SOURCES`],
/// and packaged with them.
pub const WHEELS_MARK: &str = ".mfserv-wheels.json";

/// What the environment of the plugin in `dir` was made of; empty if it has none.
pub(super) fn identity(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("local").join(ENVIRONMENT_MARK)).unwrap_or_default()
}

pub(super) fn build(
    dir: &Path,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<Option<Part>, Diagnostic> {
    let sources = Sources::of(dir, names_python2(options.python.as_deref()));
    let mut loose = sources.loose()?;
    let lock = lock::used(&sources, &loose);
    if lock.is_none() && !sources.loose.is_file() && !sources.frozen.is_file() {
        return Ok(None);
    }
    let interpreter = python::find(options.python.as_deref())?;
    let toolbox = Toolbox {
        home: &options.home,
        interpreter: &interpreter,
        uv: Toolbox::find_uv(&options.home, &interpreter),
        limit: options.limit,
        cancel: &options.cancel,
    };
    let mut directs = Directs::new(dir, &toolbox);
    let text = match lock {
        Some(file) => lock::freeze(&file, &sources, &mut loose, &mut directs, &toolbox, progress)?,
        None => freeze(&sources, &loose, &mut directs, &toolbox, progress)?,
    };
    // What an installation would refuse is refused here.
    let frozen = frozen_requirements(&text, &sources.frozen)?;
    let collected = collect_wheels(&sources, &frozen, &loose, &mut directs, &toolbox, progress)?;
    let installed = install(&sources, &frozen, &text, &toolbox, progress)?;
    Ok(Some(Part {
        unchanged: !collected && !installed,
        interpreter: format!("Python {}", interpreter.version),
        tool: toolbox.name().into(),
        packages: frozen.len(),
    }))
}

fn names_python2(python: Option<&str>) -> bool {
    python.is_some_and(is_python2)
}

/// The files that a build of the Python part reads: when one of them changes, it has something
/// to do. Those that are not there yet count too.
pub(super) fn inputs(dir: &Path) -> Vec<PathBuf> {
    [false, true].into_iter().flat_map(|is_2| inputs_of(&Sources::of(dir, is_2))).collect()
}

fn inputs_of(sources: &Sources) -> Vec<PathBuf> {
    let mut files = vec![
        sources.loose.clone(),
        sources.frozen.clone(),
        sources.allow_binary.clone(),
        sources.build_constraint.clone(),
        sources.override_mark.clone(),
    ];
    // A list that cannot be read now is read by the build, which says so.
    let Ok(loose) = sources.loose() else { return files };
    if let Some(file) = lock::used(sources, &loose) {
        files.extend([file, sources.dir.join("pyproject.toml")]);
    }
    files.extend(loose.files.iter().filter(|file| **file != sources.loose).cloned());
    let text = read_bounded(&sources.frozen, requirements::LONGEST).unwrap_or_default();
    let frozen = frozen_requirements(&text, &sources.frozen).unwrap_or_default();
    let origins = loose.wanted.iter().filter_map(|one| one.origin.as_ref());
    for origin in origins.chain(frozen.iter().filter_map(|one| one.origin.as_ref())) {
        let From::Local(place) = &origin.kind else { continue };
        let below = project::files(place).unwrap_or_default();
        files.push(place.clone());
        files.extend(below.into_iter().map(|path| place.join(path)));
    }
    files
}

/// The environment of an installed release, from its packaged wheels alone.
/// Returns false when the plugin has no Python packages.
pub(crate) fn environment_from_wheels(
    dir: &Path,
    home: &Home,
    python: Option<&str>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<bool, Diagnostic> {
    let sources = Sources::of(dir, names_python2(python));
    let text = match read_bounded(&sources.frozen, requirements::LONGEST) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(disk::failed("read", &sources.frozen, e)),
    };
    let frozen = frozen_requirements(&text, &sources.frozen)?;
    if frozen.is_empty() {
        return Ok(false);
    }
    let interpreter = python::find(python)?;
    let mark = read_bounded(&sources.wheels.join(WHEELS_MARK), requirements::LONGEST);
    let names = names_in(&sources.wheels);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    check_wheels(&frozen, &names, &mark.unwrap_or_default(), &interpreter)?;
    let limit = Duration::from_secs(1800);
    let toolbox = Toolbox {
        home,
        interpreter: &interpreter,
        uv: Toolbox::find_uv(home, &interpreter),
        limit,
        cancel,
    };
    install(&sources, &frozen, &text, &toolbox, progress)
}

/// Refuses packed wheels, by their file names, when one of these frozen requirements is not
/// among them, or when they were compiled for another Python than this one. `mark` is the
/// text of [`WHEELS_MARK`].
pub fn check_wheels(
    frozen: &[Frozen],
    names: &[&str],
    mark: &str,
    interpreter: &Interpreter,
) -> Result<(), Diagnostic> {
    let mark = serde_json::from_str::<Mark>(mark).ok();
    let none = BTreeMap::new();
    let origins = mark.as_ref().map_or(&none, |mark| &mark.origins);
    Wheels { names, origins }.check(frozen)?;
    let Some(mark) = mark else { return Ok(()) };
    let compiled = |name: &str| {
        name.ends_with(".whl") && !name.ends_with("-none-any.whl") && !name.contains("-abi3-")
    };
    if !names.iter().copied().any(compiled) || mark.abi == interpreter.abi {
        return Ok(());
    }
    Err(Diagnostic::error(format!("the plugin was built for another Python: {}", mark.python))
        .kind(Kind::Refused)
        .because(format!("its compiled packages are for {}, and {} is {}", mark.abi, interpreter.path.display(), interpreter.abi))
        .help(format!("build it again with this Python, or name the other one with _python=python{} in [general]", mark.python)))
}

/// Makes `local/` from the wheels of a list, unless it is there. True when something was done.
fn install(
    sources: &Sources,
    frozen: &[Frozen],
    text: &str,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<bool, Diagnostic> {
    if frozen.is_empty() {
        disk::remove(&sources.local)?;
        return Ok(false);
    }
    let interpreter = toolbox.interpreter;
    // Wheels that were collected again make another environment.
    let wheels = Mark::read(&sources.wheels, WHEELS_MARK).unwrap_or_default();
    let wanted = Mark::new(
        &[text, &wheels.requirements].join("\n# from\n"),
        &interpreter.identity(),
        interpreter,
    );
    let place = sources.local.to_string_lossy().into_owned();
    let usable = sources.local.join("bin/python").exists();
    let there = Mark::read(&sources.local, ENVIRONMENT_MARK);
    if usable && there.is_some_and(|mark| mark.is_for(&wanted)) {
        return Ok(false);
    }
    let names = names_in(&sources.wheels);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let packed = Wheels { names: &names, origins: &wheels.origins };
    let exact = packed.exact(frozen, &sources.wheels, &wheels.made)?;
    // The tool gets what was checked, not the file: it may read that in another way.
    let list = disk::beside(&sources.local, "new");
    disk::write(&list, (exact.join("\n") + "\n").as_bytes())?;
    progress.step(&format!("installing {} Python packages with {}", exact.len(), toolbox.name()));
    let result = staged(&sources.local, |stage| {
        toolbox.make_environment(stage, progress)?;
        toolbox.install(stage, &list, Packages::Wheels(&sources.wheels), progress)?;
        let name = sources.frozen.file_name().unwrap_or_default();
        let list = site_packages(stage, interpreter).join(name);
        disk::write(&list, sorted(frozen).as_bytes())?;
        move_programs(stage, &stage.to_string_lossy(), &place)?;
        wanted.write(stage, ENVIRONMENT_MARK)
    });
    let _ = fs::remove_file(&list);
    result.map(|()| true)
}

/// The programs of an environment name its interpreter by path: names the place
/// where the environment will be.
fn move_programs(environment: &Path, from: &str, to: &str) -> Result<(), Diagnostic> {
    let bin = environment.join("bin");
    let entries = fs::read_dir(&bin).map_err(|e| disk::failed("read", &bin, e))?;
    for entry in entries.flatten() {
        let path = entry.path();
        let is_text = entry.file_type().is_ok_and(|kind| kind.is_file());
        let Some(text) = is_text
            .then(|| fs::read(&path).ok())
            .flatten()
            .and_then(|bytes| String::from_utf8(bytes).ok())
        else {
            continue;
        };
        if text.contains(from) {
            // in place: the mode is kept, and nobody runs it yet
            fs::write(&path, text.replace(from, to))
                .map_err(|e| disk::failed("write", &path, e))?;
        }
    }
    Ok(())
}

fn sorted(frozen: &[Frozen]) -> String {
    let mut lines: Vec<&str> = frozen.iter().map(|one| one.text.as_str()).collect();
    lines.sort_unstable();
    lines.join("\n") + "\n"
}
