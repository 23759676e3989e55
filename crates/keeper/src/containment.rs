//! What a process started, wherever that has gone: in its cgroup, else in its session,
//! among its descendants, or with its marker in the environment.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use mfserv_platform::cgroup;
use rustix::process::Signal;

use crate::memory::{KEEPER_LEAF, MemoryCgroups};
use crate::procfs::{self, Stat};

/// The variable by which the processes of a node are recognised: `HASH:ID`.
pub const MARKER: &str = "MFSERV_WORKER";

/// A short name of a runtime home, the same each time: FNV-1a (64 bits) of its path, in
/// hexadecimal.
pub fn home_hash(home: &Path) -> String {
    let hash = mfserv_core::fingerprint::of(home.as_os_str().as_encoded_bytes());
    format!("{hash:016x}")
}

/// The cgroup below which each process gets a leaf, where the system lets us make one.
pub(crate) struct Cgroups {
    node: Option<PathBuf>,
    /// Where limited memory is accounted.
    pub memory: MemoryCgroups,
}

impl Cgroups {
    /// Looks for the cgroup v2 tree, also beside a v1 one, and our place in it.
    pub fn find(hash: &str) -> Self {
        let node = cgroup::own_v2().map(|own| node_below(&own, hash));
        Self { memory: MemoryCgroups::find(hash, node.clone()), node }
    }

    /// No cgroups are used.
    pub fn none() -> Self {
        Self { node: None, memory: MemoryCgroups::none() }
    }

    /// A leaf for one process, and its `cgroup.procs` to be written to by the child.
    pub fn leaf(&self, id: &str) -> Option<(PathBuf, File)> {
        let path = self.node.as_ref()?.join(id);
        fs::create_dir_all(&path).ok()?;
        let procs = OpenOptions::new().write(true).open(path.join("cgroup.procs"));
        if procs.is_err() {
            remove_leaf(&path);
        }
        Some((path, procs.ok()?))
    }

    /// Removes the node's cgroup and all that is in it.
    pub fn remove_all(&self) {
        self.memory.remove_all();
        if let Some(node) = &self.node {
            remove(node, LAST_TRIES);
        }
    }

    /// Removes the leaves of processes that are not known: an earlier keeper has died before it
    /// could say that it had started them.
    pub fn remove_unknown(&self, is_known: impl Fn(&str) -> bool) {
        for node in self.node.iter().chain(self.memory.node()) {
            for leaf in fs::read_dir(node).into_iter().flatten().flatten() {
                if !leaf.file_name().to_str().is_some_and(&is_known) {
                    // The kernel refuses what something lives in, and files.
                    let _ = fs::remove_dir(leaf.path());
                }
            }
        }
    }
}

/// The cgroup of the node below that of the keeper, which may have moved into a leaf.
fn node_below(own: &Path, hash: &str) -> PathBuf {
    let name = format!("mfserv-{hash}");
    let outside = own.ends_with(Path::new(&name).join(KEEPER_LEAF));
    let own = if outside { own.ancestors().nth(2).unwrap_or(own) } else { own };
    own.join(name)
}

/// Removes an empty leaf, and the node's cgroup if it was the last: an earlier keeper may
/// have lived elsewhere in the tree, and nobody else would remove what it made.
pub(crate) fn remove_leaf(leaf: &Path) {
    remove(leaf, 20);
    let _ = leaf.parent().map(fs::remove_dir);
}

/// The tries of the last thing that a keeper does: it may take a moment.
pub(crate) const LAST_TRIES: u32 = 500;

/// Removes a cgroup with those below it. For a moment after its last process has died it
/// is still busy: it is tried again each millisecond, so many times. One that is not
/// empty stays.
pub(crate) fn remove(cgroup: &Path, tries: u32) {
    for part in with_those_below(cgroup).iter().rev() {
        for _ in 0..tries {
            match fs::remove_dir(part) {
                Err(e) if e.kind() == io::ErrorKind::ResourceBusy => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                _ => break,
            }
        }
    }
}

/// A cgroup and all below it (a process may have made some), parents first.
fn with_those_below(cgroup: &Path) -> Vec<PathBuf> {
    let mut found = vec![cgroup.to_owned()];
    let mut next = 0;
    while let Some(directory) = found.get(next) {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let below: Vec<PathBuf> = below.map(|entry| entry.path()).collect();
        found.extend(below);
        next += 1;
    }
    found
}

