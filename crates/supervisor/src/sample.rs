//! What workers use: memory and CPU of each with its descendants, read from proc(5).

use std::collections::HashMap;

use mfserv_core::status::WatcherStatus;

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
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
            let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
            if let Some((parent, memory, cpu)) = parse_stat(&stat) {
                table.own.insert(pid, (memory, cpu));
                table.children.entry(parent).or_default().push(pid);
            }
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

/// Parent, resident bytes and CPU milliseconds of a proc_pid_stat(5) line.
fn parse_stat(stat: &str) -> Option<(u32, u64, u64)> {
    let rest = &stat[stat.rfind(')')? + 2..];
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let pages: u64 = fields.get(21)?.parse().ok()?;
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Some((parent, pages * rustix::param::page_size() as u64, ticks * 1000 / per_second))
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

    #[test]
    fn a_command_name_with_blanks_and_brackets_is_no_trouble() {
        let line = "7 (a) b) c) S 3 7 7 0 -1 0 0 0 0 0 100 50 0 0 20 0 1 0 5 1000 25 0";
        let (parent, memory, cpu) = parse_stat(line).unwrap();
        assert_eq!(parent, 3);
        assert_eq!(memory, 25 * rustix::param::page_size() as u64);
        assert_eq!(cpu, 150 * 1000 / rustix::param::clock_ticks_per_second());
    }
}
