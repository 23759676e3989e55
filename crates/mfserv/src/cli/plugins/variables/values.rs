//! Values of variables, as a command line names them: in itself, on standard input, in files.

use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use mfserv_core::{Diagnostic, Kind};
use mfserv_plugin::generate::is_named;
use mfserv_plugin::store::{Variable, Variables, check_name, value_problem};
use mfserv_plugin::{dotenv, is_secret};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use crate::cli::report;

/// The longest value that is read, bytes: the kernel takes no longer one.
const LONGEST: u64 = 128 * 1024;

/// Variables that come with a release.
#[derive(Debug, Default, Args)]
pub struct SetArgs {
    /// Set a variable of this node together with the release, as `mfserv env set` does; it stays. The
    /// value of one without `=` is read from standard input.
    #[arg(long = "env", value_name = "KEY=VALUE")]
    variables: Vec<String>,
    /// The same of the variables in a file like `.env`; their values are shown nowhere.
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    env_file: Vec<PathBuf>,
    /// The same of a variable whose value is a file (`-`: standard input) and is shown nowhere.
    #[arg(long, value_name = "KEY=FILE")]
    secret_file: Vec<String>,
}

impl SetArgs {
    /// The variables. What is said apart wins over what is in a file of several.
    pub fn read(&self) -> Result<Variables, Diagnostic> {
        let mut set = Variables::new();
        let shell = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let shell = if self.env_file.is_empty() { Default::default() } else { shell.collect() };
        for file in &self.env_file {
            let read = dotenv::read_file(file, &shell)?;
            read.warnings.iter().for_each(report::print_problem);
            let place = file.display().to_string();
            for (name, value) in read.variables {
                check_value(&name, &place, &value)?;
                set.insert(name, Variable { value, secret: true });
            }
        }
        let piped = self.secret_file.iter().filter_map(|one| one.strip_suffix("=-"));
        one_of(piped.chain(valueless(&self.variables)))?;
        for one in &self.secret_file {
            let (name, file) = one.split_once('=').ok_or_else(|| {
                Diagnostic::error(format!("--secret-file {one} names no file"))
                    .kind(Kind::Usage)
                    .help("write KEY=FILE, or KEY=- for standard input")
            })?;
            check_name(name)?;
            let value = if file == "-" { asked(name)? } else { of_file(name, Path::new(file))? };
            set.insert(name.into(), Variable { value, secret: true });
        }
        set.extend(assigned(&self.variables, false)?);
        Ok(set)
    }

    /// Refuses files with values that would be packed into the release of this directory; `packed`:
    /// those that the user names to be packed.
    pub fn refuse_inside(&self, dir: &Path, packed: &[String]) -> Result<(), Diagnostic> {
        let Ok(dir) = dir.canonicalize() else { return Ok(()) };
        let of_one =
            self.secret_file.iter().filter_map(|one| Some(Path::new(one.split_once('=')?.1)));
        let mut files = self.env_file.iter().map(PathBuf::as_path).chain(of_one);
        let would_be_packed = |file: &&Path| {
            let real = file.canonicalize();
            let inside = real.as_ref().ok().and_then(|real| real.strip_prefix(&dir).ok());
            inside.is_some_and(|it| !is_named(packed, &it.to_string_lossy()) && !is_secret(it))
        };
        let Some(file) = files.find(would_be_packed) else { return Ok(()) };
        let because = format!(
            "{} has values that are secret, and would be packed into the release",
            file.display()
        );
        Err(Diagnostic::error(format!("{} is not deployed", dir.display()))
            .kind(Kind::Usage)
            .because(because)
            .help(
                "move the file out of the directory, or call it .env.production: such files are \
                 never packed",
            ))
    }
}

/// `KEY=VALUE`, or `KEY`, whose value is on standard input.
pub fn assigned(words: &[String], secret: bool) -> Result<Variables, Diagnostic> {
    one_of(valueless(words))?;
    let mut set = Variables::new();
    for one in words {
        let (name, written) = match one.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (one.as_str(), None),
        };
        check_name(name)?;
        let value = written.map_or_else(|| asked(name), Ok)?;
        set.insert(name.into(), Variable { value, secret });
    }
    Ok(set)
}

fn valueless(words: &[String]) -> impl Iterator<Item = &str> {
    words.iter().map(String::as_str).filter(|word| !word.contains('='))
}

/// Standard input has the value of one variable.
fn one_of<'a>(mut names: impl Iterator<Item = &'a str>) -> Result<(), Diagnostic> {
    match (names.next(), names.next()) {
        (Some(_), Some(second)) => {
            Err(unreadable(second, STDIN, "another value is read from there")
                .help("set them one by one, or write NAME=VALUE"))
        }
        _ => Ok(()),
    }
}

/// The value on standard input.
fn asked(name: &str) -> Result<String, Diagnostic> {
    let failed = |because: &str| unreadable(name, STDIN, because);
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return whole(name, STDIN, stdin.lock());
    }
    let mut value = String::new();
    let _ = write!(std::io::stderr(), "{name}: ");
    let was = tcgetattr(&stdin).map_err(|e| failed(&e.to_string()))?;
    let mut silent = was.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|e| failed(&e.to_string()))?;
    let read = stdin.read_line(&mut value);
    let _ = tcsetattr(&stdin, OptionalActions::Flush, &was);
    let _ = writeln!(std::io::stderr());
    read.map_err(|e| failed(&e.to_string()))?;
    checked(name, STDIN, value)
}

fn of_file(name: &str, file: &Path) -> Result<String, Diagnostic> {
    let place = file.display().to_string();
    let opened = File::open(file).map_err(|e| unreadable(name, &place, &e.to_string()))?;
    whole(name, &place, opened)
}

fn whole(name: &str, place: &str, from: impl Read) -> Result<String, Diagnostic> {
    let mut value = String::new();
    let read = from.take(LONGEST + 1).read_to_string(&mut value);
    read.map_err(|e| unreadable(name, place, &e.to_string()))?;
    checked(name, place, value)
}

/// Without the end of its last line.
fn checked(name: &str, place: &str, value: String) -> Result<String, Diagnostic> {
    check_value(name, place, &value)?;
    let value = value.strip_suffix('\n').unwrap_or(&value);
    Ok(value.strip_suffix('\r').unwrap_or(value).to_string())
}

fn check_value(name: &str, place: &str, value: &str) -> Result<(), Diagnostic> {
    value_problem(name, value).map_or(Ok(()), |why| Err(unreadable(name, place, why)))
}

const STDIN: &str = "standard input";

fn unreadable(name: &str, place: &str, because: &str) -> Diagnostic {
    Diagnostic::error(format!("the value of {name} cannot be read from {place}"))
        .kind(Kind::Usage)
        .because(because)
}
