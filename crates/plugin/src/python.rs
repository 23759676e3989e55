//! The Python interpreter of the host, and the tools that fill environments:
//! uv where it is found, else venv and pip.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mfserv_core::Diagnostic;

mod clean;
mod freeze;
mod index;
mod interpreter;
mod pip;

pub(crate) use clean::clean;
pub(crate) use index::{Reach, reach_index};
pub use interpreter::{DEFAULT, Interpreter, find, locate, on_path};
pub(crate) use interpreter::{how_to_install, is_virtual_environment};

use crate::child::Run;
use crate::home::Home;
use crate::progress::{Cancel, Progress};

/// 1980-01-01: no earlier time can be in a wheel.
const OLDEST_IN_ZIP: i64 = 315_532_800;

/// The same sources shall give the same wheels: times are that of SOURCE_DATE_EPOCH (1980
/// without it), modes are as everywhere, and there is no debug information, which has the
/// path of the temporary directory that a package is compiled in. Who wants it says so in CFLAGS.
fn reproducible(command: Command) -> Command {
    let mut shell = clean(Path::new("/bin/sh"));
    shell.args(["-c", "umask 022 && exec \"$@\"", "sh"]).arg(command.get_program());
    shell.args(command.get_args());
    for (name, value) in command.get_envs() {
        value.map(|value| shell.env(name, value));
    }
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse().ok());
    let time = given.unwrap_or(OLDEST_IN_ZIP).max(OLDEST_IN_ZIP);
    shell.env("SOURCE_DATE_EPOCH", time.to_string()).env("PYTHONHASHSEED", "0");
    for name in ["CFLAGS", "CXXFLAGS"] {
        let given = std::env::var(name).unwrap_or_default();
        shell.env(name, format!("-g0 {given}").trim_end());
    }
    shell
}

/// Where packages are taken from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Packages<'a> {
    /// The package index that pip or uv is configured with.
    Index,
    /// Wheels in a directory, and nothing else.
    Wheels(&'a Path),
}

/// What a plugin says about how its packages are found and built.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    /// A file of versions that the resolution keeps to.
    pub(crate) constraints: Option<PathBuf>,
    /// A file of versions of what packages are built with (`build_constraint`).
    pub(crate) build_constraint: Option<PathBuf>,
    /// The packages that must be compiled here.
    pub(crate) from_source: Vec<String>,
    /// Where relative paths begin: the plugin's directory.
    pub(crate) dir: Option<PathBuf>,
    /// Names of variables that the plugin's lists use, as `${NAME}` in an address of an index.
    pub(crate) variables: BTreeSet<String>,
}

impl Rules {
    /// Lets a tool run where the rules say, with the variables that they name.
    fn apply(&self, command: &mut Command) {
        if let Some(dir) = &self.dir {
            command.current_dir(dir).env("PWD", dir);
        }
        for name in self.variables.iter().filter(|name| *name != "PWD") {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
    }
}

/// An interpreter with the tools that work for it.
pub(crate) struct Toolbox<'a> {
    pub(crate) home: &'a Home,
    pub(crate) interpreter: &'a Interpreter,
    pub(crate) uv: Option<PathBuf>,
    pub(crate) limit: Duration,
    pub(crate) cancel: &'a Cancel,
}

