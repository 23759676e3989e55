//! What processes use, read from proc(5).

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use mfserv_platform::proc;

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
    /// CPU time of its children that have ended, seconds.
    ended_s: f64,
    children: Vec<u32>,
}

/// All processes at one instant.
pub struct Processes {
    all: HashMap<u32, Process>,
}

impl Processes {
    /// Reads all processes: one file each.
    pub fn read() -> Self {
        let found = proc::processes(Path::new("/proc"));
        let of = |it: &proc::Process| Usage {
            memory: it.memory,
            cpu_s: it.cpu_ms as f64 / 1e3,
            threads: it.threads,
            descriptors: 0,
        };
        let with = |it: &proc::Process| Process {
            usage: of(it),
            ended_s: it.ended_children_ms as f64 / 1e3,
            children: Vec::new(),
        };
        let mut all: HashMap<u32, Process> = found.iter().map(|it| (it.pid, with(it))).collect();
        for process in found {
            if let Some(parent) = all.get_mut(&process.parent) {
                parent.children.push(process.pid);
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
        let ended_s = |pid: u32| self.all.get(&pid).map_or(0.0, |process| process.ended_s);
        let mut sum = usage_of(root)?;
        sum.cpu_s += ended_s(root);
        let mut todo = self.all.get(&root)?.children.clone();
        while let Some(pid) = todo.pop() {
            let Some(usage) = usage_of(pid) else { continue };
            sum.add(&usage);
            sum.cpu_s += ended_s(pid);
            todo.extend(self.all.get(&pid).into_iter().flat_map(|process| &process.children));
        }
        Some(sum)
    }
}

/// The memory of this machine that is in use, and all of it (at least 1), bytes.
pub fn memory() -> (u64, u64) {
    let memory = proc::memory(Path::new("/proc"));
    let bytes = |name: &str| memory.get(name).copied().unwrap_or(0);
    let total = bytes("MemTotal").max(1);
    (total.saturating_sub(bytes("MemAvailable")), total)
}

fn descriptors(pid: u32) -> u64 {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, |entries| entries.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_threads_and_descriptors() {
        let own = Processes::read().tree(std::process::id()).unwrap();
        assert!(own.memory > 100_000 && own.threads > 0 && own.descriptors > 2, "{own:?}");
    }
}
