//! Base environments: for each Python version, what plugins expect from the
//! framework without declaring it.
//!
//! One is made in a directory of its own below `var/base`, at its final path,
//! and becomes `var/base/pythonX.Y` by the renaming of a link: workers run with
//! the real path, and what they run with never changes below them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::plugin_spec::PluginSpec;
use serde::{Deserialize, Serialize};

use crate::build;
use crate::home::Home;
use crate::progress::{Cancel, Progress};
use crate::python::{self, Interpreter, Packages, Toolbox};
use crate::tools;
use mfserv_platform::disk;

mod carried;
mod layers;
mod locks;
mod own;
mod portable;
mod reach;

pub use carried::{CARRIED, carry};
pub use layers::ensure_layers;
pub(crate) use layers::{VARIABLE as LAYERS_VARIABLE, is_of_layers, layers_beside};
pub use locks::{constraints, lock};
use own::{ALSO_OF_2, MODULES, PROGRAMS};
pub use portable::{export, import};
use reach::{Missing, NEEDS_NONE, ONCE, reach_index};

/// How long making a base environment may take, a slow network included.
const LIMIT: Duration = Duration::from_secs(900);
/// The file that says that an environment is whole, written last.
const MARK: &str = ".mfserv-base.json";

/// A base environment that is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseEnvironment {
    /// Its real directory (not the link).
    pub dir: PathBuf,
    /// The interpreter it was made with.
    pub interpreter: Interpreter,
}

#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    format: u32,
    fingerprint: String,
    interpreter: Interpreter,
}

impl BaseEnvironment {
    /// `bin`: the interpreter and the programs.
    pub fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// `lib/pythonX.Y/site-packages`.
    pub fn site_packages(&self) -> PathBuf {
        site_packages(&self.dir, &self.interpreter)
    }
}

/// `lib/pythonX.Y/site-packages` of an environment.
pub(crate) fn site_packages(environment: &Path, interpreter: &Interpreter) -> PathBuf {
    environment.join(format!("lib/python{}/site-packages", interpreter.short_version))
}

/// The base environment that is there for a Python version (`3.11`), whether or
/// not it is up to date. Starts no program: good for each start of a worker.
pub fn find(home: &Home, short_version: &str) -> Option<BaseEnvironment> {
    let dir = fs::canonicalize(home.base().join(format!("python{short_version}"))).ok()?;
    let mark: Mark = serde_json::from_slice(&fs::read(dir.join(MARK)).ok()?).ok()?;
    Some(BaseEnvironment { dir, interpreter: mark.interpreter })
}

/// Whether a plugin needs a base environment: it has a Python part, or one of
/// its commands is a Python program or one of the base's own.
pub fn is_wanted(plugin_dir: &Path, spec: &PluginSpec) -> bool {
    build::PYTHON_SOURCES.iter().any(|name| plugin_dir.join(name).is_dir()) || runs_python(spec)
}

/// Whether a command of a plugin is a Python program, or one of the base's own.
pub fn runs_python(spec: &PluginSpec) -> bool {
    let python = |command: &str| {
        let mut words = command.split_whitespace().map(|word| word.trim_matches('"'));
        let mut word = words.next().unwrap_or_default();
        if word == "env" {
            // `env -C DIR A=B PROGRAM`
            let rest: Vec<&str> = words.collect();
            let rest = if rest.first() == Some(&"-C") { &rest[2.min(rest.len())..] } else { &rest };
            word = rest.iter().find(|word| !word.contains('=')).copied().unwrap_or_default();
        }
        let program = word.rsplit('/').next().unwrap_or_default();
        program.ends_with(".py")
            || program.starts_with("python")
            || matches!(program, "uvicorn" | "mfserv_worker")
    };
    spec.apps.iter().any(|app| python(&app.command.command))
        || spec.extra_daemons.iter().any(|extra| python(&extra.command.command))
}

/// The base environments that are there, by version.
pub fn list(home: &Home) -> Vec<BaseEnvironment> {
    let Ok(entries) = fs::read_dir(home.base()) else { return Vec::new() };
    let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<_> =
        names.filter_map(|name| find(home, name.strip_prefix("python")?)).collect();
    found.sort_by_key(|base| base.interpreter.numbers());
    found
}

