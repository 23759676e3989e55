//! The memory of process trees: what counts of it, measured, and the kernel's word for the end
//! of one that had none left.
//!
//! What counts is anonymous and shared memory, and what of it was swapped out. Page cache does
//! not: a cgroup at its limit gives it back first.

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};

use mfserv_core::memory::{Mechanism, MemoryControl, OutOfMemory};

use crate::proc::{Process, ProcessTable};

/// Measures process trees at one instant.
pub struct Meter {
    proc: PathBuf,
    table: OnceCell<ProcessTable>,
}

impl Meter {
    /// Reads this `/proc`, once, if something is to be measured by it.
    pub fn new(proc: impl Into<PathBuf>) -> Self {
        Meter { proc: proc.into(), table: OnceCell::new() }
    }

    /// All processes.
    pub fn table(&self) -> &ProcessTable {
        self.table.get_or_init(|| ProcessTable::read(&self.proc))
    }

    /// What a process and all that it has started use, bytes; `None` if they are gone. Without a
    /// cgroup, shared pages are divided among processes only above the limits: that takes longer
    /// to find out.
    pub fn used(&self, root: u32, control: &MemoryControl) -> Option<u64> {
        match (control.mechanism, &control.cgroup) {
            (Mechanism::CgroupV2, Some(cgroup)) => of_cgroup(cgroup, &["anon", "shmem"]),
            (Mechanism::CgroupV1, Some(cgroup)) => {
                of_cgroup(cgroup, &["total_rss", "total_shmem", "total_swap"])
            }
            _ => of_tree(&self.proc, &self.table().tree_and_session(root), control),
        }
    }
}

/// The sum of these lines of `memory.stat`.
fn of_cgroup(cgroup: &Path, names: &[&str]) -> Option<u64> {
    let text = fs::read_to_string(cgroup.join("memory.stat")).ok()?;
    let values = names.iter().filter_map(|name| numbered(&text, name));
    Some(values.sum())
}

/// A cheap upper bound, in which shared pages count for each process, or the exact number if
/// that is above a limit.
fn of_tree(proc: &Path, tree: &[&Process], control: &MemoryControl) -> Option<u64> {
    let bounds = tree.iter().filter_map(|process| bound(proc, process.pid));
    let bound = bounds.reduce(|all, one| all + one)?;
    let limits = [control.limits.high, control.limits.limit];
    let smallest = limits.into_iter().filter(|limit| *limit > 0).min()?;
    if bound < smallest {
        return Some(bound);
    }
    let exact = tree.iter().map(|process| {
        exactly(proc, process.pid).or_else(|| self::bound(proc, process.pid)).unwrap_or(0)
    });
    Some(exact.sum())
}

/// What a process uses at most, by proc_pid_status(5), bytes.
fn bound(proc: &Path, pid: u32) -> Option<u64> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("status")).ok()?;
    sum_kib(&text, &["RssAnon:", "RssShmem:", "VmSwap:"])
}

/// What it uses if each shared page is divided among those that have it, bytes.
fn exactly(proc: &Path, pid: u32) -> Option<u64> {
    let text = fs::read_to_string(proc.join(pid.to_string()).join("smaps_rollup")).ok()?;
    sum_kib(&text, &["Pss_Anon:", "Pss_Shmem:", "SwapPss:"])
}

/// The sum of these lines, of which the first must be there.
fn sum_kib(text: &str, names: &[&str]) -> Option<u64> {
    numbered(text, names.first()?)?;
    Some(names.iter().filter_map(|name| numbered(text, name)).sum::<u64>().saturating_mul(1024))
}

/// The number of a line `NAME NUMBER`.
fn numbered(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok()).flatten()
    })
}

/// A cgroup is charged for several pages at a time.
const ROUNDED: u64 = 1 << 20;

