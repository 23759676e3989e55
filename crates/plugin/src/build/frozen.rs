//! `requirements3.txt` of a package: exact versions, and nothing that would be fetched.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mfserv_core::diagnostic::{Location, shown};
use mfserv_core::{Diagnostic, Kind};

use super::origin::{Origin, direct};
use super::requirements::{Asked, Line, lines};
use super::sources::package_name;
use mfserv_platform::disk;

/// One package of the list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// `NAME[EXTRAS]==VERSION ; MARKER`; of a package that is not from the index, the whole line.
    pub(super) text: String,
    /// `sha256:…` of the line.
    pub(super) sums: Vec<String>,
    /// Where it comes from, if that is not the index.
    pub(super) origin: Option<Origin>,
    at: Location,
}

impl Frozen {
    /// The line as pip reads it.
    pub(super) fn line(&self) -> String {
        let sums = self.sums.iter().map(|sum| format!(" --hash={sum}"));
        self.text.clone() + &sums.collect::<String>()
    }
}

/// The packages of frozen requirements. A package of the index has an exact version; of a
/// package from elsewhere (git, a path, an address) the wheel is in the package, and nothing is
/// fetched: its line only names it. Anything else (options, other files) is refused with its
/// line. Each line of the file is checked by itself, so that it does not matter where pip and uv
/// see the end of a line or of a comment: they are not given this file.
pub fn frozen_requirements(text: &str, file: &Path) -> Result<Vec<Frozen>, Diagnostic> {
    let dir = file.parent().and_then(Path::parent).unwrap_or_else(|| Path::new(""));
    lines(text)
        .iter()
        .map(|line| read(line, file, dir).ok_or_else(|| refused(line, file)))
        .collect()
}

fn read(line: &Line, file: &Path, dir: &Path) -> Option<Frozen> {
    let Asked::Package(text) = line.asked() else { return None };
    let at = Location::new(file.to_string_lossy(), line.number);
    let (named, sums) = apart(text)?;
    if is_exact(&named) {
        return Some(Frozen { text: named, sums, origin: None, at });
    }
    // A path that is not there any more is still the name of a wheel.
    let beside = file.parent().unwrap_or(dir);
    let origin = match direct(&named, &[dir, beside]) {
        Ok(origin) => origin?,
        Err(_) => Origin::unusable(&named)?,
    };
    let printable = !text.chars().any(|c| c.is_control() || "\u{2028}\u{2029}".contains(c));
    printable.then_some(Frozen { text: named, sums, origin: Some(origin), at })
}

fn refused(line: &Line, file: &Path) -> Diagnostic {
    let text: String = line.text.chars().take(120).collect();
    Diagnostic::error("the Python packages of the plugin can't be installed")
        .kind(Kind::BadConfiguration)
        .because(format!(
            "`{}` is neither an exact version nor the address of a package: an installation takes \
             nothing from a network or from elsewhere on the disk",
            shown(&text)
        ))
        .at(Location::new(file.to_string_lossy(), line.number))
        .help(
            "write NAME==VERSION; options and other files belong into requirements-to-freeze.txt, \
             from which `mfserv build` makes this list",
        )
}

/// The requirement of a line and its sums; `None` when there is any other option.
fn apart(line: &str) -> Option<(String, Vec<String>)> {
    let (mut named, mut sums) = (Vec::new(), Vec::new());
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        let sum = match word.strip_prefix("--hash") {
            Some("") => words.next(),
            Some(rest) => rest.strip_prefix('='),
            None => None,
        };
        match sum {
            Some(sum) if is_sum(sum) => sums.push(sum.to_string()),
            None if sums.is_empty() && !word.starts_with('-') => named.push(word),
            _ => return None,
        }
    }
    Some((named.join(" "), sums)).filter(|(named, _)| !named.is_empty())
}

/// `sha256:0123…`
fn is_sum(text: &str) -> bool {
    text.split_once(':').is_some_and(|(kind, sum)| {
        ["sha256", "sha384", "sha512"].contains(&kind)
            && !sum.is_empty()
            && sum.chars().all(|c| c.is_ascii_hexdigit())
    })
}

