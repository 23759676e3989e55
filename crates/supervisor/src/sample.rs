//! What workers use: memory and CPU of each with its descendants, read from proc(5).

use std::collections::HashMap;
use std::path::Path;

use mfserv_core::status::WatcherStatus;
use mfserv_platform::proc;

/// Adds memory and CPU to every worker that has a process. One pass over /proc.
pub fn add_samples(watchers: &mut [WatcherStatus]) {
    let table = ProcessTable::read();
    for worker in watchers.iter_mut().flat_map(|w| &mut w.workers) {
        if let Some((memory, cpu)) = worker.pid.and_then(|pid| table.tree(pid)) {
            worker.memory_bytes = Some(memory);
            worker.cpu_ms = Some(cpu);
        }
    }
}

struct ProcessTable {
    own: HashMap<u32, (u64, u64)>,
    children: HashMap<u32, Vec<u32>>,
}

impl ProcessTable {
    fn read() -> Self {
        let mut table = ProcessTable { own: HashMap::new(), children: HashMap::new() };
        for process in proc::processes(Path::new("/proc")) {
            table
                .own
                .insert(process.pid, (process.memory, process.cpu_ms + process.ended_children_ms));
            table.children.entry(process.parent).or_default().push(process.pid);
        }
        table
    }

    /// Memory (bytes) and CPU (milliseconds) of a process and its descendants.
    fn tree(&self, root: u32) -> Option<(u64, u64)> {
        let mut sum = *self.own.get(&root)?;
        let mut todo: Vec<u32> = self.children.get(&root).cloned().unwrap_or_default();
        while let Some(pid) = todo.pop() {
            if let Some((memory, cpu)) = self.own.get(&pid) {
                sum = (sum.0 + memory, sum.1 + cpu);
            }
            todo.extend(self.children.get(&pid).into_iter().flatten());
        }
        Some(sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_is_found() {
        let table = ProcessTable::read();
        let (memory, _) = table.tree(std::process::id()).unwrap();
        assert!(memory > 100_000, "{memory}");
    }
}