impl Toolbox<'_> {
    /// uv on PATH, or in `var/base/bin`. It knows no Python 2.
    pub(crate) fn find_uv(home: &Home, python: &Interpreter) -> Option<PathBuf> {
        let there = || Some(home.base().join("bin/uv")).filter(|file| file.is_file());
        on_path("uv").or_else(there).filter(|_| !python.is_2())
    }

    /// The tool that fills environments.
    pub(crate) fn name(&self) -> &'static str {
        if self.uv.is_some() { "uv" } else { "pip" }
    }

    pub(crate) fn run(
        &self,
        what: &str,
        command: Command,
        progress: &mut dyn Progress,
    ) -> Result<String, Diagnostic> {
        let run = Run { what, limit: self.limit, cancel: self.cancel };
        run.run(command, progress).map(|said| said.text()).map_err(with_compiler_help)
    }

    /// Makes an environment without packages in the directory `stage`.
    pub(crate) fn make_environment(
        &self,
        stage: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        let mut command = match &self.uv {
            Some(uv) => {
                let mut command = clean(uv);
                command
                    .args([
                        "venv",
                        "--quiet",
                        "--no-project",
                        "--no-config",
                        "--offline",
                        "--python",
                    ])
                    .arg(&self.interpreter.path);
                command
            }
            None if self.interpreter.is_2() => {
                let mut command = self.virtualenv(progress)?;
                command.args(["--no-pip", "--no-setuptools", "--no-wheel"]);
                command
            }
            None => {
                let mut command = clean(&self.interpreter.path);
                command.args(["-I", "-m", "venv", "--without-pip"]);
                command
            }
        };
        command.arg(stage);
        self.run("making the Python environment", command, progress).map(drop)
    }

    /// Installs exactly the packages of a frozen requirements file into an
    /// environment, compiled to bytecode.
    pub(crate) fn install(
        &self,
        environment: &Path,
        frozen: &Path,
        from: Packages<'_>,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        if self.uv.is_none()
            && matches!(from, Packages::Index)
            && !self.works_on_others(progress)?
        {
            return self.with_wheels(frozen, progress, |wheels, progress| {
                self.install(environment, frozen, Packages::Wheels(wheels), progress)
            });
        }
        let python = environment.join("bin/python");
        let mut command = match &self.uv {
            Some(uv) => {
                let mut command = clean(uv);
                command.args(["pip", "install", "--quiet", "--compile-bytecode", "--no-deps"]);
                command.arg("--python").arg(python);
                command
            }
            None => {
                let mut command = self.pip_for(&python, progress)?;
                command.args(["--quiet", "--no-deps", "--no-warn-script-location"]);
                command
            }
        };
        // uv unpacks wheels into a cache, which has no end and whose entries are found by the paths
        // of the wheels: those of a package have another path at each installation, so nothing
        // would be found again. They are unpacked beside their place, and linked to it.
        let unpacked = environment.join(".unpacked");
        match (from, &self.uv) {
            (Packages::Index, None) => {}
            (Packages::Index, Some(_)) => drop(command.arg("--link-mode=copy")),
            (Packages::Wheels(dir), uv) => {
                if uv.is_some() {
                    command.args(["--offline", "--no-config", "--link-mode=hardlink"]);
                    command.arg("--cache-dir").arg(&unpacked);
                }
                command.arg("--no-index").arg("--find-links").arg(dir);
            }
        }
        command.arg("-r").arg(frozen);
        let installed = self.run("installing the Python packages", command, progress);
        match std::fs::remove_dir_all(&unpacked) {
            Err(why) if unpacked.exists() => {
                let what = format!("can't remove {}", unpacked.display());
                installed.and(Err(Diagnostic::error(what).because(why)))
            }
            _ => installed.map(drop),
        }
    }

    /// Installs what a requirements file names with its sums into a directory.
    pub(crate) fn install_checked(
        &self,
        list: &Path,
        into: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        let mut command = self.pip(progress)?;
        command
            .args(["install", "--quiet", "--no-deps", "--require-hashes", "--only-binary=:all:"])
            .arg("--target")
            .arg(into)
            .arg("-r")
            .arg(list);
        self.run("fetching a tool", command, progress).map(drop)
    }

    /// Downloads, or builds, the wheels of frozen requirements into a directory.
    pub(crate) fn wheels(
        &self,
        frozen: &Path,
        into: &Path,
        rules: &Rules,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        let mut command = self.pip(progress)?;
        command.args(["wheel", "--quiet", "--no-deps", "--wheel-dir"]).arg(into);
        if !rules.from_source.is_empty() {
            command.arg("--no-binary").arg(rules.from_source.join(","));
        }
        self.constrain_builds(&mut command, rules);
        command.arg("-r").arg(frozen);
        let mut command = reproducible(command);
        rules.apply(&mut command);
        let result = self.run("collecting the Python wheels", command, progress).map(drop);
        result.map_err(|error| match rules.from_source.is_empty() || error.help.is_some() {
            true => error,
            false => error.help("what has no source, or can't be compiled here, may be binary when python3_virtualenv_sources/allow_binary_packages names it (an empty one allows all)"),
        })
    }

    /// Makes the wheel of one package from a directory, a file or an address, and puts it into
    /// a directory.
    pub(crate) fn wheel(
        &self,
        package: &OsStr,
        into: &Path,
        rules: &Rules,
        progress: &mut dyn Progress,
    ) -> Result<(), Diagnostic> {
        let mut command = self.pip(progress)?;
        command.args(["wheel", "--quiet", "--no-deps", "--wheel-dir"]).arg(into);
        self.constrain_builds(&mut command, rules);
        command.arg("--").arg(package);
        let mut command = reproducible(command);
        rules.apply(&mut command);
        self.run("building a Python package", command, progress).map(drop)
    }

    /// Which of these markers (`python_version < "3"`) hold for the interpreter.
    pub(crate) fn holds(
        &self,
        markers: &[&str],
        progress: &mut dyn Progress,
    ) -> Result<Vec<bool>, Diagnostic> {
        const SCRIPT: &str = "import sys; sys.path[:] = [p for p in sys.path if p]\n\
                              import json; from pip._vendor.packaging.markers import Marker\n\
                              print(json.dumps([Marker(m).evaluate({'extra': ''}) for m in sys.argv[1:]]))";
        if markers.iter().all(|marker| marker.is_empty()) {
            return Ok(vec![true; markers.len()]);
        }
        drop(self.pip(progress)?);
        let mut command = clean(&self.pip_place().join("bin/python"));
        command.args(self.interpreter.isolation()).args(["-c", SCRIPT]);
        command.args(markers.iter().map(|marker| match marker.is_empty() {
            true => "python_version >= '0'",
            false => marker,
        }));
        let said = self.run("reading the markers of requirements", command, progress)?;
        serde_json::from_str(&said).map_err(|e| {
            Diagnostic::error("the markers of the requirements can't be read").because(e)
        })
    }
}

