//! What processes use, read from proc(5).

use std::collections::HashMap;
use std::fs;

/// What a process, or a process with its descendants, uses.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Resident memory, bytes.
    pub memory: u64,
    /// CPU time, seconds.
    pub cpu_s: f64,
    /// Threads.
    pub threads: u64,
    /// Open descriptors.
    pub descriptors: u64,
}

impl Usage {
    /// Adds what another one uses.
    pub fn add(&mut self, other: &Usage) {
        self.memory += other.memory;
        self.cpu_s += other.cpu_s;
        self.threads += other.threads;
        self.descriptors += other.descriptors;
    }
}

struct Process {
    usage: Usage,
    children: Vec<u32>,
}

/// All processes at one instant.
pub struct Processes {
    all: HashMap<u32, Process>,
}

impl Processes {
    /// Reads all processes: one file each.
    pub fn read() -> Self {
        let mut all = HashMap::new();
        let mut parents = Vec::new();
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            if let Some((parent, usage)) = parse_stat(&stat) {
                all.insert(pid, Process { usage, children: Vec::new() });
                parents.push((parent, pid));
            }
        }
        for (parent, pid) in parents {
            if let Some(parent) = all.get_mut(&parent) {
                parent.children.push(pid);
            }
        }
        Self { all }
    }

    /// What a process uses.
    pub fn own(&self, pid: u32) -> Option<Usage> {
        let usage = self.all.get(&pid)?.usage;
        Some(Usage { descriptors: descriptors(pid), ..usage })
    }

    /// What a process uses, with its descendants.
    pub fn tree(&self, root: u32) -> Option<Usage> {
        self.sum(root, |pid| self.own(pid))
    }

    /// The same without descriptors, which take another look at each process.
    pub fn memory_and_cpu(&self, root: u32) -> Option<Usage> {
        self.sum(root, |pid| Some(self.all.get(&pid)?.usage))
    }

    fn sum(&self, root: u32, usage_of: impl Fn(u32) -> Option<Usage>) -> Option<Usage> {
        let mut sum = usage_of(root)?;
        let mut todo = self.all.get(&root)?.children.clone();
        while let Some(pid) = todo.pop() {
            let Some(usage) = usage_of(pid) else { continue };
            sum.add(&usage);
            todo.extend(self.all.get(&pid).into_iter().flat_map(|process| &process.children));
        }
        Some(sum)
    }
}

/// The memory of this machine, bytes; at least 1.
pub fn total_memory() -> u64 {
    memory().1
}

/// The memory of this machine that is in use, and all of it (at least 1), bytes.
pub fn memory() -> (u64, u64) {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kb = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        kb.unwrap_or(0).saturating_mul(1024)
    };
    let total = bytes("MemTotal:").max(1);
    (total.saturating_sub(bytes("MemAvailable:")), total)
}

fn descriptors(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

/// Parent and usage of a proc_pid_stat(5) line.
fn parse_stat(stat: &str) -> Option<(u32, Usage)> {
    let rest = stat.get(stat.rfind(')')? + 2..)?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    let ticks = number(11)? + number(12)?;
    let usage = Usage {
        memory: number(21)? * rustix::param::page_size() as u64,
        cpu_s: ticks as f64 / rustix::param::clock_ticks_per_second().max(1) as f64,
        threads: number(17)?,
        descriptors: 0,
    };
    Some((u32::try_from(number(1)?).ok()?, usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_threads_and_descriptors() {
        let own = Processes::read().tree(std::process::id()).unwrap();
        assert!(own.memory > 100_000 && own.threads > 0 && own.descriptors > 2, "{own:?}");
    }

    #[test]
    fn a_command_name_with_blanks_and_brackets_is_no_trouble() {
        let line = "7 (a) b) c) S 3 7 7 0 -1 0 0 0 0 0 100 50 0 0 20 0 4 0 5 1000 25 0";
        let (parent, usage) = parse_stat(line).unwrap();
        assert_eq!((parent, usage.threads), (3, 4));
        assert_eq!(usage.memory, 25 * rustix::param::page_size() as u64);
        assert_eq!(usage.cpu_s, 150.0 / rustix::param::clock_ticks_per_second() as f64);
    }
}
