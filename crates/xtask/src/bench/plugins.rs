//! Many plugins: how long a node takes to start them, and what it costs to keep them.

use std::path::Path;
use std::time::Instant;

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_core::status::Status;

use super::cost::{self, MIB};
use super::machine;
use super::spread::Spread;
use crate::node::{self, Node};
use crate::process;

/// How often the node is started for the time to start, after one start that is not counted.
const STARTS: usize = 5;
/// How often it reads everything again.
const RELOADS: usize = 5;
/// The cheapest Python app of the templates: one function, no packages of its own.
const TEMPLATE: &str = "python3_raw_wsgi";

/// How many, and how long.
#[derive(Debug, Args)]
pub struct Plugins {
    /// How many plugins with workers.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    plugins: u32,
    /// How many workers each of them has.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    workers: u32,
    /// How many plugins of static files, on a node of their own.
    #[arg(long = "static", value_name = "COUNT", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=10_000))]
    files: u32,
    /// How long CPU time and wake-ups are counted, seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

impl Plugins {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        let machine = machine::line(&[("python3", &["--version"])]);
        let program = node::build()?;
        println!("{machine}\n\n`{}`", self.command());
        self.with_workers(&program)?;
        self.with_files(&program)
    }

    fn command(&self) -> String {
        let Plugins { plugins, workers, files, seconds } = self;
        format!(
            "cargo xtask bench plugins --plugins {plugins} --workers {workers} --static {files} --seconds {seconds}"
        )
    }

    fn with_workers(&self, program: &Path) -> Result<(), Diagnostic> {
        let node = Node::new(program)?;
        eprintln!("making the base environment");
        node.run(&["setup"])?;
        for number in 0..self.plugins {
            let dir = make(&node, TEMPLATE, number)?;
            set_workers(&dir, self.workers)?;
        }
        let starts = cost::starts(&node, STARTS)?;
        let boot = Boot::of(&node.status()?)?;
        let own = cost::own(&node.status()?, self.seconds)?;
        let (plugins, workers) = (self.plugins, self.workers);
        println!(
            "\n{plugins} plugins of `{TEMPLATE}` with {workers} workers each: {}.",
            cost::starts_in_words(&starts)
        );
        println!("{}", boot.sentence());
        println!("\nThen, when nobody asks anything:\n");
        cost::print(&own, self.seconds);
        println!("\n{}", reloads(&node)?);
        Ok(())
    }

    fn with_files(&self, program: &Path) -> Result<(), Diagnostic> {
        let node = Node::new(program)?;
        for number in 0..self.files {
            make(&node, "static", number)?;
        }
        let starts = cost::starts(&node, STARTS)?;
        let own = cost::own(&node.status()?, self.seconds)?;
        println!("\n{} plugins of static files: {}.\n", self.files, cost::starts_in_words(&starts));
        cost::print(&own, self.seconds);
        println!("\n{}", reloads(&node)?);
        Ok(())
    }
}

/// Makes a plugin from a template and links it. It needs no build.
fn make(node: &Node, template: &str, number: u32) -> Result<std::path::PathBuf, Diagnostic> {
    let name = format!("plugin{number}");
    let failed = |e: std::io::Error| Diagnostic::error(format!("cannot make {name}")).because(e);
    node.run(&["new", "--no-input", "--template", template, &name])?;
    let (dir, links) = (node.path(&name), node.path("var/plugins"));
    std::fs::create_dir_all(&links).map_err(failed)?;
    std::os::unix::fs::symlink(&dir, links.join(&name)).map_err(failed)?;
    Ok(dir)
}

fn set_workers(dir: &Path, count: u32) -> Result<(), Diagnostic> {
    let file = dir.join("config.ini");
    let edited = std::fs::read_to_string(&file).and_then(|text| {
        let lines = text.lines().map(|line| match line.starts_with("numprocesses") {
            true => format!("numprocesses={count}\n"),
            false => format!("{line}\n"),
        });
        std::fs::write(&file, lines.collect::<String>())
    });
    edited.map_err(|e| Diagnostic::error(format!("cannot edit {}", file.display())).because(e))
}

/// What a start cost, by the time when all is ready.
struct Boot {
    workers: usize,
    workers_s: f64,
    workers_mib: f64,
    own_s: f64,
}

impl Boot {
    fn of(status: &Status) -> Result<Self, Diagnostic> {
        let of_plugins = |wanted: bool| -> Vec<u32> {
            let watchers = status.watchers.iter().filter(|w| w.plugin.is_some() == wanted);
            watchers.flat_map(|w| &w.workers).filter_map(|worker| worker.pid).collect()
        };
        let (workers, mut own) = (of_plugins(true), of_plugins(false));
        own.push(status.daemon.pid);
        own.extend(status.keeper.as_ref().map(|keeper| keeper.pid));
        let seconds = |pids: &[u32]| process::used(pids).map(|used| used.cpu_ns as f64 / 1e9);
        Ok(Self {
            workers: workers.len(),
            workers_s: seconds(&workers)?,
            workers_mib: process::pss(&workers)? as f64 / MIB,
            own_s: seconds(&own)?,
        })
    }

    /// The floor: the workers alone, if all cores did nothing else.
    fn sentence(&self) -> String {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let Boot { workers, workers_s, workers_mib, own_s } = self;
        format!(
            "By then the {workers} Python processes themselves have used {workers_s:.1} s of CPU time, {:.1} s on each of \
             {cores} cores, below which no supervisor can come; keeper, daemon and front together {own_s:.2} s. \
             Memory of the workers: {workers_mib:.0} MiB.",
            workers_s / cores as f64
        )
    }
}

/// How long `mfserv reload` takes when nothing has changed.
fn reloads(node: &Node) -> Result<String, Diagnostic> {
    let mut times = Vec::new();
    for _ in 0..RELOADS {
        let began = Instant::now();
        node.run(&["reload"])?;
        times.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    let spread = Spread::of(times).map_or_else(String::new, |spread| spread.to_string());
    Ok(format!(
        "`mfserv reload` with nothing changed: {spread} ms (median of {RELOADS}, least to most)."
    ))
}
