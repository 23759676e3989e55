//! Limits of memory: the cgroups that enforce them, where the system lets us make some.
//!
//! The best of three is used for each process: the memory controller of cgroup v2 in the leaf
//! that contains the process anyway; a leaf of its own in the memory hierarchy of cgroup v1; else the
//! daemon measures the process. A limit is one of memory without swap.

use std::cell::OnceCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use mfserv_core::memory::{Mechanism, MemoryControl, MemoryLimits};
use mfserv_platform::cgroup;

use crate::containment::{self, LAST_TRIES};

/// A leaf of cgroup v2 for the keeper itself: controllers reach only the children of a cgroup
/// that has no processes of its own (cgroups(7)). No process has such a name.
pub(crate) const KEEPER_LEAF: &str = "keeper";

/// The controller.
const MEMORY: &str = "memory";

/// What reaches the children of a cgroup v2.
const SUBTREE: &str = "cgroup.subtree_control";

/// The cgroups of limited memory.
pub(crate) struct MemoryCgroups {
    /// The node in cgroup v2. Its leaves are made by [`containment::Cgroups`].
    v2: Option<PathBuf>,
    /// The node in the memory hierarchy of cgroup v1.
    v1: Option<PathBuf>,
    /// The memory controller of cgroup v2 reaches the leaves, or why it does not. Looked at when
    /// the first limit is needed.
    delegated: OnceCell<Result<(), String>>,
}

/// The memory of a process that is about to start.
pub(crate) struct Prepared {
    pub control: MemoryControl,
    /// `cgroup.procs` of its leaf in cgroup v1.
    pub procs: Option<File>,
}

impl MemoryCgroups {
    pub fn none() -> Self {
        Self { v2: None, v1: None, delegated: OnceCell::new() }
    }

    /// `v2` is the node in cgroup v2.
    pub fn find(hash: &str, v2: Option<PathBuf>) -> Self {
        let own = cgroup::own_v1_memory();
        let v1 = own.map(|own| own.join(format!("mfserv-{hash}")));
        Self { v2, v1, delegated: OnceCell::new() }
    }

    /// The node in cgroup v1, if there is that.
    pub fn node(&self) -> Option<&PathBuf> {
        self.v1.as_ref()
    }

    /// Limits what will be started as `id`. `leaf` contains it (cgroup v2).
    pub fn limit(&self, id: &str, limits: MemoryLimits, leaf: Option<&Path>) -> Option<Prepared> {
        if limits.is_none() {
            return None;
        }
        let control = |mechanism, cgroup: PathBuf, why: &str| {
            let why_not_better = why.to_owned();
            MemoryControl { limits, mechanism, cgroup: Some(cgroup), why_not_better }
        };
        let not_v2 = match self.in_v2(limits, leaf) {
            Ok(leaf) => {
                let control = control(Mechanism::CgroupV2, leaf, "");
                return Some(Prepared { control, procs: None });
            }
            Err(why) => format!("cgroup v2: {why}"),
        };
        let not_v1 = match self.in_v1(id, limits) {
            Ok((leaf, procs)) => {
                let control = control(Mechanism::CgroupV1, leaf, &not_v2);
                return Some(Prepared { control, procs: Some(procs) });
            }
            Err(why) => format!("cgroup v1: {why}"),
        };
        let control = MemoryControl::sampling(limits, format!("{not_v2}; {not_v1}"));
        Some(Prepared { control, procs: None })
    }

    fn in_v2(&self, limits: MemoryLimits, leaf: Option<&Path>) -> Result<PathBuf, String> {
        let node = self.v2.as_deref().ok_or("it is not mounted")?;
        let leaf = leaf.ok_or_else(|| format!("{} cannot be made", node.display()))?;
        self.delegated.get_or_init(|| delegate(node, MEMORY)).clone()?;
        let set = |file: &str, value: &str| write(&leaf.join(file), value);
        if limits.limit > 0 {
            // All of it ends or none: half of an app would go on in a state that nobody knows.
            set("memory.oom.group", "1")?;
            // Where swap is not accounted there is no such file.
            let _ = set("memory.swap.max", "0");
            set("memory.max", &limits.limit.to_string())?;
        }
        Ok(leaf.to_owned())
    }

