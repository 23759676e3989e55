//! Who leaves the processor to others when it wakes: `mfserv_scheduling` says why.

use std::collections::BTreeSet;
use std::process::Command;

use mfserv_testkit::{Node, until};

use crate::{PATIENCE, node};

/// The scheduling policies of the threads of a process, by their names: sched(7).
fn policies(pid: u32) -> Vec<(String, i32)> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let policy = |task: std::fs::DirEntry| {
        let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
        let stat = std::fs::read_to_string(task.path().join("stat")).ok()?;
        let (_, fields) = stat.rsplit_once(')')?;
        Some((name.trim().to_string(), fields.split_whitespace().nth(38)?.parse().ok()?))
    };
    // A thread may end meanwhile.
    tasks.filter_map(policy).collect()
}

/// The lanes of a front and the workers leave the processor to each other, unless everything here has
/// another policy than the ordinary one; keeper and daemon do not.
pub fn who_serves_yields(node: &Node, path: &str) {
    let (_, own) = policies(std::process::id())[0].clone();
    let chosen = Command::new("chrt").args(["--batch", "0", "true"]).output();
    let is_forbidden = chosen.is_ok_and(|done| !done.status.success());
    let expected = if own == 0 && !is_forbidden { 3 } else { own };
    // One that waits long for a processor is an ordinary thread for up to a minute, and yields for
    // a moment then.
    let mut have_yielded = BTreeSet::new();
    until("all lanes and workers yield", PATIENCE * 2, || {
        node.get(path);
        let mut serve = policies(node.role_pid("front"));
        serve.retain(|(name, _)| name.starts_with("lane-"));
        let has_lanes = !serve.is_empty();
        for pid in node.worker_pids() {
            // Its first thread serves.
            serve.extend(policies(pid).first().map(|(_, policy)| (pid.to_string(), *policy)));
        }
        let yielding = serve.iter().filter(|(_, policy)| *policy == expected);
        have_yielded.extend(yielding.map(|(name, _)| name.clone()));
        has_lanes && serve.iter().all(|(name, _)| have_yielded.contains(name))
    });
    for pid in [node.role_pid("keep"), node.role_pid("daemon")] {
        let found = policies(pid);
        assert!(!found.is_empty() && found.iter().all(|(_, policy)| *policy == own), "{found:?}");
    }
}

#[test]
fn servers_of_others_yield_the_processor_as_the_lanes_do() {
    let node = node();
    node.link_sample("sample_node", &[("app_main", "numprocesses", "2")]);
    node.start();
    who_serves_yields(&node, "/sample_node");
    node.stop();
}
