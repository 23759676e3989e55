//! CPU time per request: the embedded front, tuned nginx and HAProxy in front of the
//! same upstream and the same files, in turns, each with a core of its own.

mod embedded;
mod haproxy;
pub mod load;
mod origin;
mod pinning;
mod report;
mod tuned;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mfserv_core::Diagnostic;
use tempfile::TempDir;

use super::machine;
use super::nginx::Nginx;
use crate::{interrupt, node, process};
use embedded::Embedded;
use haproxy::Haproxy;
use load::{Load, Wanted};
use origin::Origin;
use pinning::Pinning;

/// What is measured: its name, its path, the length of the content, connections.
const CASES: [(&str, &str, u64, usize); 9] = [
    ("proxy, 100 B, 64 connections", "/app/100", 100, 64),
    ("proxy, 100 B, 512 connections", "/app/100", 100, 512),
    ("proxy, 10 KB, 64 connections", "/app/10000", 10_000, 64),
    ("proxy, 10 KB, 512 connections", "/app/10000", 10_000, 512),
    ("proxy, 1 MB, 64 connections", "/app/1000000", 1_000_000, 64),
    ("proxy, 1 MB, 512 connections", "/app/1000000", 1_000_000, 512),
    ("static, 1 KB, 64 connections", "/static/1000", 1_000, 64),
    ("static, 100 KB, 64 connections", "/static/100000", 100_000, 64),
    ("static, 10 MB, 64 connections", "/static/10000000", 10_000_000, 64),
];
/// Before each round, with the same requests.
const WARM_UP: Duration = Duration::from_millis(700);

/// How long, and what.
#[derive(Debug, Args)]
pub struct Front {
    /// How long a round of one front lasts, seconds.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// How many rounds of each front.
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=50))]
    rounds: u64,
    /// Only the cases whose names contain this (`100 B`, `static`…).
    #[arg(long)]
    only: Option<String>,
    /// Another mfserv than the one of these sources, which is then not built.
    #[arg(long)]
    program: Option<PathBuf>,
    /// A further mfserv to compare with, for example one of yesterday.
    #[arg(long)]
    beside: Option<PathBuf>,
}

/// What all fronts stand before.
#[derive(Debug, Clone, Copy)]
struct Backend<'a> {
    /// The sockets of the upstream.
    sockets: &'a [PathBuf],
    /// The directory of the files, each named by its length.
    files: &'a Path,
}

/// A front with what belongs to it.
struct Contestant {
    name: &'static str,
    address: SocketAddr,
    pids: Vec<u32>,
    serves_files: bool,
}

/// What a round has shown.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// CPU time of the front's processes, microseconds per request.
    cpu_us: f64,
    /// Requests in a second.
    rate: f64,
    /// Requests that failed.
    failed: u64,
}

/// A case with the rounds of each contestant; none where it does not take part.
struct Outcome {
    case: &'static str,
    rounds: Vec<Vec<Round>>,
}

impl Front {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        let machine = machine::line(&[("/usr/sbin/nginx", &["-v"]), (haproxy::PROGRAM, &["-v"])]);
        let program = self.program.clone().map_or_else(node::build, Ok)?;
        let pinning = Pinning::begin()?;
        let dir = files()?;
        let origin = Origin::start(dir.path())?;
        let backend = Backend { sockets: origin.sockets(), files: dir.path() };
        let embedded = pinning.on_front_core(|| Embedded::start(&program, &backend))?;
        let servers = [tuned::alike(&backend), tuned::plain(&backend)];
        // Two of them, because memory is told of each.
        let start = |server| pinning.on_front_core(|| Nginx::start("1", &[server]));
        let [alike, plain] = servers;
        let (alike, plain) = (start(alike)?, start(plain)?);
        let haproxy = pinning.on_front_core(|| Haproxy::start(&backend))?;
        let beside = self
            .beside
            .as_ref()
            .map(|program| pinning.on_front_core(|| Embedded::start(program, &backend)));
        let beside = beside.transpose()?;
        let mut contestants = vec![
            Contestant::new("mfserv", embedded.address(), embedded.pid(), true),
            Contestant::new("nginx", alike.address(0)?, alike.pid(), true),
            Contestant::new("nginx, plain", plain.address(0)?, plain.pid(), true),
            Contestant::new("HAProxy", haproxy.address(), haproxy.pid(), false),
        ];
        let beside = beside.as_ref();
        contestants.extend(beside.map(|b| Contestant::new("beside", b.address(), b.pid(), true)));
        let mut outcomes = Vec::new();
        for case in CASES.into_iter().filter(|(name, ..)| self.is_wanted(name)) {
            outcomes.push(self.measure(case, &contestants)?);
        }
        println!("{machine}\n\n`{}`\n", self.command());
        report::print(&contestants, &outcomes)
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only))
    }

    fn command(&self) -> String {
        let only = self.only.as_ref().map_or(String::new(), |only| format!(" --only {only:?}"));
        let Self { seconds, rounds, .. } = self;
        format!("cargo xtask bench front --seconds {seconds} --rounds {rounds}{only}")
    }

    /// The rounds of a case, each contestant in its turn.
    fn measure(
        &self,
        (case, path, length, connections): (&'static str, &str, u64, usize),
        contestants: &[Contestant],
    ) -> Result<Outcome, Diagnostic> {
        let wanted = Wanted { path: path.into(), length, connections };
        let mut rounds = vec![Vec::new(); contestants.len()];
        for number in 1..=self.rounds {
            eprintln!("{case}: round {number} of {}", self.rounds);
            for (contestant, rounds) in contestants.iter().zip(&mut rounds) {
                if contestant.serves_files || path.starts_with("/app/") {
                    rounds.push(contestant.round(&wanted, Duration::from_secs(self.seconds))?);
                }
            }
        }
        Ok(Outcome { case, rounds })
    }
}

impl Contestant {
    fn new(name: &'static str, address: SocketAddr, pid: u32, serves_files: bool) -> Self {
        let pids = [vec![pid], process::descendants(pid)].concat();
        Self { name, address, pids, serves_files }
    }

    fn round(&self, wanted: &Wanted, time: Duration) -> Result<Round, Diagnostic> {
        let load = Load::start(self.address, wanted)?;
        interrupt::sleep(WARM_UP)?;
        let answers = || load.tally().answers(wanted.length);
        let (before, used_before) = (answers(), process::used(&self.pids)?);
        interrupt::sleep(time)?;
        let (after, used) = (answers(), process::used(&self.pids)?);
        let failed = load.tally().failed();
        load.end()?;
        let answered = after - before;
        if answered < 1.0 {
            return Err(Diagnostic::error(format!("{} answers nothing", self.name))
                .because(format!("{} ({failed} failures)", wanted.path)));
        }
        let cpu_us = (used - used_before).cpu_ns as f64 / 1000.0 / answered;
        Ok(Round { cpu_us, rate: answered / time.as_secs_f64(), failed })
    }
}

/// A directory with a file for each static case.
fn files() -> Result<TempDir, Diagnostic> {
    let failed = |e: std::io::Error| Diagnostic::error("cannot write the files").because(e);
    let dir = tempfile::Builder::new().prefix("mfb-files-").tempdir().map_err(failed)?;
    for (_, path, length, _) in CASES {
        if let Some(name) = path.strip_prefix("/static/") {
            std::fs::write(dir.path().join(name), vec![b'x'; length as usize]).map_err(failed)?;
        }
    }
    Ok(dir)
}