/// `NAME[EXTRAS]==VERSION`, with a marker or without.
fn is_exact(text: &str) -> bool {
    let (exact, marker) = text.split_once(';').unwrap_or((text, ""));
    let exact = exact.trim();
    let exact = exact.strip_prefix('(').and_then(|e| e.strip_suffix(')')).unwrap_or(exact);
    let Some((name, version)) = exact.split_once("==") else { return false };
    let (name, version) = (name.trim(), version.trim_start_matches('=').trim());
    let (name, extras) = match name.split_once('[') {
        None => (name, ""),
        Some((name, rest)) => match rest.strip_suffix(']') {
            Some(extras) => (name.trim(), extras),
            None => return false,
        },
    };
    let only = |text: &str, more: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
    };
    name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && only(name, "-_.")
        && only(extras, "-_., ")
        && !version.is_empty()
        && only(version, "-_.+!*")
        && only(marker, "-_.+!*'\"<>=()~, \t")
}

/// The wheels of a package: their file names, and which origin each has, if that was noted.
pub(super) struct Wheels<'a> {
    pub(super) names: &'a [&'a str],
    pub(super) origins: &'a BTreeMap<String, String>,
}

impl Wheels<'_> {
    /// The file of a package; `None` if it is not there.
    fn of(&self, frozen: &Frozen) -> Option<&str> {
        let known =
            |name: &&&str| **name == self.origins.get(&frozen.text).map_or("", String::as_str);
        if let Some(name) = self.names.iter().find(known) {
            return Some(name);
        }
        let wanted = match &frozen.origin {
            Some(origin) => package_name(origin.name.as_deref()?),
            None => package_name(&frozen.text),
        };
        let begins =
            |name: &&&str| package_name(name.split('-').next().unwrap_or_default()) == wanted;
        let mut all =
            self.names.iter().filter(|name| frozen.origin.is_none() || name.ends_with(".whl"));
        all.find(begins).copied()
    }

    /// Refuses the first package whose file is not there. What has a marker may not be wanted.
    pub(super) fn check(&self, frozen: &[Frozen]) -> Result<(), Diagnostic> {
        let missing = |one: &&Frozen| !one.text.contains(';') && self.of(one).is_none();
        let Some(first) = frozen.iter().find(missing) else { return Ok(()) };
        Err(Diagnostic::error("the plugin is not packed with its Python packages")
            .because(format!(
                "the directory src beside the list of its packages has no file of {}",
                shown(&first.text)
            ))
            .at(first.at.clone())
            .help("build it, and make the package again: mfserv release DIR"))
    }

    /// The lines that a tool is given, each an exact version; with sums if any line has some,
    /// and then those of the files themselves: a tool wants all or none. A file that is not as
    /// its line says is refused, unless its sum is among `made`: it was made here of the sources
    /// that the line means.
    pub(super) fn exact(
        &self,
        frozen: &[Frozen],
        dir: &Path,
        made: &BTreeMap<String, String>,
    ) -> Result<Vec<String>, Diagnostic> {
        let summed = frozen.iter().any(|one| !one.sums.is_empty());
        let mut found = Vec::new();
        for one in frozen {
            let file = self.of(one);
            let marker = one.text.contains(';');
            let line = match (&one.origin, file) {
                (None, _) => one.text.clone(),
                (Some(origin), Some(file)) => {
                    let line = exact_of(file, &origin.marker);
                    // A file name is as foreign as a line.
                    let good = is_exact(&line).then_some(line);
                    good.ok_or_else(|| not_a_wheel(one, file))?
                }
                (Some(_), None) if marker => continue,
                (Some(_), None) => return self.check(std::slice::from_ref(one)).map(|()| found),
            };
            let sum = match file.filter(|_| summed) {
                Some(file) => format!(" --hash=sha256:{}", self.checked(one, dir, file, made)?),
                None => String::new(),
            };
            if summed && sum.is_empty() {
                // Not wanted here: a marker says so, else it would have been refused before.
                continue;
            }
            found.push(line + &sum);
        }
        Ok(found)
    }

    fn checked(
        &self,
        one: &Frozen,
        dir: &Path,
        file: &str,
        made: &BTreeMap<String, String>,
    ) -> Result<String, Diagnostic> {
        use sha2::{Digest, Sha256, Sha384, Sha512};
        let path = dir.join(file);
        let bytes = fs::read(&path).map_err(|e| disk::failed("read", &path, e))?;
        let sha256 = disk::hex(&Sha256::digest(&bytes));
        let good = |sum: &String| match sum.split_once(':') {
            Some(("sha256", sum)) => sum.eq_ignore_ascii_case(&sha256),
            Some(("sha384", sum)) => sum.eq_ignore_ascii_case(&disk::hex(&Sha384::digest(&bytes))),
            Some(("sha512", sum)) => sum.eq_ignore_ascii_case(&disk::hex(&Sha512::digest(&bytes))),
            _ => false,
        };
        if one.sums.is_empty() || one.sums.iter().any(good) || made.get(file) == Some(&sha256) {
            return Ok(sha256);
        }
        Err(Diagnostic::error("the Python packages of the plugin can't be installed")
            .kind(Kind::BadConfiguration)
            .because(format!("the SHA-256 of {file} is none of those that its line says"))
            .at(one.at.clone())
            .help("build the plugin again, and look where the file comes from"))
    }
}