    fn in_v1(&self, id: &str, limits: MemoryLimits) -> Result<(PathBuf, File), String> {
        let node = self.v1.as_deref().ok_or("it has no memory controller here")?;
        let refused = |path: &Path| {
            let path = path.display().to_string();
            move |e: io::Error| format!("{path}: {e}")
        };
        fs::create_dir_all(node).map_err(refused(node))?;
        // What a leaf's own children use counts for it. Below a cgroup with 1 it cannot be set.
        let _ = write(&node.join("memory.use_hierarchy"), "1");
        let leaf = node.join(id);
        let make = || {
            fs::create_dir_all(&leaf).map_err(refused(&leaf))?;
            if limits.limit > 0 {
                let limit = limits.limit.to_string();
                write(&leaf.join("memory.limit_in_bytes"), &limit)?;
                // Where swap is not accounted there is no such file.
                let _ = write(&leaf.join("memory.memsw.limit_in_bytes"), &limit);
            }
            let procs = leaf.join("cgroup.procs");
            OpenOptions::new().write(true).open(&procs).map_err(refused(&procs))
        };
        match make() {
            Ok(procs) => Ok((leaf, procs)),
            Err(why) => {
                containment::remove_leaf(&leaf);
                Err(why)
            }
        }
    }

    /// Removes the node from cgroup v1, and prepares that it can be removed from cgroup v2.
    pub fn remove_all(&self) {
        if let Some(v1) = &self.v1 {
            containment::remove(v1, LAST_TRIES);
        }
        if let Some(v2) = &self.v2 {
            take_back(v2, MEMORY);
        }
    }
}

impl Prepared {
    /// The process runs, in its cgroups or not.
    pub fn started(self, in_leaf: bool, in_v1: bool) -> MemoryControl {
        let is_in = match self.control.mechanism {
            Mechanism::CgroupV2 => in_leaf,
            Mechanism::CgroupV1 => in_v1,
            Mechanism::Sampling => true,
        };
        if is_in {
            return self.control;
        }
        remove_leaf(&self.control);
        let why = format!("{}: the process could not be put into it", self.control.mechanism);
        MemoryControl::sampling(self.control.limits, why)
    }

    /// The process could not be started.
    pub fn discard(self) {
        remove_leaf(&self.control);
    }
}

/// Removes the leaf that was made for limited memory alone.
pub(crate) fn remove_leaf(control: &MemoryControl) {
    if let (Mechanism::CgroupV1, Some(leaf)) = (control.mechanism, &control.cgroup) {
        containment::remove_leaf(leaf);
    }
}

/// Lets a controller of cgroup v2 reach the leaves of the node.
fn delegate(node: &Path, controller: &str) -> Result<(), String> {
    let outside = node.parent().ok_or("it has no place for the node")?;
    let there = fs::read_to_string(outside.join("cgroup.controllers")).unwrap_or_default();
    if !there.split_ascii_whitespace().any(|name| name == controller) {
        let outside = outside.display();
        return Err(format!("{outside} has no {controller} controller (Delegate= of systemd)"));
    }
    let on = format!("+{controller}");
    let children = |cgroup: &Path| write(&cgroup.join(SUBTREE), &on);
    if children(outside).is_err() {
        // Processes in it forbid that. If it is only this one, it can move.
        let own = std::process::id().to_string();
        let living = fs::read_to_string(outside.join("cgroup.procs")).unwrap_or_default();
        if living.lines().any(|pid| pid != own) {
            return Err(format!("{} has other processes too", outside.display()));
        }
        let leaf = node.join(KEEPER_LEAF);
        fs::create_dir_all(&leaf).map_err(|e| format!("{}: {e}", leaf.display()))?;
        write(&leaf.join("cgroup.procs"), "0")?;
        children(outside)?;
    }
    children(node)
}

/// Makes that undone, so that the node can be removed: the keeper goes back to where it was.
fn take_back(node: &Path, controller: &str) {
    let Some(outside) = node.parent().filter(|_| node.join(KEEPER_LEAF).exists()) else { return };
    for cgroup in [node, outside] {
        let _ = write(&cgroup.join(SUBTREE), &format!("-{controller}"));
    }
    let _ = write(&outside.join("cgroup.procs"), "0");
}

