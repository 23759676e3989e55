//! What others wrote: licences, sources, two versions of one crate, and a reason for each. The
//! same checks as `cargo deny check licenses bans sources`, from `cargo metadata --offline`:
//! cargo-deny would have to be compiled on every new machine, which takes longer than all of
//! `make check`. (What it also can, advisories, needs a network.)

use std::collections::BTreeMap;

use serde_json::Value;

use crate::tidy::markdown::rows;
use crate::tidy::{Finding, Tree};

const LOCK: &str = "Cargo.lock";
const MANIFEST: &str = "Cargo.toml";

/// Licences that go together with BSD-3-Clause in one binary, and ask for no more than that
/// they are named.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

const CRATES_IO: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Crates that may be there in two versions, and why.
const TWICE: &[(&str, &str)] = &[
    (
        "shlex",
        "2 is of cc, which compiles zstd and is not shipped; 1 has the parser that plugins know",
    ),
    ("getrandom", "0.2 is of ring, which rustls can use and is not compiled; 0.4 is of tempfile"),
    ("windows-sys", "of other systems, not compiled"),
];

/// Crates that are not to come in, and what there is instead.
const BANNED: &[(&str, &str)] = &[
    ("openssl-sys", "a C library that must fit the host: TLS will be rustls"),
    ("native-tls", "a C library that must fit the host: TLS will be rustls"),
    ("chrono", "jiff is here, and reads the time zones of the system"),
    ("regex", "regex-lite is here: the patterns of routes are few and short"),
    ("lazy_static", "std::sync::LazyLock"),
    ("anyhow", "each error is a Diagnostic: what, because, at, help, kind"),
];

pub fn check(tree: &Tree, metadata: &Value) -> Vec<Finding> {
    let empty = Vec::new();
    let packages = metadata["packages"].as_array().unwrap_or(&empty);
    let foreign: Vec<Package> = packages.iter().filter_map(Package::of).collect();
    let mut findings: Vec<Finding> = foreign.iter().flat_map(of_package).collect();
    findings.extend(twice(&foreign));
    let manifest = tree.text(MANIFEST).unwrap_or("");
    findings.extend(without_a_reason(manifest, tree.text("ARCHITECTURE.md").unwrap_or("")));
    findings
}

struct Package<'a> {
    name: &'a str,
    version: &'a str,
    licence: &'a str,
    source: &'a str,
}

impl<'a> Package<'a> {
    /// A package that is not of this workspace.
    fn of(value: &'a Value) -> Option<Self> {
        let text = |key: &str| value[key].as_str().unwrap_or("");
        let source = value["source"].as_str()?;
        Some(Self {
            name: text("name"),
            version: text("version"),
            licence: text("license"),
            source,
        })
    }
}

fn of_package(package: &Package) -> Vec<Finding> {
    let Package { name, version, licence, source } = package;
    let mut messages = Vec::new();
    if !is_allowed(licence) {
        messages.push(format!(
            "{name} {version} has the licence `{licence}`, which is not in the list"
        ));
    }
    if *source != CRATES_IO {
        messages.push(format!("{name} {version} comes from {source}, not from crates.io"));
    }
    if let Some((_, instead)) = BANNED.iter().find(|(banned, _)| banned == name) {
        messages.push(format!("{name} is banned: {instead}"));
    }
    messages.into_iter().map(|message| Finding::new(LOCK, 1, message)).collect()
}

/// An expression of SPDX (and its older form with `/` for OR) that some choice of ours allows.
fn is_allowed(expression: &str) -> bool {
    let plain = expression.replace('/', " OR ");
    let plain = plain.trim();
    alternatives(plain, " OR ").into_iter().any(|alternative| {
        alternatives(alternative, " AND ").into_iter().all(|licence| {
            let licence = licence.trim();
            match licence.strip_prefix('(').and_then(|inner| inner.strip_suffix(')')) {
                Some(inner) => is_allowed(inner),
                None => LICENCES.contains(&licence),
            }
        })
    })
}

