//! What a package says about its content, before the content.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

/// The file name of the manifest in a package.
pub const MANIFEST: &str = ".manifest.json";
/// The longest path in a package, bytes; and the longest name in it.
const LONGEST_PATH: usize = 1024;
const LONGEST_NAME: usize = 255;

/// The content of a package. Version 1 of the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The version of this format: 1.
    pub format: u32,
    /// The plugin.
    pub name: String,
    /// `_version`.
    pub version: String,
    /// `_release`.
    pub release: String,
    /// The bytes of all files together.
    pub total_size: u64,
    /// What it was built with: `python` → `3.11 cpython-311-x86_64-linux-gnu`, `node` → `v20.20.2`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub interpreters: BTreeMap<String, String>,
    /// The program that made the package.
    pub builder: String,
    /// Everything in it, sorted by path.
    pub members: Vec<Member>,
}

/// One thing in a package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// The path below the plugin directory, with `/`.
    pub path: String,
    /// What it is.
    #[serde(flatten)]
    pub kind: Kind,
}

/// What a member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Kind {
    /// A file.
    File {
        /// Its permissions: 0o644 or 0o755.
        mode: u32,
        /// Its length, bytes.
        size: u64,
        /// The SHA-256 of its content, hexadecimal.
        sha256: String,
    },
    /// A directory.
    Directory,
    /// A symbolic link that stays inside.
    Link {
        /// Where it points, relative to its directory.
        target: String,
    },
}

/// Why a path can't be in a package; `None` if it can.
pub(crate) fn bad_path(path: &str) -> Option<String> {
    let normal = |component: Component<'_>| matches!(component, Component::Normal(name) if name.len() <= LONGEST_NAME);
    if path.is_empty() || path.len() > LONGEST_PATH {
        return Some(format!("a path has 1 to {LONGEST_PATH} bytes"));
    }
    if path.chars().any(is_hidden) {
        return Some("control characters in a path".into());
    }
    let plain = !path.starts_with('/') && !path.contains("//") && !path.ends_with('/');
    if !plain
        || path.split('/').any(|part| part == "." || part == "..")
        || !Path::new(path).components().all(normal)
    {
        return Some(format!(
            "a path is relative, without . and .., and its names have at most {LONGEST_NAME} bytes"
        ));
    }
    None
}

/// Control characters, and those that change the direction of what is shown.
pub(super) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Why a link at `path` can't point to `target`; `None` if it can.
///
/// Only leading `..` are allowed, and no more than the directories above the
/// link: as these are real directories, what follows them is inside, and what
/// it passes through are other links, which are inside too.
pub(crate) fn bad_link(path: &str, target: &str) -> Option<String> {
    let depth = path.matches('/').count();
    let parts: Vec<&str> =
        target.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    let up = parts.iter().take_while(|part| **part == "..").count();
    let bad = target.is_empty()
        || target.len() > LONGEST_PATH
        || target.starts_with('/')
        || target.chars().any(is_hidden)
        || up > depth
        || parts[up..].contains(&"..");
    bad.then(|| format!("the link points out of the plugin: {target}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_inside_are_good() {
        for good in ["a", "a/b", ".x", "a..b", "a b"] {
            assert_eq!(bad_path(good), None, "{good}");
        }
        for bad in [
            "",
            "/a",
            "../a",
            "a/../b",
            "./a",
            "a//b",
            "a/",
            "a\nb",
            &"x".repeat(256),
            &"x/".repeat(600),
        ] {
            assert!(bad_path(bad).is_some(), "{bad}");
        }
    }

    #[test]
    fn only_links_inside_are_good() {
        for (path, target) in
            [("a", "b"), ("a/b", "../c"), ("node_modules/.bin/x", "../x/cli.js"), ("a/b", "..")]
        {
            assert_eq!(bad_link(path, target), None, "{path} {target}");
        }
        for (path, target) in
            [("a", "/etc/passwd"), ("a", "../x"), ("a/b", "../../x"), ("a", "b/../../x"), ("a", "")]
        {
            assert!(bad_link(path, target).is_some(), "{path} {target}");
        }
    }
}
