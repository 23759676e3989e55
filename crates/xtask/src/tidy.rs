//! `cargo xtask tidy`: the rules of the house that no compiler knows. Each rule is a pure
//! function in a file of its own (`rules/`): texts in, findings out.
//!
//! The sources are read by a small tokenizer instead of the `syn` crate: half of the rules look
//! at comments, which `syn` drops, and nothing has to be compiled for it.

mod code;
mod finding;
mod markdown;
mod rules;
mod source;
mod tree;

use std::path::{Path, PathBuf};

use clap::Args;
use mfserv_core::{Diagnostic, Kind};

pub use finding::Finding;
use source::Source;
use tree::Tree;

#[derive(Debug, Args)]
pub struct Tidy {
    /// The directory of the repository.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))]
    root: PathBuf,
    /// Write the sizes of files and functions that are too long as they are now: only after
    /// one of them has become smaller.
    #[arg(long)]
    record_sizes: bool,
}

impl Tidy {
    /// Prints each finding as `path:line: message`; fails if there is one.
    pub fn run(&self) -> Result<(), Diagnostic> {
        let tree = Tree::read(&self.root)?;
        if self.record_sizes {
            return rules::sizes::record(&tree, &self.root);
        }
        let mut findings = rules::check(&tree);
        findings.extend(rules::dependencies::check(&tree, &metadata(&self.root)?));
        findings.sort();
        findings.dedup();
        for finding in &findings {
            println!("{finding}");
        }
        match findings.len() {
            0 => Ok(()),
            count => Err(Diagnostic::error(format!("tidy: {count} findings")).kind(Kind::Failed)),
        }
    }
}

/// What cargo knows of the crates that are built, without the network.
fn metadata(root: &Path) -> Result<serde_json::Value, Diagnostic> {
    let cannot = |why: String| Diagnostic::error("cargo metadata fails").because(why);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = std::process::Command::new(cargo)
        .args(["metadata", "--offline", "--locked", "--format-version", "1"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(root)
        .output()
        .map_err(|e| cannot(e.to_string()))?;
    if !output.status.success() {
        return Err(cannot(String::from_utf8_lossy(&output.stderr).into_owned())
            .help("`cargo fetch --locked` downloads what is missing"));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| cannot(e.to_string()))
}
