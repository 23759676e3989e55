//! The cgroups that this process is in (cgroups(7)), and what they leave it of the machine.

use std::fs;
use std::path::{Path, PathBuf};

/// The cgroup of this process in the tree of cgroup v2, which may be mounted beside one of v1.
pub fn own_v2() -> Option<PathBuf> {
    let mount = mount(is_v2_mount)?;
    place(&mount, |line| line.strip_prefix("0::"))
}

/// The cgroup of this process in the hierarchy of cgroup v1 that has the memory controller.
pub fn own_v1_memory() -> Option<PathBuf> {
    let mount = mount(is_v1_mount)?;
    place(&mount, path_in_v1)
}

/// The memory of this machine that this process may use, bytes: all of it, or what a cgroup
/// around it (a container) is limited to. 0 if the kernel does not say.
pub fn memory() -> u64 {
    let all = crate::proc::total_memory();
    let v1 = own_v1_memory().and_then(|own| v1_limit(&own));
    let v2 = mount(is_v2_mount).zip(own_v2());
    let v2 = v2.and_then(|((_, mount), own)| v2_limit(&own, Path::new(&mount)));
    v1.into_iter().chain(v2).fold(all, u64::min)
}

/// The processors that this process may use, at least 1: its affinity and the CPU quota of its
/// cgroups count.
pub fn processors() -> u64 {
    std::thread::available_parallelism().map_or(1, |count| count.get() as u64)
}

/// The smallest limit from this cgroup up to the mount.
fn v2_limit(own: &Path, mount: &Path) -> Option<u64> {
    let around = own.ancestors().take_while(|cgroup| cgroup.starts_with(mount));
    let limits = around.filter_map(|cgroup| {
        // `max`: none.
        fs::read_to_string(cgroup.join("memory.max")).ok()?.trim().parse().ok()
    });
    limits.min()
}

fn v1_limit(own: &Path) -> Option<u64> {
    let text = fs::read_to_string(own.join("memory.stat")).ok()?;
    let limit = text.lines().find_map(|line| line.strip_prefix("hierarchical_memory_limit "));
    limit?.trim().parse().ok()
}

/// Root and mount point of the first such mount.
fn mount(is_wanted: impl Fn(&str) -> bool) -> Option<(String, String)> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    mounts.lines().find_map(|line| mounted(line, &is_wanted))
}

fn place(
    (root, mount_point): &(String, String),
    path: impl Fn(&str) -> Option<&str>,
) -> Option<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let own = own.lines().find_map(path)?;
    let below = Path::new(own).strip_prefix(root).ok()?;
    Some(Path::new(mount_point).join(below))
}

/// Root and mount point of such a line of proc_pid_mountinfo(5).
fn mounted(line: &str, is_wanted: impl Fn(&str) -> bool) -> Option<(String, String)> {
    let (mount, kind) = line.split_once(" - ")?;
    is_wanted(kind).then_some(())?;
    let mut fields = mount.split(' ').skip(3);
    Some((unescape(fields.next()?), unescape(fields.next()?)))
}

fn unescape(field: &str) -> String {
    field.replace("\\040", " ").replace("\\011", "\t").replace("\\134", "\\")
}

fn is_v2_mount(kind: &str) -> bool {
    kind.starts_with("cgroup2 ")
}

/// File system, source and options: `cgroup cgroup rw,memory`.
fn is_v1_mount(kind: &str) -> bool {
    let mut fields = kind.split(' ');
    fields.next() == Some("cgroup") && fields.nth(1).is_some_and(has_memory)
}

/// The path in a line of /proc/self/cgroup: `4:memory:/path`.
fn path_in_v1(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once(':')?;
    let (controllers, path) = rest.split_once(':')?;
    has_memory(controllers).then_some(path)
}

fn has_memory(list: &str) -> bool {
    list.split(',').any(|name| name == "memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup2_mount_is_recognised_among_others() {
        let v2 = "36 25 0:31 / /sys/fs/cgroup/uni\\040fied rw shared:9 - cgroup2 cgroup2 rw";
        let v1 = "35 25 0:30 / /sys/fs/cgroup/cpu rw shared:9 - cgroup cgroup rw,cpu";
        let of = |line| mounted(line, is_v2_mount);
        assert_eq!(of(v2), Some(("/".into(), "/sys/fs/cgroup/uni fied".into())));
        assert_eq!(of(v1), None);
    }

    #[test]
    fn the_memory_hierarchy_of_cgroup_v1_is_found_among_others() {
        assert!(is_v1_mount("cgroup cgroup rw,cpu,memory") && !is_v1_mount("cgroup cgroup rw,cpu"));
        assert!(!is_v1_mount("cgroup2 cgroup2 rw,memory_recursiveprot"));
        assert_eq!(path_in_v1("4:cpu,memory:/a:b"), Some("/a:b"));
        assert_eq!(path_in_v1("0::/a"), None);
        assert_eq!(path_in_v1("9:name=systemd:/a"), None);
    }

    #[test]
    fn the_smallest_limit_of_the_cgroups_around_a_process_counts() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("pod/container");
        fs::create_dir_all(&own).unwrap();
        assert_eq!(v2_limit(&own, dir.path()), None, "the root has no such file");
        fs::write(own.join("memory.max"), "max\n").unwrap();
        fs::write(dir.path().join("pod/memory.max"), "1073741824\n").unwrap();
        assert_eq!(v2_limit(&own, dir.path()), Some(1 << 30));
        assert_eq!(v2_limit(&own, &own), None, "what is not mounted is not seen");
        let stat = "cache 5\nhierarchical_memory_limit 536870912\ntotal_rss 1\n";
        fs::write(own.join("memory.stat"), stat).unwrap();
        assert_eq!(v1_limit(&own), Some(1 << 29));
        let all = crate::proc::total_memory();
        assert!(memory() > 1 << 20 && memory() <= all, "{} of {all}", memory());
    }

    #[test]
    fn a_process_that_may_use_one_processor_counts_one() {
        use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
        // The affinity is that of a thread.
        let counted = std::thread::spawn(|| {
            let all = sched_getaffinity(None).unwrap();
            let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).unwrap();
            let mut one = CpuSet::new();
            one.set(first);
            sched_setaffinity(None, &one).unwrap();
            processors()
        });
        assert_eq!(counted.join().unwrap(), 1);
    }
}
