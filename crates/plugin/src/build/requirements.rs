//! Requirement files as people write them: nested files, constraints, options of the index,
//! packages by version, and packages from elsewhere ([`Origin`]).

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::diagnostic::{Location, shown};
use mfserv_core::{Diagnostic, Kind};

use super::origin::{Origin, direct};
use super::sources::package_name;
use crate::label::read_bounded;
use mfserv_platform::disk;

/// The longest requirement file, bytes; with sums a list is long.
pub(super) const LONGEST: u64 = 1024 * 1024;
/// The most files that one list is made of.
const MOST_FILES: usize = 100;
/// Options that say where packages are found: they hold for the whole list.
const OF_THE_INDEX: &[&str] = &[
    "-i",
    "--index-url",
    "--extra-index-url",
    "--no-index",
    "-f",
    "--find-links",
    "--trusted-host",
    "--pre",
    "--prefer-binary",
    "--no-binary",
    "--only-binary",
    "--require-hashes",
    "--use-feature",
];

/// One line, its continuations joined and its comment removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) text: String,
    /// The number of its first line.
    pub(super) number: u32,
}

/// What a line asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Asked<'a> {
    /// The lines of another file.
    Nested(&'a str),
    /// The constraints of another file.
    Constraints(&'a str),
    /// An option of the index, or of the tools.
    Option(&'a str),
    /// A package.
    Package(&'a str),
}

/// The logical lines of a requirement file.
pub(super) fn lines(text: &str) -> Vec<Line> {
    let mut found: Vec<Line> = Vec::new();
    let mut goes_on = false;
    for (number, whole) in (1..).zip(text.strip_prefix('\u{feff}').unwrap_or(text).lines()) {
        let comment = whole.trim_start().starts_with('#');
        if comment && goes_on {
            continue;
        }
        let (part, more) = match whole.strip_suffix('\\').filter(|_| !comment) {
            Some(part) => (part, true),
            None => (whole, false),
        };
        match found.last_mut().filter(|_| goes_on) {
            Some(last) => last.text.push_str(part),
            None => found.push(Line { text: part.into(), number }),
        }
        goes_on = more;
    }
    for line in &mut found {
        line.text = without_comment(&line.text).trim().to_string();
    }
    found.retain(|line| !line.text.is_empty());
    found
}

/// A `#` begins a comment at the beginning of a line and after a blank: elsewhere it belongs to
/// an address.
fn without_comment(text: &str) -> &str {
    if text.trim_start().starts_with('#') {
        return "";
    }
    let end = text
        .char_indices()
        .zip(text.chars().skip(1))
        .find(|((_, before), sign)| before.is_whitespace() && *sign == '#');
    end.map_or(text, |((at, _), _)| &text[..at])
}

impl Line {
    /// What the line asks for.
    pub(super) fn asked(&self) -> Asked<'_> {
        let text = self.text.as_str();
        let value = |long: &str, short: &str| -> Option<&str> {
            let rest = match text.strip_prefix(long) {
                Some(rest) if rest.starts_with(['=', ' ', '\t']) => rest,
                _ => text.strip_prefix(short).filter(|_| !text.starts_with("--"))?,
            };
            Some(rest.trim_start_matches(['=', ' ', '\t']).trim())
        };
        if let Some(file) = value("--requirement", "-r") {
            return Asked::Nested(file);
        }
        if let Some(file) = value("--constraint", "-c") {
            return Asked::Constraints(file);
        }
        if let Some(package) = value("--editable", "-e") {
            return Asked::Package(package);
        }
        if text.starts_with('-') { Asked::Option(text) } else { Asked::Package(text) }
    }
}

/// A package that is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// The line without its sums.
    pub(super) text: String,
    /// `sha256:…` of the line.
    pub(super) sums: Vec<String>,
    /// Where it comes from, if that is not the index.
    pub(super) origin: Option<Origin>,
}

impl Wanted {
    /// Reads what is wanted; the error is the reason. `dirs` are where relative paths may begin,
    /// the first one where something is.
    pub(super) fn read(text: &str, dirs: &[&Path]) -> Result<Wanted, String> {
        let mut words = Vec::new();
        let mut sums = Vec::new();
        let mut all = text.split_whitespace().peekable();
        while let Some(word) = all.next() {
            match word.strip_prefix("--hash") {
                Some("") => sums.extend(all.next().map(str::to_string)),
                Some(sum) if sum.starts_with('=') => sums.push(sum[1..].to_string()),
                _ => words.push(word),
            }
        }
        let text = words.join(" ");
        let origin = direct(&text, dirs)?;
        Ok(Wanted { text, sums, origin })
    }

    /// The name of the package in the form that all agree on, if the line says it.
    pub(super) fn name(&self) -> Option<String> {
        match &self.origin {
            Some(origin) => origin.name.as_deref().map(package_name),
            None => Some(package_name(&self.text)),
        }
    }

    /// The line says which versions may be taken.
    pub(super) fn is_pinned(&self) -> bool {
        let version = self.text.split(';').next().unwrap_or_default();
        self.origin.is_some() || version.contains(['=', '<', '>', '~', '!'])
    }
}

/// A list of requirements with all that it names.
#[derive(Debug, Default)]
pub(super) struct Requirements {
    pub(super) wanted: Vec<Wanted>,
    /// Lines of files of constraints.
    pub(super) constraints: Vec<String>,
    /// Options of the index, one with its value each.
    pub(super) options: Vec<String>,
    /// The files that were read, the list itself first.
    pub(super) files: Vec<PathBuf>,
    /// Names of variables of the environment that lines use as `${NAME}`.
    pub(super) variables: BTreeSet<String>,
    texts: Vec<(String, String)>,
}

impl Requirements {
    /// Reads a list of the plugin in `dir`. Nested files are found beside the file that names
    /// them, as with pip; other relative paths begin at the plugin's directory.
    pub(super) fn read(dir: &Path, file: &Path) -> Result<Self, Diagnostic> {
        let mut all = Self::default();
        all.add(dir, file, "", false)?;
        Ok(all)
    }

    /// The same for everything that is written in these files; another text is another one.
    pub(super) fn fingerprint(&self, also: &[(&str, &str)]) -> String {
        let texts = self.texts.iter().map(|(name, text)| (name.as_str(), text.as_bytes()));
        disk::fingerprint(texts.chain(also.iter().map(|(name, text)| (*name, text.as_bytes()))))
    }

    /// The names that the plugin itself says the versions of.
    pub(super) fn pinned(&self) -> BTreeSet<String> {
        let wanted = self.wanted.iter().filter(|one| one.is_pinned()).filter_map(Wanted::name);
        wanted.chain(self.constraints.iter().map(|line| package_name(line))).collect()
    }

    /// Adds what a file says; `name` is what the file that names it calls it.
    fn add(
        &mut self,
        dir: &Path,
        file: &Path,
        name: &str,
        constraints: bool,
    ) -> Result<(), Diagnostic> {
        if self.files.iter().any(|known| known == file) {
            return Ok(());
        }
        let text =
            read_bounded(file, LONGEST).map_err(|error| disk::failed("read", file, error))?;
        self.files.push(file.to_owned());
        self.texts.push((name.to_string(), text.clone()));
        for line in lines(&text) {
            let failed = |because: &str| refused(&line, file, because);
            if self.files.len() > MOST_FILES {
                return Err(failed("the list has too many files"));
            }
            self.variables.extend(variables(&line.text));
            match line.asked() {
                Asked::Nested(name) | Asked::Constraints(name) if name.is_empty() => {
                    return Err(failed("it names no file"));
                }
                Asked::Constraints(name) if name.starts_with("https://") => {
                    self.options.push(format!("-c {name}"));
                }
                Asked::Nested(name) | Asked::Constraints(name) if name.contains("://") => {
                    return Err(failed(
                        "a file of the network may change unseen: copy it into the plugin",
                    ));
                }
                Asked::Nested(name) => {
                    let nested = find(dir, file, name).ok_or_else(|| failed(MISSING))?;
                    self.add(dir, &nested, name, constraints)?;
                }
                Asked::Constraints(name) => {
                    let nested = find(dir, file, name).ok_or_else(|| failed(MISSING))?;
                    self.add(dir, &nested, name, true)?;
                }
                Asked::Option(option) => {
                    self.options.push(index_option(dir, file, option).map_err(|e| failed(&e))?);
                }
                Asked::Package(text) if constraints => self.constraints.push(text.into()),
                Asked::Package(text) => {
                    let beside = file.parent().unwrap_or(dir);
                    let wanted = Wanted::read(text, &[dir, beside]);
                    self.wanted.push(wanted.map_err(|reason| failed(&reason))?);
                }
            }
        }
        Ok(())
    }
}

const MISSING: &str =
    "there is no such file, neither beside this one nor in the plugin's directory";

/// A line that cannot be built.
pub(super) fn refused(line: &Line, file: &Path, because: &str) -> Diagnostic {
    let text: String = line.text.chars().take(120).collect();
    Diagnostic::error("the Python packages of the plugin can't be built")
        .kind(Kind::BadConfiguration)
        .because(format!("`{}`: {because}", shown(&text)))
        .at(Location::new(file.to_string_lossy(), line.number))
}

/// A file that another one names: beside it, else in the plugin's directory.
fn find(dir: &Path, from: &Path, name: &str) -> Option<PathBuf> {
    let name = name.strip_prefix("file:").map_or(name, |name| name.trim_start_matches("//"));
    let beside = from.parent().unwrap_or(dir).join(name);
    let found = [beside, dir.join(name)].into_iter().find(|file| file.is_file())?;
    // One name for each file: a list may be named twice, by two ways.
    Some(fs::canonicalize(&found).unwrap_or(found))
}

/// An option of the index; a relative directory becomes absolute. The error is the reason.
fn index_option(dir: &Path, file: &Path, option: &str) -> Result<String, String> {
    let end = option.find(['=', ' ', '\t']).unwrap_or(option.len());
    let (name, value) = (&option[..end], option[end..].trim_matches(['=', ' ', '\t']));
    if !OF_THE_INDEX.contains(&name) {
        return Err("this option is not known in a list of requirements".into());
    }
    if !["-f", "--find-links"].contains(&name) || value.contains("://") {
        return Ok(option.into());
    }
    let beside = file.parent().unwrap_or(dir).join(value);
    let place = [beside, dir.join(value)].into_iter().find(|place| place.exists());
    let place = place.ok_or("there is no such directory")?;
    Ok(format!("{name} {}", place.display()))
}

/// The names of `${NAME}` in a text.
fn variables(text: &str) -> Vec<String> {
    let parts = text.split("${").skip(1).filter_map(|rest| rest.split_once('}'));
    let good = |name: &str| {
        name.bytes().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == b'_')
    };
    parts.map(|(name, _)| name.to_string()).filter(|name| good(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_joined_and_lose_their_comments_and_addresses_keep_their_fragment() {
        let text = "\u{feff}# head\n\na==1 \\\n  # between\n  --hash=sha256:00 # why\n\
                    -e git+https://h/x#egg=x\nb\n";
        let found = lines(text);
        let texts: Vec<&str> = found.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts[0].split_whitespace().collect::<Vec<_>>(), ["a==1", "--hash=sha256:00"]);
        assert_eq!(texts[1..], ["-e git+https://h/x#egg=x", "b"]);
        assert_eq!(found.iter().map(|line| line.number).collect::<Vec<_>>(), [3, 6, 7]);
    }

    #[test]
    fn options_are_told_apart_in_all_their_spellings() {
        let asked = |text: &str| format!("{:?}", Line { text: text.into(), number: 1 }.asked());
        for (text, meant) in [
            ("-r base.txt", r#"Nested("base.txt")"#),
            ("-rbase.txt", r#"Nested("base.txt")"#),
            ("--requirement=base.txt", r#"Nested("base.txt")"#),
            ("--requirement base.txt", r#"Nested("base.txt")"#),
            ("-c limits.txt", r#"Constraints("limits.txt")"#),
            ("--constraint limits.txt", r#"Constraints("limits.txt")"#),
            ("-e ./lib", r#"Package("./lib")"#),
            ("--editable=./lib", r#"Package("./lib")"#),
            ("--require-hashes", r#"Option("--require-hashes")"#),
            ("--extra-index-url https://x/", r#"Option("--extra-index-url https://x/")"#),
            ("flask>=2", r#"Package("flask>=2")"#),
        ] {
            assert_eq!(asked(text), meant, "{text}");
        }
    }

    #[test]
    fn nested_files_are_found_beside_the_one_that_names_them_and_each_is_read_once() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().canonicalize().unwrap();
        let write = |path: &str, text: &str| {
            let file = dir.join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        };
        write("sources/list.txt", "-r deep/one.txt\n-c ../limits.txt\n--pre\nflask\n");
        write("sources/deep/one.txt", "-r two.txt\nclick\n");
        write("sources/deep/two.txt", "-r one.txt\njinja2==3\n");
        write("limits.txt", "click<9\n-r more.txt\n");
        write("more.txt", "idna==3\n");
        let read = || Requirements::read(&dir, &dir.join("sources/list.txt")).unwrap();
        let all = read();
        let wanted: Vec<&str> = all.wanted.iter().map(|one| one.text.as_str()).collect();
        assert_eq!(wanted, ["jinja2==3", "click", "flask"]);
        assert_eq!(all.constraints, ["click<9", "idna==3"]);
        assert_eq!(all.options, ["--pre"]);
        assert_eq!(all.files.len(), 5);
        assert_eq!(all.pinned().into_iter().collect::<Vec<_>>(), ["click", "idna", "jinja2"]);
        let before = all.fingerprint(&[]);
        assert_eq!(read().fingerprint(&[]), before);
        assert_ne!(read().fingerprint(&[("override", "")]), before);
        write("more.txt", "idna==3.1\n");
        assert_ne!(read().fingerprint(&[]), before);
    }

    #[test]
    fn what_cannot_be_known_or_found_is_refused_with_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("list.txt");
        for line in [
            "-r missing.txt",
            "-c missing.txt",
            "-r https://example.org/list.txt",
            "-r",
            "--config-settings x",
            "--find-links ./nowhere",
            "./nowhere",
            "hg+https://example.org/x",
        ] {
            fs::write(&file, format!("# first\n{line}\n")).unwrap();
            let problem = Requirements::read(folder.path(), &file).expect_err(line);
            assert!(problem.at.clone().unwrap().to_string().contains("list.txt:2"), "{line}");
            assert_eq!(problem.kind, Kind::BadConfiguration);
        }
    }
}