/// The base environment of an interpreter, made if it is missing or not of this
/// version of mfserv. It is made of what the `release` that needs it has brought along (see
/// [`carry`]), else it needs the network, and fetches uv then, with which
/// it and later builds take a fraction of the time; where that fails, pip does it. Two that
/// want it at the same time: one makes it, the other waits.
pub fn ensure(
    home: &Home,
    python: &Interpreter,
    release: Option<&Path>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<BaseEnvironment, Diagnostic> {
    if let Some(base) = current(home, python) {
        return Ok(base);
    }
    lock(python)?;
    let carried = release.map(|dir| carried::wheels_of(dir, python));
    if let Some(Ok(wheels)) = &carried {
        return ensure_from(home, python, Packages::Wheels(wheels), cancel, progress);
    }
    let why = carried.and_then(Result::err);
    let missing = format!("the base environment of Python {} is not there", python.short_version);
    let missing = Missing { what: &missing, why: why.as_deref(), help: NEEDS_NONE };
    reach_index(&missing, progress)?;
    if let Some(why) = why.filter(|_| release.is_some_and(carried::has)) {
        progress.notice(
            Diagnostic::warning("the packages that the plugin brings along are not used")
                .because(why)
                .because("the base environment is made with the package index")
                .help("pack it with --standalone by this version of mfserv, for this Python"),
        );
    }
    let uv = (!python.is_2()).then(|| tools::uv(home, python, cancel, progress));
    if let Some(Err(why)) = uv {
        progress.step(&format!("going on with pip: {}", why.what));
    }
    ensure_from(home, python, Packages::Index, cancel, progress)
}

/// The same, from where the packages are.
fn ensure_from(
    home: &Home,
    python: &Interpreter,
    packages: Packages<'_>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<BaseEnvironment, Diagnostic> {
    lock(python)?;
    disk::create_dir(&home.base())?;
    let _lock = disk::Lock::wait(&home.base().join(".lock"), "the base environment", LIMIT)?;
    if let Some(base) = current(home, python) {
        return Ok(base);
    }
    let name = format!(".python{}-{}", python.short_version, &fingerprint(python)[..12]);
    let dir = place(home, &name)?;
    disk::remove(&dir)?;
    let made = make(home, &dir, python, packages, cancel, progress);
    if made.is_err() {
        let _ = disk::remove(&dir);
    }
    made?;
    let link = home.base().join(format!("python{}", python.short_version));
    let before = fs::canonicalize(&link).ok();
    disk::relink(&link, Path::new(dir.file_name().unwrap_or_default()))?;
    sweep(home, python, &[Some(dir.clone()), before]);
    current(home, python).ok_or_else(|| {
        Diagnostic::error(format!("the base environment {} is not whole", dir.display()))
    })
}

/// The real path of a directory below `var/base`. The programs of an environment name the directory in
/// which it was made: a link on the way there (to a base that several homes share) may not last as
/// long.
fn place(home: &Home, name: &str) -> Result<PathBuf, Diagnostic> {
    let base = home.base();
    let real = fs::canonicalize(&base).map_err(|e| disk::failed("find", &base, e))?;
    Ok(real.join(name))
}

/// The base environment, if it is the one that this version would make.
fn current(home: &Home, python: &Interpreter) -> Option<BaseEnvironment> {
    let base = find(home, &python.short_version)?;
    let mark: Mark = serde_json::from_slice(&fs::read(base.dir.join(MARK)).ok()?).ok()?;
    (mark.fingerprint == fingerprint(python) && base.bin().join("python").exists()).then_some(base)
}

/// An environment is the same as long as its interpreter is the same program in all that
/// packages can tell; where the program is does not count.
fn fingerprint(python: &Interpreter) -> String {
    let lock = lock(python).unwrap_or_default();
    disk::fingerprint(
        [("lock", lock.as_bytes()), ("python", python.identity().as_bytes())]
            .into_iter()
            .chain(own::identities()),
    )
}

fn make(
    home: &Home,
    dir: &Path,
    python: &Interpreter,
    packages: Packages<'_>,
    cancel: &Cancel,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    let toolbox = toolbox(home, python, cancel);
    progress.step(&format!(
        "making the base environment of Python {} with {}",
        python.short_version,
        toolbox.name()
    ));
    toolbox.make_environment(dir, progress)?;
    let list = dir.join("base-requirements.txt");
    disk::write(&list, lock(python)?.as_bytes())?;
    toolbox.install(dir, &list, packages, progress).map_err(|error| match error.help {
        None => error.help(ONCE),
        Some(_) => error,
    })?;
    for (path, text) in modules(python) {
        let place = site_packages(dir, python).join(path);
        place.parent().map_or(Ok(()), disk::create_dir)?;
        disk::write(&place, text)?;
    }
    for (name, text) in PROGRAMS {
        let place = dir.join("bin").join(name);
        disk::write(
            &place,
            text.replace("@PYTHON@", &dir.join("bin/python").to_string_lossy()).as_bytes(),
        )?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755))
            .map_err(|e| disk::failed("write", &place, e))?;
    }
    compile(&toolbox, dir, progress)?;
    let mark = Mark { format: 1, fingerprint: fingerprint(python), interpreter: python.clone() };
    disk::write(&dir.join(MARK), &serde_json::to_vec_pretty(&mark).unwrap_or_default())
}