fn write(file: &Path, value: &str) -> Result<(), String> {
    let written = OpenOptions::new().write(true).open(file);
    let written = written.and_then(|mut open| open.write_all(value.as_bytes()));
    written.map_err(|e| format!("{}: {e}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: MemoryLimits = MemoryLimits { limit: 1 << 29, high: 0 };

    fn cgroups(v2: Option<PathBuf>, v1: Option<PathBuf>) -> MemoryCgroups {
        MemoryCgroups { v2, v1, delegated: OnceCell::new() }
    }

    /// A directory with files as cgroup v2 has them. The kernel's refusals are not played.
    fn directory(controllers: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let node = dir.path().join("mfserv-1");
        let leaf = node.join("app.p.a.1.1");
        fs::create_dir_all(&leaf).unwrap();
        fs::write(dir.path().join("cgroup.controllers"), controllers).unwrap();
        fs::write(dir.path().join("cgroup.subtree_control"), "").unwrap();
        fs::write(node.join("cgroup.subtree_control"), "").unwrap();
        for file in ["memory.max", "memory.oom.group", "memory.swap.max"] {
            fs::write(leaf.join(file), "").unwrap();
        }
        (dir, node, leaf)
    }

    #[test]
    fn cgroup_v2_is_used_where_its_memory_controller_is_delegated() {
        let (dir, node, leaf) = directory("cpu memory pids\n");
        let cgroups = cgroups(Some(node.clone()), None);
        let prepared = cgroups.limit("app.p.a.1.1", LIMITS, Some(&leaf)).unwrap();
        assert_eq!(prepared.control.mechanism, Mechanism::CgroupV2);
        assert_eq!(prepared.control.why_not_better, "");
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(leaf.join("memory.max")), (1 << 29).to_string());
        assert_eq!(read(leaf.join("memory.oom.group")), "1");
        for cgroup in [dir.path(), &node] {
            assert_eq!(read(cgroup.join("cgroup.subtree_control")), "+memory");
        }
        let lost = prepared.started(false, false);
        assert_eq!(lost.mechanism, Mechanism::Sampling, "it is not in its leaf");
        assert!(lost.why_not_better.contains("cgroup v2"), "{}", lost.why_not_better);
    }

    #[test]
    fn the_keeper_moves_out_of_the_way_of_a_controller_and_back() {
        #[expect(clippy::disallowed_methods, reason = "another process, since it moves itself")]
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "memory::tests::moves_out_of_the_way", "--ignored", "--nocapture"]);
        let ran = child.output().unwrap();
        let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
        assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    }

    /// With any controller that nobody uses: the kernel has the same rules for all.
    #[test]
    #[ignore = "run by the test above, in a process of its own"]
    fn moves_out_of_the_way() {
        let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
        let own = cgroup::own_v2().unwrap_or_default();
        let used = read(&own.join(SUBTREE));
        let all = read(&own.join("cgroup.controllers"));
        let free = all.split_whitespace().find(|name| !used.contains(name));
        let outside = own.join(format!("mfserv-test-{}", std::process::id()));
        let made = fs::create_dir(&outside).map_err(|e| e.to_string());
        let on = free.ok_or_else(|| "no controller of cgroup v2 is free".to_owned());
        let on = made
            .and(on)
            .and_then(|name| write(&own.join(SUBTREE), &format!("+{name}")).map(|()| name));
        let controller = match on {
            Ok(controller) => controller,
            Err(why) => {
                let _ = fs::remove_dir(&outside);
                return mfserv_testkit::skipped(&format!("the keeper moves in cgroup v2: {why}"));
            }
        };
        let node = outside.join("mfserv-1");
        let leaf = node.join("app.p.a.1.1");
        fs::create_dir_all(&leaf).unwrap();
        let pid = format!("{}\n", std::process::id());
        write(&outside.join("cgroup.procs"), "0").unwrap();
        assert_eq!(read(&outside.join("cgroup.procs")), pid);
        let delegated = delegate(&node, controller);
        let moved = read(&node.join(KEEPER_LEAF).join("cgroup.procs"));
        let reached = read(&leaf.join("cgroup.controllers"));
        let again = delegate(&node, controller);
        take_back(&node, controller);
        let back = read(&outside.join("cgroup.procs"));
        containment::remove(&node, LAST_TRIES);
        let is_gone = !node.exists();
        write(&own.join("cgroup.procs"), "0").unwrap();
        containment::remove(&outside, LAST_TRIES);
        let _ = write(&own.join(SUBTREE), &format!("-{controller}"));
        assert_eq!((delegated, again), (Ok(()), Ok(())));
        assert_eq!((moved, back), (pid.clone(), pid));
        assert!(reached.contains(controller), "{reached}");
        assert!(is_gone && !outside.exists());
    }

    #[test]
    fn without_cgroups_memory_is_sampled_and_each_reason_is_said() {
        let (_dir, node, leaf) = directory("cpu pids\n");
        let file = node.join("no directory");
        fs::write(&file, "").unwrap();
        let cgroups = cgroups(Some(node), Some(file.join("mfserv-1")));
        let prepared = cgroups.limit("app.p.a.1.1", LIMITS, Some(&leaf)).unwrap();
        assert_eq!(prepared.control.mechanism, Mechanism::Sampling);
        let why = &prepared.control.why_not_better;
        assert!(why.contains("cgroup v2: ") && why.contains("no memory controller"), "{why}");
        assert!(why.contains("; cgroup v1: ") && why.contains("Not a directory"), "{why}");
        assert!(cgroups.limit("app.p.a.1.1", MemoryLimits::default(), None).is_none());
    }
}
