//! Imports of a plugin that nothing provides: neither the standard library, nor its own files and
//! packages, nor the base environment. The layers of MFSERV offered many packages that nobody had
//! to declare; a worker that lacks one does not start.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use mfserv_core::plan::split_command;
use mfserv_core::plugin_spec::{CommandSpec, PluginSpec};
use mfserv_core::{Diagnostic, Location, python_modules};
use serde::{Deserialize, Serialize};

use crate::base;
use crate::build::PYTHON_SOURCES;
use crate::child::Run;
use crate::progress::{Cancel, Silent};
use crate::python::{clean, is_executable};

/// Reads the sources with the interpreter of the plugin.
const SCRIPT: &str = include_str!("../python/imports.py");
/// How long that may take.
const LIMIT: Duration = Duration::from_secs(15);
const LAYERS: &str = "; or give all plugins what the layers of MFSERV had: `mfserv config set \
                      python.legacy_layers 1`, then `mfserv setup`";
/// The most modules that are reported.
const MOST: usize = 20;

#[derive(Serialize)]
struct Question<'a> {
    dir: &'a Path,
    path: Vec<&'a str>,
    starts: Vec<String>,
}

#[derive(Deserialize)]
struct Missing {
    module: String,
    file: String,
    line: u32,
    starts: bool,
}

/// Warns of each module that a file of the plugin in `dir` imports and nothing provides, with the
/// line that brings it. `env` is the environment of the plugin, which is built. Imports that
/// expect an `ImportError` are left out, and so are the files of tests. Sources are read, not run;
/// what cannot be read in [`LIMIT`] is left to the start of a worker.
pub fn undeclared(
    dir: &Path,
    spec: &PluginSpec,
    env: &BTreeMap<String, String>,
    cancel: &Cancel,
) -> Vec<Diagnostic> {
    if !base::is_wanted(dir, spec) {
        return Vec::new();
    }
    let found = look(dir, spec, env, cancel).unwrap_or_default();
    found.iter().take(MOST).map(|one| describe(dir, spec, one)).collect()
}

fn look(
    dir: &Path,
    spec: &PluginSpec,
    env: &BTreeMap<String, String>,
    cancel: &Cancel,
) -> Option<Vec<Missing>> {
    let places = std::env::split_paths(env.get("PATH")?);
    let python = places.map(|place| place.join("python")).find(|file| is_executable(file))?;
    let path = env.get("PYTHONPATH").map_or("", String::as_str);
    let question = Question {
        dir,
        path: path.split(':').filter(|place| !place.is_empty()).collect(),
        starts: starts(dir, spec),
    };
    let mut command = clean(&python);
    command.args(["-E", "-s", "-c", SCRIPT]);
    command.arg(serde_json::to_string(&question).ok()?).env("PYTHONDONTWRITEBYTECODE", "1");
    let run = Run { what: "reading the imports of the plugin", limit: LIMIT, cancel };
    let said = run.run(command, &mut Silent).ok()?;
    serde_json::from_str(said.text().lines().last()?).ok()
}

/// The modules and files that the commands of a plugin name.
fn starts(dir: &Path, spec: &PluginSpec) -> Vec<String> {
    let apps = spec.apps.iter().map(|app| &app.command);
    let commands = apps.chain(spec.extra_daemons.iter().map(|extra| &extra.command));
    commands.flat_map(|command| starts_of(dir, spec, command)).collect()
}

fn starts_of(dir: &Path, spec: &PluginSpec, command: &CommandSpec) -> Vec<String> {
    let place = dir.to_string_lossy();
    let options = [("{debug_extra_options}", "")];
    let values = [
        ("{plugin_dir}", &*place),
        ("{plugin_name}", spec.name.as_str()),
        ("{app_name}", command.name.as_str()),
    ];
    let words = split_command(&command.command, &options, &values).unwrap_or_default();
    let is_module = |text: &str| {
        text.chars().all(|c| c.is_alphanumeric() || "._".contains(c)) && !text.is_empty()
    };
    let mut found = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let before = index.checked_sub(1).map_or("", |before| words[before].as_str());
        let file = [dir.join(word), dir.join("bin").join(word)].into_iter().find(|f| f.is_file());
        match (file, word.split_once(':')) {
            (Some(file), _) if word.ends_with(".py") => {
                found.push(file.to_string_lossy().into_owned());
            }
            (_, Some((module, callable))) if is_module(module) && is_module(callable) => {
                found.push(module.to_string());
            }
            _ if before == "-m" && is_module(word) => found.push(word.clone()),
            _ => {}
        }
    }
    found
}

fn describe(dir: &Path, spec: &PluginSpec, one: &Missing) -> Diagnostic {
    let Missing { module, file, line, starts } = one;
    let why = match starts {
        true => "a worker that starts imports it, and ends",
        false => "what needs it fails",
    };
    let requirement = python_modules::requirement(module);
    let sources = PYTHON_SOURCES.into_iter().rev().find(|name| dir.join(name).is_dir());
    let sources = sources.unwrap_or(PYTHON_SOURCES[0]);
    Diagnostic::warning(format!("{file} imports {module}, which nothing provides"))
        .because(format!(
            "it is neither of Python, nor of the plugin, its packages or the base environment: {why}"
        ))
        .at(Location::new(dir.join(file).to_string_lossy(), *line))
        .help(format!(
            "add `{requirement}` to {sources}/requirements-to-freeze.txt, and build the plugin again{}",
            if base::is_of_layers(&requirement) { LAYERS } else { "" }
        ))
        .about(&spec.name)
}
