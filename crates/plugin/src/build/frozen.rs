//! `requirements3.txt` of a package: exact versions, and nothing that would be fetched.

use std::path::Path;

use mfserv_core::diagnostic::{Location, shown};
use mfserv_core::{Diagnostic, Kind};

use super::python::package_name;

/// The longest list of exact versions that is read, bytes; with sums a list is long.
pub(super) const LONGEST: u64 = 1024 * 1024;

/// The lines of frozen requirements without comments, each `NAME[EXTRAS]==VERSION ; MARKER
/// --hash=…`: what an installation gives to pip or uv. Anything else (addresses, options,
/// directories) is refused with its line: it would be fetched, or looked for outside of the
/// package. Each line of the file is checked by itself, so that it does not matter where pip
/// and uv see the end of a line or of a comment.
pub fn frozen_requirements(text: &str, file: &Path) -> Result<Vec<String>, Diagnostic> {
    let mut found: Vec<String> = Vec::new();
    let mut goes_on = false;
    for (index, whole) in text.strip_prefix('\u{feff}').unwrap_or(text).lines().enumerate() {
        let refuse = || refused(whole, file, index + 1);
        if whole.trim_start().starts_with('#') {
            continue;
        }
        let line = whole.split(" #").next().unwrap_or_default().trim();
        let (line, more) = match line.strip_suffix('\\') {
            Some(line) => (line.trim_end(), true),
            None => (line, false),
        };
        let (named, sums) = apart(line).ok_or_else(refuse)?;
        match (named.is_empty(), found.last_mut().filter(|_| goes_on)) {
            (true, None) if sums.is_empty() => {}
            (true, Some(last)) => sums.iter().for_each(|sum| *last += &format!(" {sum}")),
            (false, None) if is_exact(&named) => {
                found.push([&[named.as_str()], sums.as_slice()].concat().join(" "));
            }
            _ => return Err(refuse()),
        }
        goes_on = more;
    }
    Ok(found)
}

fn refused(line: &str, file: &Path, number: usize) -> Diagnostic {
    let line: String = line.trim().chars().take(120).collect();
    Diagnostic::error("the Python packages of the plugin can't be installed")
        .kind(Kind::BadConfiguration)
        .because(format!(
            "`{}` is not an exact version: an installation takes nothing from a network or from \
             elsewhere on the disk",
            shown(&line)
        ))
        .at(Location::new(file.to_string_lossy(), u32::try_from(number).unwrap_or(u32::MAX)))
        .help("write NAME==VERSION, and put the wheel into python3_virtualenv_sources/src")
}

/// The requirement of a line and its sums; `None` when there is any other option.
fn apart(line: &str) -> Option<(String, Vec<&str>)> {
    let (mut named, mut sums) = (Vec::new(), Vec::new());
    for word in line.split_whitespace() {
        match word.strip_prefix("--hash=") {
            Some(sum) if is_sum(sum) => sums.push(word),
            None if sums.is_empty() && !word.starts_with('-') => named.push(word),
            _ => return None,
        }
    }
    Some((named.join(" "), sums))
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

/// The packages of frozen requirements that are not among these files of
/// `python3_virtualenv_sources/src`. What has a marker may not be wanted at all.
pub(super) fn without_file<'a>(
    frozen: &'a [String],
    files: impl Iterator<Item = &'a str>,
) -> Vec<&'a str> {
    let files: Vec<String> = files.map(package_name).collect();
    let is_there = |line: &str| {
        let begin = package_name(line) + "-";
        files.iter().any(|file| file.starts_with(&begin))
    };
    let plain = frozen.iter().filter(|line| !line.contains(';'));
    plain.filter(|line| !is_there(line)).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(text: &str) -> Result<Vec<String>, Diagnostic> {
        frozen_requirements(text, Path::new("requirements3.txt"))
    }

    #[test]
    fn exact_versions_are_taken_with_extras_markers_sums_and_comments() {
        let text = "\u{feff}# -*- coding: utf-7 -*-\nFlask==3.0.0\n\n  zope.interface == 5.0  # why\n\
                    a[x,y]==1.0+local.1 ; python_version < '3.13' and sys_platform == \"linux\"\n\
                    b===2!1.0.post1 \\\n    --hash=sha256:0aF \\\n    --hash=sha512:12\r\n";
        let found = checked(text).unwrap();
        assert_eq!(found[..2], ["Flask==3.0.0", "zope.interface == 5.0"]);
        assert_eq!(found[3], "b===2!1.0.post1 --hash=sha256:0aF --hash=sha512:12");
        assert_eq!(found.len(), 4);
        assert!(checked("# nothing\n").unwrap().is_empty());
    }

    #[test]
    fn what_would_be_fetched_or_looked_for_elsewhere_is_refused_with_its_line() {
        for line in [
            "evilpkg @ http://127.0.0.1:1/x.whl",
            "--find-links http://127.0.0.1:1/",
            "--index-url=http://127.0.0.1:1/",
            "-i http://127.0.0.1:1/",
            "-e .",
            "-r other.txt",
            "./local",
            "/tmp/x.whl",
            "http://127.0.0.1/x.whl",
            "git+ssh://git@127.0.0.1/x#egg=x",
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
    fn a_package_that_is_not_packed_is_named() {
        let frozen = checked("Zope.Interface==5\nflask==3\nother==1; os_name=='nt'\n").unwrap();
        let files = ["zope_interface-5.0-cp311-cp311-linux.whl", ".mfserv-wheels.json"];
        assert_eq!(without_file(&frozen, files.into_iter()), ["flask==3"]);
    }
}
