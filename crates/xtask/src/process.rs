//! What processes cost, as /proc shows it.

use std::fs;
use std::ops::{Add, Sub};

use mfserv_core::Diagnostic;

/// True if a process has gone, or only waits to be reaped.
pub fn is_ending(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// A process's descendants, itself not included.
pub fn descendants(pid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let parents: Vec<(u32, u32)> = pids.filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(&of) = found.get(next) {
        found.extend(parents.iter().filter(|(_, parent)| *parent == of).map(|(pid, _)| pid));
        next += 1;
    }
    found.split_off(1)
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
}

/// Proportional memory of some processes together, bytes: a page that several processes
/// share is divided among them.
pub fn pss(pids: &[u32]) -> Result<u64, Diagnostic> {
    pids.iter().map(|pid| pss_of(*pid)).sum()
}

fn pss_of(pid: u32) -> Result<u64, Diagnostic> {
    let text = read(pid, "smaps_rollup")?;
    let field = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = field.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1024)
        .ok_or_else(|| Diagnostic::error(format!("no Pss in /proc/{pid}/smaps_rollup")))
}

/// What the threads of some processes have used since they began.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Used {
    /// Time on a CPU, nanoseconds.
    pub cpu_ns: u64,
    /// How often they went to sleep, and so were woken (voluntary context switches).
    pub wakeups: u64,
}

impl Add for Used {
    type Output = Used;

    fn add(self, other: Used) -> Used {
        Used { cpu_ns: self.cpu_ns + other.cpu_ns, wakeups: self.wakeups + other.wakeups }
    }
}

impl Sub for Used {
    type Output = Used;

    fn sub(self, before: Used) -> Used {
        Used {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            wakeups: self.wakeups.saturating_sub(before.wakeups),
        }
    }
}

/// What some processes have used. A process that has gone is an error: what is measured
/// shall not change meanwhile.
pub fn used(pids: &[u32]) -> Result<Used, Diagnostic> {
    let mut sum = Used::default();
    for pid in pids {
        let threads = fs::read_dir(format!("/proc/{pid}/task")).map_err(|e| gone(*pid, &e))?;
        for thread in threads.flatten() {
            let of = |file: &str| fs::read_to_string(thread.path().join(file)).unwrap_or_default();
            let first = |text: &str| text.split_whitespace().next()?.parse::<u64>().ok();
            sum.cpu_ns += first(&of("schedstat")).unwrap_or(0);
            let status = of("status");
            let field = status.lines().find_map(|l| l.strip_prefix("voluntary_ctxt_switches:"));
            sum.wakeups += field.and_then(first).unwrap_or(0);
        }
    }
    Ok(sum)
}

fn read(pid: u32, file: &str) -> Result<String, Diagnostic> {
    fs::read_to_string(format!("/proc/{pid}/{file}")).map_err(|e| gone(pid, &e))
}

fn gone(pid: u32, why: &std::io::Error) -> Diagnostic {
    Diagnostic::error(format!("process {pid} is gone while it is measured")).because(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_has_memory_and_uses_time() {
        let own = [std::process::id()];
        let before = used(&own).unwrap();
        let began = std::time::Instant::now();
        while (used(&own).unwrap() - before).cpu_ns < 5_000_000 {
            assert!(began.elapsed().as_secs() < 60, "this loop uses no time");
        }
        assert!(pss(&own).unwrap() > 100_000);
        assert!(!is_ending(own[0]));
    }

    #[test]
    fn a_process_that_has_gone_is_an_error() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        assert!(is_ending(child.id()));
        assert!(used(&[child.id()]).is_err());
        assert!(pss(&[child.id()]).is_err());
    }

    #[test]
    fn children_of_children_are_descendants() {
        use std::io::{BufRead, BufReader};
        use std::process::{Command, Stdio};
        // A command in the background would have no standard input otherwise.
        let script = "exec 3<&0; cat <&3 & echo ready; wait";
        let mut command = Command::new("sh");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(!descendants(child.id()).is_empty());
        assert!(descendants(std::process::id()).contains(&child.id()));
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
