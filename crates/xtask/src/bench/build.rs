//! How long the build of a Flask plugin takes: fresh with warm caches, and with nothing changed.

use std::fs;
use std::path::Path;
use std::time::Instant;

use clap::Args;
use mfserv_core::Diagnostic;

use super::machine;
use super::spread::Spread;
use crate::node::{self, Node};

/// What a build makes.
const MADE: [&str; 3] =
    ["local", "python3_virtualenv_sources/src", "python3_virtualenv_sources/requirements3.txt"];

/// How often.
#[derive(Debug, Args)]
pub struct Build {
    /// How many fresh builds, and how many with nothing changed.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    times: u32,
}

impl Build {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        let machine = machine::line(&[("python3", &["--version"])]);
        let program = node::build()?;
        let node = Node::new(&program)?;
        eprintln!("making the base environment");
        node.run(&["setup"])?;
        let dir = node.make("python3_flask", "hello")?;
        println!("{machine}\n\n`cargo xtask bench build --times {}`\n", self.times);
        println!("| | fresh, s | nothing changed, ms | `mfserv release`, nothing changed, ms |");
        println!("|---|---|---|---|");
        self.row("pip", &node, &dir)?;
        eprintln!("fetching uv");
        node.run(&["setup", "--uv"])?;
        self.row("uv", &node, &dir)?;
        println!("\nThe middle of each, and its least and most.");
        Ok(())
    }

    fn row(&self, tool: &str, node: &Node, dir: &Path) -> Result<(), Diagnostic> {
        eprintln!("building with {tool}");
        let path = dir.to_string_lossy();
        let build = || timed(node, &["build", &path]);
        // the caches of pip and uv, and of the disk
        clean(dir)?;
        build()?;
        let (mut fresh, mut same, mut packed) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.times {
            clean(dir)?;
            fresh.push(build()?);
        }
        for _ in 0..self.times {
            same.push(build()? * 1000.0);
            packed.push(timed(node, &["release", &path])? * 1000.0);
        }
        let shown =
            |values: Vec<f64>| Spread::of(values).map_or_else(String::new, |s| s.to_string());
        println!("| {tool} | {} | {} | {} |", shown(fresh), shown(same), shown(packed));
        Ok(())
    }
}

/// Seconds of a command.
fn timed(node: &Node, args: &[&str]) -> Result<f64, Diagnostic> {
    let began = Instant::now();
    node.run(args)?;
    Ok(began.elapsed().as_secs_f64())
}

fn clean(dir: &Path) -> Result<(), Diagnostic> {
    for name in MADE {
        let path = dir.join(name);
        let removed = match fs::symlink_metadata(&path) {
            Ok(found) if found.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(_) => Ok(()),
        };
        removed.map_err(|e| {
            Diagnostic::error(format!("cannot remove {}", path.display())).because(e)
        })?;
    }
    Ok(())
}
