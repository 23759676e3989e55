//! The Python part of a build: requirements → exact versions → wheels → environment.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};
use serde::{Deserialize, Serialize};

use super::frozen::{self, frozen_requirements};
use super::{BuildOptions, Part};
use crate::base::{self, site_packages};
use crate::home::Home;
use crate::label::{read_bounded, read_small};
use crate::progress::{Cancel, Progress};
use crate::python::{self, Interpreter, Packages, Rules, Toolbox};
use mfserv_platform::disk;

/// Says what an environment was made of; in `local/`.
const ENVIRONMENT_MARK: &str = ".mfserv-environment.json";
/// Says what the wheels were made for; beside them, in `python3_virtualenv_sources/src`,
/// and packaged with them.
pub const WHEELS_MARK: &str = ".mfserv-wheels.json";

/// The files of the Python part of a plugin.
struct Sources {
    loose: PathBuf,
    frozen: PathBuf,
    wheels: PathBuf,
    override_mark: PathBuf,
    allow_binary: PathBuf,
    build_constraint: PathBuf,
    local: PathBuf,
}

impl Sources {
    fn of(dir: &Path) -> Self {
        let sources = dir.join("python3_virtualenv_sources");
        Self {
            loose: sources.join("requirements-to-freeze.txt"),
            frozen: sources.join("requirements3.txt"),
            wheels: sources.join("src"),
            override_mark: sources.join("override"),
            allow_binary: sources.join("allow_binary_packages"),
            build_constraint: sources.join("build_constraint"),
            local: dir.join("local"),
        }
    }
}

impl Sources {
    fn build_constraint(&self) -> Option<PathBuf> {
        Some(self.build_constraint.clone()).filter(|file| file.is_file())
    }

    /// Which of the packages must be compiled here, as `allow_binary_packages`
    /// says: none if it is there and empty; those that it does not name; all, if it
    /// is not there. What the base environment has may always be binary.
    fn to_compile(&self, frozen: &str) -> Vec<String> {
        let allowed = match read_small(&self.allow_binary) {
            Ok(text) if requirements(&text).next().is_none() => return Vec::new(),
            Ok(text) => text,
            Err(_) => String::new(),
        };
        let names = requirements(&allowed).chain(requirements(base::LOCK)).map(package_name);
        let allowed: BTreeSet<String> = names.collect();
        let all = requirements(frozen).filter(|line| !line.starts_with('-')).map(package_name);
        all.filter(|name| !name.is_empty() && !allowed.contains(name)).collect()
    }
}

/// The name of a package in a requirement, in the one form that all agree on.
pub(super) fn package_name(requirement: &str) -> String {
    let end = requirement.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    let name = requirement[..end.unwrap_or(requirement.len())].to_ascii_lowercase();
    name.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    format: u32,
    requirements: String,
    python: String,
    abi: String,
}

impl Mark {
    fn new(frozen: &str, python: &str, interpreter: &Interpreter) -> Self {
        let requirements = disk::fingerprint([("requirements", frozen.as_bytes())]);
        Self { format: 1, requirements, python: python.into(), abi: interpreter.abi.clone() }
    }

    fn read(dir: &Path, name: &str) -> Option<Self> {
        serde_json::from_str(&read_small(&dir.join(name)).ok()?).ok()
    }

    fn write(&self, dir: &Path, name: &str) -> Result<(), Diagnostic> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        disk::write(&dir.join(name), text.as_bytes())
    }
}