fn not_a_wheel(one: &Frozen, file: &str) -> Diagnostic {
    Diagnostic::error("the Python packages of the plugin can't be installed")
        .kind(Kind::BadConfiguration)
        .because(format!("{} is not the name of a wheel", shown(file)))
        .at(one.at.clone())
}

/// `NAME==VERSION` of a wheel, by its file name.
fn exact_of(file: &str, marker: &str) -> String {
    let mut parts = file.split('-');
    let (name, version) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let marker = if marker.is_empty() { String::new() } else { format!(" ; {marker}") };
    format!("{name}=={version}{marker}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Vec<Frozen>, Diagnostic> {
        frozen_requirements(text, Path::new("requirements3.txt"))
    }

    fn texts(frozen: &[Frozen]) -> Vec<&str> {
        frozen.iter().map(|one| one.text.as_str()).collect()
    }

    #[test]
    fn exact_versions_are_taken_with_extras_markers_sums_and_comments() {
        let text = "\u{feff}# -*- coding: utf-7 -*-\nFlask==3.0.0\n\n  zope.interface == 5.0  # why\n\
                    a[x,y]==1.0+local.1 ; python_version < '3.13' and sys_platform == \"linux\"\n\
                    b===2!1.0.post1 \\\n    --hash=sha256:0aF \\\n    --hash=sha512:12\r\n";
        let found = checked(text).unwrap();
        assert_eq!(texts(&found)[..2], ["Flask==3.0.0", "zope.interface == 5.0"]);
        assert_eq!(found[3].text, "b===2!1.0.post1");
        assert_eq!(found[3].sums, ["sha256:0aF", "sha512:12"]);
        assert_eq!(found.len(), 4);
        assert!(checked("# nothing\n").unwrap().is_empty());
    }

    #[test]
    fn what_would_be_fetched_or_looked_for_elsewhere_is_refused_with_its_line() {
        for line in [
            "--find-links http://127.0.0.1:1/",
            "--index-url=http://127.0.0.1:1/",
            "-i http://127.0.0.1:1/",
            "-r other.txt",
            "name",
            "name>=1",
            "name==1 --find-links http://127.0.0.1:1/",
            "name==1 --config-settings=x",
            "name==${HOME}",
            "name==1; x @ http://127.0.0.1/",
            "--hash=sha256:00",
            "good==1 \\\nevil==1",
            "good==1\rbad @ http://127.0.0.1",
            "good==1\u{2028}-e .",
            "name==1 \u{1b}[2J",
        ] {
            let text = format!("# first\n{line}\n");
            let problem = checked(&text).expect_err(line);
            let at = problem.at.clone().unwrap().to_string();
            assert!(at.starts_with("requirements3.txt:"), "{line}: {at}");
            assert_eq!(problem.kind, Kind::BadConfiguration);
        }
    }

    #[test]
    fn a_package_that_is_not_packed_is_named_with_its_line_and_nothing_is_fetched() {
        let none = BTreeMap::new();
        let wheels = Wheels {
            names: &["zope_interface-5.0-cp311-cp311-linux.whl", ".mfserv-wheels.json"],
            origins: &none,
        };
        let missing = |text: &str| wheels.check(&checked(text).unwrap()).unwrap_err();
        let error = missing("Zope.Interface==5\nflask==3\nother==1; os_name=='nt'\n");
        assert!(error.because[0].contains("no file of flask==3"), "{error}");
        for line in [
            "evilpkg @ http://127.0.0.1:1/x.whl",
            "-e .",
            "./local",
            "/tmp/x.whl",
            "http://127.0.0.1/x.whl",
            "git+ssh://git@127.0.0.1/x#egg=x",
            "hg+https://example.org/x#egg=x",
        ] {
            let error = missing(&format!("zope-interface==5\n{line}\n"));
            let at = error.at.clone().unwrap().to_string();
            assert!(at.starts_with("requirements3.txt:2"), "{line}: {at}");
        }
    }

    #[test]
    fn a_package_from_elsewhere_becomes_the_exact_version_of_its_wheel() {
        let noted = BTreeMap::from([("./libs/b".to_string(), "b_b-2.0-py3-none-any.whl".into())]);
        let wheels = Wheels {
            names: &["b_b-2.0-py3-none-any.whl", "Some.Lib-1.0+x-py3-none-any.whl", "c-1.tar.gz"],
            origins: &noted,
        };
        let exact = |text: &str| {
            wheels.exact(&checked(text).unwrap(), Path::new("/nowhere"), &BTreeMap::new())
        };
        let some = "Some.Lib==1.0+x";
        for (line, wanted) in [
            ("-e git+https://github.com/x/some_lib.git@v1#egg=some-lib", some),
            ("git+ssh://git@h/x.git#egg=Some_Lib[extra]&subdirectory=y", some),
            ("some-lib @ git+https://h/x.git@0a1b", some),
            ("some.lib @ ./gone", some),
            ("./libs/b", "b_b==2.0"),
            (
                "some-lib @ https://h/x.whl ; os_name == 'posix'",
                "Some.Lib==1.0+x ; os_name == 'posix'",
            ),
        ] {
            assert_eq!(exact(line).unwrap(), [wanted], "{line}");
        }
        assert!(exact("c @ https://h/c.tar.gz").is_err(), "sources are not installed");
    }

    #[test]
    fn a_file_that_is_not_as_its_sum_says_is_refused_unless_it_was_made_here() {
        let folder = tempfile::tempdir().unwrap();
        let file = "a-1-py3-none-any.whl";
        fs::write(folder.path().join(file), "").unwrap();
        fs::write(folder.path().join("b-1-py3-none-any.whl"), "").unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        let none = BTreeMap::new();
        let wheels = Wheels { names: &[file, "b-1-py3-none-any.whl"], origins: &none };
        let exact = |sum: &str, made| {
            let frozen = checked(&format!("a==1 --hash=sha256:{sum}\nb @ ./b\n")).unwrap();
            wheels.exact(&frozen, folder.path(), &made)
        };
        let wanted = [format!("a==1 --hash=sha256:{empty}"), format!("b==1 --hash=sha256:{empty}")];
        assert_eq!(exact(empty, BTreeMap::new()).unwrap(), wanted);
        assert!(exact(&"0".repeat(64), BTreeMap::new()).unwrap_err().at.is_some());
        let made = BTreeMap::from([(file.to_string(), empty.to_string())]);
        assert_eq!(exact(&"0".repeat(64), made).unwrap(), wanted);
    }
}