/// Adds what to install when a build failed for want of a compiler.
pub(crate) fn with_compiler_help(error: Diagnostic) -> Diagnostic {
    let text = error.because.join("\n").to_ascii_lowercase();
    let compiler = [
        "gcc",
        "g++",
        "cc1",
        "c++",
        "make",
        "clang",
        "x86_64-linux-gnu-gcc",
        "aarch64-linux-gnu-gcc",
    ];
    let missing = text.lines().any(|line| {
        let absent =
            ["not found", "no such file", "not installed"].iter().any(|sign| line.contains(sign));
        absent
            && line
                .split(|c: char| !(c.is_alphanumeric() || "+_-".contains(c)))
                .any(|word| word == "cc" || compiler.contains(&word))
    });
    if missing {
        return error.help("a compiler is needed: apt-get install build-essential");
    }
    if text.contains("python.h: no such file") {
        return error.help("the headers of Python are needed: apt-get install python3-dev");
    }
    let library =
        ["pkg-config", "pg_config", "fatal error:", "cannot find -l", "_config: not found"];
    if library.iter().any(|sign| text.contains(sign)) {
        return error.help(
            "a package has no wheel for this machine, and needs a library with its headers to be compiled: \
             install the system's package that its documentation names (lib…-dev), or take a package that \
             has wheels (psycopg2-binary, PyMySQL)",
        );
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_compiler_is_recognised_in_the_output_of_a_build() {
        let help = |text: &str| with_compiler_help(Diagnostic::error("x").because(text)).help;
        assert!(
            help("error: command 'gcc' failed: No such file or directory")
                .unwrap()
                .contains("build-essential")
        );
        assert!(help("/bin/sh: 1: make: not found").is_some());
        for text in [
            "Command 'pkg-config --exists mysqlclient' returned 1",
            "Error: pg_config executable not found",
        ] {
            assert!(help(text).unwrap().contains("-dev"), "{text}");
        }
        assert_eq!(help("ERROR: No matching distribution found for nope"), None);
    }
}