pub(super) fn build(
    dir: &Path,
    options: &BuildOptions,
    progress: &mut dyn Progress,
) -> Result<Option<Part>, Diagnostic> {
    let sources = Sources::of(dir);
    if !sources.loose.is_file() && !sources.frozen.is_file() {
        return Ok(None);
    }
    let interpreter = python::find(options.python.as_deref())?;
    let toolbox = Toolbox {
        home: &options.home,
        interpreter: &interpreter,
        uv: Toolbox::find_uv(&options.home),
        limit: options.limit,
        cancel: &options.cancel,
    };
    let frozen = freeze(&sources, &toolbox, progress)?;
    let collected = collect_wheels(&sources, &frozen, &toolbox, progress)?;
    let installed = install(&sources, &frozen, &sources.frozen, &toolbox, progress)?;
    Ok(Some(Part {
        unchanged: !collected && !installed,
        interpreter: format!("Python {}", interpreter.version),
        tool: toolbox.name().into(),
        packages: requirements(&frozen).count(),
    }))
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
    let sources = Sources::of(dir);
    let frozen = match read_bounded(&sources.frozen, frozen::LONGEST) {
        Ok(frozen) => frozen,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(disk::failed("read", &sources.frozen, e)),
    };
    let exact = frozen_requirements(&frozen, &sources.frozen)?;
    if exact.is_empty() {
        return Ok(false);
    }
    let interpreter = python::find(python)?;
    check_packed(&sources, &exact, &interpreter)?;
    let limit = Duration::from_secs(1800);
    let toolbox =
        Toolbox { home, interpreter: &interpreter, uv: Toolbox::find_uv(home), limit, cancel };
    // the tool gets the checked text, not the file: it might read the file in another way
    let list = disk::beside(&sources.local, "new");
    disk::write(&list, (exact.join("\n") + "\n").as_bytes())?;
    let installed = install(&sources, &frozen, &list, &toolbox, progress);
    let _ = fs::remove_file(&list);
    installed
}

fn check_packed(
    sources: &Sources,
    exact: &[String],
    interpreter: &Interpreter,
) -> Result<(), Diagnostic> {
    let mark = read_small(&sources.wheels.join(WHEELS_MARK)).unwrap_or_default();
    let entries = fs::read_dir(&sources.wheels).into_iter().flatten().flatten();
    let names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    check_wheels(exact, &names, &mark, interpreter)
}

