//! Interpreters of the host: by name, by path, and what they are.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::Duration;

use mfserv_core::Diagnostic;
use serde::{Deserialize, Serialize};

use crate::child::Run;
use crate::progress::{Cancel, Silent};

/// The interpreter used when none is named.
pub const DEFAULT: &str = "python3";

/// How long an interpreter may take to say its version.
const PROBE: Duration = Duration::from_secs(20);

/// A Python interpreter of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    /// The real program: shims are resolved, and of a virtual environment it is the interpreter
    /// that the environment was made with.
    pub path: PathBuf,
    /// Its short version: `3.11`; `3.13t` if it is free-threaded. Its packages are in
    /// `lib/python3.11/site-packages`.
    pub short_version: String,
    /// Its whole version: `3.11.7`.
    pub version: String,
    /// The binary interface that compiled packages must have: `cpython-311-x86_64-linux-gnu`.
    pub abi: String,
    /// It can make an environment with pip in it.
    pub has_ensurepip: bool,
}

// The modules are looked for and not imported: this runs at each build. A virtual environment
// may be removed tomorrow, so its interpreter is the one below it (`sys._base_executable`).
// Python 2 understands the script too, and has no name for its binary interface.
const PROBE_SCRIPT: &str = "
import sys
sys.path[:] = [place for place in sys.path if place]
import json, sysconfig
say = sysconfig.get_config_var
abi = say('SOABI') or 'cpython-%d%d%s' % (sys.version_info[0], sys.version_info[1], 'mu' if sys.maxunicode > 0xffff else 'm')
try:
    from importlib.util import find_spec
    seeds = find_spec('ensurepip') is not None and find_spec('venv') is not None
except ImportError:
    seeds = False
print(json.dumps({'path': getattr(sys, '_base_executable', None) or sys.executable,
    'short_version': '%d.%d%s' % (sys.version_info[0], sys.version_info[1], 't' if say('Py_GIL_DISABLED') else ''),
    'version': '%d.%d.%d' % sys.version_info[:3], 'abi': abi, 'has_ensurepip': seeds}))
";

/// Finds an interpreter by name (`python3.12`) or path; `None` is [`DEFAULT`]. It is asked
/// for its version once: a command that builds or installs needs it several times, and
/// a shim of pyenv takes longer than all else of a build with nothing to do.
pub fn find(name: Option<&str>) -> Result<Interpreter, Diagnostic> {
    static FOUND: Mutex<BTreeMap<PathBuf, Interpreter>> = Mutex::new(BTreeMap::new());
    let name = name.unwrap_or(DEFAULT);
    let known = |program: &Path| FOUND.lock().ok()?.get(program).cloned();
    if let Some(found) = on_host(name).and_then(|program| known(&program)) {
        return Ok(found);
    }
    let (program, found) = ask(name)?;
    if let Ok(mut all) = FOUND.lock() {
        all.insert(program, found.clone());
    }
    Ok(found)
}

/// Looks for an interpreter and asks it what it is.
fn ask(name: &str) -> Result<(PathBuf, Interpreter), Diagnostic> {
    let missing = || {
        Diagnostic::error(format!("the Python interpreter {name} is not there"))
            .because("no such program on PATH")
            .help(how_to_install(name))
    };
    let program = on_host(name).ok_or_else(missing)?;
    #[expect(clippy::disallowed_methods, reason = "builds run the interpreter and its tools")]
    let mut command = Command::new(&program);
    command.args(["-E", "-s", "-c", PROBE_SCRIPT]);
    let run = Run {
        what: &format!("asking {} for its version", program.display()),
        limit: PROBE,
        cancel: &Cancel::default(),
    };
    let said = run.run(command, &mut Silent).map_err(|error| {
        error.help(format!(
            "name another one with _python=… in [general], or {}",
            how_to_install(name)
        ))
    })?;
    let found = serde_json::from_str(&said.text()).map_err(|e| {
        Diagnostic::error(format!(
            "{} is not a Python interpreter that we understand",
            program.display()
        ))
        .because(e)
    })?;
    Ok((program, found))
}

/// What brings an interpreter onto PATH.
pub(crate) fn how_to_install(name: &str) -> String {
    let file = name.rsplit('/').next().unwrap_or(DEFAULT);
    if file.starts_with("python2") {
        return "no current distribution has Python 2: `pyenv install 2.7.18`, and put its bin \
                directory (or pyenv's shims) on PATH"
            .into();
    }
    let package = if file.starts_with("python") { file } else { DEFAULT };
    format!("install it: apt-get install {package} python3-venv")
}

impl Interpreter {
    /// What packages can tell of an interpreter: two with the same identity run the same
    /// environments, wherever their programs are.
    pub fn identity(&self) -> String {
        format!("{} {}", self.version, self.abi)
    }

    /// Its major and minor version.
    pub(crate) fn numbers(&self) -> Option<(u32, u32)> {
        let (major, minor) = self.short_version.trim_end_matches('t').split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    }

