//! A pip of our own for each interpreter.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mfserv_core::Diagnostic;
use mfserv_platform::disk;

use super::{Rules, Toolbox, clean, find};
use crate::base::site_packages;
use crate::progress::Progress;
use crate::tools;

/// The first pip that works on the environment of another interpreter (`--python`).
const WORKS_ON_OTHERS: (u32, u32) = (22, 3);

impl Toolbox<'_> {
    /// The versions of what packages are built with.
    pub(super) fn constrain_builds(&self, command: &mut Command, rules: &Rules) {
        let Some(file) = &rules.build_constraint else { return };
        match self.pip_version() >= Some((25, 3)) {
            true => command.arg("--build-constraint").arg(file),
            // the builds of an older pip inherit its variables, and have no option
            false => command.env("PIP_CONSTRAINT", file),
        };
    }

    /// The version of our own pip, from the name of its description.
    pub(super) fn pip_version(&self) -> Option<(u32, u32)> {
        let names =
            fs::read_dir(self.pip_packages()).ok()?.flatten().map(|entry| entry.file_name());
        names.filter_map(|name| name.into_string().ok()).find_map(|name| {
            let mut numbers = name.strip_prefix("pip-")?.strip_suffix(".dist-info")?.split('.');
            Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
        })
    }

    pub(super) fn pip_place(&self) -> PathBuf {
        self.home.base().join(format!(".pip-python{}", self.interpreter.short_version))
    }

    fn pip_packages(&self) -> PathBuf {
        site_packages(&self.pip_place(), self.interpreter)
    }

    /// A pip of our own for this interpreter, made at first need: it works on
    /// other environments, which so have none.
    pub(super) fn pip(&self, progress: &mut dyn Progress) -> Result<Command, Diagnostic> {
        let place = self.pip_place();
        let python = place.join("bin/python");
        if !self.works(&python) {
            self.make_pip(&place, progress)?;
        }
        let mut command = clean(&python);
        command.args(self.interpreter.isolation());
        match self.interpreter.is_2() {
            // `-m` would find a pip.py of the directory that it runs in
            true => command.arg(self.pip_packages().join("pip")),
            false => command.args(["-m", "pip"]),
        };
        Ok(quiet(command))
    }

    /// Whether our pip installs into the environment of another interpreter.
    pub(super) fn works_on_others(&self, progress: &mut dyn Progress) -> Result<bool, Diagnostic> {
        drop(self.pip(progress)?);
        Ok(self.pip_version() >= Some(WORKS_ON_OTHERS))
    }

    /// Does something with the wheels of a list, in a directory that is removed afterwards. A pip
    /// that runs in the environment that it fills can build nothing there.
    pub(super) fn with_wheels(
        &self,
        frozen: &Path,
        progress: &mut dyn Progress,
        install: impl FnOnce(&Path, &mut dyn Progress) -> Result<(), Diagnostic>,
    ) -> Result<(), Diagnostic> {
        let place = self.home.base().join("wheels");
        disk::sweep_beside(&place);
        let stage = disk::beside(&place, "stage");
        let made = self.wheels(frozen, &stage, &Rules::default(), progress);
        let result = made.and_then(|()| install(&stage, progress));
        let _ = disk::remove(&stage);
        result
    }

    /// `pip install` for another environment of the same interpreter.
    pub(super) fn pip_for(
        &self,
        python: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Command, Diagnostic> {
        let mut own = self.pip(progress)?;
        if self.works_on_others(progress)? {
            own.arg("--python").arg(python).arg("install");
            return Ok(own);
        }
        // The interpreter of the environment runs our pip, which then installs where it runs; it
        // sees its own packages too, and takes them for those of the environment.
        let mut command = clean(python);
        command.args(self.interpreter.isolation()).arg(self.pip_packages().join("pip"));
        let mut command = quiet(command);
        command.args(["install", "--ignore-installed"]);
        Ok(command)
    }

    /// virtualenv, which makes the environments of Python 2. It runs with the host's python3.
    pub(super) fn virtualenv(&self, progress: &mut dyn Progress) -> Result<Command, Diagnostic> {
        let host = find(None)?;
        if host.is_2() {
            return Err(Diagnostic::error("environments of Python 2 can't be made")
                .because("they are made by virtualenv, which runs with Python 3, and `python3` is Python 2")
                .help("apt-get install python3 python3-venv"));
        }
        let place = tools::virtualenv(self.home, &host, self.cancel, progress)?;
        let mut command = clean(&host.path);
        // `-m` would import from the directory that we are called from.
        command.current_dir("/");
        command.env("PYTHONPATH", place).args(["-s", "-m", "virtualenv", "--quiet"]);
        command.env("VIRTUALENV_OVERRIDE_APP_DATA", self.home.base().join(".virtualenv-data"));
        command.args(["--no-download", "--no-periodic-update", "--clear", "--python"]);
        command.arg(&self.interpreter.path);
        Ok(command)
    }

    /// Runs a script that translates a file of another tool, in the environment of our pip.
    pub(crate) fn translate(
        &self,
        script: &str,
        file: &Path,
        beside: &Path,
        progress: &mut dyn Progress,
    ) -> Result<String, Diagnostic> {
        drop(self.pip(progress)?);
        let mut command = clean(&self.pip_place().join("bin/python"));
        command.args(self.interpreter.isolation()).args(["-c", script]).arg(file).arg(beside);
        self.run("reading the lock of the plugin", command, progress)
    }

    fn works(&self, python: &Path) -> bool {
        // virtualenv copies a Python 2, and notes where it was.
        let copied = || {
            let notes = fs::read_to_string(python.parent()?.parent()?.join("pyvenv.cfg")).ok()?;
            let from = notes.lines().find_map(|line| line.strip_prefix("base-executable = "));
            from.map(PathBuf::from)
        };
        let of = if self.interpreter.is_2() { copied() } else { Some(python.to_owned()) };
        let real = |path: &Path| fs::canonicalize(path).ok();
        let same = of.and_then(|of| real(&of)) == real(&self.interpreter.path);
        same && python.exists() && python.with_file_name("pip").exists()
    }

    fn make_pip(&self, place: &Path, progress: &mut dyn Progress) -> Result<(), Diagnostic> {
        let python = &self.interpreter.path;
        let mut command = match (&self.uv, self.interpreter.has_ensurepip) {
            _ if self.interpreter.is_2() => self.virtualenv(progress)?,
            (_, true) => {
                let mut command = clean(python);
                command.args(["-I", "-m", "venv", "--clear"]);
                command
            }
            (Some(uv), false) => {
                let mut command = clean(uv);
                command
                    .args([
                        "venv",
                        "--quiet",
                        "--seed",
                        "--clear",
                        "--no-project",
                        "--no-config",
                        "--python",
                    ])
                    .arg(python);
                command
            }
            (None, false) => return Err(self.no_venv()),
        };
        progress.step("preparing pip");
        disk::create_dir(&self.home.base())?;
        let _lock = disk::Lock::wait(&self.home.base().join(".pip.lock"), "pip", self.limit)?;
        if self.works(&place.join("bin/python")) {
            return Ok(());
        }
        command.arg(place);
        let result = self.run("preparing pip", command, progress).map(drop);
        if result.is_err() {
            let _ = disk::remove(place);
        }
        result
    }

    fn no_venv(&self) -> Diagnostic {
        Diagnostic::error("Python environments can't be made")
            .because(format!(
                "{} has no venv and ensurepip modules, and uv was not found",
                self.interpreter.path.display()
            ))
            .help(format!("apt-get install python{}-venv", self.interpreter.short_version))
    }
}

/// A pip that asks nothing and says nothing of its own age.
fn quiet(mut command: Command) -> Command {
    command.env("PIP_NO_PYTHON_VERSION_WARNING", "1");
    command.args(["--disable-pip-version-check", "--no-input"]);
    command
}