/// Refuses packed wheels, by their file names, when one of these exact requirements is not
/// among them, or when they were compiled for another Python than this one. `mark` is the
/// text of [`WHEELS_MARK`].
pub fn check_wheels(
    exact: &[String],
    names: &[&str],
    mark: &str,
    interpreter: &Interpreter,
) -> Result<(), Diagnostic> {
    let missing = frozen::without_file(exact, names.iter().copied());
    if let Some(first) = missing.first() {
        return Err(Diagnostic::error("the plugin is not packed with its Python packages")
            .because(format!("python3_virtualenv_sources/src has no file of {first}"))
            .help("build it, and make the package again: mfserv release DIR"));
    }
    let Ok(mark) = serde_json::from_str::<Mark>(mark) else { return Ok(()) };
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

/// The text of requirements3.txt, made again when it is older than the loose one.
fn freeze(
    sources: &Sources,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<String, Diagnostic> {
    let read = |file: &Path| {
        read_bounded(file, frozen::LONGEST).map_err(|e| disk::failed("read", file, e))
    };
    if sources.frozen.is_file() && !is_older(&sources.frozen, &sources.loose) {
        return read(&sources.frozen);
    }
    let frozen = if requirements(&read(&sources.loose)?).next().is_none() {
        String::from("# no packages\n")
    } else {
        progress.step(&format!("resolving the Python requirements with {}", toolbox.name()));
        resolve(sources, toolbox, progress)?
    };
    disk::write(&sources.frozen, frozen.as_bytes())?;
    Ok(frozen)
}

/// The versions of the base environment are constraints, unless the plugin says
/// `override`: so what a plugin and the framework share is the same.
fn resolve(
    sources: &Sources,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<String, Diagnostic> {
    let mut rules = Rules { build_constraint: sources.build_constraint(), ..Rules::default() };
    if sources.override_mark.exists() {
        return toolbox.freeze(&sources.loose, &rules, progress);
    }
    disk::create_dir(&toolbox.home.base())?;
    let constraints = disk::beside(&toolbox.home.base().join("constraints.txt"), "new");
    disk::write(&constraints, base::LOCK.as_bytes())?;
    rules.constraints = Some(constraints.clone());
    let result = toolbox.freeze(&sources.loose, &rules, progress);
    let _ = fs::remove_file(&constraints);
    result.map_err(|error| match error.help {
        None if error.kind == Kind::Failed => {
            error.help("if it conflicts with a version of the base environment, create an empty file python3_virtualenv_sources/override")
        }
        _ => error,
    })
}

/// Collects the wheels, unless they are there. True when something was done.
fn collect_wheels(
    sources: &Sources,
    frozen: &str,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<bool, Diagnostic> {
    let count = requirements(frozen).count();
    // no patch version: the wheels are packaged, and good for all of 3.11
    let rules = Rules {
        build_constraint: sources.build_constraint(),
        from_source: sources.to_compile(frozen),
        constraints: None,
    };
    let inputs = [
        frozen,
        &rules.from_source.join(","),
        &read_small(&sources.build_constraint).unwrap_or_default(),
    ];
    let inputs = inputs.join("\n# then\n");
    let wanted = Mark::new(&inputs, &toolbox.interpreter.short_version, toolbox.interpreter);
    if count == 0 {
        disk::remove(&sources.wheels)?;
        return Ok(false);
    }
    if Mark::read(&sources.wheels, WHEELS_MARK).as_ref() == Some(&wanted) {
        return Ok(false);
    }
    progress.step(&format!("collecting {count} Python packages"));
    staged(&sources.wheels, |stage| {
        disk::create_dir(stage)?;
        toolbox.wheels(&sources.frozen, stage, &rules, progress)?;
        wanted.write(stage, WHEELS_MARK)
    })?;
    Ok(true)
}

/// Makes `local/` from the wheels of what `list` names, unless it is there. True when something was done.
fn install(
    sources: &Sources,
    frozen: &str,
    list: &Path,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<bool, Diagnostic> {
    let count = requirements(frozen).count();
    if count == 0 {
        disk::remove(&sources.local)?;
        return Ok(false);
    }
    let interpreter = toolbox.interpreter;
    // wheels that were collected again make another environment
    let wheels = Mark::read(&sources.wheels, WHEELS_MARK).map(|mark| mark.requirements);
    let wanted = Mark::new(
        &[frozen, &wheels.unwrap_or_default()].join("\n# from\n"),
        &format!("{} {}", interpreter.version, interpreter.path.display()),
        interpreter,
    );
    let place = sources.local.to_string_lossy().into_owned();
    let usable = sources.local.join("bin/python").exists();
    if usable && Mark::read(&sources.local, ENVIRONMENT_MARK).as_ref() == Some(&wanted) {
        return Ok(false);
    }
    progress.step(&format!("installing {count} Python packages with {}", toolbox.name()));
    staged(&sources.local, |stage| {
        toolbox.make_environment(stage, progress)?;
        toolbox.install(stage, list, Packages::Wheels(&sources.wheels), progress)?;
        let list = site_packages(stage, interpreter).join("requirements3.txt");
        disk::write(&list, sorted(frozen).as_bytes())?;
        move_programs(stage, &stage.to_string_lossy(), &place)?;
        wanted.write(stage, ENVIRONMENT_MARK)
    })?;
    Ok(true)
}

/// Fills a stage beside `place` and puts it there in one step; on error nothing is left.
fn staged(
    place: &Path,
    fill: impl FnOnce(&Path) -> Result<(), Diagnostic>,
) -> Result<(), Diagnostic> {
    disk::sweep_beside(place);
    let stage = disk::beside(place, "stage");
    disk::remove(&stage)?;
    let result = fill(&stage).and_then(|()| disk::swap_in(&stage, place));
    if result.is_err() {
        let _ = disk::remove(&stage);
    }
    result
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

/// The lines of a requirements file that name something.
fn requirements(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn sorted(frozen: &str) -> String {
    let mut lines: Vec<&str> = requirements(frozen).collect();
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

pub(super) fn is_older(file: &Path, than: &Path) -> bool {
    let time = |path: &Path| fs::metadata(path).and_then(|found| found.modified()).ok();
    match (time(file), time(than)) {
        (Some(file), Some(than)) => file < than,
        (None, _) => true,
        (_, None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_named_in_one_form() {
        for (written, name) in [
            ("Flask>=2", "flask"),
            ("zope.interface == 5", "zope-interface"),
            ("a__b[extra]==1", "a-b"),
            ("x ; python_version < '3'", "x"),
        ] {
            assert_eq!(package_name(written), name);
        }
    }

    #[test]
    fn what_is_compiled_is_what_the_plugin_does_not_allow_to_be_binary() {
        let folder = tempfile::tempdir().unwrap();
        let sources = Sources::of(folder.path());
        fs::create_dir(sources.loose.parent().unwrap()).unwrap();
        let frozen = "Flask==3\nnumpy==2\nwerkzeug==3.1.9\n";
        assert_eq!(sources.to_compile(frozen), ["flask", "numpy"]);
        fs::write(&sources.allow_binary, "NumPy\n").unwrap();
        assert_eq!(sources.to_compile(frozen), ["flask"]);
        fs::write(&sources.allow_binary, "\n").unwrap();
        assert!(sources.to_compile(frozen).is_empty());
    }
}
