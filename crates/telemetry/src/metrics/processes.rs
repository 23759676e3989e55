//! What processes use, read from proc(5).

use std::fs;
use std::path::Path;

use mfserv_platform::proc::{self, Process, ProcessTable};

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

/// All processes at one instant.
pub struct Processes(ProcessTable);

impl Processes {
    /// Reads all processes: one file each.
    pub fn read() -> Self {
        Self(ProcessTable::read(Path::new("/proc")))
    }

    /// What a process uses.
    pub fn own(&self, pid: u32) -> Option<Usage> {
        Some(with_descriptors(self.0.get(pid)?))
    }

    /// What a process uses, with its descendants.
    pub fn tree(&self, root: u32) -> Option<Usage> {
        self.sum(root, with_descriptors)
    }

    /// The same without descriptors, which take another look at each process.
    pub fn memory_and_cpu(&self, root: u32) -> Option<Usage> {
        self.sum(root, usage)
    }

    fn sum(&self, root: u32, usage_of: fn(&Process) -> Usage) -> Option<Usage> {
        let tree = self.0.tree(root);
        let mut sum = Usage::default();
        for process in &tree {
            sum.add(&usage_of(process));
            sum.cpu_s += process.ended_children_ms as f64 / 1e3;
        }
        (!tree.is_empty()).then_some(sum)
    }
}

fn usage(process: &Process) -> Usage {
    Usage {
        memory: process.memory,
        cpu_s: process.cpu_ms as f64 / 1e3,
        threads: process.threads,
        descriptors: 0,
    }
}

fn with_descriptors(process: &Process) -> Usage {
    Usage { descriptors: descriptors(process.pid), ..usage(process) }
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
