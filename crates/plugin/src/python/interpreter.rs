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
    /// Its short version: `3.11`.
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
const PROBE_SCRIPT: &str = "
import json, sys, sysconfig
from importlib.util import find_spec
print(json.dumps({'path': getattr(sys, '_base_executable', None) or sys.executable, 'short_version': '%d.%d' % sys.version_info[:2],
    'version': '%d.%d.%d' % sys.version_info[:3], 'abi': sysconfig.get_config_var('SOABI') or '',
    'has_ensurepip': find_spec('ensurepip') is not None and find_spec('venv') is not None}))
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
            .help(format!("install it: apt-get install {} python3-venv", package_of(name)))
    };
    let program = on_host(name).ok_or_else(missing)?;
    #[expect(clippy::disallowed_methods, reason = "builds run the interpreter and its tools")]
    let mut command = Command::new(&program);
    command.args(["-I", "-c", PROBE_SCRIPT]);
    let run = Run {
        what: &format!("asking {} for its version", program.display()),
        limit: PROBE,
        cancel: &Cancel::default(),
    };
    let said = run.run(command, &mut Silent).map_err(|error| {
        error.help(format!(
            "name another one with _python=… in [general], or install it: apt-get install {}",
            package_of(name)
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

fn package_of(name: &str) -> &str {
    let file = name.rsplit('/').next().unwrap_or(DEFAULT);
    if file.starts_with("python") { file } else { DEFAULT }
}

impl Interpreter {
    /// What packages can tell of an interpreter: two with the same identity run the same
    /// environments, wherever their programs are.
    pub fn identity(&self) -> String {
        format!("{} {}", self.version, self.abi)
    }
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
    all_on_path(name).find(|file| !of_environment(file)).or_else(|| on_path(name))
}

/// Whether a directory is a virtual environment of Python.
pub(crate) fn is_virtual_environment(dir: &Path) -> bool {
    dir.join("pyvenv.cfg").is_file()
}

fn all_on_path(name: &str) -> Box<dyn Iterator<Item = PathBuf> + '_> {
    let executable = |file: &PathBuf| {
        fs::metadata(file)
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        return Box::new(Some(PathBuf::from(name)).filter(executable).into_iter());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let files = dirs.into_iter().map(move |dir| dir.join(name));
    Box::new(files.filter(move |file| file.is_absolute() && executable(file)))
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
}
