//! The Python part of a build: requirements → exact versions → wheels → environment.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::{Diagnostic, Kind};
use serde::{Deserialize, Serialize};

use super::direct::{Directs, contents};
use super::frozen::{Frozen, Wheels, frozen_requirements};
use super::origin::Kind as From;
use super::requirements::{self, Requirements};
use super::{BuildOptions, Part, project};
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

/// How the first line of a list begins that a build has made: what it was made from follows.
const MADE_FROM: &str = "# made by mfserv from requirements-to-freeze.txt, SHA-256 ";

/// The files of the Python part of a plugin.
struct Sources {
    dir: PathBuf,
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
            dir: dir.to_owned(),
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
    fn to_compile(&self, frozen: &[Frozen]) -> Vec<String> {
        let allowed = match read_small(&self.allow_binary) {
            Ok(text) if named(&text).next().is_none() => return Vec::new(),
            Ok(text) => text,
            Err(_) => String::new(),
        };
        let names = named(&allowed).chain(named(base::LOCK)).map(package_name);
        let allowed: BTreeSet<String> = names.collect();
        let all = frozen.iter().filter(|one| one.origin.is_none());
        let all = all.map(|one| package_name(&one.text));
        all.filter(|name| !allowed.contains(name)).collect()
    }

    /// The loose list with all that it names; nothing, if there is none.
    fn loose(&self) -> Result<Requirements, Diagnostic> {
        match self.loose.is_file() {
            true => Requirements::read(&self.dir, &self.loose),
            false => Ok(Requirements::default()),
        }
    }

    /// What the exact versions are made from; the first line of the list that they are in.
    fn inputs(&self, loose: &Requirements) -> String {
        let marks = [("override", self.override_mark.exists())];
        let marks = marks.iter().filter(|(_, there)| *there).map(|(name, _)| (*name, ""));
        let fingerprint = loose.fingerprint(&marks.collect::<Vec<_>>());
        format!("{MADE_FROM}{fingerprint}")
    }

    /// How packages are found and built.
    fn rules(&self, loose: &Requirements) -> Rules {
        Rules {
            build_constraint: self.build_constraint(),
            dir: Some(self.dir.clone()),
            variables: loose.variables.clone(),
            ..Rules::default()
        }
    }
}

