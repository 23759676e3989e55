//! The versions of Python and Node that an app asks for: `.python-version`, `runtime.txt`,
//! `engines` of `package.json`, `.nvmrc`. Where one is not there, the app is tried with what is, and
//! that is said.

use mfserv_core::Diagnostic;
use mfserv_core::diagnostic::Location;

use super::Listing;
use super::packages::in_dir;
use crate::python::locate;

/// The files that ask for a version of Python.
pub(super) const PYTHON: [&str; 2] = [".python-version", "runtime.txt"];

/// A version, and where it is asked for.
struct Wanted {
    version: String,
    file: String,
    line: u32,
}

/// The interpreter that an app of Python asks for (`python3.12`), if this machine has it; else what
/// is to be said. `dir`: the directory of its list of packages, below the app's or empty.
pub fn python(listing: &Listing, dir: &str) -> Result<Option<String>, Diagnostic> {
    let Some(wanted) = python_wanted(listing, dir) else { return Ok(None) };
    let program = format!("python{}", wanted.version);
    match locate(&program) {
        Some(_) => Ok(Some(program)),
        None => Err(unfulfilled(
            &wanted,
            format!("it asks for Python {}, and no {program} is on PATH", wanted.version),
            format!("install {program} (`apt-get install {program} {program}-venv`, pyenv or uv)"),
        )),
    }
}

/// What is to be said of the version of Node (`v20.1.0`) that an app is to run with; `None` if it
/// is the one that the app asks for, or it is not understood.
pub fn node(listing: &Listing, version: &str) -> Option<Diagnostic> {
    let wanted = node_wanted(listing)?;
    let there = numbers(version.trim_start_matches('v'));
    if fits(&wanted.version, &there)? {
        return None;
    }
    let because = format!("it asks for Node {}, and {version} is on PATH", wanted.version);
    Some(unfulfilled(&wanted, because, "install that version (nvm, n, nodesource)".into()))
}

fn unfulfilled(wanted: &Wanted, because: String, install: String) -> Diagnostic {
    Diagnostic::warning("the app runs with another version than it asks for")
        .because(because)
        .at(Location::new(wanted.file.clone(), wanted.line))
        .help(format!("{install} and put it first on PATH; or change {}", wanted.file))
}

/// `3.12` of the first line that is a version of CPython.
fn python_wanted(listing: &Listing, dir: &str) -> Option<Wanted> {
    let names = |dir| PYTHON.map(|name| in_dir(dir, name));
    names(dir).into_iter().chain(names("")).find_map(|file| {
        let lines = (1..).zip(listing.text(&file)?.lines());
        lines.into_iter().find_map(|(line, text)| {
            let text = text.trim().trim_start_matches("python-").trim_start_matches("cpython-");
            let mut parts = text.split('.').map(|part| part.parse::<u32>().ok());
            let (major, minor) = (parts.next()??, parts.next()??);
            Some(Wanted { version: format!("{major}.{minor}"), file: file.clone(), line })
        })
    })
}

fn node_wanted(listing: &Listing) -> Option<Wanted> {
    let engines = || {
        let text = listing.text("package.json")?;
        let value: serde_json::Value = serde_json::from_str(text).ok()?;
        let version = value["engines"]["node"].as_str()?.to_owned();
        let line = (1..).zip(text.lines()).find(|(_, line)| line.contains(&version));
        let line = line.map_or(0, |(number, _)| number);
        Some(Wanted { version, file: "package.json".into(), line })
    };
    let of_file = |file: &'static str| {
        let version = listing.text(file)?.lines().next()?.trim().to_owned();
        Some(Wanted { version, file: file.into(), line: 1 })
    };
    engines().or_else(|| of_file(".nvmrc")).or_else(|| of_file(".node-version"))
}

