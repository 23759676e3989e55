//! The files of the repository. Nothing of git is asked: a tarball will do.

use std::fs;
use std::path::Path;

use mfserv_core::Diagnostic;

use super::Source;

/// Directories that are made, not written.
const MADE: &[&str] = &["target", ".git", "run", "node_modules", "corpus", "artifacts"];

/// The texts that rules look at.
#[derive(Debug, Default)]
pub struct Tree {
    /// Rust files.
    pub sources: Vec<Source>,
    /// All other texts (Markdown, TOML, scripts): path and content.
    pub texts: Vec<(String, String)>,
    /// The paths of all files, also of those that are no text.
    pub paths: Vec<String>,
}

impl Tree {
    /// Reads a repository.
    pub fn read(root: &Path) -> Result<Self, Diagnostic> {
        let mut tree = Self::default();
        tree.read_directory(root, "").map_err(|why| {
            Diagnostic::error(format!("cannot read {}", root.display())).because(why)
        })?;
        tree.paths.sort();
        Ok(tree)
    }

    fn read_directory(&mut self, directory: &Path, below: &str) -> std::io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{below}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() {
                if !MADE.contains(&name.as_str()) {
                    self.read_directory(&entry.path(), &format!("{path}/"))?;
                }
            } else if kind.is_file() {
                self.add(path, fs::read(entry.path())?);
            }
        }
        Ok(())
    }

    fn add(&mut self, path: String, content: Vec<u8>) {
        self.paths.push(path.clone());
        match String::from_utf8(content) {
            Ok(text) if path.ends_with(".rs") => self.sources.push(Source::new(path, &text)),
            Ok(text) => self.texts.push((path, text)),
            Err(_) => {}
        }
    }

    /// The text of a file that is no Rust source.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.texts.iter().find(|(name, _)| name == path).map(|(_, text)| text.as_str())
    }

    /// A Rust source.
    pub fn source(&self, path: &str) -> Option<&Source> {
        self.sources.iter().find(|source| source.path == path)
    }

    /// The Markdown files.
    pub fn documents(&self) -> impl Iterator<Item = &(String, String)> {
        self.texts.iter().filter(|(path, _)| path.ends_with(".md"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_built_is_not_read_and_texts_are_apart_from_sources() {
        let root = tempfile::tempdir().unwrap();
        for (path, content) in [
            ("README.md", &b"# a"[..]),
            ("crates/a/src/lib.rs", b"fn a() {}"),
            ("target/debug/b.rs", b"fn b() {}"),
            ("seeds/raw", b"\xff\xfe"),
        ] {
            let file = root.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, content).unwrap();
        }
        let tree = Tree::read(root.path()).unwrap();
        assert_eq!(tree.paths, ["README.md", "crates/a/src/lib.rs", "seeds/raw"]);
        assert_eq!(tree.text("README.md"), Some("# a"));
        assert!(tree.source("crates/a/src/lib.rs").is_some());
        assert_eq!(tree.sources.len(), 1);
    }
}
