//! Plugins for Python 2: how they are known, and that nothing else ever runs them.

use std::path::Path;

use mfserv_core::plan::split_command;
use mfserv_core::plugin_config;
use mfserv_core::plugin_spec::PluginSpec;
use mfserv_core::{Diagnostic, Kind, Location};

use crate::build::PYTHON_SOURCES;
use crate::label::read_small;
use crate::python;

/// The one Python 2 that mfserv runs plugins with.
const INTERPRETER: &str = "python2.7";
/// The packages of a Python 2 plugin, below its directory.
const SOURCES: &str = PYTHON_SOURCES[1];
/// The files by which a package is known to have them.
pub const SOURCE_FILES: [&str; 3] = [
    "python2_virtualenv_sources/requirements-to-freeze.txt",
    "python2_virtualenv_sources/requirements2.txt",
    "python2_virtualenv_sources/requirements3.txt",
];
/// The layers that a plugin depends on.
const LAYERS: &str = ".layerapi2_dependencies";

/// Why a plugin is taken for one of Python 2, and where it says so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    why: String,
    at: Location,
}

/// Whether the plugin in `dir` is made for Python 2: it depends on a layer of Python 2
/// (`python2@mfext`), has packages for it, names it as its interpreter, or as the program of a
/// command. `has_sources` tells whether the packages are there.
pub fn reason(dir: &Path, spec: &PluginSpec, layers: &str, has_sources: bool) -> Option<Reason> {
    let config = dir.join("config.ini");
    let (why, (file, line)) = layer_of_python2(layers)
        .map(|(line, label)| (format!("it depends on the layer {label}"), (dir.join(LAYERS), line)))
        .or_else(|| {
            let why = format!("it has packages for Python 2 in {SOURCES}");
            has_sources.then(|| (why, (dir.join(SOURCES), 0)))
        })
        .or_else(|| {
            let name = spec.general.python.as_deref().filter(|name| is_python2(name))?;
            Some((format!("its interpreter is {name} (_python)"), (config.clone(), 0)))
        })
        .or_else(|| {
            let (section, command) = command_of_python2(spec)?;
            Some((format!("the command of [{section}] is `{command}`"), (config.clone(), 0)))
        })?;
    Some(Reason { why, at: Location::new(file.to_string_lossy(), line) })
}

/// The interpreter of a plugin for Python 2. It is refused where there is none, and where
/// `_python` names another one: it is never run with Python 3.
pub fn interpreter(spec: &PluginSpec, reason: Reason) -> Result<String, Diagnostic> {
    let refused = |why: &str, help: String| {
        Diagnostic::error(format!("plugin {} is refused: it is made for Python 2", spec.name))
            .kind(Kind::BadConfiguration)
            .because(&reason.why)
            .because(why)
            .at(reason.at.clone())
            .help(help)
    };
    const PORT: &str = "port it to Python 3: python3@mfext in .layerapi2_dependencies, \
                        requirements in python3_virtualenv_sources, python3 in commands";
    match spec.general.python.as_deref() {
        None | Some("python2" | INTERPRETER) => {}
        Some(other) => {
            let why = format!(
                "its interpreter is {other} (_python), and mfserv runs Python 2 with {INTERPRETER}"
            );
            return Err(refused(&why, format!("remove _python, or {PORT}")));
        }
    }
    match python::locate(INTERPRETER) {
        Some(_) => Ok(INTERPRETER.into()),
        None => Err(refused(
            &format!("{INTERPRETER} is not on PATH, and it is not run with Python 3"),
            format!("{}; or {PORT}", python::how_to_install(INTERPRETER)),
        )),
    }
}

/// The text of `.layerapi2_dependencies` of the plugin in a directory; empty if there is none.
pub fn layers_of(dir: &Path) -> String {
    read_small(&dir.join(LAYERS)).unwrap_or_default()
}

/// Whether the plugin in a directory has packages for Python 2.
pub fn has_sources(dir: &Path) -> bool {
    dir.join(SOURCES).is_dir()
}

/// The layer of Python 2 that a plugin cannot do without, with its line.
fn layer_of_python2(layers: &str) -> Option<(u32, String)> {
    let needed = |line: &str| {
        let label = plugin_config::dependencies(line).into_iter().find(|one| !one.optional)?.label;
        let (layer, module) = label.split_once('@')?;
        let python2 = layer == "python2" || layer.starts_with("python2_");
        (python2 && !module.is_empty()).then_some(label)
    };
    (1..).zip(layers.lines()).find_map(|(number, line)| Some((number, needed(line)?)))
}

/// The section and the command whose program, or that of a wrapper in it, is Python 2.
fn command_of_python2(spec: &PluginSpec) -> Option<(String, &str)> {
    let apps = spec.apps.iter().map(|app| ("app", &app.command));
    let extras = spec.extra_daemons.iter().map(|extra| ("extra_daemon", &extra.command));
    let mut commands = apps.chain(extras);
    commands.find_map(|(kind, command)| {
        let words = split_command(&command.command, &[], &[]).unwrap_or_default();
        words.iter().any(|word| is_python2(word)).then(|| {
            let section = format!("{kind}_{}", command.name);
            (section, command.command.as_str())
        })
    })
}

/// `python2`, `python2.7`, also with a directory before.
pub fn is_python2(program: &str) -> bool {
    let name = program.rsplit('/').next().unwrap_or_default();
    name.strip_prefix("python2").is_some_and(|rest| {
        rest.is_empty()
            || rest.strip_prefix('.').is_some_and(|minor| {
                !minor.is_empty() && minor.bytes().all(|byte| byte.is_ascii_digit())
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_of_python2_that_is_needed_is_found_with_its_line() {
        for (layers, line) in [
            ("python2@mfext\n", Some(1)),
            ("root@mfserv\n  python2_devtools@mfext \n", Some(2)),
            ("# python2@mfext\npython3@mfext\n", None),
            ("-python2@mfext\n", None),
            ("python3@mfext\nplugin_python2@mfserv\n", None),
            ("python27@mfext\n", None),
        ] {
            assert_eq!(layer_of_python2(layers).map(|found| found.0), line, "{layers:?}");
        }
    }

    #[test]
    fn a_program_is_python2_by_its_name() {
        for name in ["python2", "python2.7", "/opt/x/bin/python2.7"] {
            assert!(is_python2(name), "{name}");
        }
        for name in ["python", "python3", "python2.py", "python2to3", "python2.", "/python2/x", ""]
        {
            assert!(!is_python2(name), "{name}");
        }
    }
}