/// Parts of an expression between an operator that stands outside brackets.
fn alternatives<'a>(expression: &'a str, operator: &str) -> Vec<&'a str> {
    let mut parts = Vec::new();
    let (mut depth, mut begin) = (0, 0);
    for (at, c) in expression.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ' ' if depth == 0 && expression[at..].starts_with(operator) => {
                parts.push(&expression[begin..at]);
                begin = at + operator.len();
            }
            _ => {}
        }
    }
    parts.push(&expression[begin..]);
    parts
}

fn twice(packages: &[Package]) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(package.name).or_default().push(package.version);
    }
    let allowed = |name: &str| TWICE.iter().any(|(known, _)| *known == name);
    let mut findings = Vec::new();
    for (name, versions) in versions {
        if versions.len() > 1 && !allowed(name) {
            let message = format!("{name} is there in several versions: {}", versions.join(", "));
            findings.push(Finding::new(LOCK, 1, message));
        }
    }
    findings
}

/// Direct dependencies without a line under "Dependencies" of ARCHITECTURE.md.
fn without_a_reason(manifest: &str, architecture: &str) -> Vec<Finding> {
    let chapter = architecture.split("## Dependencies").nth(1).unwrap_or("");
    let reasons: Vec<String> =
        rows(chapter).into_iter().map(|(_, cells)| cells[0].clone()).collect();
    let is_explained = |name: &str| {
        let names = |cell: &String| cell.split([',', ' ', '(']).any(|word| word == name);
        reasons.iter().any(names)
    };
    let mut section = "";
    let mut findings = Vec::new();
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            section = line.trim();
        }
        let Some((name, _)) = line.split_once(" = ") else { continue };
        if section == "[workspace.dependencies]"
            && !name.starts_with("mfserv")
            && !is_explained(name)
        {
            let message = format!("say in ARCHITECTURE.md, under Dependencies, what {name} is for");
            findings.push(Finding::new(MANIFEST, index + 1, message));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_is_allowed_when_one_choice_of_it_is() {
        for (expression, allowed) in [
            ("MIT", true),
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("(MIT OR Apache-2.0) AND OpenSSL", false),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
            ("", false),
        ] {
            assert_eq!(is_allowed(expression), allowed, "{expression}");
        }
    }

    #[test]
    fn a_foreign_source_a_ban_and_a_second_version_are_found() {
        let package = |name: &str, version: &str, source: Option<&str>| serde_json::json!({"name": name, "version": version, "license": "MIT", "source": source});
        let metadata = serde_json::json!({"packages": [
            package("mfserv-core", "0.1.0", None),
            package("good", "1.0.0", Some(CRATES_IO)),
            package("two", "1.0.0", Some(CRATES_IO)),
            package("two", "2.0.0", Some(CRATES_IO)),
            package("forked", "1.0.0", Some("git+https://example.org/forked")),
            package("chrono", "0.4.0", Some(CRATES_IO)),
        ]});
        let found: Vec<String> =
            check(&Tree::default(), &metadata).into_iter().map(|finding| finding.message).collect();
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("forked 1.0.0 comes from git+"));
        assert!(found[1].starts_with("chrono is banned"));
        assert_eq!(found[2], "two is there in several versions: 1.0.0, 2.0.0");
    }

    #[test]
    fn a_dependency_that_nobody_explains_is_found() {
        let manifest = "[workspace.dependencies]\nmfserv-core = { path = \"\" }\nclap = \"4\"\nserde_json = \"1\"\nodd = \"1\"\n";
        let architecture = "## Dependencies, one line each\n\n| crate | why |\n|---|---|\n| clap | x |\n| serde, serde_json | y |\n";
        let lines: Vec<usize> =
            without_a_reason(manifest, architecture).into_iter().map(|f| f.line).collect();
        assert_eq!(lines, [5]);
    }
}
