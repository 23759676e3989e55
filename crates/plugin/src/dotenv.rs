//! The `.env` file of a directory that is worked on: variables that an app has while it is
//! developed, and that no release has.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use mfserv_core::dotenv::{Assignment, parse};
use mfserv_core::{Diagnostic, Kind, Location};
use mfserv_platform::disk;

use crate::generate::made_of;
use crate::home::Home;
use crate::label::read_bounded;
use crate::store::{check_name, value_problem};

/// How it is called.
pub const FILE: &str = ".env";
/// The largest one that is read, bytes.
const LARGEST: u64 = 1024 * 1024;

/// The variables of a file, all of them secret.
#[derive(Default)]
pub struct Dotenv {
    /// By name.
    pub variables: BTreeMap<String, String>,
    /// What is not used, and why.
    pub warnings: Vec<Diagnostic>,
}

/// The `.env` of a plugin's directory, or of the app that a plugin was made of.
pub fn place(dir: &Path) -> PathBuf {
    made_of(dir).unwrap_or_else(|| dir.to_owned()).join(FILE)
}

/// Reads the file of a developer's directory; nothing of a release, and nothing if there is none.
/// `env`: what `${NAME}` in it may stand for.
pub fn read(home: &Home, dir: &Path, env: &BTreeMap<String, String>) -> Result<Dotenv, Diagnostic> {
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    if real(dir).starts_with(real(&home.releases())) {
        return Ok(Dotenv::default());
    }
    let file = place(dir);
    let mut found = usable(&file, assignments(&file, env)?);
    // With one of these no worker could be started.
    found.variables.retain(|name, value| match value_problem(name, value) {
        None => true,
        Some(why) => {
            let warning = Diagnostic::warning(format!("{name} of {FILE} is not used"));
            found.warnings.push(warning.because(why));
            false
        }
    });
    Ok(found)
}

/// Reads a file of that kind which somebody names; it may be a pipe.
pub fn read_file(file: &Path, env: &BTreeMap<String, String>) -> Result<Dotenv, Diagnostic> {
    let mut text = String::new();
    let read = File::open(file).and_then(|it| it.take(LARGEST + 1).read_to_string(&mut text));
    read.map_err(|e| disk::failed("read", file, e).kind(Kind::Usage))?;
    if text.len() as u64 > LARGEST {
        return Err(disk::failed("read", file, format!("longer than {LARGEST} bytes")));
    }
    Ok(usable(file, parsed(file, &text, env)?))
}

/// What of a file can be set, and what is said of the rest.
fn usable(file: &Path, all: Vec<Assignment>) -> Dotenv {
    let (mut found, shown) = (Dotenv::default(), shown(file));
    for Assignment { line, name, value } in all {
        let Some(value) = value else {
            // It is not repeated: it may be a part of a value that has no quotes.
            let what = format!("line {line} of {shown} sets nothing");
            let warning = Diagnostic::warning(what).at(at(file, line));
            found.warnings.push(warning.because("there is no = in it"));
            continue;
        };
        match check_name(&name) {
            Ok(()) => drop(found.variables.insert(name, value)),
            Err(why) => {
                let what = format!("{name} of {shown} is not used");
                let warning = Diagnostic::warning(what).at(at(file, line));
                found.warnings.push(why.because.iter().fold(warning, Diagnostic::because));
            }
        }
    }
    found
}

/// The names of the variables in a developer's directory, in the order of the file; none if it
/// cannot be read.
pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for one in assignments(&place(dir), &BTreeMap::new()).unwrap_or_default() {
        let can_be = |value: &String| value_problem(&one.name, value).is_none();
        let is_set = one.value.as_ref().is_some_and(can_be) && check_name(&one.name).is_ok();
        if is_set && !names.contains(&one.name) {
            names.push(one.name);
        }
    }
    names
}

fn assignments(file: &Path, env: &BTreeMap<String, String>) -> Result<Vec<Assignment>, Diagnostic> {
    match std::fs::metadata(file) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        // A virtual environment may have this name.
        Ok(about) if about.is_dir() => return Ok(Vec::new()),
        // Reading a pipe would take its content from whom it is for, or never end.
        Ok(about) if !about.is_file() => {
            return Err(disk::failed("read", file, "it is no ordinary file"));
        }
        _ => {}
    }
    let text = read_bounded(file, LARGEST).map_err(|e| disk::failed("read", file, e))?;
    parsed(file, &text, env)
}

fn parsed(
    file: &Path,
    text: &str,
    env: &BTreeMap<String, String>,
) -> Result<Vec<Assignment>, Diagnostic> {
    parse(text, env).map_err(|bad| {
        Diagnostic::error(format!("line {} of {} cannot be read", bad.line, shown(file)))
            .kind(Kind::BadConfiguration)
            .because(bad.why)
            .at(at(file, bad.line))
            .help("NAME=VALUE, NAME=\"VALUE\" and export NAME=VALUE are lines; # begins a comment")
    })
}

fn shown(file: &Path) -> String {
    file.file_name().map_or_else(|| FILE.into(), |name| name.to_string_lossy().into_owned())
}

fn at(file: &Path, line: u32) -> Location {
    Location::new(file.display().to_string(), line)
}