/// Whether the kernel has killed a process in the cgroup of this control for its memory. Without
/// a cgroup it says so to nobody.
pub fn out_of_memory(control: &MemoryControl) -> Option<OutOfMemory> {
    let cgroup = control.cgroup.as_deref()?;
    let number = |file: &str, name: &str| {
        let text = fs::read_to_string(cgroup.join(file)).unwrap_or_default();
        numbered(&text, name).unwrap_or(0)
    };
    let count = |file: &str| {
        let text = fs::read_to_string(cgroup.join(file)).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    let (killed, at_limit) = match control.mechanism {
        Mechanism::CgroupV2 => {
            (number("memory.events", "oom_kill"), number("memory.events", "oom") > 0)
        }
        Mechanism::CgroupV1 => {
            // Failures at the limit of memory and swap together are not counted (Linux 6.18).
            let most = ["memory.max_usage_in_bytes", "memory.memsw.max_usage_in_bytes"].map(count);
            let limit = control.limits.limit;
            let is_at = |most: &u64| limit > 0 && most.saturating_add(ROUNDED) >= limit;
            (number("memory.oom_control", "oom_kill"), most.iter().any(is_at))
        }
        Mechanism::Sampling => return None,
    };
    // Another one's limit, or none at all, makes the kernel kill here too.
    let why = if at_limit { OutOfMemory::Limit } else { OutOfMemory::Machine };
    (killed > 0).then_some(why)
}

#[cfg(test)]
mod tests {
    use mfserv_core::memory::MemoryLimits;

    use super::*;

    fn in_cgroup(
        mechanism: Mechanism,
        files: &[(&str, &str)],
    ) -> (tempfile::TempDir, MemoryControl) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let limits = MemoryLimits { limit: 1 << 30, high: 0 };
        let cgroup: Option<PathBuf> = Some(dir.path().to_owned());
        let control = MemoryControl { limits, mechanism, cgroup, why_not_better: String::new() };
        (dir, control)
    }

    #[test]
    fn page_cache_does_not_count_and_shared_memory_does() {
        let v2 = "anon 100\nfile 9000\nkernel 5\nshmem 20\nfile_mapped 4\nanon_thp 64\n";
        let v1 = "cache 9020\nrss 1\nshmem 1\ntotal_cache 9020\ntotal_rss 100\ntotal_shmem 20\n\
                  total_swap 7\n";
        for (mechanism, text, used_bytes) in
            [(Mechanism::CgroupV2, v2, 120), (Mechanism::CgroupV1, v1, 127)]
        {
            let (_dir, control) = in_cgroup(mechanism, &[("memory.stat", text)]);
            assert_eq!(Meter::new("/nowhere").used(1, &control), Some(used_bytes));
        }
    }

    #[test]
    fn only_a_kill_of_the_kernel_is_out_of_memory_and_the_machine_is_told_from_the_limit() {
        let v2 = |oom: u64, kill: u64| {
            let text =
                format!("low 0\nhigh 0\nmax 7\noom {oom}\noom_kill {kill}\noom_group_kill 0\n");
            let (_dir, control) = in_cgroup(Mechanism::CgroupV2, &[("memory.events", &text)]);
            out_of_memory(&control)
        };
        assert_eq!((v2(0, 0), v2(3, 0)), (None, None), "it was only close to it");
        assert_eq!(v2(1, 1), Some(OutOfMemory::Limit));
        assert_eq!(v2(0, 1), Some(OutOfMemory::Machine));
        let v1 = |most: u64, kill: u64| {
            let text = format!("oom_kill_disable 0\nunder_oom 0\noom_kill {kill}\n");
            let most = format!("{most}\n");
            let files = [("memory.oom_control", &*text), ("memory.max_usage_in_bytes", &most)];
            let (_dir, control) = in_cgroup(Mechanism::CgroupV1, &files);
            out_of_memory(&control)
        };
        assert_eq!(v1(1 << 30, 0), None);
        assert_eq!(v1(1 << 30, 2), Some(OutOfMemory::Limit));
        assert_eq!(v1(1 << 29, 1), Some(OutOfMemory::Machine));
    }

    /// A `/proc` with a process and its child, which share 60 MiB.
    fn forked() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (pid, parent) in [(7, 1), (8, 7)] {
            let dir = dir.path().join(pid.to_string());
            fs::create_dir(&dir).unwrap();
            let stat = format!("{pid} (x) S {parent} 7 7 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 5 0 1 0");
            fs::write(dir.join("stat"), stat).unwrap();
            let status = "Name:\tx\nVmSwap:\t0 kB\nRssAnon:\t81920 kB\nRssFile:\t999999 kB\n\
                          RssShmem:\t1024 kB\n";
            fs::write(dir.join("status"), status).unwrap();
            let rollup = "Rss: 1 kB\nPss_Anon:  51200 kB\nPss_File:  999 kB\nPss_Shmem: 512 kB\n\
                          SwapPss: 0 kB\n";
            fs::write(dir.join("smaps_rollup"), rollup).unwrap();
        }
        dir
    }

    #[test]
    fn pages_that_processes_share_are_divided_only_when_a_limit_may_be_exceeded() {
        let proc = forked();
        let of = |high: u64, limit: u64| {
            let control = MemoryControl::sampling(MemoryLimits { limit, high }, "");
            Meter::new(proc.path()).used(7, &control).unwrap() >> 20
        };
        assert_eq!(of(0, 1 << 30), 162, "the bound");
        assert_eq!(of(0, 150 << 20), 101, "exactly");
        assert_eq!(of(100 << 20, 1 << 30), 101, "the smaller of both limits decides");
        let control = MemoryControl::sampling(MemoryLimits { limit: 1, high: 0 }, "");
        assert_eq!(Meter::new(proc.path()).used(9, &control), None);
    }
}
