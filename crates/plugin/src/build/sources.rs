//! The files of the Python part of a plugin, and the notes about what was made of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::Diagnostic;
use serde::{Deserialize, Serialize};

use super::PYTHON_SOURCES;
use super::frozen::Frozen;
use super::requirements::{self, Requirements};
use crate::base;
use crate::label::{read_bounded, read_small};
use crate::python::{Interpreter, Rules};
use mfserv_platform::disk;

/// How the first line of a list begins that a build has made: what it was made from follows.
pub(super) const MADE_FROM: &str = "# made by mfserv from requirements-to-freeze.txt, SHA-256 ";

/// The files of the Python part of a plugin.
pub(super) struct Sources {
    /// They are for Python 2.
    pub(super) is_2: bool,
    pub(super) dir: PathBuf,
    pub(super) loose: PathBuf,
    pub(super) frozen: PathBuf,
    pub(super) wheels: PathBuf,
    pub(super) override_mark: PathBuf,
    pub(super) allow_binary: PathBuf,
    pub(super) build_constraint: PathBuf,
    pub(super) local: PathBuf,
}

impl Sources {
    /// Those of Python 3, or of Python 2. A plugin that was made for Python 3, and names Python 2
    /// now, has its lists where they were.
    pub(super) fn of(dir: &Path, is_2: bool) -> Self {
        let [of_3, of_2] = PYTHON_SOURCES.map(|name| dir.join(name));
        let own = is_2 && of_2.is_dir();
        let sources = if own { of_2 } else { of_3 };
        Self {
            is_2,
            dir: dir.to_owned(),
            loose: sources.join("requirements-to-freeze.txt"),
            frozen: sources.join(if own { "requirements2.txt" } else { "requirements3.txt" }),
            wheels: sources.join("src"),
            override_mark: sources.join("override"),
            allow_binary: sources.join("allow_binary_packages"),
            build_constraint: sources.join("build_constraint"),
            local: dir.join("local"),
        }
    }
}

impl Sources {
    pub(super) fn build_constraint(&self) -> Option<PathBuf> {
        Some(self.build_constraint.clone()).filter(|file| file.is_file())
    }

    /// Which of the packages must be compiled here, as `allow_binary_packages`
    /// says: none if it is there and empty; those that it does not name; all, if it
    /// is not there. What the base environment has may always be binary; for Python 2, whose
    /// plugins have no such file, everything may.
    pub(super) fn to_compile(&self, frozen: &[Frozen], python: &Interpreter) -> Vec<String> {
        let allowed = match read_small(&self.allow_binary) {
            Ok(text) if named(&text).next().is_none() => return Vec::new(),
            Ok(text) => text,
            Err(_) if self.is_2 => return Vec::new(),
            Err(_) => String::new(),
        };
        let lock = base::lock(python).unwrap_or_default();
        let names = named(&allowed).chain(named(lock)).map(package_name);
        let allowed: BTreeSet<String> = names.collect();
        let all = frozen.iter().filter(|one| one.origin.is_none());
        let all = all.map(|one| package_name(&one.text));
        all.filter(|name| !allowed.contains(name)).collect()
    }

    /// The loose list with all that it names; nothing, if there is none.
    pub(super) fn loose(&self) -> Result<Requirements, Diagnostic> {
        match self.loose.is_file() {
            true => Requirements::read(&self.dir, &self.loose),
            false => Ok(Requirements::default()),
        }
    }

    /// What the exact versions are made from; the first line of the list that they are in.
    pub(super) fn inputs(&self, loose: &Requirements) -> String {
        let marks = [("override", self.override_mark.exists())];
        let marks = marks.iter().filter(|(_, there)| *there).map(|(name, _)| (*name, ""));
        let fingerprint = loose.fingerprint(&marks.collect::<Vec<_>>());
        format!("{MADE_FROM}{fingerprint}")
    }

    /// How packages are found and built.
    pub(super) fn rules(&self, loose: &Requirements) -> Rules {
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
pub(super) struct Mark {
    pub(super) format: u32,
    pub(super) requirements: String,
    pub(super) python: String,
    pub(super) abi: String,
    /// Of packages that are not from the index: their line in requirements3.txt, and their wheel.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) origins: BTreeMap<String, String>,
    /// The SHA-256 of wheels that were built from sources whose sums were checked.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) made: BTreeMap<String, String>,
}

impl Mark {
    pub(super) fn new(inputs: &str, python: &str, interpreter: &Interpreter) -> Self {
        let requirements = disk::fingerprint([("requirements", inputs.as_bytes())]);
        let (python, abi) = (python.into(), interpreter.abi.clone());
        Self { format: 1, requirements, python, abi, ..Self::default() }
    }

    /// Both are of the same inputs and the same interpreter.
    pub(super) fn is_for(&self, other: &Mark) -> bool {
        let inputs = |mark: &Mark| {
            (mark.format, mark.requirements.clone(), mark.python.clone(), mark.abi.clone())
        };
        inputs(self) == inputs(other)
    }

    pub(super) fn read(dir: &Path, name: &str) -> Option<Self> {
        let text = read_bounded(&dir.join(name), requirements::LONGEST).ok()?;
        serde_json::from_str(&text).ok()
    }

    pub(super) fn write(&self, dir: &Path, name: &str) -> Result<(), Diagnostic> {
        let text = serde_json::to_string_pretty(self).unwrap_or_default() + "\n";
        disk::write(&dir.join(name), text.as_bytes())
    }
}

pub(super) fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The lines of a list of names.
pub(super) fn named(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

#[cfg(test)]
mod tests {
    use super::super::frozen::frozen_requirements;
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
        let sources = Sources::of(folder.path(), false);
        let python = crate::python::find(None).unwrap();
        fs::create_dir(sources.loose.parent().unwrap()).unwrap();
        let text = "Flask==3\nnumpy==2 \\\n  --hash=sha256:00\nwerkzeug==3.1.9\nx @ ./x\n";
        let frozen = frozen_requirements(text, &sources.frozen).unwrap();
        assert_eq!(sources.to_compile(&frozen, &python), ["flask", "numpy"]);
        fs::write(&sources.allow_binary, "NumPy\n").unwrap();
        assert_eq!(sources.to_compile(&frozen, &python), ["flask"]);
        fs::write(&sources.allow_binary, "\n").unwrap();
        assert!(sources.to_compile(&frozen, &python).is_empty());
    }
}