/// Our own modules that an interpreter understands. One that could not be built for this system is
/// empty, and left out.
fn modules(python: &Interpreter) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let is_2 = python.is_2();
    let all = MODULES.iter().copied().filter(|(path, text)| is_source(path) || !text.is_empty());
    all.filter(move |(path, _)| !is_2 || ALSO_OF_2.contains(path))
}

fn is_source(path: &str) -> bool {
    path.ends_with(".py")
}

/// Compiles our own modules; pip and uv have compiled the others.
fn compile(
    toolbox: &Toolbox<'_>,
    dir: &Path,
    progress: &mut dyn Progress,
) -> Result<(), Diagnostic> {
    let mut command = python::clean(&dir.join("bin/python"));
    // `-m` would import from the directory that we are called from.
    command.current_dir("/");
    command.args(toolbox.interpreter.isolation()).args(["-m", "compileall", "-q"]);
    let places = site_packages(dir, toolbox.interpreter);
    let paths = modules(toolbox.interpreter).map(|(path, _)| path);
    command.args(paths.filter(|path| is_source(path)).map(|path| places.join(path)));
    let run = crate::child::Run {
        what: "compiling our Python modules",
        limit: toolbox.limit,
        cancel: toolbox.cancel,
    };
    run.run(command, progress).map(drop)
}

/// Removes the environments of this Python version that are not in `kept`: the
/// new one, and the one before, which workers still run with.
fn sweep(home: &Home, python: &Interpreter, kept: &[Option<PathBuf>]) {
    let prefix = format!(".python{}-", python.short_version);
    let Ok(entries) = fs::read_dir(home.base()) else { return };
    for entry in
        entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
    {
        let same = |one: &PathBuf| one.file_name() == Some(&entry.file_name());
        if !kept.iter().flatten().any(same) {
            let _ = disk::remove(&entry.path());
        }
    }
}

/// What makes and fills the environments of an interpreter.
fn toolbox<'a>(home: &'a Home, interpreter: &'a Interpreter, cancel: &'a Cancel) -> Toolbox<'a> {
    let uv = Toolbox::find_uv(home, interpreter);
    Toolbox { home, interpreter, uv, limit: LIMIT, cancel }
}

#[cfg(test)]
fn some_python() -> Interpreter {
    Interpreter {
        path: "/usr/bin/python3".into(),
        short_version: "3.11".into(),
        version: "3.11.7".into(),
        abi: "cpython-311-x86_64-linux-gnu".into(),
        has_ensurepip: true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn a_python_too_old_is_refused_before_anything_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let python = Interpreter {
            path: "/usr/bin/python3.6".into(),
            short_version: "3.6".into(),
            version: "3.6.15".into(),
            abi: "cpython-36m".into(),
            has_ensurepip: true,
        };
        let home = Home::new(folder.path());
        let error = ensure(&home, &python, None, &Cancel::default(), &mut Silent).unwrap_err();
        assert!(
            error.to_string().contains("3.6.15") && error.to_string().contains("3.7"),
            "{error}"
        );
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_environment_is_made_at_its_real_path_also_through_links_to_the_base_or_the_home() {
        let folder = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(folder.path()).unwrap().join("shared");
        disk::create_dir(&real).unwrap();
        let home = folder.path().join("home");
        disk::create_dir(&home.join("var")).unwrap();
        std::os::unix::fs::symlink(&real, home.join("var/base")).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&home, &link).unwrap();
        for root in [&home, &link] {
            let place = place(&Home::new(root), ".python3.11-x").unwrap();
            assert_eq!(place, real.join(".python3.11-x"));
        }
        let error = place(&Home::new(folder.path().join("none")), "x").unwrap_err();
        assert!(error.to_string().contains("none/var/base"), "{error}");
    }

    #[test]
    fn an_environment_is_the_same_for_the_same_interpreter_wherever_it_is() {
        let python = some_python();
        let moved = Interpreter { path: "/opt/v/bin/python3".into(), ..python.clone() };
        assert_eq!(fingerprint(&python), fingerprint(&moved));
        let newer = Interpreter { version: "3.11.8".into(), ..python.clone() };
        let debug = Interpreter { abi: "cpython-311d-x86_64-linux-gnu".into(), ..python.clone() };
        assert_ne!(fingerprint(&python), fingerprint(&newer));
        assert_ne!(fingerprint(&python), fingerprint(&debug));
    }
}
