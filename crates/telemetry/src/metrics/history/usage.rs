//! What workers and the host use.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::time::{Duration, Instant};

use mfserv_core::names::WatcherName;
use mfserv_core::wire::metrics::WatcherSample;

use super::super::processes::{self, Processes};

/// How often all processes are read: it costs some ms.
const EVERY: Duration = Duration::from_secs(5);

/// What was read last.
#[derive(Default)]
pub struct Usages {
    read: Option<Instant>,
    /// CPU seconds of each worker so far.
    cpu_s: HashMap<u32, f64>,
    /// By watcher: memory, and the part of a processor that it used.
    used: BTreeMap<WatcherName, (u64, f64)>,
    /// The counters of all processors: busy and all, ticks.
    host: Option<(u64, u64)>,
}

impl Usages {
    /// Reads what workers use, if that is some time ago.
    pub fn read(&mut self, watchers: &[WatcherSample]) {
        let elapsed = self.read.map(|read| read.elapsed());
        if elapsed.is_some_and(|elapsed| elapsed < EVERY) {
            return;
        }
        let processes = Processes::read();
        self.read = Some(Instant::now());
        let before = std::mem::take(&mut self.cpu_s);
        self.used.clear();
        for watcher in watchers {
            let (mut memory, mut cpu_s) = (0, 0.0);
            for pid in watcher.workers.iter().filter_map(|worker| worker.pid) {
                let Some(usage) = processes.memory_and_cpu(pid) else { continue };
                memory += usage.memory;
                // Of a worker that was not there before, all of it is new, unless nothing was
                // read before. Children that have ended take their time with them.
                let known = before.get(&pid).copied();
                let since = known.unwrap_or(if elapsed.is_some() { 0.0 } else { usage.cpu_s });
                cpu_s += (usage.cpu_s - since).max(0.0);
                self.cpu_s.insert(pid, usage.cpu_s);
            }
            let seconds = elapsed.map_or(1.0, |elapsed| elapsed.as_secs_f64().max(0.001));
            self.used.insert(watcher.name.clone(), (memory, cpu_s / seconds));
        }
    }

    /// The memory of the workers of a watcher, bytes, and their CPU time in this time, milliseconds.
    pub fn of(&self, watcher: &WatcherName, covered: Duration) -> (u64, u64) {
        let (memory, cpu) = self.used.get(watcher).copied().unwrap_or_default();
        (memory, (cpu * covered.as_secs_f64() * 1e3).round() as u64)
    }

    /// Of the host: busy time and all time of its processors since the last call (milliseconds),
    /// memory in use and all memory (bytes).
    pub fn host(&mut self) -> (u64, u64, u64, u64) {
        let now = fs::read_to_string("/proc/stat").ok().and_then(|text| processors(&text));
        let (busy, all) = match (self.host, now) {
            (Some(before), Some(now)) => {
                (now.0.saturating_sub(before.0), now.1.saturating_sub(before.1))
            }
            _ => (0, 0),
        };
        self.host = now;
        let ms = |ticks: u64| {
            ticks.saturating_mul(1000) / rustix::param::clock_ticks_per_second().max(1)
        };
        let (used, total) = processes::memory();
        (ms(busy), ms(all), used, total)
    }
}

/// Busy and all time in the first line of proc_stat(5), ticks.
fn processors(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    // Time of guests is part of user and nice.
    let ticks: Vec<u64> = line.split_whitespace().take(8).map(|n| n.parse().unwrap_or(0)).collect();
    let all = ticks.iter().sum::<u64>();
    let idle = ticks.get(3)? + ticks.get(4)?;
    Some((all.saturating_sub(idle), all))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_processors_and_those_that_wait_for_a_disk_are_not_busy() {
        let text = "cpu  100 20 30 1000 50 1 2 3 70 80\ncpu0 1 2 3 4\n";
        assert_eq!(processors(text), Some((156, 1206)));
        assert_eq!(processors("intr 1 2 3"), None);
    }

    #[test]
    fn the_host_uses_memory() {
        let (_, _, used, total) = Usages::default().host();
        assert!(used > 1 << 20 && used < total, "{used} of {total}");
    }
}
