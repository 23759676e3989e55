//! Names of files: patterns, and what a rotation makes of a name.

use std::path::{Component, Path, PathBuf};

/// Ends of names of compressed files.
const COMPRESSED: &[&str] = &[".gz", ".zst", ".bz2", ".xz", ".lz4", ".zip"];

/// A date in a name has at least this many digits: `-1` may be the number of a worker.
const DATE_DIGITS: usize = 6;

/// A rotated file has this name: `NAME.1`, `NAME.20261125093000.2`, `NAME-20261125`, `NAME.old`,
/// and for a name with an extension `STEM-20261125.EXT`. Compressed ones count too.
pub fn is_rotated(name: &str, of: &str) -> bool {
    let plain = without_compression(name);
    if let Some(rest) = plain.strip_prefix(of) {
        return is_count_or_date(rest) || (plain != name && rest.is_empty());
    }
    let Some((stem, extension)) = of.rsplit_once('.').filter(|(stem, _)| !stem.is_empty()) else {
        return false;
    };
    let middle = plain.strip_prefix(stem).and_then(|rest| rest.strip_suffix(extension));
    let middle = middle.and_then(|rest| rest.strip_suffix('.'));
    middle.is_some_and(|middle| is_count_or_date(middle) && digits(middle) >= DATE_DIGITS)
}

/// A compressed file has this name.
pub fn is_compressed(name: &str) -> bool {
    without_compression(name) != name
}

fn without_compression(name: &str) -> &str {
    COMPRESSED.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name)
}

fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}

fn is_count_or_date(rest: &str) -> bool {
    let known = |c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '_' | ':' | 'T' | 'Z');
    match rest.chars().next() {
        Some('.') if rest == ".old" => true,
        Some('.') => rest.chars().all(known) && digits(rest) > 0,
        Some('-' | '_') => rest.chars().all(known) && digits(rest) >= DATE_DIGITS,
        _ => false,
    }
}

/// A path, perhaps with `*`, `?` and `[…]` in its components.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    path: PathBuf,
    has_wildcards: bool,
}

impl Pattern {
    /// A pattern, made absolute.
    ///
    /// # Errors
    /// What the operating system says when there is no current directory.
    pub fn new(text: &Path) -> std::io::Result<Self> {
        let path = std::path::absolute(text)?;
        let has_wildcards = path.to_string_lossy().contains(['*', '?', '[']);
        // A file may be called so.
        let has_wildcards = has_wildcards && std::fs::symlink_metadata(&path).is_err();
        Ok(Self { path, has_wildcards })
    }

    /// The one file that it names, which need not exist; `None` for a pattern with wildcards.
    pub fn file(&self) -> Option<&Path> {
        (!self.has_wildcards).then_some(&*self.path)
    }

    /// A path matches, whether there is such a file or not.
    pub fn is_of(&self, path: &Path) -> bool {
        let names = |path: &Path| -> Vec<String> {
            path.iter().map(|name| name.to_string_lossy().into_owned()).collect()
        };
        let (pattern, names) = (names(&self.path), names(path));
        let is_match = |(pattern, name): (&String, &String)| matches(pattern, name);
        pattern.len() == names.len() && pattern.iter().zip(&names).all(is_match)
    }

    /// The paths of a pattern that have a state beside them: `.NAME.ship`.
    pub fn with_state(&self) -> Vec<PathBuf> {
        let last = self.path.file_name().unwrap_or_default().to_string_lossy();
        let states = Self { path: self.path.with_file_name(format!(".{last}.ship")), ..*self };
        let path_of = |state: PathBuf| {
            let name = state.file_name()?.to_string_lossy().into_owned();
            let name = name.strip_prefix('.')?.strip_suffix(".ship")?;
            Some(state.with_file_name(name))
        };
        states.entries().into_iter().filter_map(path_of).collect()
    }

    /// The files that match now, sorted, without rotated and compressed ones of the others.
    /// Names that begin with a dot match only a component that begins with one.
    pub fn expand(&self) -> Vec<PathBuf> {
        if let Some(file) = self.file() {
            return vec![file.to_owned()];
        }
        let mut found = self.entries();
        found.retain(|path| path.is_file());
        found.sort();
        without_rotated(found)
    }

    /// Everything that matches now.
    fn entries(&self) -> Vec<PathBuf> {
        let mut found = vec![PathBuf::from("/")];
        for component in self.path.components() {
            let Component::Normal(name) = component else { continue };
            let name = name.to_string_lossy();
            found = found.iter().flat_map(|dir| step(dir, &name)).collect();
        }
        found
    }
}

/// The entries of a directory that one component of a pattern matches.
fn step(dir: &Path, component: &str) -> Vec<PathBuf> {
    if !component.contains(['*', '?', '[']) {
        return vec![dir.join(component)];
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| component.starts_with('.') || !name.starts_with('.'))
        .filter(|name| matches(component, name))
        .map(|name| dir.join(name))
        .collect()
}

