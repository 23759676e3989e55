//! What a base environment has in it: exact versions, by the version of Python.

use mfserv_core::Diagnostic;

use crate::python::Interpreter;

/// The exact versions of all packages (pip requirements files), and the first Python that each is
/// made for, the newest first.
const LOCKS: &[((u32, u32), &str)] = &[
    ((3, 10), include_str!("../../python/base-requirements.txt")),
    ((3, 7), include_str!("../../python/base-requirements-3.7.txt")),
];
/// The same for Python 2.7.
const LOCK_2: &str = include_str!("../../python/base-requirements-2.7.txt");

/// What the layers of MFSERV did not have: servers of ours, which no plugin of today relies on
/// to find in one version.
const ADDED: [&str; 3] = ["uvicorn==", "waitress==", "h11=="];

/// The exact versions of all packages of the base environment of an interpreter (a pip
/// requirements file). An interpreter that is too old is refused.
pub fn lock(python: &Interpreter) -> Result<&'static str, Diagnostic> {
    let version = python.numbers();
    if version == Some((2, 7)) {
        return Ok(LOCK_2);
    }
    let found = LOCKS.iter().find(|(first, _)| version >= Some(*first));
    found.map(|(_, lock)| *lock).ok_or_else(|| {
        Diagnostic::error(format!("no base environment for Python {}", python.version))
            .because("mfserv has packages for Python 3.7 and later, and for Python 2.7")
            .help("name another interpreter with _python=… in [general] of the plugin")
    })
}

/// The lines of [`lock`] that the packages of a plugin should agree with: what the layers of
/// MFSERV had, too.
pub fn constraints(python: &Interpreter) -> impl Iterator<Item = &'static str> {
    let lines = lock(python).unwrap_or_default().lines();
    let lines = lines.filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.filter(|line| !ADDED.iter().any(|added| line.starts_with(added)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python(short_version: &str) -> Interpreter {
        Interpreter {
            path: "/usr/bin/python".into(),
            short_version: short_version.into(),
            version: format!("{short_version}.1"),
            abi: String::new(),
            has_ensurepip: true,
        }
    }

    #[test]
    fn what_the_layers_of_metwork_did_not_have_is_no_constraint() {
        let python = python("3.11");
        let all: Vec<&str> = constraints(&python).collect();
        let has = |name: &str| all.iter().any(|line| line.starts_with(&format!("{name}==")));
        assert!(["tornado", "aiohttp", "requests", "idna"].into_iter().all(has));
        assert!(!["uvicorn", "waitress", "h11"].into_iter().any(has));
    }

    #[test]
    fn each_python_has_a_lock_of_exact_versions_with_all_that_plugins_expect() {
        let wanted = include_str!("../../python/base-requirements.in");
        for version in ["2.7", "3.7", "3.9", "3.10", "3.13t", "3.14"] {
            let lines = lock(&python(version)).unwrap().lines();
            let lines = lines.filter(|line| !line.starts_with('#'));
            for line in lines.clone() {
                assert!(line.split(" ; ").next().unwrap().contains("=="), "{line}");
            }
            let has = |name: &str| lines.clone().any(|line| line.starts_with(&format!("{name}==")));
            for name in wanted.lines().filter(|name| version != "2.7" || has(name)) {
                assert!(has(name), "{name} of Python {version}");
            }
            assert!(has("waitress") && has("mflog") && has("werkzeug") && has("requests"));
        }
        for version in ["2.6", "3.6"] {
            assert!(lock(&python(version)).unwrap_err().to_string().contains("3.7 and later"));
        }
    }
}