    /// Whether it is older than a version.
    pub(crate) fn is_before(&self, version: (u32, u32)) -> bool {
        self.numbers() < Some(version)
    }

    /// It is a Python 2.
    pub fn is_2(&self) -> bool {
        self.short_version.starts_with("2.")
    }

    /// The options by which it obeys no variable and no package of the user.
    pub(crate) fn isolation(&self) -> &'static [&'static str] {
        if self.is_2() { &["-E", "-s"] } else { &["-I"] }
    }
}

/// Whether an interpreter is on the host, without running it: its file, or that of a shim.
pub fn locate(name: &str) -> Option<PathBuf> {
    on_host(name)
}

/// The executable file of a program name: as given if it has a `/`, else the
/// first one on PATH.
pub fn on_path(name: &str) -> Option<PathBuf> {
    all_on_path(name).next()
}

/// The executable file of an interpreter: as [`on_path`], but what is first on PATH because the
/// shell of a developer has activated a virtual environment comes last.
fn on_host(name: &str) -> Option<PathBuf> {
    let of_environment = |file: &PathBuf| {
        let above = file.parent().and_then(Path::parent);
        above.is_some_and(is_virtual_environment)
    };
    let mut all = all_on_path(name).filter_map(|file| behind_shim(file, name));
    all.find(|file| !of_environment(file))
        .or_else(|| all_on_path(name).find_map(|file| behind_shim(file, name)))
}

/// The newest interpreter that pyenv has of a version, in place of its shim: the shim only runs
/// those versions that the user, or the directory, has selected. A name without a minor version is
/// left to the selection. `None` if pyenv has the shim and no such version.
fn behind_shim(file: PathBuf, name: &str) -> Option<PathBuf> {
    let root = file.parent().filter(|dir| dir.ends_with("shims")).and_then(Path::parent);
    let Some(versions) = root.map(|root| root.join("versions")).filter(|dir| dir.is_dir()) else {
        return Some(file);
    };
    let Some(wanted) = name.strip_prefix("python").filter(|rest| rest.contains('.')) else {
        return Some(file);
    };
    let (wanted, thread) = wanted.strip_suffix('t').map_or((wanted, ""), |rest| (rest, "t"));
    let patch = |dir: &str| -> Option<u32> {
        let rest = dir.strip_prefix(wanted)?.strip_prefix('.')?;
        rest.strip_suffix(thread)?.parse().ok()
    };
    let entries = fs::read_dir(&versions).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    let mut found: Vec<(u32, String)> = names.filter_map(|dir| Some((patch(&dir)?, dir))).collect();
    found.sort();
    let program = |(_, dir): &(u32, String)| versions.join(dir).join("bin").join(name);
    found.iter().rev().map(program).find(|file| is_executable(file))
}

/// Whether a directory is a virtual environment of Python.
pub(crate) fn is_virtual_environment(dir: &Path) -> bool {
    dir.join("pyvenv.cfg").is_file()
}

fn all_on_path(name: &str) -> Box<dyn Iterator<Item = PathBuf> + '_> {
    if name.contains('/') {
        return Box::new(Some(PathBuf::from(name)).filter(|file| is_executable(file)).into_iter());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let files = dirs.into_iter().map(move |dir| dir.join(name));
    Box::new(files.filter(|file| file.is_absolute() && is_executable(file)))
}

fn is_executable(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_python_of_the_host_says_its_version_and_where_it_really_is() {
        let python = find(None).unwrap();
        assert!(python.path.is_absolute() && python.version.starts_with(&python.short_version));
        assert!(python.abi.starts_with("cpython-"));
    }

    #[test]
    fn a_missing_interpreter_is_named_with_the_command_that_installs_it() {
        let error = find(Some("python3.99")).unwrap_err();
        assert!(error.what.contains("python3.99"));
        assert!(error.help.unwrap().contains("apt-get install python3.99"));
    }

    #[test]
    fn a_shim_of_pyenv_stands_for_the_newest_interpreter_of_its_version() {
        let folder = tempfile::tempdir().unwrap();
        let program = |path: &str| {
            let file = folder.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
            file
        };
        let shim = |name: &str| behind_shim(program(&format!("shims/{name}")), name);
        assert_eq!(
            shim("python2.7").unwrap(),
            folder.path().join("shims/python2.7"),
            "no versions"
        );
        let old = program("versions/2.7.9/bin/python2.7");
        assert_eq!(shim("python2.7").unwrap(), old);
        let new = program("versions/2.7.18/bin/python2.7");
        program("versions/2.7-dev/bin/python2.7");
        assert_eq!(shim("python2.7").unwrap(), new);
        let threads = program("versions/3.13.1t/bin/python3.13t");
        assert_eq!(shim("python3.13t").unwrap(), threads);
        assert_eq!(shim("python3.13"), None, "free-threaded is another one");
        assert_eq!(shim("python3").unwrap(), folder.path().join("shims/python3"));
        let other = program("bin/python2.7");
        assert_eq!(behind_shim(other.clone(), "python2.7").unwrap(), other);
    }
}
