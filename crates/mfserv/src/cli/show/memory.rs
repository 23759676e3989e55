//! Limits of memory: what is used, what enforces them, and why nothing better does.

use mfserv_core::memory::size_text;
use mfserv_core::status::{Status, WatcherStatus, WorkerMemory, WorkerStatus};
use mfserv_node::render;

/// A paragraph for each watcher whose workers have limits.
pub fn limits(status: &Status) -> String {
    status.watchers.iter().filter_map(of_watcher).collect()
}

fn of_watcher(watcher: &WatcherStatus) -> Option<String> {
    let limited = |worker: &WorkerStatus| worker.memory.is_some();
    // The newest has the present configuration.
    let newest = watcher.workers.iter().filter(|worker| limited(worker)).max_by_key(|w| &w.id);
    let WorkerMemory { control, .. } = newest?.memory.as_ref()?;
    let used = watcher.workers.iter().filter_map(|worker| worker.memory.as_ref());
    let used: Vec<String> = used.filter_map(|it| it.used_bytes.map(render::bytes)).collect();
    let mut limits = Vec::new();
    for (key, bytes) in
        [("memory_limit", control.limits.limit), ("memory_high", control.limits.high)]
    {
        if bytes > 0 {
            limits.push(format!("{key} {}", size_text(bytes)));
        }
    }
    let mut out = format!(
        "\n{}: {}, by {}; used {}\n",
        watcher.name,
        limits.join(", "),
        control.mechanism,
        if used.is_empty() { "-".to_owned() } else { used.join(" ") }
    );
    if !control.why_not_better.is_empty() {
        out += &format!("    not by {}\n", control.why_not_better);
    }
    for worker in &watcher.workers {
        if let Some(ms) = worker.memory.as_ref().and_then(|memory| memory.replaced_after_ms) {
            out += &format!(
                "    {} is above memory_high, as the one before it was soon after its start: it is \
                 replaced when it has served for {}\n",
                worker.id,
                render::span(ms)
            );
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use mfserv_core::memory::{MemoryControl, MemoryLimits};
    use mfserv_core::names::{WatcherName, WorkerId};
    use mfserv_core::status::WatcherState;
    use mfserv_core::worker::{Phase, Want};

    use super::*;

    #[test]
    fn limits_are_shown_with_what_enforces_them_and_why_nothing_better_does() {
        let name = WatcherName::app("p", "main");
        let worker = |slot: u32, memory| WorkerStatus {
            id: WorkerId::new(name.clone(), slot, 7),
            pid: Some(1),
            phase: Phase::Ready,
            want: Want::Up,
            since_ms: 0,
            started_ms: 0,
            memory_bytes: None,
            memory,
            cpu_ms: None,
            containment: String::new(),
            adopted: false,
            probe: None,
            listens: None,
        };
        let limits = MemoryLimits { limit: 512 << 20, high: 400 << 20 };
        let control = MemoryControl::sampling(limits, "cgroup v2: no; cgroup v1: no");
        let memory = |replaced_after_ms| {
            let used_bytes = Some(120 << 20);
            Some(WorkerMemory { used_bytes, replaced_after_ms, control: control.clone() })
        };
        let mut watcher = WatcherStatus {
            plugin: None,
            name: name.clone(),
            path: None,
            hosts: Vec::new(),
            wanted: 2,
            ready: 2,
            scaled: None,
            state: WatcherState::Ready,
            crashes: 0,
            last_end: None,
            workers: vec![worker(1, memory(None)), worker(2, memory(Some(20_000)))],
        };
        let shown = of_watcher(&watcher).unwrap();
        let first = "\napp.p.main: memory_limit 512 MiB, memory_high 400 MiB, by sampling; used \
                     120.0M 120.0M\n    not by cgroup v2: no; cgroup v1: no\n";
        assert!(shown.starts_with(first), "{shown}");
        assert!(shown.contains("app.p.main.2.7 is above memory_high"), "{shown}");
        watcher.workers = vec![worker(1, None)];
        assert_eq!(of_watcher(&watcher), None);
    }
}
