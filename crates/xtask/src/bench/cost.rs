//! What processes that nobody asks anything cost, and how long a node takes to start.

use std::time::Duration;

use mfserv_core::Diagnostic;
use mfserv_core::status::Status;

use super::spread::Spread;
use crate::node::Node;
use crate::{interrupt, process};

/// Something is quiet when it uses less of a core than this…
const QUIET: f64 = 0.01;
/// …for this long…
const QUIET_FOR: Duration = Duration::from_secs(3);
/// …or when it was given this long and never was.
const RESTLESS: Duration = Duration::from_secs(30);
/// Bytes in a MiB.
pub const MIB: f64 = 1024.0 * 1024.0;

/// Some processes, measured together.
#[derive(Debug)]
pub struct Cost {
    /// Who.
    pub name: String,
    /// How many.
    pub processes: usize,
    /// Proportional memory, MiB.
    pub pss_mib: f64,
    /// What was used while it was counted.
    pub used: process::Used,
}

/// Keeper, daemon and front, and their sum last.
pub fn own(status: &Status, seconds: u64) -> Result<Vec<Cost>, Diagnostic> {
    let keeper = status.keeper.as_ref().map(|keeper| keeper.pid);
    let front = status.front().into_iter();
    let fronts: Vec<u32> =
        front.flat_map(|watcher| &watcher.workers).filter_map(|worker| worker.pid).collect();
    let groups = [
        ("keeper".to_string(), keeper.into_iter().collect()),
        ("daemon".to_string(), vec![status.daemon.pid]),
        ("front".to_string(), fronts),
    ];
    let mut costs = measure(&groups, seconds)?;
    costs.push(Cost::sum("**mfserv**", &costs));
    Ok(costs)
}

/// Waits until all is quiet, then counts; memory is that of the end.
pub fn measure(groups: &[(String, Vec<u32>)], seconds: u64) -> Result<Vec<Cost>, Diagnostic> {
    let all: Vec<u32> = groups.iter().flat_map(|(_, pids)| pids.clone()).collect();
    wait_until_quiet(&all)?;
    let before = used(groups)?;
    interrupt::sleep(Duration::from_secs(seconds))?;
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
pub fn starts(node: &Node, count: usize) -> Result<Vec<f64>, Diagnostic> {
    node.start()?;
    let mut times = Vec::new();
    for number in 1..=count {
        eprintln!("start {number} of {count}");
        node.stop()?;
        times.push(node.start()?.as_secs_f64());
    }
    Ok(times)
}

/// How long the starts took.
pub fn starts_in_words(times: &[f64]) -> String {
    match Spread::of(times.iter().copied()) {
        Some(Spread { least, median, most }) => format!(
            "RUNNING after {median:.2} s (median of {}, {least:.2} to {most:.2}; all workers ready)",
            times.len()
        ),
        None => "not timed".into(),
    }
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

/// Prints costs that were counted for so long.
pub fn print(costs: &[Cost], seconds: u64) {
    println!("| | processes | PSS MiB | CPU ms in {seconds} s | % of a core | wake-ups |");
    println!("|---|---|---|---|---|---|");
    for Cost { name, processes, pss_mib, used } in costs {
        let ms = used.cpu_ns as f64 / 1e6;
        let percent = ms / 10.0 / seconds as f64;
        let wakeups = used.wakeups;
        println!("| {name} | {processes} | {pss_mib:.1} | {ms:.2} | {percent:.4} | {wakeups} |");
    }
}