/// The name of a package in a requirement, in the one form that all agree on.
pub(super) fn package_name(requirement: &str) -> String {
    let end = requirement.find(|c: char| !(c.is_ascii_alphanumeric() || "-_.".contains(c)));
    let name = requirement[..end.unwrap_or(requirement.len())].to_ascii_lowercase();
    name.split(['-', '_', '.']).filter(|part| !part.is_empty()).collect::<Vec<_>>().join("-")
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Mark {
    format: u32,
    requirements: String,
    python: String,
    abi: String,
    /// Of packages that are not from the index: their line in requirements3.txt, and their wheel.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    origins: BTreeMap<String, String>,
    /// The SHA-256 of wheels that were built from sources whose sums were checked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    made: BTreeMap<String, String>,
}

impl Mark {
    fn new(inputs: &str, python: &str, interpreter: &Interpreter) -> Self {
        let requirements = disk::fingerprint([("requirements", inputs.as_bytes())]);
        let (python, abi) = (python.into(), interpreter.abi.clone());
        Self { format: 1, requirements, python, abi, ..Self::default() }
    }

    /// Both are of the same inputs and the same interpreter.
    fn is_for(&self, other: &Mark) -> bool {
        let inputs = |mark: &Mark| {
            (mark.format, mark.requirements.clone(), mark.python.clone(), mark.abi.clone())
        };
        inputs(self) == inputs(other)
    }

    fn read(dir: &Path, name: &str) -> Option<Self> {
        let text = read_bounded(&dir.join(name), requirements::LONGEST).ok()?;
        serde_json::from_str(&text).ok()
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
    let mut directs = Directs::new(dir, &toolbox);
    let loose = sources.loose()?;
    let text = freeze(&sources, &loose, &mut directs, &toolbox, progress)?;
    // What an installation would refuse is refused here.
    let frozen = frozen_requirements(&text, &sources.frozen)?;
    let collected = collect_wheels(
        &sources,
        &frozen,
        &sources.rules(&loose),
        &mut directs,
        &toolbox,
        progress,
    )?;
    let installed = install(&sources, &frozen, &text, &toolbox, progress)?;
    Ok(Some(Part {
        unchanged: !collected && !installed,
        interpreter: format!("Python {}", interpreter.version),
        tool: toolbox.name().into(),
        packages: frozen.len(),
    }))
}

/// The files that a build of the Python part reads: when one of them changes, it has something
/// to do. Those that are not there yet count too.
pub(super) fn inputs(dir: &Path) -> Vec<PathBuf> {
    let sources = Sources::of(dir);
    let mut files = vec![
        sources.loose.clone(),
        sources.frozen.clone(),
        sources.allow_binary.clone(),
        sources.build_constraint.clone(),
        sources.override_mark.clone(),
    ];
    // A list that cannot be read now is read by the build, which says so.
    let Ok(loose) = sources.loose() else { return files };
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
    let sources = Sources::of(dir);
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
    let toolbox =
        Toolbox { home, interpreter: &interpreter, uv: Toolbox::find_uv(home), limit, cancel };
    install(&sources, &frozen, &text, &toolbox, progress)
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
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

/// The text of requirements3.txt, made again when anything that it was made from has changed. A
/// list that a build has made says what it was made from, so that a checkout, which gives all
/// files new times, resolves nothing; one of somebody else is older than its sources or not.
fn freeze(
    sources: &Sources,
    loose: &Requirements,
    directs: &mut Directs<'_>,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<String, Diagnostic> {
    let inputs = sources.inputs(loose);
    if let Ok(text) = read_bounded(&sources.frozen, requirements::LONGEST) {
        let made_from = text.lines().find(|line| line.starts_with(MADE_FROM));
        let current = match made_from {
            _ if loose.files.is_empty() => true,
            Some(line) => line.trim_end() == inputs,
            None => !loose.files.iter().any(|file| is_older(&sources.frozen, file)),
        };
        if current {
            return Ok(text);
        }
    } else if sources.frozen.is_file() {
        // Too long, or not to be read: the error says which.
        return read_bounded(&sources.frozen, requirements::LONGEST)
            .map_err(|e| disk::failed("read", &sources.frozen, e));
    }
    let lines = match loose.wanted.is_empty() {
        true => String::from("# no packages\n"),
        false => resolve(sources, loose, directs, toolbox, progress)?,
    };
    let text = format!("{inputs}\n{lines}");
    disk::write(&sources.frozen, text.as_bytes())?;
    Ok(text)
}

/// The exact versions of all packages. Those of packages from elsewhere are made into wheels
/// first, and the tool resolves with these.
fn resolve(
    sources: &Sources,
    loose: &Requirements,
    directs: &mut Directs<'_>,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<String, Diagnostic> {
    let rules = sources.rules(loose);
    let mut origins = BTreeMap::new();
    let mut list = loose.options.join("\n") + "\n";
    let markers = loose.wanted.iter().map(|one| one.origin.as_ref().map_or("", |o| &o.marker));
    let holds = toolbox.holds(&markers.collect::<Vec<_>>(), progress)?;
    for (wanted, holds) in loose.wanted.iter().zip(holds) {
        match &wanted.origin {
            None => list += &format!("{}\n", wanted.text),
            Some(_) if !holds => {}
            Some(origin) => {
                let made = directs.wheel(origin, &rules, progress)?;
                let line = origin.frozen(&made.name, &address_of_file(&made.wheel));
                list += &format!("{}\n", line.split(" ;").next().unwrap_or_default());
                let _ = origins.insert(made.name.clone(), origin.frozen(&made.name, &made.address));
            }
        }
    }
    progress.step(&format!("resolving the Python requirements with {}", toolbox.name()));
    let resolved = resolve_list(sources, loose, &list, rules, toolbox, progress)?;
    let exact = resolved.lines().filter(|line| !line.trim_start().starts_with(['#', '-']));
    let exact = exact.filter(|line| !line.trim().is_empty()).map(|line| {
        let name = package_name(line.trim());
        let sums = loose.wanted.iter().filter(|one| one.name().as_ref() == Some(&name));
        let sums = sums.flat_map(|one| &one.sums).map(|sum| format!(" --hash={sum}"));
        let line = origins.get(&name).map_or(line.trim(), String::as_str);
        line.to_string() + &sums.collect::<String>() + "\n"
    });
    Ok(exact.collect())
}

/// Resolves a list. The versions of what the layers of MFSERV had are constraints, so that a
/// plugin and the framework share what they can, and a plugin that asks for others gets them:
/// first without the constraints of what it pins itself, then without all. With `override`
/// there are none.
fn resolve_list(
    sources: &Sources,
    loose: &Requirements,
    list: &str,
    mut rules: Rules,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<String, Diagnostic> {
    disk::create_dir(&toolbox.home.base())?;
    let file = disk::beside(&toolbox.home.base().join("requirements.txt"), "new");
    let constraints = disk::beside(&toolbox.home.base().join("constraints.txt"), "new");
    let pinned = loose.pinned();
    let kept = |but: &BTreeSet<String>| -> Vec<&str> {
        base::constraints().filter(|line| !but.contains(&package_name(line))).collect()
    };
    let attempts = match sources.override_mark.exists() {
        true => vec![Vec::new()],
        false => vec![kept(&BTreeSet::new()), kept(&pinned), Vec::new()],
    };
    rules.constraints = Some(constraints.clone());
    let mut result = Err(Diagnostic::error("nothing was resolved"));
    for (number, attempt) in attempts.iter().enumerate() {
        if number > 0 && attempts[number - 1] == *attempt {
            continue;
        }
        let own = loose.constraints.iter().map(String::as_str);
        let text: Vec<&str> = attempt.iter().copied().chain(own).collect();
        disk::write(&constraints, (text.join("\n") + "\n").as_bytes())?;
        disk::write(&file, list.as_bytes())?;
        result = toolbox.freeze(&file, &rules, progress);
        match &result {
            Ok(_) if number > 0 => progress.step(
                "the plugin asks for other versions than the base environment has: it gets its own",
            ),
            Err(error) if is_conflict(error) => continue,
            Ok(_) | Err(_) => {}
        }
        break;
    }
    let _ = fs::remove_file(&file);
    let _ = fs::remove_file(&constraints);
    result
}

/// Versions do not go together, or there is none that is asked for.
fn is_conflict(error: &Diagnostic) -> bool {
    let text = error.because.join("\n");
    let signs =
        ["No solution found", "ResolutionImpossible", "conflict", "No matching distribution"];
    error.kind == Kind::Failed && signs.iter().any(|sign| text.contains(sign))
}

/// `file:///…`
fn address_of_file(file: &Path) -> String {
    let mut address = String::from("file://");
    for byte in file.as_os_str().as_encoded_bytes() {
        match byte {
            b if b.is_ascii_alphanumeric() || b"/-_.+~!".contains(b) => {
                address.push(char::from(*b))
            }
            b => address += &format!("%{b:02X}"),
        }
    }
    address
}

/// Collects the wheels, unless they are there. True when something was done.
fn collect_wheels(
    sources: &Sources,
    frozen: &[Frozen],
    rules: &Rules,
    directs: &mut Directs<'_>,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<bool, Diagnostic> {
    if frozen.is_empty() {
        disk::remove(&sources.wheels)?;
        return Ok(false);
    }
    let loose = sources.loose()?;
    let from_source = sources.to_compile(frozen);
    let lines: Vec<String> = frozen.iter().map(Frozen::line).collect();
    let inputs = [
        lines.join("\n"),
        loose.options.join("\n"),
        from_source.join(","),
        read_small(&sources.build_constraint).unwrap_or_default(),
        contents(frozen.iter().filter_map(|one| one.origin.as_ref()))?,
    ];
    // No patch version: the wheels are packaged, and good for all of 3.11.
    let wanted = Mark::new(
        &inputs.join("\n# then\n"),
        &toolbox.interpreter.short_version,
        toolbox.interpreter,
    );
    if Mark::read(&sources.wheels, WHEELS_MARK).is_some_and(|mark| mark.is_for(&wanted)) {
        return Ok(false);
    }
    progress.step(&format!("collecting {} Python packages", frozen.len()));
    let rules = Rules { from_source, ..rules.clone() };
    staged(&sources.wheels, |stage| {
        disk::create_dir(stage)?;
        fetch_wheels(frozen, &loose.options, &rules, stage, toolbox, progress)?;
        let mut mark = wanted;
        let markers = frozen.iter().map(|one| one.origin.as_ref().map_or("", |o| &o.marker));
        let holds = toolbox.holds(&markers.collect::<Vec<_>>(), progress)?;
        for (one, _) in frozen.iter().zip(holds).filter(|(_, holds)| *holds) {
            let Some(origin) = &one.origin else { continue };
            let made = directs.wheel(origin, &rules, progress)?;
            let name = made.wheel.file_name().unwrap_or_default();
            fs::copy(&made.wheel, stage.join(name))
                .map_err(|e| disk::failed("copy", &made.wheel, e))?;
            mark.origins.insert(one.text.clone(), name.to_string_lossy().into_owned());
        }
        if frozen.iter().any(|one| !one.sums.is_empty()) {
            mark.made = sums_of(stage)?;
        }
        mark.write(stage, WHEELS_MARK)
    })?;
    Ok(true)
}

/// The wheels of what the index has. pip checks the sums of what it fetches.
fn fetch_wheels(
    frozen: &[Frozen],
    options: &[String],
    rules: &Rules,
    stage: &Path,
    toolbox: &Toolbox<'_>,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    let from_index = frozen.iter().filter(|one| one.origin.is_none());
    let lines: Vec<String> = from_index.map(Frozen::line).collect();
    if lines.is_empty() {
        return Ok(());
    }
    // These only matter where versions are chosen.
    let of_resolution = ["--pre", "-c ", "--require-hashes"];
    let options = options.iter().filter(|one| !of_resolution.iter().any(|no| one.starts_with(no)));
    let all: Vec<&str> =
        options.map(String::as_str).chain(lines.iter().map(String::as_str)).collect();
    disk::create_dir(&toolbox.home.base())?;
    let list = disk::beside(&toolbox.home.base().join("wheels.txt"), "new");
    disk::write(&list, (all.join("\n") + "\n").as_bytes())?;
    let result = toolbox.wheels(&list, stage, rules, progress);
    let _ = fs::remove_file(&list);
    result
}

/// The SHA-256 of each file of a directory.
fn sums_of(dir: &Path) -> Result<BTreeMap<String, String>, Diagnostic> {
    use sha2::{Digest, Sha256};
    let sum = |name: String| {
        let file = dir.join(&name);
        let bytes = fs::read(&file).map_err(|e| disk::failed("read", &file, e))?;
        Ok((name, disk::hex(&Sha256::digest(bytes))))
    };
    names_in(dir).into_iter().map(sum).collect()
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
        let list = site_packages(stage, interpreter).join("requirements3.txt");
        disk::write(&list, sorted(frozen).as_bytes())?;
        move_programs(stage, &stage.to_string_lossy(), &place)?;
        wanted.write(stage, ENVIRONMENT_MARK)
    });
    let _ = fs::remove_file(&list);
    result.map(|()| true)
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

/// The lines of a list of names.
fn named(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn sorted(frozen: &[Frozen]) -> String {
    let mut lines: Vec<&str> = frozen.iter().map(|one| one.text.as_str()).collect();
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
        let text = "Flask==3\nnumpy==2 \\\n  --hash=sha256:00\nwerkzeug==3.1.9\nx @ ./x\n";
        let frozen = frozen_requirements(text, &sources.frozen).unwrap();
        assert_eq!(sources.to_compile(&frozen), ["flask", "numpy"]);
        fs::write(&sources.allow_binary, "NumPy\n").unwrap();
        assert_eq!(sources.to_compile(&frozen), ["flask"]);
        fs::write(&sources.allow_binary, "\n").unwrap();
        assert!(sources.to_compile(&frozen).is_empty());
    }
}
