//! Memory and CPU of a node that nobody asks anything, beside other supervisors.

use std::time::Duration;

use clap::Args;
use mfserv_core::Diagnostic;
use mfserv_core::status::Status;

use super::machine;
use super::nginx::{Nginx, Server};
use super::peers::{self, Peer, Tools};
use super::spread::Spread;
use crate::node::{self, Node};
use crate::{interrupt, process};

/// The samples: plugin and template, as `make run` has them.
const SAMPLES: [(&str, &str); 3] =
    [("sample_flask", "python3_flask"), ("sample_node", "node"), ("sample_static", "static")];
/// How often the node is started for the time to start, after one start that is not counted.
const STARTS: usize = 5;
/// Something is quiet when it uses less of a core than this…
const QUIET: f64 = 0.01;
/// …for this long…
const QUIET_FOR: Duration = Duration::from_secs(3);
/// …or when it was given this long and never was.
const RESTLESS: Duration = Duration::from_secs(30);
const MIB: f64 = 1024.0 * 1024.0;

/// How long, and beside whom.
#[derive(Debug, Args)]
pub struct Idle {
    /// How long CPU time and wake-ups are counted, seconds.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Only mfserv: nothing is installed from PyPI and npm, nginx is not started.
    #[arg(long)]
    alone: bool,
}

/// Some processes, measured together.
#[derive(Debug)]
struct Cost {
    name: String,
    processes: usize,
    pss_mib: f64,
    used: process::Used,
}

impl Idle {
    /// Measures, and prints the report.
    pub fn run(self) -> Result<(), Diagnostic> {
        let machine = machine::line(&[
            ("python3", &["--version"]),
            ("node", &["--version"]),
            ("/usr/sbin/nginx", &["-v"]),
        ]);
        let program = node::build()?;
        let node = Node::new(&program)?;
        for (name, template) in SAMPLES {
            let dir = node.make(template, name)?;
            node.link(&dir)?;
        }
        let starts = starts(&node)?;
        let status = node.status()?;
        let own = self.own(&status)?;
        let workers = workers(&status)?;
        drop(node);
        println!("{machine}\n\n`{}`\n", self.command());
        println!("Idle, after a start that was {}:\n", starts_in_words(&starts));
        print_costs(&own, self.seconds);
        println!("\nWorkers beside them: {workers}.");
        if !self.alone {
            let others = self.others()?;
            println!(
                "\nOther supervisors, each alone with gunicorn (4 workers) and 4 Node servers, and nginx:\n"
            );
            print_costs(&others, self.seconds);
            println!();
            print_ratios(&own, &others);
        }
        Ok(())
    }

    fn command(&self) -> String {
        let alone = if self.alone { " --alone" } else { "" };
        format!("cargo xtask bench idle --seconds {}{alone}", self.seconds)
    }

    /// Keeper, daemon and front, and their sum last.
    fn own(&self, status: &Status) -> Result<Vec<Cost>, Diagnostic> {
        let keeper = status.keeper.as_ref().map(|keeper| keeper.pid);
        let front = status.watchers.iter().filter(|watcher| watcher.plugin.is_none());
        let fronts: Vec<u32> =
            front.flat_map(|watcher| &watcher.workers).filter_map(|worker| worker.pid).collect();
        let groups = [
            ("keeper".to_string(), keeper.into_iter().collect()),
            ("daemon".to_string(), vec![status.daemon.pid]),
            ("front".to_string(), fronts),
        ];
        let mut costs = self.measure(&groups)?;
        costs.push(Cost::sum("**mfserv**", &costs));
        Ok(costs)
    }

    /// Each of the others, one after the other.
    fn others(&self) -> Result<Vec<Cost>, Diagnostic> {
        let tools = Tools::install()?;
        let mut costs = Vec::new();
        for kind in peers::KINDS {
            eprintln!("measuring {kind}");
            let peer = Peer::start(kind, &tools)?;
            costs.extend(self.measure(&[(kind.to_string(), vec![peer.supervisor()])])?);
        }
        eprintln!("measuring nginx");
        let server = Server::of_sockets("", &["/nonexistent".into()]);
        let nginx = Nginx::start("auto", &[server])?;
        let mut pids = vec![nginx.pid()];
        pids.extend(process::descendants(nginx.pid()));
        costs.extend(self.measure(&[("nginx (master and a worker per core)".to_string(), pids)])?);
        Ok(costs)
    }

