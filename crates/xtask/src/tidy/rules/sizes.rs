//! Files and functions do not grow without end. Those that were too long when this rule came
//! are recorded with their size, and may only become shorter.

use std::collections::BTreeMap;
use std::path::Path;

use mfserv_core::Diagnostic;

use crate::tidy::code::functions;
use crate::tidy::{Finding, Tree};

/// A file is about one subject: so many lines say most.
const FILE: usize = 400;
/// A function is read on one screen.
const FUNCTION: usize = 60;

const RECORD: &str = "crates/xtask/src/tidy/sizes.txt";

/// What is too long, and how many lines it has: `PATH`, or `PATH FUNCTION`.
type Sizes = BTreeMap<String, usize>;

pub fn check(tree: &Tree) -> Vec<Finding> {
    compare(&too_long(tree), &recorded(tree.text(RECORD).unwrap_or("")))
}

/// Writes the record again: what has become shorter, without what is gone.
pub fn record(tree: &Tree, root: &Path) -> Result<(), Diagnostic> {
    let now = too_long(tree);
    let before = recorded(tree.text(RECORD).unwrap_or(""));
    let lower = before.iter().filter_map(|(name, size)| Some((name, now.get(name)?.min(size))));
    let lines: String = lower.map(|(name, size)| format!("{size} {name}\n")).collect();
    std::fs::write(root.join(RECORD), lines)
        .map_err(|why| Diagnostic::error(format!("cannot write {RECORD}")).because(why))
}

fn recorded(text: &str) -> Sizes {
    let entry = |line: &str| {
        let (size, name) = line.split_once(' ')?;
        Some((name.to_string(), size.parse().ok()?))
    };
    text.lines().filter_map(entry).collect()
}

fn too_long(tree: &Tree) -> Sizes {
    let mut sizes = Sizes::new();
    for source in &tree.sources {
        if source.lines > FILE {
            sizes.insert(source.path.clone(), source.lines);
        }
        for function in functions(source) {
            if function.lines > FUNCTION {
                sizes.insert(format!("{} {}", source.path, function.name), function.lines);
            }
        }
    }
    sizes
}

fn compare(now: &Sizes, before: &Sizes) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, lines) in now {
        let (path, function) = name.split_once(' ').unwrap_or((name, ""));
        let (what, most) = match function {
            "" => ("this file".to_string(), FILE),
            name => (format!("function {name}"), FUNCTION),
        };
        let most = before.get(name).copied().unwrap_or(most);
        if *lines > most {
            let message = format!("{what} has {lines} lines, and may have {most}: take it apart");
            findings.push(Finding::new(path, 1, message));
        }
    }
    for name in before.keys().filter(|name| !now.contains_key(*name)) {
        let message = format!("{name} is no longer too long: `cargo xtask tidy --record-sizes`");
        findings.push(Finding::new(RECORD, 1, message));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::Source;

    fn sizes(entries: &[(&str, usize)]) -> Sizes {
        entries.iter().map(|(name, size)| (name.to_string(), *size)).collect()
    }

    #[test]
    fn what_is_too_long_is_found_and_what_was_may_only_shrink() {
        let now = sizes(&[("new.rs", 401), ("grown.rs", 451), ("same.rs", 500), ("a.rs f", 61)]);
        let before = sizes(&[("grown.rs", 450), ("same.rs", 500), ("gone.rs", 600)]);
        let found: Vec<String> =
            compare(&now, &before).into_iter().map(|finding| finding.to_string()).collect();
        assert_eq!(
            found,
            [
                "a.rs:1: function f has 61 lines, and may have 60: take it apart",
                "grown.rs:1: this file has 451 lines, and may have 450: take it apart",
                "new.rs:1: this file has 401 lines, and may have 400: take it apart",
                "crates/xtask/src/tidy/sizes.txt:1: gone.rs is no longer too long: \
                 `cargo xtask tidy --record-sizes`",
            ]
        );
    }

    #[test]
    fn long_files_and_functions_are_seen() {
        let mut tree = Tree::default();
        let long = format!("fn a() {{{}}}\n{}", "\n".repeat(60), "\n".repeat(340));
        tree.sources.push(Source::new("long.rs", &long));
        tree.sources.push(Source::new("short.rs", "fn b() {}\n"));
        assert_eq!(too_long(&tree), sizes(&[("long.rs", 401), ("long.rs a", 61)]));
    }

    #[test]
    fn a_new_record_only_lowers() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join(RECORD).parent().unwrap()).unwrap();
        let mut tree = Tree::default();
        for (path, lines) in [("a.rs", 450), ("b.rs", 500), ("c.rs", 410)] {
            tree.sources.push(Source::new(path, &"\n".repeat(lines)));
        }
        tree.texts.push((RECORD.into(), "460 a.rs\n480 b.rs\n700 gone.rs\n".into()));
        record(&tree, root.path()).unwrap();
        let written = std::fs::read_to_string(root.path().join(RECORD)).unwrap();
        assert_eq!(written, "450 a.rs\n480 b.rs\n");
    }
}