fn without_rotated(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let is_extra = |path: &PathBuf| {
        let own = name(path);
        let of =
            |other: &PathBuf| other.parent() == path.parent() && is_rotated(&own, &name(other));
        is_compressed(&own) || files.iter().any(of)
    };
    files.iter().filter(|path| !is_extra(path)).cloned().collect()
}

/// Whether a name matches a pattern of the shell.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where the last `*` stands, and how far it has matched.
    let mut star = None;
    while n < name.len() {
        match one(&pattern[p..], name[n]) {
            Some(length) => (p, n) = (p + length, n + 1),
            None if pattern.get(p) == Some(&'*') => {
                star = Some((p, n));
                p += 1;
            }
            None => match star {
                Some((at, matched)) => {
                    star = Some((at, matched + 1));
                    (p, n) = (at + 1, matched + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// How many characters of the pattern match this one of the name.
fn one(pattern: &[char], c: char) -> Option<usize> {
    match *pattern.first()? {
        '*' => None,
        '?' => Some(1),
        '[' => {
            let Some(end) = pattern.iter().skip(2).position(|c| *c == ']').map(|at| at + 2) else {
                return (c == '[').then_some(1);
            };
            let inside = &pattern[1..end];
            let negated = matches!(inside.first(), Some('!' | '^'));
            let inside = if negated { &inside[1..] } else { inside };
            (in_class(inside, c) != negated).then_some(end + 1)
        }
        literal => (literal == c).then_some(1),
    }
}

fn in_class(class: &[char], c: char) -> bool {
    let mut at = 0;
    while at < class.len() {
        match class[at..] {
            [from, '-', to, ..] => {
                if (from..=to).contains(&c) {
                    return true;
                }
                at += 3;
            }
            _ if class[at] == c => return true,
            _ => at += 1,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_rotation_makes_are_known_and_those_of_other_files_are_not() {
        for (name, of) in [
            ("a.log.1", "a.log"),
            ("a.log.12.gz", "a.log"),
            ("a.log.20261125093000", "a.log"),
            ("a.log.20261125093000.2", "a.log"),
            ("a.log-20261125", "a.log"),
            ("a.log-2026-11-25.zst", "a.log"),
            ("a-20261125.log", "a.log"),
            ("a.log.old", "a.log"),
            ("a.log.gz", "a.log"),
            ("a.1", "a"),
        ] {
            assert!(is_rotated(name, of), "{name} of {of}");
        }
        for (name, of) in [
            ("a.log", "a.log"),
            ("a-1.log", "a.log"),
            ("a.log-1", "a.log"),
            ("a_worker1.log", "a.log"),
            ("b.log.1", "a.log"),
            ("a.log.1x", "a.log"),
            ("ab.log", "a.log"),
            ("a.json", "a.log"),
        ] {
            assert!(!is_rotated(name, of), "{name} of {of}");
        }
    }

    #[test]
    fn a_pattern_matches_as_in_a_shell() {
        for (pattern, name, is_match) in [
            ("*.log", "a.log", true),
            ("*.log", "a.log.1", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("?.log", "ab.log", false),
            ("app_[0-9].log", "app_7.log", true),
            ("app_[!0-9].log", "app_7.log", false),
            ("[", "[", true),
            ("*", "é", true),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_knows_its_paths_and_those_of_states_whose_file_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let pattern = Pattern::new(&dir.path().join("*/a*.log")).unwrap();
        assert!(pattern.is_of(&dir.path().join("x/ab.log")));
        assert!(!pattern.is_of(&dir.path().join("x/y/ab.log")));
        assert!(!pattern.is_of(&dir.path().join("x/b.log")));
        for state in ["x/.a1.log.ship", "x/.b.log.ship", "y/.a2.log.ship", "y/a3.log"] {
            std::fs::create_dir_all(dir.path().join(state)).unwrap();
        }
        let mut found = pattern.with_state();
        found.sort();
        assert_eq!(found, [dir.path().join("x/a1.log"), dir.path().join("y/a2.log")]);
    }

    #[test]
    fn a_pattern_finds_files_but_neither_rotated_nor_hidden_ones_nor_directories() {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["x", "y"] {
            std::fs::create_dir_all(dir.path().join(sub).join("a.log.d")).unwrap();
            for name in ["a.log", "a.log.1", "a.log.2.gz", "b.log.gz", ".c.log", "part.1", "part.2"]
            {
                std::fs::write(dir.path().join(sub).join(name), "x").unwrap();
            }
        }
        let found = |text: &str| -> Vec<String> {
            let pattern = Pattern::new(&dir.path().join(text)).unwrap();
            let short = |path: PathBuf| {
                path.strip_prefix(dir.path()).unwrap().to_string_lossy().into_owned()
            };
            pattern.expand().into_iter().map(short).collect()
        };
        assert_eq!(found("*/a.log*"), ["x/a.log", "y/a.log"]);
        assert_eq!(found("x/*.log*"), ["x/a.log"]);
        assert_eq!(found("x/part.*"), ["x/part.1", "x/part.2"]);
        assert_eq!(found("x/new.log"), ["x/new.log"], "a file need not exist yet");
    }
}
