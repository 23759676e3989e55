//! Links of documents lead somewhere: files, headings, and the paths that are named in text.

use crate::tidy::markdown::{anchors, codes, links, rows};
use crate::tidy::{Finding, Tree};

/// What the names of our files begin with, where they are named from the top.
const TOPS: &[&str] = &["crates/", "docs/", "scripts/", "fuzz/"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.documents() {
        findings.extend(dead_links(tree, path, text));
        findings.extend(named_from_the_top(tree, path, text));
        if path == "ARCHITECTURE.md" {
            findings.extend(named_in_the_map(tree, path, text));
        }
    }
    findings.extend(unread(tree));
    findings
}

fn dead_links(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let is_dead = |target: &str| {
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let file = if file.is_empty() { path.to_string() } else { beside(path, file) };
        let Some(page) = tree.text(&file) else { return !tree.paths.contains(&file) };
        !anchor.is_empty() && !anchors(page).iter().any(|known| known == anchor)
    };
    links(text)
        .into_iter()
        .filter(|(_, target)| !target.contains("://") && is_dead(target))
        .map(|(line, target)| Finding::new(path, line, format!("nothing is at `{target}`")))
        .collect()
}

/// A path relative to the file that names it.
fn beside(path: &str, target: &str) -> String {
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            ".." => drop(parts.pop()),
            "." => {}
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn named_from_the_top(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let is_ours = |name: &str| {
        TOPS.iter().any(|top| name.starts_with(top)) && !name.contains([' ', '*', '<', '…'])
    };
    codes(text)
        .into_iter()
        .filter(|(_, name)| is_ours(name) && !exists(tree, name))
        .map(|(line, name)| Finding::new(path, line, format!("there is no `{name}`")))
        .collect()
}

fn exists(tree: &Tree, name: &str) -> bool {
    let directory = format!("{}/", name.trim_end_matches('/'));
    tree.paths.iter().any(|path| path == name || path.starts_with(&directory))
}

/// In the tables of ARCHITECTURE.md a file is named below `crates/`, below a directory of the file
/// named before it, or in the crate of its row.
fn named_in_the_map(tree: &Tree, path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, cells) in rows(text) {
        let mut directories = vec!["crates/".to_string()];
        let krate = cells[0].trim_matches('`');
        directories.push(format!("crates/{krate}/src/"));
        let row = cells.join(" | ");
        let names = row.split('`').skip(1).step_by(2);
        for name in names.filter(|name| name.ends_with(".rs") || name.contains("/src/")) {
            match directories.iter().rev().find(|dir| exists(tree, &format!("{dir}{name}"))) {
                Some(directory) => {
                    let full = format!("{directory}{name}");
                    let above = full.match_indices('/').map(|(at, _)| full[..=at].to_string());
                    directories.extend(above);
                }
                None => findings.push(Finding::new(path, line, format!("there is no `{name}`"))),
            }
        }
    }
    findings
}

/// Pages of `docs/` that README.md does not lead to.
fn unread(tree: &Tree) -> Vec<Finding> {
    let readme = tree.text("README.md").unwrap_or("");
    let linked: Vec<String> = links(readme).into_iter().map(|(_, target)| target).collect();
    let is_unread = |path: &&String| path.starts_with("docs/") && !linked.contains(path);
    let pages = tree.documents().map(|(path, _)| path).filter(is_unread);
    pages.map(|path| Finding::new(path, 1, "README.md has no link to this page")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(page: &str) -> Vec<String> {
        let mut tree = Tree::default();
        for (path, text) in [
            ("docs/a.md", page),
            ("README.md", "# Top\n\n[a](docs/a.md)"),
            (
                "ARCHITECTURE.md",
                "| crate | at |\n|---|---|\n| `core` | `plan.rs` and `no.rs` |\n| x | `core/src/plan/text.rs`, `tests.rs`, `plan.rs`, `gone.rs` |",
            ),
        ] {
            tree.texts.push((path.into(), text.into()));
            tree.paths.push(path.into());
        }
        for path in [
            "crates/core/src/plan.rs",
            "crates/core/src/plan/text.rs",
            "crates/core/src/plan/tests.rs",
        ] {
            tree.paths.push(path.into());
        }
        check(&tree).into_iter().map(|finding| finding.to_string()).collect()
    }

    const OF_THE_MAP: [&str; 2] =
        ["ARCHITECTURE.md:3: there is no `no.rs`", "ARCHITECTURE.md:4: there is no `gone.rs`"];

    #[test]
    fn what_leads_somewhere_is_no_finding() {
        let page = "## B\n[t](../README.md#top), [b](#b), [web](https://a.b/c)\n`crates/core/src/`";
        assert_eq!(findings(page), OF_THE_MAP);
    }

    #[test]
    fn dead_links_anchors_and_paths_are_found() {
        let page = "[t](README.md)\n[t](../README.md#bottom)\n`crates/core/src/attic.rs`";
        let mut expected = OF_THE_MAP.map(String::from).to_vec();
        expected.splice(
            0..0,
            [
                "docs/a.md:1: nothing is at `README.md`".to_string(),
                "docs/a.md:2: nothing is at `../README.md#bottom`".to_string(),
                "docs/a.md:3: there is no `crates/core/src/attic.rs`".to_string(),
            ],
        );
        assert_eq!(findings(page), expected);
    }

    #[test]
    fn a_page_that_the_readme_does_not_name_is_found() {
        let mut tree = Tree::default();
        tree.texts.push(("docs/lost.md".into(), String::new()));
        assert_eq!(check(&tree).len(), 1);
    }
}
