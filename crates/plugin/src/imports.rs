//! Imports of a plugin that nothing provides: neither the standard library, nor its own files and
//! packages, nor the base environment. The layers of MFSERV offered many packages that nobody had
//! to declare; a worker that lacks one does not start.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_core::plan::split_command;
use mfserv_core::plugin_spec::{CommandSpec, PluginSpec};
use mfserv_core::{Diagnostic, Location, python_modules};
use serde::{Deserialize, Serialize};

use crate::base;
use crate::build::{PYTHON_LISTS, PYTHON_SOURCES};
use crate::child::Run;
use crate::generate::made_of;
use crate::home::Home;
use crate::progress::{Cancel, Silent};
use crate::python::{self, Interpreter, clean};

/// Reads the sources, and runs none of them.
const SCRIPT: &str = include_str!("../python/imports.py");
/// How long that may take.
const LIMIT: Duration = Duration::from_secs(15);
const LAYERS: &str = "; or give all plugins what the layers of MFSERV had: `mfserv config set \
                      python.legacy_layers 1`, then `mfserv setup`";
/// Programs that run a command with an interpreter that they choose.
const CHOOSERS: [&str; 7] = ["uv", "poetry", "pipenv", "conda", "mamba", "micromamba", "pyenv"];

#[derive(Serialize)]
struct Question<'a> {
    dir: &'a Path,
    path: Vec<PathBuf>,
    starts: Vec<String>,
    all: bool,
}