/// The numbers of `20.1.0`; `x` and what follows it are none.
fn numbers(text: &str) -> Vec<u32> {
    text.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

/// Whether a version is in a range of npm (`>=18 <21`, `^20.1 || 22.x`, `20`, `18 - 20`); `None`
/// where the range is not understood (`lts/*`).
fn fits(range: &str, version: &[u32]) -> Option<bool> {
    let mut fits_one = false;
    for alternative in range.split("||") {
        let text = match alternative.split_once(" - ") {
            Some((from, to)) => format!(">={} <={}", from.trim(), to.trim()),
            None => alternative.to_owned(),
        };
        let mut text = text.trim().to_owned();
        for sign in [">", "<", "=", "~", "^"] {
            while let Some(at) = text.find(&format!("{sign} ")) {
                text.remove(at + 1);
            }
        }
        let mut fits_all = true;
        for part in text.split_whitespace() {
            fits_all &= fits_part(part, version)?;
        }
        fits_one |= fits_all;
    }
    Some(fits_one)
}

fn fits_part(part: &str, version: &[u32]) -> Option<bool> {
    if part.starts_with(char::is_alphabetic) && !part.starts_with(['v', 'x']) {
        return None;
    }
    let digits = part.find(|c: char| c.is_ascii_digit() || c == '*' || c == 'x')?;
    let (sign, text) = part.split_at(digits);
    let sign = sign.trim_end_matches('v');
    let wanted = numbers(text);
    if wanted.is_empty() {
        return (text == "*" || text == "x").then_some(true);
    }
    let version: Vec<u32> = (0..3).map(|at| version.get(at).copied().unwrap_or(0)).collect();
    let same = version[..wanted.len().min(3)] == wanted[..wanted.len().min(3)];
    let full: Vec<u32> = (0..3).map(|at| wanted.get(at).copied().unwrap_or(0)).collect();
    Some(match sign {
        "" | "=" => same,
        ">=" => version >= full,
        "<" => version < full,
        ">" => version > full && !same,
        "<=" => version <= full || same,
        "^" => version >= full && version[0] == wanted[0],
        "~" => version >= full && version[..wanted.len().min(2)] == wanted[..wanted.len().min(2)],
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_npm_mean_what_they_mean_to_npm() {
        let there = numbers("20.11.1");
        for (range, expected) in [
            (">=18", Some(true)),
            (">= 22", Some(false)),
            (">=18 <21", Some(true)),
            (">=18 <20", Some(false)),
            ("^20.0.0", Some(true)),
            ("^20.12", Some(false)),
            ("~20.11", Some(true)),
            ("~20.10.0", Some(false)),
            ("20.x", Some(true)),
            ("18.x || 20.x", Some(true)),
            ("18 - 20", Some(true)),
            ("18 - 19", Some(false)),
            (">20", Some(false)),
            ("<=20", Some(true)),
            ("v20.11.1", Some(true)),
            ("22", Some(false)),
            ("*", Some(true)),
            ("lts/*", None),
            ("node", None),
        ] {
            assert_eq!(fits(range, &there), expected, "{range}");
        }
    }

    #[test]
    fn a_version_that_is_not_there_is_said_with_its_place_and_one_that_is_there_is_used() {
        let asks = |file: &str, text: &str| python(&Listing::of(&[(file, text)]), "back");
        // That of the directory with its list says it, where there is one.
        let both = [(".python-version", "3.98"), ("back/.python-version", "3.97")];
        let problem = python(&Listing::of(&both), "back").unwrap_err().to_string();
        assert!(problem.contains("back/.python-version:1"), "{problem}");
        let problem = asks(".python-version", "# ours\n3.99.1\n").unwrap_err().to_string();
        assert!(
            problem.contains(".python-version:2") && problem.contains("python3.99"),
            "{problem}"
        );
        let problem = asks("runtime.txt", "python-3.98.0\n").unwrap_err().to_string();
        assert!(problem.contains("python3.98"), "{problem}");
        assert_eq!(asks(".python-version", "our-environment\n").unwrap(), None);
        let package = Listing::of(&[("package.json", "{\"engines\":\n{\"node\": \">=22\"}}")]);
        let problem = node(&package, "v20.1.0").unwrap().to_string();
        assert!(problem.contains("package.json:2") && problem.contains("v20.1.0"), "{problem}");
        assert_eq!(node(&package, "v22.0.0"), None);
        assert!(node(&Listing::of(&[(".nvmrc", "18\n")]), "v20.1.0").is_some());
    }
}
