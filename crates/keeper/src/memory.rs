//! Limits of memory: the cgroups that enforce them, where the system lets us make some.
//!
//! The best of three is used for each process: the memory controller of cgroup v2 in the leaf
//! that contains the process anyway; a leaf of its own in the memory hierarchy of cgroup v1; else the
//! daemon measures the process. A limit is one of memory without swap.

mod delegation;

use std::cell::RefCell;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mfserv_core::memory::{Mechanism, MemoryControl, MemoryLimits};
use mfserv_platform::cgroup;

use self::delegation::{delegate, take_back};
use crate::containment::{self, LAST_TRIES};

pub(crate) use self::delegation::KEEPER_LEAF;

/// The controller.
const MEMORY: &str = "memory";

/// The reason for a refusal may pass: a shell that shares the cgroup ends. It is looked at again
/// after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The cgroups of limited memory.
pub(crate) struct MemoryCgroups {
    /// The node in cgroup v2. Its leaves are made by [`containment::Cgroups`].
    v2: Option<PathBuf>,
    /// The node in the memory hierarchy of cgroup v1.
    v1: Option<PathBuf>,
    /// Whether the memory controller of cgroup v2 reaches the leaves. Looked at when the first
    /// limit is needed.
    reach: RefCell<Reach>,
}

/// Whether a controller reaches the leaves.
enum Reach {
    Unknown,
    Yes,
    /// It did not then, for this reason.
    No(Instant, String),
}

/// The memory of a process that is about to start.
pub(crate) struct Prepared {
    pub control: MemoryControl,
    /// `cgroup.procs` of its leaf in cgroup v1.
    pub procs: Option<File>,
}

impl MemoryCgroups {
    pub fn none() -> Self {
        Self { v2: None, v1: None, reach: RefCell::new(Reach::Unknown) }
    }

    /// `v2` is the node in cgroup v2.
    pub fn find(hash: &str, v2: Option<PathBuf>) -> Self {
        let own = cgroup::own_v1_memory();
        let v1 = own.map(|own| own.join(format!("mfserv-{hash}")));
        Self { v2, v1, reach: RefCell::new(Reach::Unknown) }
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
        self.reach(node, Instant::now())?;
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

    /// Lets the memory controller of cgroup v2 reach the leaves, if that is not so yet.
    fn reach(&self, node: &Path, now: Instant) -> Result<(), String> {
        let mut reach = self.reach.borrow_mut();
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < LOOK_AGAIN;
        match &*reach {
            Reach::Yes => return Ok(()),
            Reach::No(at, why) if is_recent(at) => return Err(why.clone()),
            Reach::Unknown | Reach::No(..) => {}
        }
        let found = delegate(node, MEMORY);
        *reach = match &found {
            Ok(()) => Reach::Yes,
            Err(why) => Reach::No(now, why.clone()),
        };
        found
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
        MemoryCgroups { v2, v1, reach: RefCell::new(Reach::Unknown) }
    }

    /// A directory with files as cgroup v2 has them, in one of the same owner. `reached`: the
    /// controllers that reach the node. The kernel's refusals are not played.
    fn directory(controllers: &str, reached: &str) -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let unit = dir.path().join("unit");
        let node = unit.join("mfserv-1");
        let leaf = node.join("app.p.a.1.1");
        fs::create_dir_all(&leaf).unwrap();
        fs::write(unit.join("cgroup.controllers"), controllers).unwrap();
        fs::write(unit.join("cgroup.subtree_control"), reached).unwrap();
        fs::write(node.join("cgroup.subtree_control"), "").unwrap();
        for file in ["memory.max", "memory.oom.group", "memory.swap.max"] {
            fs::write(leaf.join(file), "").unwrap();
        }
        (dir, node, leaf)
    }

    #[test]
    fn cgroup_v2_is_used_where_its_memory_controller_reaches_the_node() {
        let (dir, node, leaf) = directory("cpu memory pids\n", "cpu memory\n");
        let cgroups = cgroups(Some(node.clone()), None);
        let prepared = cgroups.limit("app.p.a.1.1", LIMITS, Some(&leaf)).unwrap();
        assert_eq!(prepared.control.mechanism, Mechanism::CgroupV2);
        assert_eq!(prepared.control.why_not_better, "");
        let read = |path: PathBuf| fs::read_to_string(path).unwrap();
        assert_eq!(read(leaf.join("memory.max")), (1 << 29).to_string());
        assert_eq!(read(leaf.join("memory.oom.group")), "1");
        let unit = dir.path().join("unit");
        assert_eq!(read(unit.join("cgroup.subtree_control")), "cpu memory\n", "it stays as it was");
        assert_eq!(read(node.join("cgroup.subtree_control")), "+memory");
        let lost = prepared.started(false, false);
        assert_eq!(lost.mechanism, Mechanism::Sampling, "it is not in its leaf");
        assert!(lost.why_not_better.contains("cgroup v2"), "{}", lost.why_not_better);
    }

    #[test]
    fn what_nobody_has_delegated_stays_as_it_is_and_is_looked_at_again_later() {
        let (dir, node, leaf) = directory("cpu memory\n", "cpu\n");
        let subtree = dir.path().join("unit/cgroup.subtree_control");
        let cgroups = cgroups(Some(node.clone()), None);
        let limit = || cgroups.limit("app.p.a.1.1", LIMITS, Some(&leaf)).unwrap().control;
        let refused = limit();
        assert_eq!(refused.mechanism, Mechanism::Sampling);
        let why = refused.why_not_better;
        assert!(why.contains("unit is not delegated to mfserv"), "{why}");
        assert_eq!(fs::read_to_string(&subtree).unwrap(), "cpu\n");
        assert!(!node.join(KEEPER_LEAF).exists());
        // Somebody lets it reach the node.
        fs::write(&subtree, "cpu memory\n").unwrap();
        let later = Instant::now() + LOOK_AGAIN;
        assert_eq!(cgroups.reach(&node, later), Ok(()));
        assert_eq!(limit().mechanism, Mechanism::CgroupV2);
    }

    #[test]
    fn without_cgroups_memory_is_sampled_and_each_reason_is_said() {
        let (_dir, node, leaf) = directory("cpu pids\n", "cpu\n");
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