/// The root of a tree of processes.
pub(crate) struct Tree<'a> {
    pub pid: u32,
    pub start_ticks: u64,
    pub cgroup: Option<&'a Path>,
    /// The value of [`MARKER`] in it.
    pub marker: &'a str,
}

impl Tree<'_> {
    /// Everything of it that lives, itself included.
    pub fn members(&self) -> Vec<Stat> {
        match self.cgroup {
            Some(cgroup) => cgroup_members(cgroup),
            None => self.members_by_descent(procfs::living()),
        }
    }

    /// The kernel has not yet let go of its last process: its cgroup cannot be removed.
    pub fn is_busy(&self) -> bool {
        self.cgroup.is_some_and(|cgroup| {
            let events = fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
            events.lines().any(|line| line == "populated 1")
        })
    }

    /// Sends a signal to everything of it.
    pub fn signal(&self, signal: Signal) -> usize {
        if signal == Signal::KILL && self.cgroup.is_some_and(|cgroup| kill_cgroup(cgroup).is_ok()) {
            return 1;
        }
        self.members().iter().filter(|member| procfs::signal(member, signal)).count()
    }

    /// The number of a session stays taken while anything is in it. Once the root is gone
    /// and its number has been given to another process, the session says nothing more.
    fn members_by_descent(&self, living: Vec<Stat>) -> Vec<Stat> {
        let reused = living.iter().any(|s| s.pid == self.pid && s.start_ticks != self.start_ticks);
        let belongs = |s: &Stat| {
            let in_session = !reused && s.session == self.pid && s.start_ticks >= self.start_ticks;
            let is_root = s.pid == self.pid && s.start_ticks == self.start_ticks;
            is_root
                || in_session
                || procfs::variable(s.pid, MARKER).is_some_and(|value| value == self.marker)
        };
        let own = std::process::id();
        let seeds: BTreeSet<u32> =
            living.iter().filter(|s| s.pid != own && belongs(s)).map(|s| s.pid).collect();
        with_descendants(living, seeds)
    }
}

/// The processes of this node, other than the keeper, that live: its descendants and
/// whatever carries the marker of this home.
pub(crate) fn whole_node(hash: &str) -> Vec<Stat> {
    let living = procfs::living();
    let own = std::process::id();
    let prefix = format!("{hash}:");
    let marked =
        |s: &Stat| procfs::variable(s.pid, MARKER).is_some_and(|value| value.starts_with(&prefix));
    let seeds = living
        .iter()
        .filter(|s| s.pid != own && (s.parent == own || marked(s)))
        .map(|s| s.pid)
        .collect();
    with_descendants(living, seeds)
}

fn with_descendants(living: Vec<Stat>, mut chosen: BTreeSet<u32>) -> Vec<Stat> {
    let own = std::process::id();
    loop {
        let before = chosen.len();
        for stat in &living {
            if stat.pid != own && chosen.contains(&stat.parent) {
                chosen.insert(stat.pid);
            }
        }
        if chosen.len() == before {
            return living.into_iter().filter(|s| chosen.contains(&s.pid)).collect();
        }
    }
}

fn cgroup_members(cgroup: &Path) -> Vec<Stat> {
    let read = |part: &PathBuf| fs::read_to_string(part.join("cgroup.procs")).unwrap_or_default();
    let procs: String = with_those_below(cgroup).iter().map(read).collect();
    procs
        .lines()
        .filter_map(|line| procfs::stat(line.parse().ok()?).ok())
        .filter(|stat| !stat.is_zombie())
        .collect()
}

/// Linux 5.14 and later; before, the members are killed one by one.
fn kill_cgroup(cgroup: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(cgroup.join("cgroup.kill"))?.write_all(b"1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_keeper_that_has_moved_into_a_leaf_finds_the_node_again() {
        let node = node_below(Path::new("/s/unit"), "7f");
        assert_eq!(node, Path::new("/s/unit/mfserv-7f"));
        assert_eq!(node_below(&node.join(KEEPER_LEAF), "7f"), node);
        assert_eq!(node_below(&node.join(KEEPER_LEAF), "8"), node.join("keeper/mfserv-8"));
    }

    #[test]
    fn a_home_has_always_the_same_hash() {
        assert_eq!(home_hash(Path::new("/home/mfserv")), home_hash(Path::new("/home/mfserv")));
        assert_ne!(home_hash(Path::new("/a")), home_hash(Path::new("/b")));
        assert_eq!(home_hash(Path::new("")), "cbf29ce484222325");
    }
}