    /// Waits until all is quiet, then counts; memory is that of the end.
    fn measure(&self, groups: &[(String, Vec<u32>)]) -> Result<Vec<Cost>, Diagnostic> {
        let all: Vec<u32> = groups.iter().flat_map(|(_, pids)| pids.clone()).collect();
        wait_until_quiet(&all)?;
        let before = used(groups)?;
        interrupt::sleep(Duration::from_secs(self.seconds))?;
        let after = used(groups)?;
        let mut costs = Vec::new();
        for ((name, pids), (after, before)) in groups.iter().zip(after.into_iter().zip(before)) {
            costs.push(Cost {
                name: name.clone(),
                processes: pids.len(),
                pss_mib: process::pss(pids)? as f64 / MIB,
                used: after - before,
            });
        }
        Ok(costs)
    }
}

fn used(groups: &[(String, Vec<u32>)]) -> Result<Vec<process::Used>, Diagnostic> {
    groups.iter().map(|(_, pids)| process::used(pids)).collect()
}

impl Cost {
    fn sum(name: &str, of: &[Cost]) -> Self {
        Self {
            name: name.into(),
            processes: of.iter().map(|cost| cost.processes).sum(),
            pss_mib: of.iter().map(|cost| cost.pss_mib).sum(),
            used: of.iter().fold(process::Used::default(), |sum, cost| sum + cost.used),
        }
    }
}

/// Starts and stops the node; it runs when this returns.
fn starts(node: &Node) -> Result<Vec<f64>, Diagnostic> {
    node.start()?;
    let mut times = Vec::new();
    for number in 1..=STARTS {
        eprintln!("start {number} of {STARTS}");
        node.stop()?;
        times.push(node.start()?.as_secs_f64());
    }
    Ok(times)
}

fn starts_in_words(times: &[f64]) -> String {
    match Spread::of(times.iter().copied()) {
        Some(Spread { least, median, most }) => format!(
            "RUNNING after {median:.2} s (median of {}, {least:.2} to {most:.2}; all workers ready)",
            times.len()
        ),
        None => "not timed".into(),
    }
}

/// The workers of plugins, by plugin.
fn workers(status: &Status) -> Result<String, Diagnostic> {
    let mut parts = Vec::new();
    for watcher in status.watchers.iter().filter(|watcher| watcher.plugin.is_some()) {
        let own = watcher.workers.iter().filter_map(|worker| worker.pid);
        let all: Vec<u32> =
            own.flat_map(|pid| [vec![pid], process::descendants(pid)].concat()).collect();
        let pss = process::pss(&all)? as f64 / MIB;
        parts.push(format!("{} of {} {pss:.0} MiB", watcher.workers.len(), watcher.name));
    }
    Ok(parts.join(", "))
}

fn wait_until_quiet(pids: &[u32]) -> Result<(), Diagnostic> {
    let rounds = RESTLESS.as_secs() / QUIET_FOR.as_secs();
    for _ in 0..rounds {
        let before = process::used(pids)?;
        interrupt::sleep(QUIET_FOR)?;
        let used = (process::used(pids)? - before).cpu_ns as f64;
        if used < QUIET_FOR.as_nanos() as f64 * QUIET {
            return Ok(());
        }
    }
    // Then this is what it is like when nobody asks anything.
    Ok(())
}

fn print_costs(costs: &[Cost], seconds: u64) {
    println!("| | processes | PSS MiB | CPU ms in {seconds} s | % of a core | wake-ups |");
    println!("|---|---|---|---|---|---|");
    for Cost { name, processes, pss_mib, used } in costs {
        let ms = used.cpu_ns as f64 / 1e6;
        let percent = ms / 10.0 / seconds as f64;
        let wakeups = used.wakeups;
        println!("| {name} | {processes} | {pss_mib:.1} | {ms:.2} | {percent:.4} | {wakeups} |");
    }
}

/// The memory of each supervisor with nginx, divided by that of mfserv.
fn print_ratios(own: &[Cost], others: &[Cost]) {
    let (Some(own), Some((nginx, supervisors))) = (own.last(), others.split_last()) else { return };
    println!("| | PSS, times that of mfserv |");
    println!("|---|---|");
    for supervisor in supervisors {
        let times = (supervisor.pss_mib + nginx.pss_mib) / own.pss_mib;
        println!("| {} + nginx | {times:.1} |", supervisor.name);
    }
}