#[derive(Deserialize)]
struct Answer {
    missing: Vec<Missing>,
    unread: Vec<String>,
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
/// expect an `ImportError` are left out, and so are the files of tests and the commands with an
/// interpreter of their own. Sources are read, not run, by an interpreter that is no part of the
/// plugin; what cannot be read, or not in [`LIMIT`], is said.
pub fn undeclared(
    home: &Home,
    dir: &Path,
    spec: &PluginSpec,
    env: &BTreeMap<String, String>,
    cancel: &Cancel,
) -> Vec<Diagnostic> {
    if !base::is_wanted(dir, spec) {
        return Vec::new();
    }
    match look(home, dir, spec, env, cancel) {
        Ok(Answer { missing, unread }) => {
            let unread =
                (!unread.is_empty()).then(|| not_looked_at(spec).because(unread.join(", ")));
            let missing = match app_without_list(dir) {
                Some(app) => list_to_write(&app, dir, spec, &missing).into_iter().collect(),
                None => missing.iter().map(|one| describe(dir, spec, one)).collect::<Vec<_>>(),
            };
            missing.into_iter().chain(unread).collect()
        }
        Err(_) if cancel.is_cancelled() => Vec::new(),
        Err(problem) => {
            let because = std::iter::once(problem.what).chain(problem.because);
            vec![because.fold(not_looked_at(spec), Diagnostic::because)]
        }
    }
}

fn not_looked_at(spec: &PluginSpec) -> Diagnostic {
    Diagnostic::warning(format!("the imports of {} were not all looked at", spec.name))
        .help("whether a module is missing shows when a worker starts")
        .about(&spec.name)
}

fn look(
    home: &Home,
    dir: &Path,
    spec: &PluginSpec,
    env: &BTreeMap<String, String>,
    cancel: &Cancel,
) -> Result<Answer, Diagnostic> {
    let what = "reading the imports of the plugin";
    let failed = |e: serde_json::Error| Diagnostic::error(format!("{what} failed")).because(e);
    let dir = &absolute(dir);
    let python = interpreter(home, spec, env)?;
    let path = env.get("PYTHONPATH").map_or("", String::as_str).split(':');
    let (own, others): (Vec<_>, Vec<_>) =
        commands(spec).partition(|command| has_own_interpreter(home, dir, spec, command));
    let question = Question {
        dir,
        path: path.filter(|place| !place.is_empty()).map(|p| absolute(Path::new(p))).collect(),
        starts: others.into_iter().flat_map(|command| starts_of(dir, spec, command)).collect(),
        all: own.is_empty(),
    };
    // Neither the directory that we are called from nor a `.pth` file may bring code.
    let mut command = clean(&python.path);
    command.current_dir("/").args(python.isolation()).args(["-S", "-W", "ignore", "-c", SCRIPT]);
    command.arg(serde_json::to_string(&question).map_err(failed)?);
    let said = Run { what, limit: LIMIT, cancel }.run(command, &mut Silent)?;
    let text = said.text();
    let answer = text.lines().rev().find(|line| line.starts_with('{')).unwrap_or_default();
    serde_json::from_str(answer).map_err(failed)
}

/// A path as the reader sees it, which runs in another directory than we.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// The interpreter below the base environment that the plugin runs with; without one, that of the
/// host. It is never a program of the plugin, whose directories come first on its PATH.
fn interpreter(
    home: &Home,
    spec: &PluginSpec,
    env: &BTreeMap<String, String>,
) -> Result<Interpreter, Diagnostic> {
    let python = env.get("PYTHON").map(Path::new);
    let mut bases = base::list(home).into_iter();
    if let Some(base) = bases.find(|base| python == Some(&base.bin().join("python"))) {
        return Ok(base.interpreter);
    }
    python::find(spec.general.python.as_deref())
}

/// Whether a path is absolute, and of nothing below these directories.
fn is_outside(path: &Path, dirs: &[&Path]) -> bool {
    path.is_absolute() && !dirs.iter().any(|dir| path.starts_with(dir))
}

fn commands(spec: &PluginSpec) -> impl Iterator<Item = &CommandSpec> {
    let apps = spec.apps.iter().map(|app| &app.command);
    apps.chain(spec.extra_daemons.iter().map(|extra| &extra.command))
}

fn words_of(dir: &Path, spec: &PluginSpec, command: &CommandSpec) -> Vec<String> {
    let place = dir.to_string_lossy();
    let options = [("{debug_extra_options}", "")];
    let values = [
        ("{plugin_dir}", &*place),
        ("{plugin_name}", spec.name.as_str()),
        ("{app_name}", command.name.as_str()),
    ];
    split_command(&command.command, &options, &values).unwrap_or_default()
}

/// Whether a command is run by a Python that is neither the plugin's nor the base environment's:
/// what packages that has is not known here.
fn has_own_interpreter(home: &Home, dir: &Path, spec: &PluginSpec, command: &CommandSpec) -> bool {
    let base = home.base();
    let words = words_of(dir, spec, command);
    let Some(program) = words.first() else { return false };
    let name = |word: &str| word.rsplit('/').next().unwrap_or_default().to_string();
    let is_python = |word: &str| ["python", "pypy"].iter().any(|one| name(word).starts_with(one));
    let outside = |word: &str| is_outside(Path::new(word), &[dir, &base]);
    CHOOSERS.contains(&&*name(program))
        || name(program).starts_with("pypy")
        || (outside(program) && is_script_of_python(Path::new(program)))
        || words.iter().any(|word| outside(word) && is_python(word))
}

/// Whether the first line of a file names Python, by a path: `#!/opt/x/bin/python`.
fn is_script_of_python(file: &Path) -> bool {
    let mut start = [0; 256];
    let is_file = std::fs::metadata(file).is_ok_and(|found| found.is_file());
    let read = match is_file {
        true => std::fs::File::open(file).and_then(|mut file| file.read(&mut start)).unwrap_or(0),
        false => 0,
    };
    let text = String::from_utf8_lossy(&start[..read]);
    let line = text.lines().next().unwrap_or_default();
    line.starts_with("#!") && line.contains("python") && !line.contains("/env ")
}

/// The modules and files that a command names.
fn starts_of(dir: &Path, spec: &PluginSpec, command: &CommandSpec) -> Vec<String> {
    let words = words_of(dir, spec, command);
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

/// The directory of the app that a plugin was made of, if that has no list of Python packages.
fn app_without_list(dir: &Path) -> Option<PathBuf> {
    let app = made_of(dir)?;
    let names = |sources: &&str| {
        let file = dir.join(sources).join("requirements-to-freeze.txt");
        std::fs::read_to_string(file).is_ok_and(|text| !text.trim().is_empty())
    };
    let has_list =
        PYTHON_SOURCES.iter().any(names) || PYTHON_LISTS.iter().any(|list| dir.join(list).exists());
    (!has_list).then_some(app)
}

/// Says the whole list of an app that has none: else each start would name the next package.
fn list_to_write(
    app: &Path,
    dir: &Path,
    spec: &PluginSpec,
    missing: &[Missing],
) -> Option<Diagnostic> {
    let first = missing.first()?;
    let mut modules = BTreeMap::new();
    for one in missing {
        modules.entry(&one.module).or_insert_with(|| format!("{}:{}", one.file, one.line));
    }
    let packages: BTreeSet<String> =
        modules.keys().map(|module| python_modules::requirement(module)).collect();
    let packages: Vec<String> = packages.into_iter().collect();
    let places: Vec<String> =
        modules.iter().map(|(module, place)| format!("{module} ({place})")).collect();
    Some(
        Diagnostic::warning(format!("nothing provides what is imported: {}", places.join(", ")))
            .because(format!("{} has no list of Python packages", app.display()))
            .at(Location::new(dir.join(&first.file).to_string_lossy(), first.line))
            .help(format!(
                "write {}, one on each line, with: {}",
                app.join("requirements.txt").display(),
                packages.join(", ")
            ))
            .about(&spec.name),
    )
}

fn describe(dir: &Path, spec: &PluginSpec, one: &Missing) -> Diagnostic {
    let Missing { module, file, line, starts } = one;
    let why = match starts {
        true => "a worker that starts imports it, and ends",
        false => "what needs it fails",
    };
    let requirement = python_modules::requirement(module);
    // Of an app that exists its author knows another list.
    let list = made_of(dir).map(|app| match app.join("requirements.txt").is_file() {
        true => format!("requirements.txt of {}", app.display()),
        // A new file of that name would displace the one that is used.
        false => format!("the list of Python packages of {}", app.display()),
    });
    let sources = PYTHON_SOURCES.into_iter().rev().find(|name| dir.join(name).is_dir());
    let sources = sources.unwrap_or(PYTHON_SOURCES[0]);
    Diagnostic::warning(format!("{file} imports {module}, which nothing provides"))
        .because(format!(
            "it is neither of Python, nor of the plugin, its packages or the base environment: {why}"
        ))
        .at(Location::new(dir.join(file).to_string_lossy(), *line))
        .help(format!(
            "add `{requirement}` to {}{}",
            list.unwrap_or_else(|| format!("{sources}/requirements-to-freeze.txt, and build the plugin again")),
            if base::is_of_layers(&requirement) { LAYERS } else { "" }
        ))
        .about(&spec.name)
}
