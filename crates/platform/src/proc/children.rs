//! The children of processes, found without a look at all others.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use super::{Process, process, processes};

/// The children of these processes, those too that have ended and were not waited for. All
/// processes are looked at, once, only where the kernel does not say whose children they are.
pub fn children(proc: &Path, parents: &[u32]) -> Vec<Process> {
    let pids: Option<Vec<_>> = parents.iter().map(|parent| listed(proc, *parent)).collect();
    // One that gets another parent meanwhile may be in two lists.
    let pids = pids.map(|pids| pids.into_iter().flatten().collect::<BTreeSet<u32>>());
    let all = match pids {
        Some(pids) => pids.into_iter().filter_map(|pid| process(proc, pid)).collect(),
        None => processes(proc),
    };
    all.into_iter().filter(|process| parents.contains(&process.parent)).collect()
}

/// The ids in `/proc/PID/task/TID/children`: each thread has its own, those that it has started or
/// was given. `None` where the kernel has no such file (`CONFIG_PROC_CHILDREN`).
fn listed(proc: &Path, parent: u32) -> Option<Vec<u32>> {
    let threads = fs::read_dir(proc.join(parent.to_string()).join("task"));
    let (mut pids, mut are_listed) = (Vec::new(), true);
    for thread in threads.into_iter().flatten().flatten() {
        match fs::read_to_string(thread.path().join("children")) {
            Ok(text) => {
                pids.extend(text.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            }
            // Or this thread has just ended.
            Err(_) => are_listed = false,
        }
    }
    are_listed.then_some(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_children_of_all_threads_are_found_whether_the_kernel_lists_them_or_not() {
        let dir = tempfile::tempdir().unwrap();
        for (pid, parent) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 1)] {
            let dir = dir.path().join(pid.to_string());
            fs::create_dir_all(dir.join("task").join(pid.to_string())).unwrap();
            let stat = format!("{pid} (x) S {parent} 0 0 0 -1 0 0 0 0 0 1 1 0 0 20 0 1 0 5 0 1 0");
            fs::write(dir.join("stat"), stat).unwrap();
        }
        let of = |parents: &[u32]| {
            let mut pids: Vec<u32> =
                children(dir.path(), parents).iter().map(|process| process.pid).collect();
            pids.sort_unstable();
            pids
        };
        assert_eq!([of(&[1]), of(&[2]), of(&[9])], [vec![2, 3, 5], vec![4], vec![]]);
        assert_eq!(of(&[1, 2, 9]), [2, 3, 4, 5]);
        // 4 is another one's by now, and 8 has gone. What is not listed shows that only the lists
        // were looked at.
        fs::create_dir(dir.path().join("1/task/7")).unwrap();
        fs::write(dir.path().join("1/task/1/children"), "2 4 8 ").unwrap();
        assert_eq!(of(&[1]), [2, 3, 5], "not all threads say");
        fs::write(dir.path().join("1/task/7/children"), "5 ").unwrap();
        assert_eq!(of(&[1]), [2, 5]);
        assert_eq!(of(&[1, 2]), [2, 3, 4, 5], "the other one does not say");
        fs::write(dir.path().join("2/task/2/children"), "4").unwrap();
        assert_eq!(of(&[1, 2]), [2, 4, 5]);
    }

    #[test]
    fn a_child_of_this_process_is_found() {
        #[expect(clippy::disallowed_methods, reason = "a test starts a program")]
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let found = children(Path::new("/proc"), &[std::process::id()]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(found.iter().any(|process| process.pid == child.id()), "{found:?}");
    }
}
