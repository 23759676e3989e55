//! What workers use: memory and CPU of each with its descendants, read from proc(5).

use mfserv_core::status::WatcherStatus;
use mfserv_platform::memory::Meter;
use mfserv_platform::proc::ProcessTable;

/// Adds memory and CPU to every worker that has a process. One pass over /proc.
pub fn add_samples(watchers: &mut [WatcherStatus]) {
    let meter = Meter::new("/proc");
    for worker in watchers.iter_mut().flat_map(|w| &mut w.workers) {
        let Some(pid) = worker.pid else { continue };
        if let Some((memory, cpu)) = used(meter.table(), pid) {
            worker.memory_bytes = Some(memory);
            worker.cpu_ms = Some(cpu);
        }
        if let Some(memory) = &mut worker.memory {
            memory.used_bytes = meter.used(pid, &memory.control);
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
        let table = ProcessTable::read(std::path::Path::new("/proc"));
        let (memory, _) = used(&table, std::process::id()).unwrap();
        assert!(memory > 100_000, "{memory}");
    }
}
