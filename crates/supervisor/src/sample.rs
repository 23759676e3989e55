//! What workers use: memory and CPU of each with its descendants, read from proc(5).

use std::path::Path;

use mfserv_core::status::WatcherStatus;
use mfserv_platform::proc::ProcessTable;

/// Adds memory and CPU to every worker that has a process. One pass over /proc.
pub fn add_samples(watchers: &mut [WatcherStatus]) {
    let table = ProcessTable::read(Path::new("/proc"));
    for worker in watchers.iter_mut().flat_map(|w| &mut w.workers) {
        if let Some((memory, cpu)) = worker.pid.and_then(|pid| used(&table, pid)) {
            worker.memory_bytes = Some(memory);
            worker.cpu_ms = Some(cpu);
        }
    }
}

/// Memory (bytes) and CPU (milliseconds) of a process and its descendants.
fn used(table: &ProcessTable, root: u32) -> Option<(u64, u64)> {
    let tree = table.tree(root);
    let memory = tree.iter().map(|process| process.memory).sum();
    let cpu = tree.iter().map(|process| process.cpu_ms + process.ended_children_ms).sum();
    (!tree.is_empty()).then_some((memory, cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_is_found() {
        let table = ProcessTable::read(Path::new("/proc"));
        let (memory, _) = used(&table, std::process::id()).unwrap();
        assert!(memory > 100_000, "{memory}");
    }
}
